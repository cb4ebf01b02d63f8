"""python -m benchmarks stages --data DIR: where the time of a run goes, stage by stage, and what the machine allows.

The ladder puts the loader together rung by rung (benchmarks/ladder/rungs.py), from reading alone to finished batches; each
rung is given in images/s and as a share of its limit, which is measured on the spot (benchmarks/ladder/limits.py): the
disk with a cold and a warm page cache, libjpeg-turbo alone on every core, copying memory, and PCIe where there is a
GPU. Cold reads drop the page cache of the shards alone. About a minute and a half with the defaults.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.ladder.limits import Ceiling, cached_share, disk, drop_pages, jpeg_decode, memory_copy, pcie
from benchmarks.measure.harness import Schedule, Window, measure, throughput
from benchmarks.measure.result import Ratio, Result, Series, write
from benchmarks.measure.settings import command_line, settle
from shards.dataset import choose_split
from shards.sampling.crops import Crop
from shards.sampling.order import Order

if TYPE_CHECKING:
    from benchmarks.ladder.rungs import Work

COLD_SEQUENCE, COLD_RANDOM, WARM = "disk, cold, in sequence", "disk, cold, random", "disk, warm"
BARE, MEMORY, PCIE = "libjpeg-turbo, whole images", "memory copy", "PCIe"


@dataclass(frozen=True)
class Options:
    """Measures the stages of one run, from reading alone to finished batches, and the limits of the machine."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    split: str = "train"
    """The split to read."""
    batch_size: int = 64
    """Images a batch."""
    size: int = 224
    """Side of the output in pixels."""
    resize: int | None = None
    """Shorter side before the crop; in proportion 256 to 224 if not given, at most what is stored."""
    crop: Crop = "random"
    """How images are cropped."""
    order: Order = "global"
    """The order of samples."""
    dtype: Literal["float32", "uint8"] = "float32"
    """float32: normalised; uint8: the pixels."""
    threads: int | None = None
    """Decoding threads; the loader's own default if not given."""
    rounds: int = 3
    """Windows of each rung, after a warm-up round that is not counted."""
    seconds: float = 2.0
    """Length of a window, and of the measurement of a limit."""
    out: Path = Path("results")
    """Directory for the JSON."""


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON, which it also writes to options.out.

    Raises UsageError for options that do not fit the data.
    """
    from benchmarks.ladder.rungs import rungs

    schedule = Schedule(options.rounds, options.seconds)
    split = choose_split(options.data, [options.split])
    work = settle(
        split,
        batch_size=options.batch_size,
        size=options.size,
        resize=options.resize,
        crop=options.crop,
        order=options.order,
        dtype=options.dtype,
        threads=options.threads,
    )
    options.out.mkdir(parents=True, exist_ok=True)  # a wrong path is better known before measuring than after
    skipped: dict[str, str] = {}
    drop_pages(split.shard_paths)
    kept = cached_share(split.shard_paths)
    if kept is None or kept > 0.1:
        reason = "does not tell" if kept is None else f"keeps {kept:.0%} of the shards in memory"
        skipped["cold disk"] = f"the figures called cold may be warm: this file system {reason}"
    limits = {limit.name: limit for limit in ceilings(work)}
    if PCIE not in limits:
        skipped["copy to the GPU, PCIe"] = "torch sees no GPU here"
    # The limits take turns too, so that what disturbs one disturbs all.
    windows = measure([*limits.values(), *rungs(work)], schedule)
    rates = {name: throughput(windows[name]).median for name in limits}
    ladder = [
        Series.of(name, each, {"group": "ladder", "limit": limit_of(name, rates, options.order)})
        for name, each in windows.items()
        if name not in limits
    ]
    settings = {
        "batch_size": work.batch_size,
        "size": work.size,
        "resize": work.resize,
        "crop": work.crop,
        "order": work.order,
        "dtype": work.dtype,
        "threads": work.threads,
        "stored": split.manifest.settings.short_side or "original",
        "encoding": split.manifest.settings.encoding,
        "images": len(split),
        "shards_mb": round(split.info.bytes / 1e6, 1),
    }
    result = Result.now(
        "stages",
        f"The ladder of one run: {work.batch_size} x 3 x {work.size} x {work.size} {work.dtype}, crop {work.crop}, "
        f"{work.threads} threads",
        command_line("stages", options),
        [*ladder, *(_limit_series(name, windows[name]) for name in limits)],
        schedule=schedule,
        settings=settings,
        skipped=skipped,
    )
    print(table(result))
    print(f"\nresult {write(result, options.out)}\n")
    print(json.dumps(asdict(result)))


def ceilings(work: "Work") -> Iterator[Ceiling]:
    """The limits that a ladder on this machine has."""
    import torch  # not at the top: the processes that decode would load it too

    image_bytes = 3 * work.size**2 * (4 if work.dtype == "float32" else 1)
    cores = len(os.sched_getaffinity(0))
    yield Ceiling(COLD_SEQUENCE, partial(disk, work.split, cold=True, order="sequence"))
    yield Ceiling(COLD_RANDOM, partial(disk, work.split, cold=True, order="random"))
    yield Ceiling(WARM, partial(disk, work.split, cold=False, order="random"))
    if not work.raw:
        yield Ceiling(BARE, partial(jpeg_decode, work.split, cores))
    yield Ceiling(MEMORY, partial(memory_copy, image_bytes, cores))
    if torch.cuda.is_available():
        yield Ceiling(PCIE, partial(pcie, image_bytes))


def limit_of(rung: str, rates: Mapping[str, float], order: str) -> str | None:
    """The limit that holds for a rung: the lowest, by `rates` in images/s, of those that its work has to pass."""
    from benchmarks.ladder import rungs

    cold = COLD_SEQUENCE if order == "blocks" else COLD_RANDOM
    passes = {
        rungs.READ_COLD: [cold],
        rungs.READ: [WARM],
        rungs.COPY: [WARM, BARE, MEMORY, PCIE],
        rungs.ON_GPU: [WARM, PCIE],
        rungs.CACHED: [],
    }.get(rung, [WARM, BARE, MEMORY])
    return min((name for name in passes if name in rates), key=lambda name: rates[name], default=None)


def _limit_series(name: str, windows: Sequence[Window]) -> Series:
    values = tuple(round(window.images_per_s, 1) for window in windows)
    return Series(name, values, settings={"group": "limits"})


def table(result: Result) -> str:
    """The rungs with images/s, the time of an image by the clock and by the processor, and the share of the limit."""
    ladder, limits = _group(result, "ladder"), _group(result, "limits")
    lines = [
        result.title,
        "",
        f"{'':<16}{'images/s':>14}{'least to most':>26}{'us':>8}{'core us':>9}   share of the limit",
    ]
    for rung in ladder:
        spread = rung.spread
        limit = rung.settings["limit"]
        share = "" if limit is None else f"{Ratio.between(rung, result[str(limit)]).median:.0%} of {limit}"
        core = sorted(rung.cpu_ms)[len(rung.cpu_ms) // 2] * 1e3 if rung.cpu_ms else 0.0
        lines.append(
            f"{rung.name:<16}{spread.median:>14,.0f}{f'{spread.least:,.0f} to {spread.most:,.0f}':>26}"
            f"{1e6 / spread.median:>8,.1f}{core:>9,.1f}   {share}"
        )
    lines += ["", "limits"]
    lines += [
        f"{limit.name:<26}{limit.spread.median:>14,.0f}{f'{limit.spread.least:,.0f} to {limit.spread.most:,.0f}':>26}"
        for limit in limits
    ]
    lines += [f"not measured: {name}: {reason}" for name, reason in result.skipped.items()]
    return "\n".join(lines)


def _group(result: Result, name: str) -> Sequence[Series]:
    return [series for series in result.series if series.settings.get("group") == name]
