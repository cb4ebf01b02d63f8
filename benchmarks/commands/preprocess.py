"""python -m benchmarks preprocess --source SOURCE: what converting a data set costs, beside a plain PIL worker.

Each contender does what a worker of `python -m preprocess` does: it reads rows of SOURCE in shuffled order, converts
them, and writes shards to disk, here to a scratch directory that is removed at the end. Contenders take turns in worker
processes of their own. Two figures for each: images/s by the clock, over all its processes, and images/s and core,
which divides by the processor time of its processes; on a machine with other work to do, trust the second. Takes about
four minutes with the defaults.
"""

import contextlib
import functools
import io
import itertools
import multiprocessing
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

from benchmarks.measure.harness import Contender, Interval, Schedule, measure
from benchmarks.measure.machine import memory_mb
from benchmarks.measure.result import Ratio, Result, Series
from benchmarks.measure.settings import command_line
from benchmarks.report.table import show
from preprocess.sources import open_source
from preprocess.sources.source import Row, Source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.versions import version
from shards.format.layout import sample_key
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
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON, and for scratch files, whose file system is part of the measurement."""

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> Settings:
        """What is written. Raises UsageError for values that make no sense."""
        return Settings(self.short_side, self.quality, self.shard_size)


@dataclass(frozen=True)
class Conversion:
    """What a worker process does, shard after shard, and where."""

    write: Callable[["Conversion", int, Iterator[Row]], None]
    source: Source
    split: str
    settings: Settings
    scratch: Path
    rows: tuple[int, ...]


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result to options.out.

    Raises UsageError for a source or options that make no sense.
    """
    source = open_source(options.source, [options.split], options.image_column, options.label_column)
    if version("webdataset") is None:
        raise UsageError("the PIL worker writes with webdataset: pip install webdataset")
    options.out.mkdir(parents=True, exist_ok=True)
    peaks: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=options.out, prefix="preprocess-") as scratch:
        rows = tuple(permutation(source.num_rows(options.split), 0).tolist())
        clean = tuple(row for row in rows[:CLEAN_AMONG] if _is_clean(source.row(options.split, row)))
        if not clean:
            raise UsageError(f"{options.source} holds no image that `preprocess --original` would keep as it is")
        settings = options.settings()
        ours = Conversion(write_ours, source, options.split, settings, Path(scratch), rows)
        conversions = {
            PIL: replace(ours, write=write_pil),
            OURS: ours,
            TWO: ours,
            RAW: replace(ours, settings=replace(settings, encoding="raw")),
            ORIGINAL: replace(ours, settings=replace(settings, short_side=None), rows=clean),
        }
        contenders = []
        for name, each in conversions.items():
            processes = 2 if name == TWO else 1
            convert = functools.partial(_converting, each, processes, peaks[name])
            contenders.append(Contender(name, convert, int, depth=1, stride=processes))
        schedule = Schedule(options.rounds, options.seconds, warm_up=2)
        intervals = measure(contenders, schedule)
    # The harness discards its first round.
    memory = {name: each[1:] for name, each in peaks.items()}
    show(summary(options, schedule, intervals, memory, len(rows), len(clean) / len(rows[:CLEAN_AMONG])), options.out)


def summary(
    options: Options,
    schedule: Schedule,
    intervals: Mapping[str, Sequence[Interval]],
    peaks: Mapping[str, Sequence[float]],
    images: int,
    clean: float,
) -> Result:
    """What was measured, as a result: speed by the clock and by processor time, and the peak memory of a process."""
    series = {name: Series.of(name, each) for name, each in intervals.items()}
    for name, each in intervals.items():
        by_core = tuple(round(1e3 / interval.cpu_ms_per_image, 1) for interval in each)
        series[name + BY_CORE] = Series(name + BY_CORE, by_core, PER_CORE)
    memory = [Series(f"{name}, peak memory", tuple(map(round, peaks[name])), "MB") for name in intervals]
    pairs = ((OURS + BY_CORE, PIL + BY_CORE), (OURS, PIL), (TWO, OURS))
    return Result.now(
        "preprocess",
        f"Converting {images:,} images, {clean:.1%} of them clean, to shorter side {options.short_side}, quality "
        f"{options.quality}",
        command_line("preprocess", options),
        [*series.values(), *memory],
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
                image = convert(row.data, to.settings.short_side, to.settings.quality, to.settings.encoding)
                yield Sample(sample_key(i), image.data, row.label, image.width, image.height)

    write_shard(to.scratch, to.split, number, samples(), to.settings.encoding)


def write_pil(to: Conversion, number: int, rows: Iterator[Row]) -> None:
    """Writes one shard as most scripts do: Pillow from decoding to encoding, webdataset's TarWriter."""
    import webdataset
    from PIL import Image

    from preprocess.images.convert import target_size

    path = to.scratch / f"{to.split}-{number:05d}.tar"
    with webdataset.TarWriter(str(path), encoder=False) as tar:
        for i, row in enumerate(rows):
            image = Image.open(io.BytesIO(row.data)).convert("RGB")
            image = image.resize(target_size(*image.size, to.settings.short_side), Image.Resampling.BILINEAR)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=to.settings.quality)
            tar.write({"__key__": sample_key(i), "jpg": file.getvalue(), "cls": str(row.label).encode()})


@contextlib.contextmanager
def _converting(conversion: Conversion, processes: int, peaks: list[float]) -> Iterator[Iterator[int]]:
    """Runs worker processes, gives the images of each of their reports, and adds the peak memory in MB to `peaks`."""
    context = multiprocessing.get_context("spawn")
    workers, connections = [], []
    for number in range(processes):
        here, there = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(conversion, number, processes, there), daemon=True)
        worker.start()
        there.close()
        workers.append(worker)
        connections.append(here)

    def reports() -> Iterator[int]:
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
                else:
                    yield images

    try:
        yield reports()
        peaks.append(max(memory_mb("peak", worker.pid or 0) for worker in workers))
    finally:
        for worker, connection in zip(workers, connections, strict=True):
            worker.kill()
            worker.join()
            connection.close()


def _work(conversion: Conversion, number: int, processes: int, connection: Connection) -> None:
    """Writes shards endlessly, each over the one before, and reports every PIECE images."""
    endless = itertools.cycle(conversion.rows[number::processes])

    def rows() -> Iterator[Row]:
        for row in range(1, conversion.settings.shard_size + 1):
            yield conversion.source.row(conversion.split, next(endless))
            if row % PIECE == 0:
                connection.send(PIECE)

    with contextlib.suppress(BrokenPipeError):
        while True:
            conversion.write(conversion, number, rows())
