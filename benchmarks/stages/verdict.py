"""What holds a training run back: a pure function of the stages' speeds and of what training needs.

The run is as fast as its slowest stage. Each stage of the loader does what the ones before it do, so where the loader
is slower than the model, the first stage that is not clearly faster than the slowest holds it back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Series
from benchmarks.report.table import number
from benchmarks.stages.names import COPY, DECODE, LOADER, ON_GPU, READ, READ_COLD

MODEL = "model"
HELD = 1.25  # a stage that is not faster than the slowest by this factor holds it back
CACHED = 0.8  # the share of free memory that the page cache can count on

# What is said of the stage that is the bottleneck, and what to change; docs/feeding.md says more.
SUBJECT = {
    READ_COLD: "Reading from the disk",
    READ: "The loader's Python, or reading from memory,",
    DECODE: "Decoding",
    LOADER: "Resizing, normalising and handing over",
    ON_GPU: "Decoding for the GPU",
    COPY: "The copy to the GPU",
}
ADVICE = {
    READ_COLD: "--order blocks reads shards in sequence. Or smaller shards (python -m preprocess --short-side), more "
    "memory, a faster disk.",
    READ: "A larger --micro-batch (python -m train): most of the loader's Python runs once per batch.",
    DECODE: "More cores; the default number of --threads, if another is set; a smaller --short-side or --encoding raw "
    "(python -m preprocess); --device gpu (python -m train), where there is a GPU.",
    LOADER: "More cores; --short-side at the size that the recipe crops from (python -m preprocess); --device gpu or, "
    "if batches are small, a larger --micro-batch (python -m train): batches are handed over one by one.",
    ON_GPU: "Another decoder: python -m benchmarks loaders --peers gpu gpu-region gpu-hardware compares them.",
    COPY: "Loader(decode='region') or 'hardware': encoded bytes cross the bus in place of pixels.",
    MODEL: "Nothing in the loader: a faster one would not train faster. --gpu-images-per-s X --gpus N says whether "
    "this machine could feed faster or more GPUs.",
}


@dataclass(frozen=True)
class Demand:
    """What the loader has to feed, and the machine and shards that it does so with.

    model: images/s that one GPU trains, or the CPU. gpus: how many are fed; 0 where the CPU trains.
    gpu_decodes: whether the GPU that was measured decodes.
    image_bytes: mean size of a stored image. shard_bytes: size of all shards. free_bytes: memory free for them.
    """

    model: float
    gpus: int
    gpu_decodes: bool
    cores: int
    image_bytes: float
    shard_bytes: float
    free_bytes: float


@dataclass(frozen=True)
class Verdict:
    """Which stage holds the run back.

    factor: how many times faster everything else is: the model than the bottleneck, or the loader than the model.
    cores: what a machine with so many such GPUs needs; where the CPU trains, how many of its cores feed it.
    speeds: images/s of each stage for all GPUs together, in the order of the stages, the model last.
    findings, advice: sentences.
    """

    bottleneck: str
    factor: float
    cores: int
    speeds: dict[str, float]
    findings: tuple[str, ...]
    advice: str


def judge(ladder: Sequence[Series], demand: Demand) -> Verdict:
    """The slowest stage, by how much, and what to change. `ladder`: what ladder.py measured."""
    measured = {series.name: series for series in ladder}
    needed, speeds = demand.model * max(1, demand.gpus), _speeds(measured, demand)
    slowest, bottleneck = min(speeds.values()), MODEL
    if slowest < needed:
        bottleneck = next(stage for stage, speed in speeds.items() if speed <= HELD * slowest)
    factor = slowest / needed if bottleneck == MODEL else needed / speeds[bottleneck]
    per_core = _per_core(measured[ON_GPU if demand.gpu_decodes else LOADER])
    feeding = needed / per_core
    cores = math.ceil(feeding) + demand.gpus
    trainer = f"{demand.gpus} GPU{'' if demand.gpus == 1 else 's'}" if demand.gpus else "this CPU"

    could = f"{number(needed)} images/s on {trainer}"
    if bottleneck == MODEL:
        said = f"The model is the bottleneck: it trains {could}, and the loader could give {number(slowest)}"
    else:
        said = f"{SUBJECT[bottleneck]} is the bottleneck: {number(speeds[bottleneck])} images/s, and the model could "
        said += f"train {could}"
    findings = [f"{said}, {factor:,.1f} times as many."]
    limit = measured.get(str(measured[bottleneck].settings.get("limit"))) if bottleneck in measured else None
    if limit is not None and limit.spread.median > speeds[bottleneck]:
        findings.append(f"The limit of this machine there ({limit.name}) is {number(limit.spread.median)} images/s.")
    use = f"by processor time a core feeds {number(per_core)} images/s"
    if demand.gpus:
        findings.append(
            f"A machine with {trainer} of {number(demand.model)} images/s needs {cores} cores: {use}, and the process "
            f"of each GPU takes one. This machine has {demand.cores}."
        )
    else:
        findings.append(f"The CPU both trains and feeds. Feeding takes {_of_cores(feeding, demand.cores)}: {use}.")
    findings.append(
        f"The disk has to give {_rounded(needed * demand.image_bytes / 1e6)} MB/s, unless memory holds the shards: "
        f"they have {_rounded(demand.shard_bytes / 1e9)} GB, and {_rounded(demand.free_bytes / 1e9)} GB are free here."
    )
    if READ_COLD not in speeds:
        cold = number(measured[READ_COLD].spread.median)
        findings.append(f"Only the first epoch reads from the disk, at {cold} images/s.")
    return Verdict(bottleneck, factor, cores, {**speeds, MODEL: needed}, tuple(findings), ADVICE[bottleneck])


def _of_cores(feeding: float, cores: int) -> str:
    """How much of a CPU so many of its cores are: below one as a share of a core."""
    if feeding >= 1:
        return f"{feeding:.1f} of its {cores} cores"
    percent = 100 * feeding
    return f"{percent:.{0 if percent >= 10 else 1}f}% of one core" if percent >= 0.1 else "less than 0.1% of one core"


def _rounded(value: float) -> str:
    """A figure for people: 1,200, 12, 1.2, or less than 0.1."""
    if value >= 10:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 0.1 else "less than 0.1"


def _speeds(measured: dict[str, Series], demand: Demand) -> dict[str, float]:
    """Images/s of each stage of the loader, for all GPUs; the disk is left out where memory holds the shards.

    A stage does all that the one before it does. Where it was measured as the faster one, the difference is noise, and
    the one before it gets its speed.
    """
    all_ = {name: _for_all(series, demand) for name, series in measured.items()}
    speeds: dict[str, float] = {}
    for stage in (ON_GPU, READ) if demand.gpu_decodes else (LOADER, DECODE, READ):
        if stage in all_:
            speeds = {stage: max(all_[stage], *speeds.values(), 0.0), **speeds}
    fits = demand.shard_bytes <= CACHED * demand.free_bytes
    if not fits or speeds[READ] <= HELD * all_[READ_COLD]:
        speeds = {READ_COLD: all_[READ_COLD], **speeds}
    if COPY in all_ and not demand.gpu_decodes:
        speeds[COPY] = all_[COPY]
    return speeds


def _for_all(stage: Series, demand: Demand) -> float:
    """Images/s of a stage for all GPUs: each has a process of its own, and these share the disk and the cores."""
    one = stage.spread.median
    if stage.name == READ_COLD or demand.gpus <= 1:
        return one
    return min(demand.gpus * one, demand.cores * _per_core(stage))


def _per_core(stage: Series) -> float:
    """Images that a stage makes per second of one core."""
    cpu_ms = Spread.of(stage.cpu_ms).median if stage.cpu_ms else 0.0
    return 1e3 / cpu_ms if cpu_ms else stage.spread.median
