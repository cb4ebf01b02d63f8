"""python -m benchmarks scale: what grows with the data set, with time and with threads, and what does not.

    rows        start to first batch, time a batch and resident memory, for indices of 10 thousand, 100 thousand and
                1.28 million rows
    epochs      resident memory over 20 epochs of 16 batches
    threads     images/s with 1, 2, 4, ... decoding threads, up to one more than there are cores

Each figure is of a process of its own. Without --data the images are made up. About two minutes on two cores.
"""

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.measure.harness import Schedule
from benchmarks.measure.machine import cores
from benchmarks.measure.result import Ratio, Result, Series
from benchmarks.measure.settings import command_line
from benchmarks.processes.command import run_command
from benchmarks.report.table import show
from benchmarks.stages.probe import Probe, Probed
from benchmarks.stages.probe import run as run_probe
from shards.common.errors import UsageError
from shards.dataset import Split, choose_split, open_dataset
from shards.format.index import DTYPES, Index
from shards.format.layout import INDEX, sample_key, shard_name, split_dir
from shards.format.manifest import SplitInfo

# Epochs before the memory counts: buffers fill, and libraries load what they use once. Then SPAN epochs at either end
# are compared: the order of the next epoch, computed meanwhile, comes and goes.
SETTLING, SPAN = 3, 5


@dataclass(frozen=True)
class Options:
    """Measures start-up, memory and time a batch over the length of the index, and images/s over threads."""

    data: Path | None = None
    """Shards whose images are used; made-up ones if not given."""
    rows: tuple[int, ...] = (10_000, 100_000, 1_281_167)
    """Lengths of the index."""
    epochs: int = 20
    """Epochs over which memory is watched, 13 or more."""
    batch_size: int = 64
    """Images a batch."""
    threads: tuple[int, ...] = ()
    """Numbers of decoding threads; 1, 2, 4, ... and up to one more than the cores if not given."""
    seconds: float = 5.0
    """How long images/s are measured."""
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if not self.rows or min(self.rows) < 8 * self.batch_size or self.batch_size < 1:
            raise UsageError(f"--rows must be lengths of at least 8 batches of {self.batch_size}")
        if min(self.threads, default=1) < 1:
            raise UsageError("--threads must be 1 or more")
        if self.epochs < SETTLING + 2 * SPAN:
            raise UsageError(f"--epochs must be at least {SETTLING + 2 * SPAN}, not {self.epochs}")


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result to options.out."""
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="shardfeed-scale-") as scratch:
        directory = Path(scratch)
        split = make_up(directory / "made-up") if options.data is None else choose_split(options.data, ["train"])
        roots = {rows: directory / f"rows-{rows}" for rows in sorted(options.rows)}
        for rows, root in roots.items():
            widen(split, rows, root)
        longest = Probe(str(roots[max(roots)]), options.batch_size, seconds=options.seconds)
        by_rows = {rows: run_probe(dataclasses.replace(longest, data=str(root))) for rows, root in roots.items()}
        widen(split, 16 * options.batch_size, directory / "short")
        short = Probe(str(directory / "short"), options.batch_size, epochs=options.epochs)
        memory = run_probe(short).by_epoch_mb
        counts = options.threads or thread_counts(cores())
        by_threads = {count: run_probe(dataclasses.replace(longest, threads=count)) for count in counts}
    epochs = over_epochs(memory)
    result = Result.now(
        "scale",
        "What grows with the data set, with time and with threads",
        command_line("scale", options),
        [
            *_over_rows(by_rows, options.batch_size),
            *epochs,
            *(_point("speed", "threads", count, each.images_per_s, "images/s") for count, each in by_threads.items()),
        ],
        schedule=Schedule(1, options.seconds),
        ratios=[Ratio.between(*reversed(epochs))],
        settings={
            "batch_size": options.batch_size,
            "images": "made up" if options.data is None else "of the data set",
        },
    )
    show(result, options.out)


def make_up(root: Path, images: int = 512) -> Split:
    """Makes a data set of drawn images in `root`, as `python -m preprocess` does. Raises ShardfeedError."""
    run_command("preprocess", f"synthetic:train={images},validation=1", str(root), "--shard-size", str(images // 4))
    return open_dataset(root)["train"]


def widen(split: Split, rows: int, root: Path) -> None:
    """Writes a data set whose index has `rows` rows: those of `split` over and over, and links to its shards.

    So opening it, its index and its order cost what a real data set of that size costs, without its images.
    """
    directory, shards = split_dir(root, split.name), split.info.shards
    directory.mkdir(parents=True)
    time, row = np.divmod(np.arange(rows), len(split))
    columns = {name: getattr(split.index, name)[row] for name in DTYPES}
    columns["shard"] = (columns["shard"] + time * len(shards)).astype(np.int32)
    infos = []
    for number, samples in enumerate(np.bincount(columns["shard"]).tolist()):
        name, real = shard_name(split.name, number), number % len(shards)
        (directory / name).symlink_to(split.shard_paths[real].resolve())
        infos.append(dataclasses.replace(shards[real], name=name, samples=samples))
    keys = np.array([sample_key(number) for number in range(rows)], dtype=object)
    Index(**columns, key=keys).write(directory / INDEX)
    dataclasses.replace(split.manifest, splits={split.name: SplitInfo(rows, 0, tuple(infos))}).write(root)


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... below the number of cores, then that number and one more, which is the loader's default."""
    powers = [1 << i for i in range(cores.bit_length()) if 1 << i < cores]
    return [*powers, cores, cores + 1]


def _over_rows(by_rows: dict[int, Probed], batch_size: int) -> list[Series]:
    points = []
    for rows, found in by_rows.items():
        points += [
            _point("loading libraries", "rows", rows, found.imports_s, "s"),
            _point("start to first batch", "rows", rows, found.first_batch_s, "s"),
            _point("time a batch", "rows", rows, 1e3 * batch_size / found.images_per_s, "ms"),
            _point("resident memory", "rows", rows, found.memory_mb, "MB"),
        ]
    return points


def over_epochs(memory_mb: Sequence[float]) -> list[Series]:
    """The memory of the first epochs after it settled, and of the last ones."""
    last = len(memory_mb) - SPAN
    return [
        Series(f"resident memory, epochs {first + 1} to {first + SPAN}", tuple(memory_mb[first : first + SPAN]), "MB")
        for first in (SETTLING, last)
    ]


def _point(name: str, axis: str, at: int, value: float, unit: str) -> Series:
    """A figure at one length of the index or one number of threads; all of one name stand in one chart."""
    return Series(f"{name}, {axis} {at:,}", (float(f"{value:.6g}"),), unit, settings={"group": name})
