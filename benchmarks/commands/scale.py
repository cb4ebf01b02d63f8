"""python -m benchmarks scale: what grows with the data set, with time and with threads, and what does not.

    rows        start to first batch, resident memory and time a batch for indices of 10 thousand, 100 thousand and
                1.28 million rows, each in fresh processes, in turns
    epochs      resident memory after each of 20 epochs: short ones, and jumps from epoch to epoch of the longest index
    threads     images/s with 1, 2, 4, ... decoding threads, up to one more than there are cores
    stub        images/s with a decoder that returns at once: how far the loader's Python goes

The long indices point at few shards (benchmarks/ladder/wide.py), in a temporary directory that is removed. Without --data the
images are made up. About three minutes on two cores.
"""

import json
import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.ladder.probe import Probe, memory, start
from benchmarks.ladder.wide import make_up, scratch, widen
from benchmarks.measure.harness import Contender, Schedule, Window, measure
from benchmarks.measure.result import Result, Series, write
from benchmarks.measure.settings import command_line, settle
from shards.common.errors import UsageError
from shards.dataset import Split, choose_split

START, IMPORTS, BATCH, CORE, RESIDENT = (
    "start to first batch",
    "loading libraries",
    "between two batches",
    "a batch, cores together",
    "resident memory",
)
SHORT, JUMPS = "short epochs", "jumps in the longest index"
STUB = "stub decoder"
# Epochs before the memory counts: buffers fill, and libraries load what they use once. Then as many epochs at either
# end are compared as SPAN says, by their medians: the order of the next epoch, computed meanwhile, comes and goes.
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
    """Processes for each length, and windows for each number of threads."""
    seconds: float = 2.0
    """Length of a window."""
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
    with scratch() as directory:
        real = make_up(directory / "made-up") if options.data is None else choose_split(options.data, [options.split])
        wide = {rows: widen(real, rows, directory / f"rows-{rows}") for rows in sorted(options.rows)}
        series = [
            *_over_rows(options, wide),
            *_over_epochs(options, wide[max(wide)], widen(real, 16 * options.batch_size, directory / "short")),
        ]
        longest = wide[max(wide)]
        if real.manifest.settings.encoding == "raw":
            skipped[STUB] = "raw shards have no decoder to replace"
        windows = measure(_contenders(options, longest, stub=STUB not in skipped), schedule)
        series += list(_over_threads(windows))
    growth = {name: f"{100 * grown(_points(series, name)):.2f}%" for name in (SHORT, JUMPS)}
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
            **{f"memory grown, {name}": value for name, value in growth.items()},
        },
        skipped=skipped,
    )
    print(table(result))
    print(f"\nresult {write(result, options.out)}\n")
    print(json.dumps(asdict(result)))


def grown(memory_mb: Sequence[float]) -> float:
    """By which share the last SPAN epochs' memory (median) is above that of the first SPAN that count."""
    settled, end = memory_mb[SETTLING : SETTLING + SPAN], memory_mb[-SPAN:]
    return statistics.median(end) / statistics.median(settled) - 1


def thread_counts(cores: int) -> list[int]:
    """1, 2, 4, ... below the number of cores, then that number and one more, which is the loader's default."""
    powers = [1 << i for i in range(cores.bit_length()) if 1 << i < cores]
    return [*powers, cores, cores + 1]


def _over_rows(options: Options, wide: dict[int, Split]) -> Iterator[Series]:
    """Fresh processes, the lengths in turns; the first round warms the page cache and does not count."""
    found: dict[int, list[list[float]]] = {rows: [] for rows in wide}
    for number in range(options.rounds + 1):
        for rows, split in wide.items():
            figures = start(Probe(split.root, options.batch_size, None, options.seconds))
            if number:
                found[rows].append(list(asdict(figures).values()))
    for i, (name, unit) in enumerate(((IMPORTS, "s"), (START, "s"), (RESIDENT, "MB"), (BATCH, "ms"), (CORE, "ms"))):
        for rows, rounds in found.items():
            values = tuple(round(each[i], 4) for each in rounds)
            where: dict[str, str | int | float | bool | None] = {"curve": name, "axis": "rows of the index", "at": rows}
            yield Series(f"{name}, {rows:,} rows", values, unit, settings=where)


def _over_epochs(options: Options, longest: Split, short: Split) -> Iterator[Series]:
    probes = {
        SHORT: Probe(short.root, options.batch_size, None, epochs=options.epochs),
        JUMPS: Probe(longest.root, options.batch_size, None, epochs=options.epochs, steps=JUMP_STEPS),
    }
    for name, probe in probes.items():
        for epoch, value in enumerate(memory(probe), start=1):
            where: dict[str, str | int | float | bool | None] = {"curve": name, "axis": "epoch", "at": epoch}
            yield Series(f"{RESIDENT}, {name}, epoch {epoch}", (round(value, 2),), "MB", settings=where)


def _contenders(options: Options, split: Split, stub: bool) -> list[Contender]:
    from benchmarks.ladder.rungs import handed_over
    from shards.decode.graph import PREFETCH
    from shards.feed.loop import READY

    counts = options.threads or tuple(thread_counts(len(os.sched_getaffinity(0))))
    works = {
        f"{count} threads": settle(
            split,
            batch_size=options.batch_size,
            size=224,
            resize=None,
            crop="random",
            order="global",
            dtype="float32",
            threads=count,
        )
        for count in counts
    }
    opens = {name: partial(handed_over, work) for name, work in works.items()}
    if stub:
        opens[STUB] = partial(handed_over, next(iter(works.values())), stub=True)
    return [Contender(name, open_, int, depth=PREFETCH + READY) for name, open_ in opens.items()]


def _over_threads(windows: dict[str, list[Window]]) -> Iterator[Series]:
    for name, each in windows.items():
        if name == STUB:
            yield Series.of(name, each, {"group": "a decoder that returns at once"})
        else:
            yield Series.of(name, each, {"curve": "the loader", "axis": "threads", "at": int(name.split()[0])})


def _points(series: Sequence[Series], curve: str) -> list[float]:
    return [each.spread.median for each in series if each.settings.get("curve") == curve]


def table(result: Result) -> str:
    """The figures in lines: a curve each, its points across."""
    lines = [result.title, ""]
    curves: dict[tuple[str, str], list[Series]] = {}
    for series in result.series:
        curves.setdefault((str(series.settings.get("curve", series.name)), series.unit), []).append(series)
    for (name, unit), points in curves.items():
        if points[0].settings.get("axis") == "epoch":
            values = [point.spread.median for point in points]
            lines.append(
                f"{RESIDENT}, {name}: {values[SETTLING]:,.0f} MB in epoch {SETTLING + 1}, {values[-1]:,.0f} in epoch "
                f"{len(values)}, {max(values):,.0f} at most: grown by {result.settings[f'memory grown, {name}']}"
            )
        elif "axis" in points[0].settings:
            words = (f"{point.spread.median:,.6g} at {point.settings['at']:,}" for point in points)
            lines.append(f"{name} ({unit}) by {points[0].settings['axis']}: {', '.join(words)}")
        else:
            core = sorted(points[0].cpu_ms)[len(points[0].cpu_ms) // 2]
            lines.append(f"{name}: {points[0].spread.median:,.0f} {unit}, {1e3 * core:,.1f} us of a core an image")
    lines += [f"not measured: {name}: {reason}" for name, reason in result.skipped.items()]
    return "\n".join(lines)
