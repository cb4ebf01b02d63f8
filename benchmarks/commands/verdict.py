"""python -m benchmarks verdict --data DIR --recipe R: what holds a training run back on this machine, and what to do.

Measures each stage of the run by itself for a few seconds - the disk with a cold page cache, the loader's Python (with
a decoder that returns at once), its decoding, the copy to the GPU, the model on a cached batch - then loader and model
together. Says in words which stage is the bottleneck, by how much, and what to change (benchmarks/stages/verdict.py).
About a minute.

--gpu-images-per-s X answers for GPUs that are not there, each of which trains X images/s; --gpus N for N of them.
"""

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from tqdm import tqdm

from benchmarks.measure.harness import Contender, Interval, Schedule
from benchmarks.measure.machine import cores, sleep_while_waiting
from benchmarks.measure.result import Result, Series, Setting, write
from benchmarks.measure.settings import batch_spec, command_line, loader_settings
from benchmarks.stages.figures import Figures
from benchmarks.stages.verdict import Verdict, judge
from shards.common.errors import UsageError
from shards.common.machine import available_memory
from shards.dataset import Split, choose_split

if TYPE_CHECKING:
    from train.config import Config


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
    seconds: float = 4.0
    """Length of each measurement."""
    out: Path = Path("results")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if self.gpus < 1:
            raise UsageError(f"--gpus must be 1 or more, not {self.gpus}")
        if self.gpu_images_per_s is not None and not 0 < self.gpu_images_per_s < float("inf"):
            raise UsageError(f"--gpu-images-per-s must be above 0, not {self.gpu_images_per_s:g}")


def run(options: Options) -> None:
    """Measures, prints the verdict and, as the last line, the JSON, which it also writes to options.out.

    Raises UsageError for a recipe, data or options that do not fit together.
    """
    if options.gpus > 1 and options.gpu_images_per_s is None and not _gpu_here():
        raise UsageError(
            f"--gpus {options.gpus}: there is no GPU here to measure; say what one trains, --gpu-images-per-s X"
        )
    if options.gpu_images_per_s is None:
        sleep_while_waiting()
    schedule = Schedule(1, options.seconds)
    options.out.mkdir(parents=True, exist_ok=True)  # fail on a wrong path before measuring, not after
    figures = measured(options)
    verdict = judge(figures)
    settings: dict[str, Setting] = {
        "bottleneck": verdict.bottleneck,
        "factor": round(verdict.factor, 3),
        "cores needed": verdict.cores,
        **{f"finding {i}": line for i, line in enumerate(verdict.summary, start=1)},
        **{f"advice {i}": line for i, line in enumerate(verdict.advice, start=1)},
        **asdict(figures),
    }
    result = Result.now(
        "verdict",
        f"What holds the recipe {options.recipe} back: {verdict.bottleneck}",
        command_line("verdict", options),
        [Series(stage.words, (round(stage.images_per_s, 1),)) for stage in verdict.stages],
        schedule=schedule,
        settings=settings,
    )
    print(text(verdict))
    print(f"\nresult {write(result, options.out)}\n")
    print(result.as_json())


def _gpu_here() -> bool:
    import torch

    return torch.cuda.is_available()


def text(verdict: Verdict) -> str:
    """The verdict for people: the sentences, the stages from the slowest, the advice."""
    lines = [*verdict.summary, "", f"{'images/s':>12}  each stage by itself"]
    lines += [f"{stage.images_per_s:>12,.0f}  {stage.words}" for stage in verdict.stages]
    return "\n".join([*lines, "", "What to change:", *(f"- {line}" for line in verdict.advice)])


def measured(options: Options) -> Figures:
    """The figures of this machine, this data set and this recipe."""
    from benchmarks.stages import ladder
    from shards.defaults import default_threads

    config = _config(options)
    split = choose_split(options.data, ["train"])
    given, here = options.gpu_images_per_s, _gpu_here()
    with tqdm(unit="figure", disable=None) as bar:

        def turn(contender: Contender) -> Interval:
            bar.update()
            return contender.turn(Schedule(1, options.seconds))

        model = _model_figures(options, config, split)
        bar.update()
        batch = batch_spec(
            split,
            batch_size=model.batch_size,
            size=config.size,
            resize=None,
            crop=config.crop,
            # For a GPU the loader gives pixels, which the GPU normalises.
            dtype="float32" if given is None and not here else "uint8",
        )
        settings = loader_settings(split, batch, config.order, config.threads)
        full = replace(settings, threads=default_threads(settings.raw))
        stages, limits = ladder.stages(settings), ladder.machine_limits(settings)
        decoded = turn(stages[ladder.HAND_OVER])
        more = turn(ladder.stages(full)[ladder.HAND_OVER]) if full.threads > settings.threads else None
        gpu = turn(stages[ladder.GPU_DECODE]) if here and given is None else None
        copied = turn(limits[ladder.PCIE]) if here else None
        return Figures(
            model=model.alone,
            model_runs="given" if given is not None else "gpu" if here else "cpu",
            gpus=options.gpus,
            disk=turn(stages[ladder.READ_COLD]).images_per_s,
            disk_in_sequence=turn(limits[ladder.COLD_SEQUENCE]).images_per_s,
            order=settings.order,
            stored_bytes=split.info.bytes,
            cache_bytes=available_memory(),
            image_bytes=float(split.index.size.mean()),
            raw_bytes=_raw_bytes(split, batch.resize),
            encoding=split.manifest.settings.encoding,
            short_side=split.manifest.settings.short_side,
            resize=batch.resize,
            decode=decoded.images_per_s,
            decode_default=None if more is None else more.images_per_s,
            per_core=decoded.images / decoded.cpu if decoded.cpu else decoded.images_per_s,
            cores=cores(),
            threads=settings.threads,
            default_threads=full.threads,
            python=turn(ladder.loop_alone(settings)).images_per_s,
            batch_size=batch.batch_size,
            copy=None if copied is None else copied.images_per_s,
            gpu_decode=None if gpu is None else gpu.images_per_s,
            together=model.together,
            waited=model.waited,
        )


def _config(options: Options) -> "Config":
    from train.recipes import find_recipe

    config = find_recipe(["--recipe", options.recipe])(options.data)
    # Images at their full size from the first epoch, for model and loader alike.
    config = replace(config, sizes=replace(config.sizes, start_size=None))
    if options.threads is not None:
        config = replace(config, threads=options.threads)
    return config if options.order is None else replace(config, order=options.order)


def _raw_bytes(split: Split, resize: int) -> float:
    """Mean bytes of a decoded image with the shorter side `resize`, or the stored one if that is less."""
    width, height = split.index.width.astype(np.float64), split.index.height.astype(np.float64)
    scale = np.minimum(1.0, resize / np.minimum(width, height))
    return float(np.mean(3 * width * height * scale**2))


@dataclass(frozen=True)
class ModelFigures:
    """Training: images of a micro-batch, images/s on a cached batch and from the loader, the share spent waiting."""

    batch_size: int
    alone: float
    together: float | None = None
    waited: float | None = None


def _model_figures(options: Options, config: "Config", split: Split) -> ModelFigures:
    """Measured, or as given by --gpu-images-per-s."""
    from benchmarks.stages.training import Training, real, repeated, training_task
    from train.optim.batch_split import BatchSplit
    from train.ranks.distributed import joined
    from train.run import set_up

    with joined(config.device) as world:
        _, setup = set_up(config, len(split.class_names), world)
        micro_batch = setup.batch.micro_batch
        if options.gpu_images_per_s is not None:
            return ModelFigures(micro_batch, options.gpu_images_per_s)
        if not world.on_gpu:  # a whole step may take many seconds there, of which updating the weights is little
            setup = replace(setup, config=replace(config, batch=micro_batch), batch=BatchSplit(micro_batch, 1))
        task, cached = training_task(split, setup, steps=20 if world.on_gpu else 1)
        schedule = Schedule(1, options.seconds)
        alone = Training("cached", task, functools.partial(repeated, cached)).turn(schedule)
        fed = Training("real", task, functools.partial(real, split, task))
        together = fed.turn(schedule)
        return ModelFigures(
            task.setup.batch.micro_batch, alone.images_per_s, together.images_per_s, fed.waited[-1] / 100
        )
