"""python -m benchmarks scale: what grows with the data set, with time and with threads, and what does not.

    rows        start to first batch, resident memory and time a batch for indices of 10 thousand, 100 thousand and
                1.28 million rows, each in fresh processes, in turns
    epochs      resident memory after each of 20 epochs: short epochs, and jumps through epochs of the longest index
    threads     images/s with 1, 2, 4, ... decoding threads, up to one more than there are cores
    stub        images/s with a decoder that returns at once: the limit that the loader's Python sets

The long indices point at few shards (benchmarks/stages/wide.py), in a temporary directory that is removed. Without
--data the images are made up. About three minutes on two cores.
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure.harness import Contender, Interval, Schedule, Spread, measure
from benchmarks.measure.machine import cores
from benchmarks.measure.result import Result, Series, Setting, write
from benchmarks.measure.settings import batch_spec, command_line, loader_settings
from benchmarks.stages.probe import probe
from benchmarks.stages.wide import make_up, widen
from shards.common.errors import UsageError
from shards.dataset import Split, choose_split

SHORT, JUMPS, STUB = "short epochs", "jumps in the longest index", "stub decoder"
RESIDENT = "resident memory"
# Epochs before the memory counts: buffers fill, and libraries load what they use once. Then the medians of as many
# epochs at either end as SPAN says are compared: the order of the next epoch, computed meanwhile, comes and goes.
SETTLING, SPAN = 3, 5
JUMP_STEPS = 4


@dataclass(frozen=True)
class Options:
    """Measures start-up, memory and time a batch over the length of the index, and images/s over threads."""

    data: Path | None = None
    """Shards whose images are used; made-up ones if not given."""
    split: str = "train"
    """The split to take them from."""
    rows: tuple[int, ...] = (10_000, 100_000, 1_281_167)
    """Lengths of the index."""
    epochs: int = 20
    """Epochs over which memory is watched."""
    batch_size: int = 64
    """Images a batch."""
    threads: tuple[int, ...] = ()
    """Numbers of decoding threads; 1, 2, 4, ... and up to one more than the cores if not given."""
    rounds: int = 3
    """Processes for each length, and measuring intervals for each number of threads."""
    seconds: float = 2.0
    """Length of a measuring interval."""
    out: Path = Path("results")
    """Directory for the JSON."""

    def __post_init__(self) -> None:
        if not self.rows or min(self.rows) < 8 * self.batch_size or self.batch_size < 1:
            raise UsageError(f"--rows must be lengths of at least 8 batches of {self.batch_size}")
        if min(self.threads, default=1) < 1:
            raise UsageError("--threads must be 1 or more")
        if self.epochs < SETTLING + SPAN:
            raise UsageError(f"--epochs must be at least {SETTLING + SPAN}, not {self.epochs}: the first do not count")


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON, which it also writes to options.out."""
    schedule = Schedule(options.rounds, options.seconds)
    options.out.mkdir(parents=True, exist_ok=True)
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="shardfeed-scale-") as scratch:
        directory = Path(scratch)
        real = make_up(directory / "made-up") if options.data is None else choose_split(options.data, [options.split])
        wide = {rows: widen(real, rows, directory / f"rows-{rows}") for rows in sorted(options.rows)}
        longest, short = wide[max(wide)], widen(real, 16 * options.batch_size, directory / "short")
        if real.manifest.settings.encoding == "raw":
            skipped[STUB] = "raw shards have no decoder to replace"
        series = [
            *_over_rows(options, wide),
            *_over_epochs(options, longest, short),
            *_over_threads(measure(_contenders(options, longest), schedule)),
        ]
    result = Result.now(
        "scale",
        "What grows with the data set, with time and with threads",
        command_line("scale", options),
        series,
        schedule=schedule,
        settings={
            "batch_size": options.batch_size,
            "images": "made up" if options.data is None else "of the data set",
            "shards_of_the_longest": len(longest.info.shards),
            **{f"memory grown, {name}": f"{100 * _grown(_memory(series, name)):.2f}%" for name in (SHORT, JUMPS)},
        },
        skipped=skipped,
    )
    print(table(result))
    print(f"\nresult {write(result, options.out)}\n")
    print(result.as_json())


def first_and_last(memory_mb: Sequence[float]) -> tuple[float, float]:
    """The memory of the first epochs, once it has settled, and of the last: medians of SPAN epochs."""
    return statistics.median(memory_mb[SETTLING : SETTLING + SPAN]), statistics.median(memory_mb[-SPAN:])


def _grown(memory_mb: Sequence[float]) -> float:
    first, last = first_and_last(memory_mb)
    return last / first - 1


def _memory(series: Sequence[Series], curve: str) -> list[float]:
    return [each.values[0] for each in series if each.settings.get("curve") == curve]


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... below the number of cores, then that number and one more, which is the loader's default."""
    powers = [1 << i for i in range(cores.bit_length()) if 1 << i < cores]
    return [*powers, cores, cores + 1]


def _over_rows(options: Options, wide: dict[int, Split]) -> Iterator[Series]:
    """Fresh processes, the lengths in turns; the first round warms the page cache and does not count."""
    rounds = [
        {rows: probe(split.root, options.batch_size, seconds=options.seconds) for rows, split in wide.items()}
        for _ in range(options.rounds + 1)
    ][1:]
    for name, unit, field in (
        ("loading libraries", "s", "imports_s"),
        ("start to first batch", "s", "first_batch_s"),
        (RESIDENT, "MB", "memory_mb"),
        ("between two batches", "ms", "batch_ms"),
        ("a batch, cores together", "ms", "batch_core_ms"),
    ):
        for rows in wide:
            where: dict[str, Setting] = {"curve": name, "axis": "rows of the index", "at": rows}
            values = tuple(round(getattr(found[rows], field), 4) for found in rounds)
            yield Series(f"{name}, {rows:,} rows", values, unit, settings=where)


def _over_epochs(options: Options, longest: Split, short: Split) -> Iterator[Series]:
    for name, split, steps in ((SHORT, short, None), (JUMPS, longest, JUMP_STEPS)):
        found = probe(split.root, options.batch_size, epochs=options.epochs, steps=steps)
        for epoch, value in enumerate(found.by_epoch_mb, start=1):
            where: dict[str, Setting] = {"curve": name, "axis": "epoch", "at": epoch}
            yield Series(f"{RESIDENT}, {name}, epoch {epoch}", (round(value, 2),), "MB", settings=where)


def _contenders(options: Options, split: Split) -> list[Contender]:
    from benchmarks.stages import ladder

    batch = batch_spec(split, batch_size=options.batch_size, size=224, resize=None, crop="random", dtype="float32")
    contenders = []
    for count in options.threads or thread_counts(cores()):
        loader = ladder.stages(loader_settings(split, batch, "global", count))[ladder.HAND_OVER]
        contenders.append(replace(loader, name=f"{count} threads"))
    settings = loader_settings(split, batch, "global", None)
    if not settings.raw:
        contenders.append(replace(ladder.loop_alone(settings), name=STUB))
    return contenders


def _over_threads(intervals: dict[str, list[Interval]]) -> Iterator[Series]:
    for name, each in intervals.items():
        if name == STUB:
            yield Series.of(name, each, {"group": "a decoder that returns at once"})
        else:
            yield Series.of(name, each, {"curve": "the loader", "axis": "threads", "at": int(name.split()[0])})


def table(result: Result) -> str:
    """A line for each curve, with its points across; for memory, what is compared and its growth."""
    lines = [result.title, ""]
    curves: dict[tuple[str, str], list[Series]] = {}
    for series in result.series:
        curves.setdefault((str(series.settings.get("curve", series.name)), series.unit), []).append(series)
    for (name, unit), points in curves.items():
        if name in (SHORT, JUMPS):
            lines.append(_memory_line(name, _memory(points, name)))
        elif "axis" in points[0].settings:
            words = (f"{point.spread.median:,.6g} at {point.settings['at']:,}" for point in points)
            lines.append(f"{name} ({unit}) by {points[0].settings['axis']}: {', '.join(words)}")
        else:
            core = Spread.of(points[0].cpu_ms).median
            lines.append(f"{name}: {points[0].spread.median:,.0f} {unit}, {1e3 * core:,.1f} us of a core an image")
    return "\n".join([*lines, *(f"not measured: {name}: {reason}" for name, reason in result.skipped.items())])


def _memory_line(name: str, memory_mb: Sequence[float]) -> str:
    first, last = first_and_last(memory_mb)
    count = len(memory_mb)
    return (
        f"{RESIDENT}, {name}: {first:,.1f} MB over epochs {SETTLING + 1} to {SETTLING + SPAN}, {last:,.1f} MB over "
        f"epochs {count - SPAN + 1} to {count} (medians): grown by {100 * _grown(memory_mb):.2f}%; "
        f"{max(memory_mb):,.1f} MB at most"
    )
