"""python -m benchmarks preprocess --source SOURCE: what converting a data set costs, beside a plain PIL worker.

Each contender does what a worker of `python -m preprocess` does: it reads rows of SOURCE in shuffled order, converts
them, and writes shards to disk, here to a scratch directory that is removed at the end. Contenders take turns in worker
processes of their own. Two figures for each: images/s by the clock, over all its processes, and images/s and core,
which divides by the processor time of its processes; on a machine with other work to do, trust the second. Start-up is
reported apart. Takes about four minutes with the defaults.
"""

import contextlib
import functools
import io
import itertools
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmarks.measure.harness import Contender, Interval, Schedule, measure
from benchmarks.measure.machine import memory_mb
from benchmarks.measure.result import Ratio, Result, Series, Setting, write
from benchmarks.measure.settings import command_line
from benchmarks.report.table import circumstances, columns
from preprocess.sources import open_source
from preprocess.sources.source import Row, Source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.versions import version
from shards.format.layout import Encoding, sample_key
from shards.format.manifest import Settings
from shards.format.tar import Sample, write_shard
from shards.sampling.hashing import permutation

PIECE = 50  # images between two reports of a worker
CLEAN_AMONG = 2000  # rows searched for images whose bytes --original keeps
BY_CORE, PER_CORE = ", by processor time", "images/s and core"
PIL, OURS, TWO = "PIL worker", "shardfeed", "shardfeed, 2 processes"
RAW, ORIGINAL = "--encoding raw", "--original, clean images"


@dataclass(frozen=True)
class Options:
    """Measures the conversion of a data set to shards, in images/s and core, and a plain PIL worker beside it."""

    source: str
    """Anything that `python -m preprocess` takes; only real images give figures that mean something."""
    split: str = "train"
    """The split to convert."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    short_side: int = 256
    """Pixels of each image's shorter side."""
    quality: int = Settings.quality
    """JPEG quality."""
    shard_size: int = Settings.shard_size
    """Images in one shard."""
    rounds: int = 3
    """Turns measured of each contender, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Length of a turn, start-up not counted."""
    out: Path = Path("results")
    """Directory for the JSON, and for scratch files, whose file system is part of the measurement."""

    def __post_init__(self) -> None:
        Settings(self.short_side, self.quality, self.shard_size)


@dataclass(frozen=True)
class Conversion:
    """What a worker process does, shard after shard, and where."""

    write: Callable[["Conversion", int, Iterator[Row]], None]
    source: Source
    split: str
    short_side: int | None
    quality: int
    shard_size: int
    scratch: Path
    rows: tuple[int, ...]
    encoding: Encoding = "jpeg"


@dataclass(frozen=True)
class Use:
    """What one turn of a contender used: seconds of start-up, and the most memory of one of its processes."""

    start_up_s: float
    peak_mb: float


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON, which it also writes to options.out.

    Raises UsageError for a source or options that make no sense.
    """
    source = open_source(options.source, [options.split], options.image_column, options.label_column)
    if version("webdataset") is None:
        raise UsageError("the PIL worker writes with webdataset: pip install webdataset")
    options.out.mkdir(parents=True, exist_ok=True)
    used: dict[str, list[Use]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=options.out, prefix="preprocess-") as scratch:
        rows = tuple(permutation(source.num_rows(options.split), 0).tolist())
        clean = tuple(row for row in rows[:CLEAN_AMONG] if _is_clean(source.row(options.split, row)))
        if not clean:
            raise UsageError(f"{options.source} holds no image that --original would keep as it is")
        conversion = Conversion(
            write_ours,
            source,
            options.split,
            options.short_side,
            options.quality,
            options.shard_size,
            Path(scratch),
            rows,
        )
        conversions = {
            PIL: (replace(conversion, write=write_pil), 1),
            OURS: (conversion, 1),
            TWO: (conversion, 2),
            RAW: (replace(conversion, encoding="raw"), 1),
            ORIGINAL: (replace(conversion, short_side=None, rows=clean), 1),
        }
        contenders = [
            Contender(name, functools.partial(_converting, each, processes, used[name]), int, depth=1, stride=processes)
            for name, (each, processes) in conversions.items()
        ]
        schedule = Schedule(options.rounds, options.seconds, warm_up=2)
        intervals = measure(contenders, schedule)
    result = summary(options, schedule, intervals, used, len(rows), len(clean) / len(rows[:CLEAN_AMONG]))
    print(table(result))
    print(f"\nresult {write(result, options.out)}\n")
    print(result.as_json())


def summary(
    options: Options,
    schedule: Schedule,
    intervals: Mapping[str, Sequence[Interval]],
    used: Mapping[str, Sequence[Use]],
    images: int,
    clean: float,
) -> Result:
    """What was measured, as a result: each contender by the clock, and by the processor time of its processes."""
    series = {}
    for name, each in intervals.items():
        kept = used[name][1:]  # the harness discards its first round
        settings: dict[str, Setting] = {
            "start_up_s": round(max(use.start_up_s for use in kept), 2),
            "peak_mb": round(max(use.peak_mb for use in kept)),
        }
        series[name] = Series.of(name, each, settings)
        by_core = tuple(round(1e3 / interval.cpu_ms_per_image, 1) for interval in each)
        series[name + BY_CORE] = Series(name + BY_CORE, by_core, PER_CORE)
    pairs = ((OURS + BY_CORE, PIL + BY_CORE), (OURS, PIL), (TWO, OURS))
    return Result.now(
        "preprocess",
        f"Converting {images:,} images, {clean:.1%} of them clean, to shorter side {options.short_side}, quality "
        f"{options.quality}",
        command_line("preprocess", options),
        list(series.values()),
        schedule=schedule,
        ratios=[Ratio.between(series[of], series[to]) for of, to in pairs],
        settings={
            "short_side": options.short_side,
            "quality": options.quality,
            "images": images,
            "clean": clean,
            "webdataset": version("webdataset"),
        },
    )


def table(result: Result) -> str:
    """The figures in columns: median (least to most) over the turns."""
    rows = [["", PER_CORE, "images/s", "start-up s", "peak MB"]]
    for series in result.series:
        if series.unit != PER_CORE:
            settings = series.settings
            cells = [_cell(result[series.name + BY_CORE]), _cell(series)]
            rows.append([series.name, *cells, f"{settings['start_up_s']:.1f}", f"{settings['peak_mb']:,}"])
    ratios = [
        f"{each.of}: {each.median:.2f} ({each.least:.2f} to {each.most:.2f}) times {each.to}" for each in result.ratios
    ]
    return "\n".join([result.title, circumstances(result), "", *columns(rows), "", *ratios])


def _cell(series: Series) -> str:
    spread = series.spread
    return f"{spread.median:,.0f} ({spread.least:,.0f} to {spread.most:,.0f})"


def _is_clean(row: Row) -> bool:
    from preprocess.images.convert import Reject, convert

    try:
        return convert(row.data, None, Settings.quality).data == row.data
    except Reject:
        return False


def write_ours(to: Conversion, number: int, rows: Iterator[Row]) -> None:
    """Writes one shard as `python -m preprocess` does; images that cannot be used are left out."""
    from preprocess.images.convert import Reject, convert

    def samples() -> Iterator[Sample]:
        for i, row in enumerate(rows):
            with contextlib.suppress(Reject):
                image = convert(row.data, to.short_side, to.quality, to.encoding)
                yield Sample(sample_key(i), image.data, row.label, image.width, image.height)

    write_shard(to.scratch, to.split, number, samples(), to.encoding)


def write_pil(to: Conversion, number: int, rows: Iterator[Row]) -> None:
    """Writes one shard as most scripts do: Pillow from decoding to encoding, webdataset's TarWriter."""
    import webdataset
    from PIL import Image

    from preprocess.images.convert import target_size

    path = to.scratch / f"{to.split}-{number:05d}.tar"
    with webdataset.TarWriter(str(path), encoder=False) as tar:
        for i, row in enumerate(rows):
            image = Image.open(io.BytesIO(row.data)).convert("RGB")
            image = image.resize(target_size(*image.size, to.short_side), Image.Resampling.BILINEAR)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=to.quality)
            tar.write({"__key__": sample_key(i), "jpg": file.getvalue(), "cls": str(row.label).encode()})


@contextlib.contextmanager
def _converting(conversion: Conversion, processes: int, used: list[Use]) -> Iterator[Iterator[int]]:
    """Runs worker processes and gives the images of each of their reports; adds what they used to `used`."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    workers, connections = [], []
    for number in range(processes):
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(conversion, number, processes, there), daemon=True)
        worker.start()
        there.close()
        workers.append(worker)
        connections.append(here)
    start_up = 0.0

    def reports() -> Iterator[int]:
        nonlocal start_up
        starting = set(connections)
        while True:
            for ready in wait(connections):
                assert isinstance(ready, Connection)
                try:
                    images: int = ready.recv()
                except EOFError:
                    raise ShardfeedError("a worker process died: its message is above") from None
                if ready in starting:  # its first images include imports and compiling
                    starting.remove(ready)
                    start_up = time.perf_counter() - started
                else:
                    yield images

    try:
        yield reports()
        used.append(Use(start_up, max(memory_mb("peak", worker.pid or 0) for worker in workers)))
    finally:
        for worker, connection in zip(workers, connections, strict=True):
            worker.kill()
            worker.join()
            connection.close()


def _work(conversion: Conversion, number: int, processes: int, connection: Connection) -> None:
    """Writes shards endlessly, each over the one before, and reports every PIECE images."""
    endless = itertools.cycle(conversion.rows[number::processes])

    def rows() -> Iterator[Row]:
        for row in range(1, conversion.shard_size + 1):
            yield conversion.source.row(conversion.split, next(endless))
            if row % PIECE == 0:
                connection.send(PIECE)

    with contextlib.suppress(BrokenPipeError):
        while True:
            conversion.write(conversion, number, rows())
