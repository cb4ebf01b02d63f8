"""python -m benchmarks loaders --data DIR --source SOURCE: this project's loader, the naive path and plain DALI.

All deliver torch tensors of the same shape, type and recipe (shorter side 256, random crop of 224,
random flip, normalised): the loader and plain DALI (benchmarks/plain_dali.py) from the shards in DIR,
the naive path (benchmarks/naive.py) from SOURCE, the data set that the shards were made from. Takes
about two minutes with the defaults.
"""

import contextlib
import functools
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks import naive, report
from benchmarks.environment import hardware
from benchmarks.harness import Contender, Schedule, measure, ratios, throughput
from shards import Split
from shards.dataset import choose_split
from shards.errors import ShardfeedError, UsageError
from shards.versions import versions

NAIVE, DALI, LOADER = "naive HF + PIL", "plain DALI", "shardfeed"


@dataclass(frozen=True)
class Options:
    """Compares the loader with the naive PIL path over the Hugging Face dataset and with plain DALI, in turns."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    source: str
    """The data set they were made from: whatever `python -m preprocess` takes, made-up images apart."""
    split: str = "train"
    """The split to read, of both."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    batch_size: int = naive.Recipe.batch_size
    """Images a batch."""
    size: int = naive.Recipe.size
    """Side of the crop in pixels."""
    resize: int | None = None
    """Shorter side before the crop; in proportion 256 to 224 if not given, at most what is stored."""
    dtype: naive.DType = naive.Recipe.dtype
    """float32: normalised; uint8: the pixels."""
    seed: int = 0
    """Of order, crops and flips."""
    rounds: int = Schedule.rounds
    """Windows measured of each, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Length of a window."""
    threads: int | None = None
    """Decoding threads of the loader and of plain DALI; the loader's own default if not given."""
    workers: int | None = None
    """Processes of the naive path; one a core if not given."""
    out: Path = Path("results")
    """Directory for the chart and the JSON."""


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON; writes both and the chart to options.out.

    Raises UsageError for data or options that do not fit together.
    """
    from benchmarks import plain_dali
    from shards.pipeline import PREFETCH
    from shards.producer import READY

    schedule = Schedule(options.rounds, options.seconds)
    split = choose_split(options.data, [options.split])
    recipe, workers, threads = _settle(options, split)
    rows = _rows(options, split)
    contenders = [
        Contender(
            NAIVE,
            functools.partial(naive.batches, rows, recipe, workers),
            functools.partial(_checked_images, recipe),
            depth=naive.PREFETCH * workers,
            stride=max(1, workers),
        ),
        Contender(
            DALI,
            functools.partial(plain_dali.batches, split, recipe, threads),
            functools.partial(_checked_images, recipe),
            depth=PREFETCH,
        ),
        Contender(
            LOADER,
            functools.partial(_loader_batches, split, recipe, threads),
            functools.partial(_checked_images, recipe),
            depth=PREFETCH + READY,
        ),
    ]
    options.out.mkdir(parents=True, exist_ok=True)  # a wrong path is better known before measuring than after
    windows = measure(contenders, schedule)
    slow, fast = throughput(windows[NAIVE]), throughput(windows[LOADER])
    ratio, to_dali = ratios(windows[NAIVE], windows[LOADER]), ratios(windows[DALI], windows[LOADER])
    stored = split.manifest.settings.short_side
    result: dict[str, Any] = {
        "benchmark": "loaders",
        "naive_images_per_s": round(slow.median, 1),
        "loader_images_per_s": round(fast.median, 1),
        "ratio": round(ratio.median, 3),
        "ratio_min": round(ratio.least, 3),
        "ratio_max": round(ratio.most, 3),
        "ratio_to_plain_dali": round(to_dali.median, 3),
        "ratio_to_plain_dali_min": round(to_dali.least, 3),
        "ratio_to_plain_dali_max": round(to_dali.most, 3),
        "images_per_s": {name: [round(window.images_per_s, 1) for window in turns] for name, turns in windows.items()},
        "rounds": options.rounds,
        "seconds": options.seconds,
        "batch_size": recipe.batch_size,
        "threads": threads,
        "workers": workers,
        "dtype": recipe.dtype,
        "size": recipe.size,
        "resize": recipe.resize,
        "stored": "original" if stored is None else stored,
        "images": len(split),
        "versions": versions(),
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command(options),
    }
    report.publish(result, options.out)


def command(options: Options) -> str:
    """The command line that these options came from, without those at their defaults."""
    words = ["python", "-m", "benchmarks", "loaders"]
    for field in fields(options):
        value = getattr(options, field.name)
        if value != field.default:
            words += [f"--{field.name.replace('_', '-')}", str(value)]
    return shlex.join(words)


def _settle(options: Options, split: Split) -> tuple[naive.Recipe, int, int]:
    """What the options leave open: the recipe of both paths, the naive path's workers, the loader's threads."""
    from shards.loader import default_threads

    stored = split.manifest.settings.short_side
    resize = options.resize
    if resize is None:
        resize = round(options.size * naive.Recipe.resize / naive.Recipe.size)
        resize = resize if stored is None else min(resize, stored)
    workers = len(os.sched_getaffinity(0)) if options.workers is None else options.workers
    threads = default_threads() if options.threads is None else options.threads
    if options.batch_size < 1 or threads < 1 or workers < 0:
        raise UsageError("the batch size and the number of threads must be at least 1, the number of workers 0 or more")
    if not 1 <= options.size <= resize:
        raise UsageError(f"a crop of {options.size} pixels does not fit into a shorter side of {resize}")
    if len(split) < options.batch_size:
        raise UsageError(
            f"{options.data}: {split.name} holds {len(split)} images, less than a batch of {options.batch_size}"
        )
    return naive.Recipe(options.batch_size, resize, options.size, options.dtype, options.seed), workers, threads


def _rows(options: Options, split: Split) -> naive.Rows:
    """The split of the source, opened. Raises UsageError if the shards are not of that data set."""
    from preprocess.source import hf_dataset

    rows = hf_dataset(options.source, options.split, options.image_column, options.label_column)
    names = tuple(rows.features["label"].names)
    if names != split.class_names:
        raise UsageError(
            f"{options.data} was made from another data set than {options.source}: "
            f"{len(split.class_names)} classes ({split.class_names[0]}, ...) and {len(names)} ({names[0]}, ...)"
        )
    taken = len(split) + split.info.rejects
    if len(rows) != taken:
        raise UsageError(
            f"{options.data} was made from another data set than {options.source}: "
            f"{taken} and {len(rows)} images in {options.split}"
        )
    return rows  # type: ignore[no-any-return]


@contextlib.contextmanager
def _loader_batches(split: Split, recipe: naive.Recipe, threads: int) -> Iterator[Iterator[naive.Batch]]:
    from shards import Loader

    with Loader(
        split,
        batch_size=recipe.batch_size,
        train=True,
        size=recipe.size,
        resize=recipe.resize,
        seed=recipe.seed,
        dtype=recipe.dtype,
        threads=threads,
    ) as loader:
        yield _epochs(loader)


def _epochs(loader: Any) -> Iterator[naive.Batch]:
    while True:
        yield from loader


def _checked_images(recipe: naive.Recipe, batch: naive.Batch) -> int:
    """How many images a batch holds. Raises ShardfeedError if it is not what the recipe says."""
    images, labels = batch
    shape = (recipe.batch_size, 3, recipe.size, recipe.size)
    dtype = getattr(torch, recipe.dtype)
    if images.shape != shape or images.dtype != dtype or labels.shape != shape[:1] or labels.dtype != torch.int64:
        raise ShardfeedError(
            f"expected images {shape} {dtype} and int64 labels, got {tuple(images.shape)} {images.dtype} "
            f"and {tuple(labels.shape)} {labels.dtype}"
        )
    return recipe.batch_size
