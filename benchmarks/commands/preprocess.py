"""python -m benchmarks preprocess --source SOURCE: what converting a data set costs, beside a plain PIL worker.

Each contender does all that a worker of `python -m preprocess` does: reads rows of SOURCE in shuffled order,
converts them, and writes shards to disk, here to a scratch directory that is removed in the end. Contenders take
turns in worker processes of their own. Two figures for each: images/s by the wall clock, over all its processes,
and images/s and core, which is images by the processor time that its processes used; on a machine that does other
things too, trust the second. Starting up is reported apart. Takes about four minutes with the defaults.
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
from preprocess.sources import open_source
from preprocess.sources.source import Row, Source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.versions import version, versions
from shards.format.layout import Encoding, sample_key
from shards.format.manifest import Settings
from shards.format.tar import Sample, write_shard
from shards.sampling.hashing import permutation

PIECE = 50  # images between two reports of a worker
CLEAN_AMONG = 2000  # rows looked at for images whose bytes --original keeps
PIL, OURS, TWO = "PIL worker", "shardfeed", "shardfeed, 2 processes"
RAW, ORIGINAL = "--encoding raw", "--original, clean images"


@dataclass(frozen=True)
class Options:
    """Measures the conversion of a data set to shards, in images/s and core, and a plain PIL worker beside it."""

    source: str
    """Whatever `python -m preprocess` takes; real images, if the figures are to mean something."""
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
    """Directory for the JSON, and for the scratch files while it runs: the file system that is measured."""

    def __post_init__(self) -> None:
        Settings(self.short_side, self.quality, self.shard_size)


@dataclass(frozen=True)
class Work:
    """What a worker process does without end, and where."""

    write: Callable[["Work", int, Iterator[Row]], None]
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
    """What a worker has done since it reported last: images, and seconds of processor time."""

    images: int
    cpu: float


@dataclass(frozen=True)
class Turn:
    """One turn of a contender as its processes saw it. Bytes are the most that any of them had in memory."""

    images: int
    cpu: float
    start_up: float
    peak: int


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON, which it also writes to options.out.

    Raises UsageError for a source or options that make no sense.
    """
    # Here and not above: it loads torch, which the worker processes would then carry about.
    from benchmarks.measure.environment import hardware

    source = open_source(options.source, [options.split], options.image_column, options.label_column)
    if version("webdataset") is None:
        raise UsageError("the PIL worker writes with webdataset: pip install webdataset")
    options.out.mkdir(parents=True, exist_ok=True)
    turns: dict[str, list[Turn]] = defaultdict(list)
    with tempfile.TemporaryDirectory(dir=options.out, prefix="preprocess-") as scratch:
        rows = tuple(permutation(source.num_rows(options.split), 0).tolist())
        clean = tuple(row for row in rows[:CLEAN_AMONG] if _is_clean(source.row(options.split, row)))
        if not clean:
            raise UsageError(f"{options.source} holds no image that --original would keep as it is")
        work = Work(
            write_ours,
            source,
            options.split,
            options.short_side,
            options.quality,
            options.shard_size,
            Path(scratch),
            rows,
        )
        works = {
            PIL: (replace(work, write=write_pil), 1),
            OURS: (work, 1),
            TWO: (work, 2),
            RAW: (replace(work, encoding="raw"), 1),
            ORIGINAL: (replace(work, short_side=None, rows=clean), 1),
        }
        contenders = [
            Contender(
                name,
                functools.partial(_processes, each, processes, turns[name]),
                lambda piece: piece.images,
                depth=1,
                stride=processes,
            )
            for name, (each, processes) in works.items()
        ]
        windows = measure(contenders, Schedule(options.rounds, options.seconds, warm_up=2))
    # The harness throws its first round away, and so do we.
    kept = {name: each[1:] for name, each in turns.items()}
    core = {name: [turn.images / turn.cpu for turn in each] for name, each in kept.items()}
    result: dict[str, Any] = {
        "benchmark": "preprocess",
        "images_per_s": {name: _rounded(throughput(each)) for name, each in windows.items()},
        "images_per_s_and_core": {name: _rounded(Spread.of(each)) for name, each in core.items()},
        "start_up_s": {name: round(max(turn.start_up for turn in each), 2) for name, each in kept.items()},
        "peak_mb": {name: round(max(turn.peak for turn in each) / 1e6) for name, each in kept.items()},
        "ratio_to_pil": _rounded(ratios(windows[PIL], windows[OURS])),
        "ratio_to_pil_by_core": _rounded(
            Spread.of([ours / pil for pil, ours in zip(core[PIL], core[OURS], strict=True)])
        ),
        "two_to_one": _rounded(ratios(windows[OURS], windows[TWO])),
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
    path.write_text(json.dumps(result, indent=2) + "\n")
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


def write_ours(work: Work, number: int, rows: Iterator[Row]) -> None:
    """Writes one shard as `python -m preprocess` does; images that cannot be used are left out."""
    from preprocess.images.convert import Reject, convert

    def samples() -> Iterator[Sample]:
        for place, row in enumerate(rows):
            with contextlib.suppress(Reject):
                image = convert(row.data, work.short_side, work.quality, work.encoding)
                yield Sample(sample_key(place), image.data, row.label, image.width, image.height)

    write_shard(work.scratch, work.split, number, samples(), work.encoding)


def write_pil(work: Work, number: int, rows: Iterator[Row]) -> None:
    """Writes one shard as everybody does first: Pillow from decoding to encoding, webdataset's TarWriter."""
    import webdataset
    from PIL import Image

    from preprocess.images.convert import target_size

    path = work.scratch / f"{work.split}-{number:05d}.tar"
    with webdataset.TarWriter(str(path), encoder=False) as tar:
        for place, row in enumerate(rows):
            image = Image.open(io.BytesIO(row.data)).convert("RGB")
            image = image.resize(target_size(*image.size, work.short_side), Image.Resampling.BILINEAR)
            file = io.BytesIO()
            image.save(file, "JPEG", quality=work.quality)
            tar.write({"__key__": sample_key(place), "jpg": file.getvalue(), "cls": str(row.label).encode()})


@contextlib.contextmanager
def _processes(work: Work, processes: int, turns: list[Turn]) -> Iterator[Iterator[Piece]]:
    """Worker processes at work, as an iterator of what they report; what they came to is added to `turns`."""
    context = multiprocessing.get_context("spawn")
    started = time.perf_counter()
    running = []
    for seat in range(processes):
        here, there = context.Pipe()
        process = context.Process(target=_serve, args=(work, seat, processes, there), daemon=True)
        process.start()
        there.close()
        running.append((process, here))
    connections = [here for _, here in running]
    done = [0, 0.0, 0.0]  # images, seconds of processor time, seconds until all were at work

    def pieces() -> Iterator[Piece]:
        fresh = set(connections)
        while True:
            for ready in wait(connections):
                assert isinstance(ready, Connection)
                try:
                    piece: Piece = ready.recv()
                except EOFError:
                    raise ShardfeedError("a worker process died: its message is above") from None
                if ready in fresh:
                    # The first piece holds imports and compiling.
                    fresh.remove(ready)
                    done[2] = time.perf_counter() - started
                    continue
                done[0] += piece.images
                done[1] += piece.cpu
                yield piece

    try:
        yield pieces()
        peak = max(_peak_memory(process.pid or 0) for process, _ in running)
        turns.append(Turn(int(done[0]), done[1], done[2], peak))
    finally:
        for process, here in running:
            process.kill()
            process.join()
            here.close()


def _serve(work: Work, seat: int, processes: int, connection: Connection) -> None:
    """Writes shard after shard, each in place of the one before, and reports every PIECE images."""
    endless = itertools.cycle(work.rows[seat::processes])
    before = time.process_time()

    def rows() -> Iterator[Row]:
        nonlocal before
        for place in range(work.shard_size):
            yield work.source.row(work.split, next(endless))
            if (place + 1) % PIECE == 0:
                now = time.process_time()
                connection.send(Piece(PIECE, now - before))
                before = now

    with contextlib.suppress(BrokenPipeError):
        while True:
            work.write(work, seat, rows())


def _peak_memory(process: int) -> int:
    """The most bytes of memory that a living process ever had, pages of mapped files included."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ShardfeedError("this system does not say how much memory a process has used")
