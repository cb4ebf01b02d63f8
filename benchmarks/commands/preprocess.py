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
import json
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from benchmarks.measure.harness import Contender, Schedule, Spread, measure, ratios, throughput
from benchmarks.measure.machine import hardware, memory_mb
from preprocess.sources import open_source
from preprocess.sources.row import Row
from preprocess.sources.source import Source
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError, UsageError
from shards.common.versions import version, versions
from shards.format.layout import Encoding, sample_key
from shards.format.manifest import Settings
from shards.format.tar import Sample, write_shard
from shards.sampling.hashing import permutation

PIECE = 50  # images between two reports of a worker
CLEAN_AMONG = 2000  # rows searched for images whose bytes --original keeps
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
class Piece:
    """What a worker did since its last report: images, and seconds of processor time."""

    images: int
    cpu: float


@dataclass(frozen=True)
class Use:
    """What one turn of a contender used: seconds of processor time, seconds of start-up, memory of one process."""

    images: int
    cpu: float
    start_up: float
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
            Contender(
                name,
                functools.partial(_converting, each, processes, used[name]),
                lambda piece: piece.images,
                depth=1,
                stride=processes,
            )
            for name, (each, processes) in conversions.items()
        ]
        intervals = measure(contenders, Schedule(options.rounds, options.seconds, warm_up=2))
    kept = {name: each[1:] for name, each in used.items()}  # the harness discards its first round
    core = {name: [use.images / use.cpu for use in each] for name, each in kept.items()}
    result: dict[str, Any] = {
        "benchmark": "preprocess",
        "images_per_s": {name: _rounded(throughput(each)) for name, each in intervals.items()},
        "images_per_s_and_core": {name: _rounded(Spread.of(each)) for name, each in core.items()},
        "start_up_s": {name: round(max(use.start_up for use in each), 2) for name, each in kept.items()},
        "peak_mb": {name: round(max(use.peak_mb for use in each)) for name, each in kept.items()},
        "ratio_to_pil": _rounded(ratios(intervals[PIL], intervals[OURS])),
        "ratio_to_pil_by_core": _rounded(
            Spread.of([ours / pil for pil, ours in zip(core[PIL], core[OURS], strict=True)])
        ),
        "two_to_one": _rounded(ratios(intervals[OURS], intervals[TWO])),
        "short_side": options.short_side,
        "quality": options.quality,
        "clean": len(clean) / len(rows[:CLEAN_AMONG]),
        "images": source.num_rows(options.split),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "versions": {**versions(), "simplejpeg": version("simplejpeg")},
        "hardware": hardware(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path = options.out / f"preprocess-{result['date'][:19].replace(':', '')}.json"
    with replacing(path) as file:
        file.write((json.dumps(result, indent=2) + "\n").encode())
    print(table(result))
    print(f"\nresult {path}\n")
    print(json.dumps(result))


def table(result: Mapping[str, Any]) -> str:
    """The figures of a result in columns: median (least to most) over the turns."""
    machine = result["hardware"]
    first = (
        f"shorter side {result['short_side']}, quality {result['quality']}; {result['images']:,} images, "
        f"{result['clean']:.1%} of them clean; {machine['cpu']}, {machine['cores']} cores; "
        f"{result['rounds']} rounds in turns of {result['seconds']:g} s; {result['date'][:10]}"
    )
    lines = [
        first,
        "",
        f"{'':<24}{'images/s and core':>24}{'images/s':>24}{'start-up s':>12}{'peak MB':>9}",
    ]
    for name, core in result["images_per_s_and_core"].items():
        lines.append(
            f"{name:<24}{_spread(core, ',.0f'):>24}{_spread(result['images_per_s'][name], ',.0f'):>24}"
            f"{result['start_up_s'][name]:>12.1f}{result['peak_mb'][name]:>9,.0f}"
        )
    for name, key in (
        ("times the PIL worker, by processor time", "ratio_to_pil_by_core"),
        ("times the PIL worker, by the clock", "ratio_to_pil"),
        ("two processes to one, by the clock", "two_to_one"),
    ):
        lines.append(f"{name:<48}{_spread(result[key], '.2f'):>24}")
    return "\n".join(lines)


def _rounded(spread: Spread) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(spread).items()}


def _spread(spread: Mapping[str, float], form: str) -> str:
    return f"{spread['median']:{form}} ({spread['least']:{form}} to {spread['most']:{form}})"


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
def _converting(conversion: Conversion, processes: int, used: list[Use]) -> Iterator[Iterator[Piece]]:
    """Runs worker processes and gives what they report; adds what they used to `used`."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    workers, connections = [], []
    for number in range(processes):
        here, there = context.Pipe()
        worker = context.Process(target=_work, args=(conversion, number, processes, there), daemon=True)
        worker.start()
        there.close()
        workers.append(worker)
        connections.append(here)
    images, cpu, start_up = 0, 0.0, 0.0

    def pieces() -> Iterator[Piece]:
        nonlocal images, cpu, start_up
        starting = set(connections)
        while True:
            for ready in wait(connections):
                assert isinstance(ready, Connection)
                try:
                    piece: Piece = ready.recv()
                except EOFError:
                    raise ShardfeedError("a worker process died: its message is above") from None
                if ready in starting:  # its first piece includes imports and compiling
                    starting.remove(ready)
                    start_up = time.perf_counter() - started
                    continue
                images += piece.images
                cpu += piece.cpu
                yield piece

    try:
        yield pieces()
        used.append(Use(images, cpu, start_up, max(memory_mb("peak", worker.pid or 0) for worker in workers)))
    finally:
        for worker, connection in zip(workers, connections, strict=True):
            worker.kill()
            worker.join()
            connection.close()


def _work(conversion: Conversion, number: int, processes: int, connection: Connection) -> None:
    """Writes shards endlessly, each over the one before, and reports every PIECE images."""
    endless = itertools.cycle(conversion.rows[number::processes])
    before = time.process_time()

    def rows() -> Iterator[Row]:
        nonlocal before
        for row in range(1, conversion.shard_size + 1):
            yield conversion.source.row(conversion.split, next(endless))
            if row % PIECE == 0:
                now = time.process_time()
                connection.send(Piece(PIECE, now - before))
                before = now

    with contextlib.suppress(BrokenPipeError):
        while True:
            conversion.write(conversion, number, rows())
