"""python -m benchmarks verdict --data DIR --recipe R: what holds a training run back on this machine, and what to do.

Measures each part of the run by itself for a few seconds - the disk with a cold page cache, the loader's reading,
its decoding, its Python thread (with a decoder that returns at once), the copy to the GPU, the model on a cached
batch - then loader and model together, and says in words which one is the bottleneck, by how much, and what to
change (benchmarks/ladder/judgement.py). About a minute.

--gpu-images-per-s X answers for GPUs that are not there, each of which trains X images/s; --gpus N for N of them.
"""

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from tqdm import tqdm

from benchmarks.ladder.figures import Figures
from benchmarks.ladder.judgement import Verdict, judge
from benchmarks.ladder.limits import disk, jpeg_decode, pcie
from benchmarks.measure.harness import Contender, Schedule, Window
from benchmarks.measure.passive import sleep_while_waiting
from benchmarks.measure.result import Result, Series, Setting, write
from benchmarks.measure.settings import command_line, settle
from shards.common.errors import UsageError
from shards.common.machine import available_memory
from shards.dataset import Split, choose_split

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.ladder.rungs import Work
    from train.config import Config
    from train.ranks.distributed import World
    from train.report.metrics import Reading
    from train.run import Run


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
    options.out.mkdir(parents=True, exist_ok=True)
    figures = measured(options)
    verdict = judge(figures)
    words: dict[str, Setting] = {
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
        settings=words,
    )
    print(told(verdict))
    print(f"\nresult {write(result, options.out)}\n")
    print(json.dumps(asdict(result)))


def _gpu_here() -> bool:
    import torch

    return torch.cuda.is_available()


def told(verdict: Verdict) -> str:
    """The verdict for people: the sentences, the stages from the slowest, the advice."""
    lines = [*verdict.summary, "", f"{'images/s':>12}  each stage by itself"]
    lines += [f"{stage.images_per_s:>12,.0f}  {stage.words}" for stage in verdict.stages]
    return "\n".join([*lines, "", "What to change:", *(f"- {line}" for line in verdict.advice)])


def measured(options: Options) -> Figures:
    """The figures of this machine, this data set and this recipe."""
    import torch

    from benchmarks.ladder.rungs import handed_over, reading
    from shards.loader import default_threads

    config = _config(options)
    split = choose_split(options.data, ["train"])
    given, here = options.gpu_images_per_s, _gpu_here()
    on_cpu = given is None and not here
    with tqdm(unit="figure", disable=None) as bar:

        def window(open_: Any, sync: Any = None) -> Window:
            bar.update()
            extra = {} if sync is None else {"sync": sync}
            return Contender("a stage", open_, int, depth=8, **extra).turn(Schedule(1, options.seconds))

        alone = together = waited = None
        batch_size = _micro_batch(config)
        if given is None:
            batch_size, alone, together, waited = _model_figures(options, config, split)
        bar.update()
        work = _work(config, split, batch_size, options.threads, on_cpu)
        full = replace(work, threads=default_threads(work.raw))
        decoded = window(partial(handed_over, work))
        raw = work.raw
        bare = None if raw else jpeg_decode(split, len(os.sched_getaffinity(0)), options.seconds / 2).images_per_s
        gpu = None
        if here and given is None:
            gpu = window(partial(handed_over, work, "gpu"), torch.cuda.synchronize).images_per_s
        return Figures(
            model=given or alone or 0.0,
            model_runs="given" if given is not None else "gpu" if here else "cpu",
            gpus=options.gpus,
            disk=window(partial(reading, work, cold=True)).images_per_s,
            disk_in_sequence=disk(split, options.seconds / 2, cold=True, order="sequence").images_per_s,
            disk_cached=window(partial(reading, work)).images_per_s,
            order=work.order,
            stored_bytes=split.info.bytes,
            cache_bytes=available_memory(),
            image_bytes=float(split.index.size.mean()),
            raw_bytes=_raw_bytes(split, work.resize),
            encoding=split.manifest.settings.encoding,
            short_side=split.manifest.settings.short_side,
            resize=work.resize,
            decode=decoded.images_per_s,
            decode_default=window(partial(handed_over, full)).images_per_s if full.threads > work.threads else None,
            per_core=decoded.images / decoded.cpu if decoded.cpu else decoded.images_per_s,
            bare_decode=bare,
            cores=len(os.sched_getaffinity(0)),
            threads=work.threads,
            default_threads=full.threads,
            python=window(partial(reading if raw else partial(handed_over, stub=True), work)).images_per_s,
            batch_size=batch_size,
            copy=pcie(3 * work.size**2, options.seconds / 2).images_per_s if here else None,
            gpu_decode=gpu,
            together=together,
            waited=waited,
        )


def _config(options: Options) -> "Config":
    from train.recipes import find_recipe

    config = find_recipe(["--recipe", options.recipe])(options.data)
    # Images at their full size from the first epoch, for model and loader alike.
    config = replace(config, sizes=replace(config.sizes, start_size=None))
    return config if options.order is None else replace(config, order=options.order)


def _work(config: "Config", split: Split, batch_size: int, threads: int | None, on_cpu: bool) -> "Work":
    """What the loader does for the recipe: pixels for a GPU that normalises, else normalised batches."""
    return settle(
        split,
        batch_size=batch_size,
        size=config.size,
        resize=None,
        crop=config.crop,
        order=config.order,
        dtype="float32" if on_cpu else "uint8",
        threads=config.threads if threads is None else threads,
    )


def _raw_bytes(split: Split, resize: int) -> float:
    """Bytes of a decoded image, in the mean, whose shorter side is `resize`, or what is stored if that is less."""
    width, height = split.index.width.astype(np.float64), split.index.height.astype(np.float64)
    scale = np.minimum(1.0, resize / np.minimum(width, height))
    return float(np.mean(3 * width * height * scale**2))


def _micro_batch(config: "Config") -> int:
    """Images that one rank alone computes at a time."""
    from train.optim.batch_split import portions
    from train.ranks.distributed import joined

    with joined(config.device) as world:
        return portions(config, world).micro_batch


def _model_figures(options: Options, config: "Config", split: Split) -> tuple[int, float, float, float]:
    """Images of a micro-batch, training on a cached batch and from the loader in images/s, the share spent waiting."""
    from train.data import training_loader
    from train.optim.batch_split import portions
    from train.optim.gpu_memory import choose_micro_batch
    from train.optim.optimizer import choose_dtype
    from train.ranks.distributed import joined
    from train.run import begin, make_network

    with joined(config.device) as world:
        if options.threads is not None:
            config = replace(config, threads=options.threads)
        if not world.on_gpu:  # where a whole step may take many seconds, and updating the weights is little of it
            config = replace(config, batch=portions(config, world).micro_batch)
        dtype = choose_dtype(config, world.device)
        network = make_network(config, len(split.class_names), world)
        config = choose_micro_batch(network, config, world, dtype)
        with training_loader(split, config, world, dtype) as loader:
            batches = itertools.chain.from_iterable(itertools.repeat(loader))
            cached = itertools.repeat(next(batches))
            run_ = begin(network, config, world, dtype, 1 << 20)
            rate, _ = _trained(run_, config, world, cached, options.seconds)
            return portions(config, world).micro_batch, rate, *_trained(run_, config, world, batches, options.seconds)


def _trained(
    run_: "Run", config: "Config", world: "World", batches: "Iterator[tuple[Tensor, Tensor]]", seconds: float
) -> tuple[float, float]:
    """Images/s of training for about `seconds`, and the share of it spent waiting for batches.

    A step goes before, in which libraries choose their algorithms, and another one that says how many will follow.
    """
    from train.optim.batch_split import portions

    step = portions(config, world).accumulate
    _train(run_, config, world, _Some(batches, step))
    one = _train(run_, config, world, _Some(batches, step))
    many = step * max(1, round(seconds / max(one.seconds, 1e-6)))
    reading = _train(run_, config, world, _Some(batches, many))
    return reading.images_per_s, reading.wait_percent / 100


def _train(run_: "Run", config: "Config", world: "World", batches: "_Some") -> "Reading":
    from train.engine import train_epoch
    from train.report.metrics import Recorder

    before = run_.clock.read()
    with Recorder(None, {}) as recorder:
        train_epoch(run_, batches, config, world, recorder, run_.epoch + 1)
    return run_.clock.read() - before


@dataclass(frozen=True)
class _Some:
    """The next `count` batches of an endless iterator, as an epoch."""

    batches: "Iterator[tuple[Tensor, Tensor]]"
    count: int

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> "Iterator[tuple[Tensor, Tensor]]":
        return itertools.islice(self.batches, self.count)
