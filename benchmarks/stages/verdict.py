"""What holds a training run back: a pure function of the stages' speeds and of what training needs.

The run is as fast as its slowest stage. Each stage of the loader does what the ones before it do, so where the loader
is slower than the model, the first stage that is not clearly faster than the slowest holds it back.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Series
from benchmarks.report.charts import number
from benchmarks.stages.ladder import COPY, DECODE, FINISH, LOADER, ON_GPU, READ, READ_COLD

MODEL = "model"
# A stage that is not faster than the slowest by this factor holds it back.
HELD = 1.25
# The share of free memory that the page cache can count on.
CACHED = 0.8

SUBJECT = {
    READ_COLD: "Reading from the disk",
    READ: "The loader's Python, or reading from memory,",
    DECODE: "Decoding",
    FINISH: "Resizing and normalising",
    LOADER: "Handing batches over to the training loop",
    ON_GPU: "Decoding on the GPU",
    COPY: "The copy to the GPU",
}
# docs/feeding.md says more.
ADVICE = {
    READ_COLD: "--order blocks reads shards in sequence, at the limit above. Or smaller shards (python -m preprocess "
    "--short-side), more memory, a faster disk.",
    READ: "A larger --micro-batch (python -m train): most of the loader's Python runs once per batch.",
    DECODE: "More cores; the default number of --threads, if another is set; a smaller --short-side or --encoding raw "
    "(python -m preprocess); --device gpu (python -m train), where there is a GPU.",
    FINISH: "More cores; --short-side at the size that the recipe crops from (python -m preprocess); --device gpu "
    "(python -m train).",
    LOADER: "A larger --micro-batch (python -m train): batches are handed over one by one.",
    ON_GPU: "Another decoder: python -m benchmarks loaders --peers gpu gpu-region gpu-hardware compares them.",
    COPY: "Loader(decode='region') or 'hardware': encoded bytes cross the bus in place of pixels.",
    MODEL: "Nothing in the loader: a faster one would not train faster. --gpu-images-per-s X --gpus N says whether "
    "this machine could feed faster or more GPUs.",
}


@dataclass(frozen=True)
class Demand:
    """What the loader has to feed, and the machine and shards that it does so with.

    model: images/s that one GPU trains. gpus: how many are fed. gpu_decodes: whether the GPU that was measured decodes.
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
    cores: what a machine with so many such GPUs needs.
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
    needed, speeds = demand.model * demand.gpus, _speeds(measured, demand)
    slowest = min(speeds.values())
    bottleneck = MODEL
    if slowest < needed:
        bottleneck = next(stage for stage, speed in speeds.items() if speed <= HELD * slowest)
    factor = slowest / needed if bottleneck == MODEL else needed / speeds[bottleneck]
    per_core = _per_core(measured[ON_GPU if demand.gpu_decodes else LOADER])
    cores = math.ceil(needed / per_core) + demand.gpus
    gpus = f"{demand.gpus} GPU{'' if demand.gpus == 1 else 's'}"

    findings = []
    if bottleneck == MODEL:
        findings.append(
            f"The model is the bottleneck: it trains {number(needed)} images/s on {gpus}, and the loader could give "
            f"{number(slowest)}, {factor:.1f} times as many."
        )
    else:
        limit = measured[str(measured[bottleneck].settings["limit"])]
        findings.append(
            f"{SUBJECT[bottleneck]} is the bottleneck: {number(speeds[bottleneck])} images/s, where {gpus} could "
            f"train {number(needed)}, {factor:.1f} times as many."
        )
        findings.append(f"The limit of this machine there ({limit.name}) is {number(limit.spread.median)} images/s.")
    findings.append(
        f"A machine with {gpus} of {number(demand.model)} images/s needs {cores} cores: {number(per_core)} images/s "
        f"each, and one for the process of each GPU. This machine has {demand.cores}."
    )
    findings.append(
        f"Its disk has to give {number(needed * demand.image_bytes / 1e6)} MB/s, unless memory holds the shards: "
        f"they have {number(demand.shard_bytes / 1e9)} GB, and {number(demand.free_bytes / 1e9)} GB are free here."
    )
    if READ_COLD not in speeds:
        cold = number(measured[READ_COLD].spread.median)
        findings.append(f"Only the first epoch reads from the disk, at {cold} images/s.")
    return Verdict(bottleneck, factor, cores, {**speeds, MODEL: needed}, tuple(findings), ADVICE[bottleneck])


def _speeds(measured: dict[str, Series], demand: Demand) -> dict[str, float]:
    """Images/s of each stage of the loader, for all GPUs; the disk is left out where memory holds the shards."""
    stages = [READ_COLD, READ, ON_GPU] if demand.gpu_decodes else [READ_COLD, READ, DECODE, FINISH, LOADER, COPY]
    speeds = {stage: _for_all(measured[stage], demand) for stage in stages if stage in measured}
    fits = demand.shard_bytes <= CACHED * demand.free_bytes
    if fits and speeds[READ] > HELD * speeds[READ_COLD]:
        del speeds[READ_COLD]
    return speeds


def _for_all(stage: Series, demand: Demand) -> float:
    """Images/s of a stage for all GPUs: each has a process of its own, and these share the disk and the cores."""
    one = stage.spread.median
    if stage.name == READ_COLD or demand.gpus == 1:
        return one
    return min(demand.gpus * one, demand.cores * _per_core(stage))


def _per_core(stage: Series) -> float:
    """Images that a stage makes per second of one core."""
    cpu_ms = Spread.of(stage.cpu_ms).median
    return 1e3 / cpu_ms if cpu_ms else stage.spread.median
