"""python -m benchmarks verdict --data DIR --recipe R: what holds a training run back on this machine, and what to do.

Measures the stages of the loader (benchmarks/stages/ladder.py) and the model on a cached batch, each by itself, and
says in words which of them is the bottleneck, by how much, and what to change (benchmarks/stages/verdict.py). About a
minute.

--gpu-images-per-s X answers for GPUs that are not there, each of which trains X images/s; --gpus N for N of them.
"""

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from benchmarks.measure.harness import Schedule
from benchmarks.measure.machine import cores, sleep_while_waiting
from benchmarks.measure.result import Result, Series, write
from benchmarks.measure.settings import DType, batch_spec, command_line, loader_settings
from benchmarks.report.charts import number
from benchmarks.report.table import columns
from benchmarks.stages.ladder import ladder
from benchmarks.stages.training import Training, configured, repeated, training_task
from benchmarks.stages.verdict import Demand, Verdict, judge
from shards.common.cli import show_result
from shards.common.errors import UsageError
from shards.common.machine import available_memory
from shards.dataset import Split, choose_split
from train.config import Config
from train.optim.batch_split import BatchSplit
from train.ranks.distributed import joined
from train.run import set_up


@dataclass(frozen=True)
class Options:
    """Says which part of a training run holds it back on this machine, by how much, and what to change."""

    data: Path
    """The data set, as written by `python -m preprocess`."""
    recipe: str = "cnn"
    """How it is trained: a function of train/recipes.py."""
    gpus: int = 1
    """GPUs of the machine that the answer is for."""
    gpu_images_per_s: float | None = None
    """What one GPU trains, for GPUs that are not here; measured on this machine if not given."""
    threads: int | None = None
    """Decoding threads; the loader's own default if not given."""
    order: Literal["global", "blocks"] | None = None
    """The order of samples; the recipe's if not given."""
    seconds: float = 2.0
    """Length of each measurement."""
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
    if options.gpus > 1 and options.gpu_images_per_s is None and not torch.cuda.is_available():
        raise UsageError(
            f"--gpus {options.gpus}: there is no GPU here to measure; say what one trains, --gpu-images-per-s X"
        )
    if options.gpu_images_per_s is None:
        sleep_while_waiting()
    options.out.mkdir(parents=True, exist_ok=True)  # fail on a wrong path before measuring, not after
    series, verdict = measured(options)
    result = Result.now(
        "verdict",
        f"What holds the recipe {options.recipe} back: {verdict.bottleneck}",
        command_line("verdict", options),
        series,
        schedule=Schedule(1, options.seconds),
        settings={
            "bottleneck": verdict.bottleneck,
            "factor": round(verdict.factor, 3),
            "cores needed": verdict.cores,
            **{f"finding {i}": line for i, line in enumerate(verdict.findings, start=1)},
            "advice 1": verdict.advice,
        },
    )
    print(text(verdict))
    print(f"\nresult {write(result, options.out)}")
    show_result(result)


def text(verdict: Verdict) -> str:
    """The verdict for people: the findings, the stages, the advice."""
    rows = [["stage", "images/s for all GPUs"], *([stage, number(speed)] for stage, speed in verdict.speeds.items())]
    return "\n".join([*verdict.findings, "", *columns(rows), "", f"What to change: {verdict.advice}"])


def measured(options: Options) -> tuple[list[Series], Verdict]:
    """What was measured of the loader, and the verdict on it."""
    config = configured(options.recipe, options.data, threads=options.threads, order=options.order)
    split = choose_split(options.data, ["train"])
    micro_batch, model = _model(options, config, split)
    # For a GPU that is not here the loader gives pixels, which the GPU would normalise.
    dtype: DType = "float32" if options.gpu_images_per_s is None else "uint8"
    batch = batch_spec(split, batch_size=micro_batch, size=config.size, crop=config.crop, dtype=dtype)
    series = ladder(loader_settings(split, batch, config.order, config.threads), Schedule(1, options.seconds))
    demand = Demand(
        model=model,
        gpus=options.gpus,
        gpu_decodes=torch.cuda.is_available() and options.gpu_images_per_s is None,
        cores=cores(),
        image_bytes=float(split.index.size.mean()),
        shard_bytes=split.info.bytes,
        free_bytes=available_memory(),
    )
    return series, judge(series, demand)


def _model(options: Options, config: Config, split: Split) -> tuple[int, float]:
    """Images of a micro-batch, and images/s on a cached batch, measured or as given by --gpu-images-per-s."""
    with joined(config.device) as world:
        _, setup = set_up(config, len(split.class_names), world)
        micro_batch = setup.batch.micro_batch
        if options.gpu_images_per_s is not None:
            return micro_batch, options.gpu_images_per_s
        if not world.on_gpu:  # a whole step may take many seconds there, of which updating the weights is little
            setup = replace(setup, config=replace(config, batch=micro_batch), batch=BatchSplit(micro_batch, 1))
        task, cached = training_task(split, setup, steps=20 if world.on_gpu else 1)
        trained = Training("cached batch", task, functools.partial(repeated, cached))
        return micro_batch, trained.turn(Schedule(1, options.seconds)).images_per_s
