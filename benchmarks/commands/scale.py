"""python -m benchmarks scale: what grows with the data set, with time and with threads, and what does not.

    rows        start to first batch, time a batch and resident memory, for indices of 10 thousand, 100 thousand and
                1.28 million rows
    epochs      resident memory over 20 epochs of 16 batches
    threads     images/s with 1, 2, 4, ... decoding threads, up to one more than there are cores

Each figure is of a process of its own. Without --data the images are made up. About two minutes on two cores.

With --real 1281167, in place of these: so many real rows of 32 pixels are made, converted, verified, read for a whole
epoch, and entered in its middle, each with its time and memory. They take 3.4 GB of --work twice, and minutes.
"""

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure.harness import Schedule
from benchmarks.measure.progress import announce, watched
from benchmarks.measure.result import Result, ResultFile, Series
from benchmarks.measure.settings import command_line
from benchmarks.processes.command import run_command
from benchmarks.report.table import number, show
from benchmarks.stages.probe import apart, memory, start
from benchmarks.stages.real_rows import BATCH, Figures, steps
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import usable_cores
from shards.dataset import Split, choose_split, open_dataset
from shards.format.index import DTYPES, Index
from shards.format.layout import INDEX, sample_key, shard_name, split_dir
from shards.format.manifest import SplitInfo

# Epochs before the memory counts: buffers fill, and libraries load what they use once. Then SPAN epochs at either end
# are compared: the order of the next epoch, computed meanwhile, comes and goes.
SETTLING, SPAN = 3, 5
# Bytes of a row with --real, in the source and in the shards, with some to spare.
ROOM_A_ROW = 9000
START_UP = 5.0  # seconds that a process takes to start, about


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
    real: int | None = None
    """Makes so many real rows of 32 pixels, and measures conversion, verify, a whole epoch and a jump on them."""
    work: Path = Path(tempfile.gettempdir())
    """With --real: directory in which they are made, and removed at the end."""
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        Schedule(1, self.seconds)
        if self.batch_size < 1:
            raise UsageError(f"--batch-size must be 1 or more, not {self.batch_size}")
        if not self.rows or min(self.rows) < 8 * self.batch_size:
            raise UsageError(f"--rows must be lengths of at least 8 batches of {self.batch_size}")
        if min(self.threads, default=1) < 1:
            raise UsageError("--threads must be 1 or more")
        if self.real is not None and self.real < 2 * BATCH:
            raise UsageError(f"--real must be {2 * BATCH} or more, not {self.real}")
        if self.real is not None and not self.work.is_dir():
            raise UsageError(f"--work {self.work} is not a directory")
        if self.epochs < SETTLING + 2 * SPAN:
            raise UsageError(f"--epochs must be at least {SETTLING + 2 * SPAN}, not {self.epochs}")


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result to options.out."""
    if options.real is not None:
        run_real(options, options.real)
        return
    size, seconds = options.batch_size, options.seconds
    found: dict[str, Any] = {}
    with ResultFile(options.out) as file, tempfile.TemporaryDirectory(prefix="shardfeed-scale-") as scratch:
        split = make_up(Path(scratch) / "made-up") if options.data is None else choose_split(options.data, ["train"])
        roots = {rows: widen(split, rows, Path(scratch) / f"rows-{rows}") for rows in sorted(options.rows)}
        longest, short = roots[max(roots)], widen(split, 16 * size, Path(scratch) / "short")
        jobs: dict[str, tuple[Any, ...]] = {f"rows {n:,}": (start, root, size, seconds) for n, root in roots.items()}
        counts = options.threads or thread_counts(usable_cores())
        jobs |= {f"threads {count}": (start, longest, size, seconds, count) for count in counts}
        jobs["epochs"] = (memory, short, size, options.epochs)
        announce(f"each in a process of its own: {'; '.join(jobs)}", len(jobs) * (START_UP + seconds))
        for name in watched(list(jobs), str, "process"):
            found[name] = apart(*jobs[name])
            file.keep(summary(options, found))
        whole = file.dated(summary(options, found))
    show(whole, options.out)


def run_real(options: Options, rows: int) -> None:
    """Measures the steps of real rows, prints the table, and writes the result to options.out."""
    need = ROOM_A_ROW * rows
    if (free := shutil.disk_usage(options.work).free) < need:
        raise ShardfeedError(
            f"--work {options.work} has {free / 1e9:.1f} GB free, and {rows:,} rows need {need / 1e9:.1f} GB"
        )
    found: dict[str, Figures] = {}

    def result() -> Result:
        series = [
            Series(f"{step}, {name}", (float(f"{value:.6g}"),), unit, settings={"group": step})
            for step, figures in found.items()
            for name, (value, unit) in figures.items()
        ]
        title = f"{rows:,} real rows, from the source to the loader"
        settings: dict[str, Any] = {"rows": rows, "images": "32 pixels, 1,000 different ones"}
        once = Schedule(1, options.seconds)
        return Result.now("scale-real", title, command_line("scale", options), series, schedule=once, settings=settings)

    work = Path(tempfile.mkdtemp(prefix="shardfeed-real-", dir=options.work))
    try:
        with ResultFile(options.out) as file:
            for name, step in watched(list(steps(rows, work)), lambda each: each[0], "step"):
                found[name] = step()
                file.keep(result())
            whole = file.dated(result())
    finally:
        shutil.rmtree(work, ignore_errors=True)
    show(whole, options.out)


def summary(options: Options, found: Mapping[str, Any]) -> Result:
    """What was found so far, as a result."""
    points = [
        Series(f"{name}, {at}", (float(f"{value:.6g}"),), unit, settings={"group": name})
        for at, figures in found.items()
        if at != "epochs"
        for name, (value, unit) in figures.items()
        if (name == "speed") == at.startswith("threads")
    ]
    by_epoch = found.get("epochs", [])
    early = Series(f"resident memory, epochs {SETTLING + 1} to {SETTLING + SPAN}", by_epoch[SETTLING:][:SPAN], "MB")
    late = Series(f"resident memory, epochs {options.epochs - SPAN + 1} to {options.epochs}", by_epoch[-SPAN:], "MB")
    return Result.now(
        "scale",
        "What grows with the data set, with time and with threads",
        command_line("scale", options),
        [*points, early, late] if by_epoch else points,
        schedule=Schedule(1, options.seconds),
        settings={"batch_size": options.batch_size, "images": "made up" if options.data is None else "of the data set"},
        findings=[growth(early, late)] if by_epoch else [],
    )


def growth(early: Series, late: Series) -> str:
    """How the memory of the late epochs differs from that of the early ones, by their medians."""
    before, after = early.spread.median, late.spread.median
    then, now = (series.name.removeprefix("resident memory, ") for series in (early, late))
    return f"Resident memory: {number(before)} MB in {then}, {number(after)} MB in {now}: {after / before - 1:+.1%}."


def make_up(root: Path, images: int = 512) -> Split:
    """Makes a data set of drawn images in `root`, as `python -m preprocess` does. Raises ShardfeedError."""
    words = (f"synthetic:train={images},validation=1", str(root), "--shard-size", str(images // 4))
    run_command("preprocess", *words, kept=False)
    return open_dataset(root)["train"]


def widen(split: Split, rows: int, root: Path) -> Path:
    """Writes a data set to `root` whose index has `rows` rows: those of `split` over and over, and links to its shards.

    So opening it, its index and its order cost what a real data set of that size costs, without its images.
    """
    directory, shards = split_dir(root, split.name), split.info.shards
    directory.mkdir(parents=True)
    time, row = np.divmod(np.arange(rows), len(split))
    columns = {name: getattr(split.index, name)[row] for name in DTYPES}
    columns["shard"] = (columns["shard"] + time * len(shards)).astype(np.int32)
    infos = []
    for at, samples in enumerate(np.bincount(columns["shard"]).tolist()):
        name, real = shard_name(split.name, at), at % len(shards)
        (directory / name).symlink_to(split.shard_paths[real].resolve())
        infos.append(dataclasses.replace(shards[real], name=name, samples=samples))
    keys = np.array([sample_key(at) for at in range(rows)], dtype=object)
    Index(**columns, key=keys).write(directory / INDEX)
    dataclasses.replace(split.manifest, splits={split.name: SplitInfo(rows, 0, tuple(infos))}).write(root)
    return root


def thread_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4, ... below the number of cores, then that number and one more, which is the loader's default."""
    return (*(1 << i for i in range(cores.bit_length()) if 1 << i < cores), cores, cores + 1)
