"""python -m benchmarks verdict --data DIR --recipe R: what holds a training run back on this machine, and what to do.

Measures the stages of the loader (benchmarks/stages/ladder.py) and the model on a cached batch, each by itself, and
says in words which of them is the bottleneck, by how much, and what to change (benchmarks/stages/verdict.py). About a
minute, and longer where a CPU trains a large model.

--gpu-images-per-s X answers for GPUs that are not there, each of which trains X images/s; --gpus N for N of them.
"""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.measure.harness import Schedule
from benchmarks.measure.machine import sleep_while_waiting
from benchmarks.measure.result import Result, ResultFile, Series, write
from benchmarks.measure.settings import DType, LoaderSettings, batch_spec, command_line
from benchmarks.report.table import columns, number
from benchmarks.stages.recipe import configured
from benchmarks.stages.verdict import Demand, Verdict, judge
from shards.common.cli import loading, show_result
from shards.common.errors import UsageError
from shards.common.machine import available_memory, usable_cores
from shards.common.terminal import wrapped
from shards.dataset import Split, choose_split
from train.config import Config

ROUNDS = 3


@dataclass(frozen=True)
class Options:
    """Says which part of a training run holds it back on this machine, by how much, and what to change."""

    data: Path
    """The data set, as written by `python -m preprocess`."""
    recipe: str = "cnn"
    """How it is trained: a function of train/recipes.py."""
    size: int | None = None
    """Side of the images in pixels; the recipe's if not given."""
    gpus: int = 1
    """GPUs of the machine that the answer is for."""
    gpu_images_per_s: float | None = None
    """What one GPU trains, for GPUs that are not here; measured on this machine if not given."""
    threads: int | None = None
    """Decoding threads; the loader's own default if not given."""
    order: Literal["global", "blocks"] | None = None
    """The order of samples; the recipe's if not given."""
    seconds: float = 1.0
    """Length of each measurement; each is taken three times."""
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise UsageError(f"--gpus must be 1 or more, not {self.gpus}")
        if self.gpu_images_per_s is not None and not 0 < self.gpu_images_per_s < float("inf"):
            raise UsageError(f"--gpu-images-per-s must be above 0, not {self.gpu_images_per_s:g}")


def run(options: Options) -> None:
    """Measures, prints the verdict, and writes the result to options.out.

    Raises UsageError for a recipe, data or options that do not fit together.
    """
    # What is wrong with the options is said before torch and DALI are loaded, which takes seconds.
    config = configured(options.recipe, options.data, threads=options.threads, order=options.order, size=options.size)
    split, schedule = choose_split(options.data, ["train"]), Schedule(ROUNDS, options.seconds)
    if options.gpu_images_per_s is None:
        sleep_while_waiting()
    with loading("torch and DALI", "benchmarks.stages.ladder"):
        import torch

        importlib.import_module("benchmarks.stages.training")
        importlib.import_module("benchmarks.stages.ladder")

    if options.gpus > 1 and options.gpu_images_per_s is None and not torch.cuda.is_available():
        raise UsageError(
            f"--gpus {options.gpus}: there is no GPU here to measure; say what one trains, --gpu-images-per-s X"
        )

    def kept(series: Sequence[Series]) -> Result:
        title, command = f"What holds the recipe {options.recipe} back", command_line("verdict", options)
        return Result.now("verdict", title, command, series, schedule=schedule)

    with ResultFile(options.out) as file:
        series, verdict = measured(options, config, split, schedule, lambda found: file.keep(kept(found)))
        show_verdict(options, file, series, verdict)


def show_verdict(options: Options, file: ResultFile, series: Sequence[Series], verdict: Verdict) -> None:
    """Prints the verdict and writes the result."""
    advice = f"What to change: {verdict.advice}"
    factor, cores = round(verdict.factor, 3), verdict.cores
    result = Result.now(
        "verdict",
        f"What holds the recipe {options.recipe} back: {verdict.bottleneck}",
        command_line("verdict", options),
        series,
        schedule=Schedule(ROUNDS, options.seconds),
        settings={"bottleneck": verdict.bottleneck, "factor": factor, "cores needed": cores},
        findings=[*verdict.findings, advice],
    )
    result = file.dated(result)
    rows = [["stage", "images/s"], *([stage, number(speed)] for stage, speed in verdict.speeds.items())]
    findings = [wrapped(each) for each in verdict.findings]
    print("\n".join([*findings, "", *columns(rows), "", wrapped(advice)]))
    print(f"\nresult {write(result, options.out)}")
    show_result(result)


def measured(
    options: Options, config: Config, split: Split, schedule: Schedule, keep: Callable[[list[Series]], object]
) -> tuple[list[Series], Verdict]:
    """What was measured of the loader, and the verdict on it. `keep`: see `ladder`."""
    import torch

    from benchmarks.stages.ladder import ladder
    from benchmarks.stages.training import ready_images_per_s
    from train.ranks.distributed import joined
    from train.run import set_up

    asked, here = options.gpu_images_per_s, torch.cuda.is_available()
    with joined(config.device) as world:
        _, setup = set_up(config, split, world)
        micro_batch = setup.batch.micro_batch
        # For a GPU that is not here the loader gives pixels, which the GPU would normalise.
        dtype: DType = "uint8" if asked else "float32"
        batch = batch_spec(split, batch_size=micro_batch, size=config.size, crop=config.crop, dtype=dtype)
        model = asked or ready_images_per_s(setup, split, options.seconds)
    series = ladder(LoaderSettings(split, batch, config.order, config.threads), schedule, keep)
    demand = Demand(
        model=model,
        gpus=options.gpus if here or asked else 0,
        gpu_decodes=here and not asked,
        cores=usable_cores(),
        image_bytes=float(split.index.size.mean()),
        shard_bytes=split.info.bytes,
        free_bytes=available_memory(),
    )
    return series, judge(series, demand)
