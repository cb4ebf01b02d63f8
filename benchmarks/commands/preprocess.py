"""python -m benchmarks preprocess --source SOURCE: what converting a data set costs, beside a plain PIL worker.

Each contender does what a worker of `python -m preprocess` does: it reads rows of SOURCE in shuffled order, converts
them, and writes shards to disk, here to a scratch directory that is removed at the end. Contenders take turns in worker
processes of their own. Two figures for each: images/s by the clock, over all its processes, and images/s and core,
which divides by the processor time of its processes; on a machine with other work to do, trust the second. Takes about
five minutes with the defaults.
"""

import contextlib
import functools
import io
import itertools
import multiprocessing
import tempfile
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.measure.harness import Contender, Interval, Intervals, Schedule, measure
from benchmarks.measure.machine import memory_mb
from benchmarks.measure.result import Ratio, Result, ResultFile, Series
from benchmarks.measure.settings import command_line
from benchmarks.report.table import show
from preprocess.sources import open_source
from preprocess.sources.source import Row, Source
from shards.common.errors import ShardfeedError
from shards.common.versions import version
from shards.format.layout import sample_key
from shards.format.manifest import Settings
from shards.format.tar import Sample, write_shard
from shards.sampling.hashing import permutation

BY_CORE, PER_CORE = ", by processor time", "images/s and core"
PIL, OURS, TWO = "PIL worker", "shardfeed", "shardfeed, 2 processes"
RAW, ORIGINAL = "--encoding raw", "--original"


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
    """Least length of a turn, which writes whole shards; start-up is not counted."""
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON, and for scratch files, whose file system is part of the measurement."""

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> Settings:
        """What is written. Raises UsageError for values that make no sense."""
        return Settings(self.short_side, self.quality, self.shard_size)


@dataclass(frozen=True)
class Conversion:
    """What a worker process does with the source's rows, shard after shard, and where."""

    write: Callable[["Conversion", int, Iterator[Row]], None]
    source: Source
    split: str
    settings: Settings
    scratch: Path
    rows: npt.NDArray[np.int64]
    processes: int = 1


_conversion: Conversion  # of a worker process


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result to options.out.

    Raises UsageError for a source or options that make no sense.
    """
    source = open_source(options.source, [options.split], options.image_column, options.label_column)
    peaks: dict[str, list[float]] = defaultdict(list)
    with ResultFile(options.out) as file, tempfile.TemporaryDirectory(dir=options.out, prefix="preprocess-") as scratch:
        rows, settings = permutation(source.num_rows(options.split), 0), options.settings()
        ours = Conversion(write_ours, source, options.split, settings, Path(scratch), rows)
        conversions = {
            PIL: replace(ours, write=write_pil),
            OURS: ours,
            TWO: replace(ours, processes=2),
            RAW: replace(ours, settings=replace(settings, encoding="raw")),
            ORIGINAL: replace(ours, settings=replace(settings, short_side=None)),
        }
        contenders = [
            Contender(name, functools.partial(_converting, each, peaks[name]), int, depth=1, stride=each.processes)
            for name, each in conversions.items()
        ]
        schedule = Schedule(options.rounds, options.seconds, warm_up=1)
        failed: dict[str, str] = {}

        def result(intervals: Intervals) -> Result:
            # The harness discards its first round.
            memory = {name: peaks[name][1:][: len(each)] for name, each in intervals.items()}
            return summary(options, schedule, intervals, memory, len(rows), failed)

        intervals = measure(contenders, schedule, keep=lambda found: file.keep(result(found)), failed=failed)
        whole = file.dated(result(intervals))
    show(whole, options.out)
    if failed:
        raise ShardfeedError(f"{', '.join(failed)} failed, as the table says")


def summary(
    options: Options,
    schedule: Schedule,
    intervals: Mapping[str, Sequence[Interval]],
    peaks: Mapping[str, Sequence[float]],
    images: int,
    failed: Mapping[str, str],
) -> Result:
    """What was measured, as a result: speed by the clock and by processor time, and the peak memory of a process."""
    series = {name: Series.of(name, each) for name, each in intervals.items()}
    for name, each in intervals.items():
        by_core = tuple(round(1e3 / interval.cpu_ms_per_image, 1) for interval in each)
        series[name + BY_CORE] = Series(name + BY_CORE, by_core, PER_CORE)
    memory = [Series(f"{name}, peak memory", tuple(map(round, peaks[name])), "MB") for name in intervals]
    pairs = ((OURS + BY_CORE, PIL + BY_CORE), (OURS, PIL), (TWO, OURS))
    short_side, quality = options.short_side, options.quality
    return Result.now(
        "preprocess",
        f"Converting {images:,} images to shorter side {short_side}, quality {quality}",
        command_line("preprocess", options),
        [*series.values(), *memory],
        schedule=schedule,
        ratios=[Ratio.between(series[of], series[to]) for of, to in pairs if {of, to} <= series.keys()],
        skipped=failed,
        settings={
            "short_side": short_side,
            "quality": quality,
            "images": images,
            "webdataset": version("webdataset"),
        },
    )


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
def _converting(conversion: Conversion, peaks: list[float]) -> Iterator[Iterator[int]]:
    """Worker processes write shards: the images of each, endlessly. Adds a process's peak memory in MB to `peaks`."""
    found, spawn = [0.0], multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(conversion.processes, spawn, initializer=_begin, initargs=(conversion,)) as pool:

        def counts() -> Iterator[int]:
            running: deque[Future[float]] = deque()
            for number in itertools.count():
                running.append(pool.submit(_write, number))
                if number >= conversion.processes:
                    found.append(running.popleft().result())
                    yield conversion.settings.shard_size

        try:
            yield counts()
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()  # the executor would wait for the shard that it writes
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    peaks.append(max(found))


def _begin(conversion: Conversion) -> None:
    """Tells this worker process what it converts."""
    global _conversion
    _conversion = conversion


def _write(number: int) -> float:
    """Writes one shard over an earlier one that is done; returns the peak memory of this process in MB."""
    to = _conversion
    first = number * to.settings.shard_size
    rows = to.rows[np.arange(first, first + to.settings.shard_size) % len(to.rows)].tolist()
    to.write(to, number % 4, (to.source.row(to.split, row) for row in rows))
    return memory_mb("peak")
