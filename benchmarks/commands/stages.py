"""python -m benchmarks stages --data DIR: where the time of a run goes, stage by stage, and what the machine allows.

Puts the loader together stage by stage (benchmarks/stages/ladder.py), from reading alone to finished batches. Each
stage is given in images/s and as a share of its limit, which is measured beside it (benchmarks/stages/limits.py): the
disk with a cold and a warm page cache, libjpeg-turbo alone on every core, copying memory, and PCIe where there is a
GPU. Cold reads drop the page cache of the shards alone. About a minute and a half with the defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure.harness import Schedule, Spread, measure
from benchmarks.measure.result import Ratio, Result, Series, write
from benchmarks.measure.settings import BatchSpec, DType, batch_spec, command_line, loader_settings
from benchmarks.report.table import columns
from benchmarks.stages.limits import cached_share, drop_pages
from shards.dataset import Split, choose_split
from shards.sampling.crops import Crop
from shards.sampling.order import Order

LADDER, LIMITS = "ladder", "limits"


@dataclass(frozen=True)
class Options:
    """Measures the stages of one run, from reading alone to finished batches, and the limits of the machine."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    split: str = "train"
    """The split to read."""
    batch_size: int = BatchSpec.batch_size
    """Images a batch."""
    size: int = BatchSpec.size
    """Side of the output in pixels."""
    resize: int | None = None
    """Shorter side before the crop; in proportion 256 to 224 if not given, at most what is stored."""
    crop: Crop = "random"
    """How images are cropped."""
    order: Order = "global"
    """The order of samples."""
    dtype: DType = BatchSpec.dtype
    """float32: normalised; uint8: the pixels."""
    threads: int | None = None
    """Decoding threads; the loader's own default if not given."""
    rounds: int = 3
    """Measuring intervals of each stage, after a warm-up round that is not counted."""
    seconds: float = 2.0
    """Length of a measuring interval."""
    out: Path = Path("results")
    """Directory for the JSON."""


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON, which it also writes to options.out.

    Raises UsageError for options that do not fit the data.
    """
    from benchmarks.stages import ladder

    schedule = Schedule(options.rounds, options.seconds)
    split = choose_split(options.data, [options.split])
    batch = batch_spec(
        split,
        batch_size=options.batch_size,
        size=options.size,
        resize=options.resize,
        crop=options.crop,
        dtype=options.dtype,
    )
    settings = loader_settings(split, batch, options.order, options.threads)
    options.out.mkdir(parents=True, exist_ok=True)  # fail on a wrong path before measuring, not after
    skipped = _cold_or_not(split)
    limits, stages = ladder.machine_limits(settings), ladder.stages(settings)
    if ladder.PCIE not in limits:
        skipped["copy to the GPU, PCIe"] = "torch sees no GPU here"
    # Limits and stages take turns, so that noise of the machine hits both.
    intervals = measure([*limits.values(), *stages.values()], schedule)
    limits_measured = [Series.of(name, intervals[name], {"group": LIMITS}) for name in limits]
    rates = {series.name: series.spread.median for series in limits_measured}
    limit_of = {name: ladder.limit_of(name, rates, options.order) for name in stages}
    result = Result.now(
        "stages",
        f"The stages of one run: {batch.batch_size} x 3 x {batch.size} x {batch.size} {batch.dtype}, "
        f"crop {batch.crop}, {settings.threads} threads",
        command_line("stages", options),
        [
            *(Series.of(name, intervals[name], {"group": LADDER, "limit": limit_of[name]}) for name in stages),
            *limits_measured,
        ],
        schedule=schedule,
        settings={
            "batch_size": batch.batch_size,
            "size": batch.size,
            "resize": batch.resize,
            "crop": batch.crop,
            "order": options.order,
            "dtype": batch.dtype,
            "threads": settings.threads,
            "stored": split.manifest.settings.short_side or "original",
            "encoding": split.manifest.settings.encoding,
            "images": len(split),
            "shards_mb": round(split.info.bytes / 1e6, 1),
        },
        skipped=skipped,
    )
    print(table(result))
    print(f"\nresult {write(result, options.out)}\n")
    print(result.as_json())


def _cold_or_not(split: Split) -> dict[str, str]:
    """What to say where dropping the page cache does not make the next read cold."""
    drop_pages(split.shard_paths)
    kept = cached_share(split.shard_paths)
    if kept is not None and kept <= 0.1:
        return {}
    reason = "does not tell" if kept is None else f"keeps {kept:.0%} of the shards in memory"
    return {"cold disk": f"the figures called cold may be warm: this file system {reason}"}


def table(result: Result) -> str:
    """Each stage: images/s, the time of an image by the clock and by the processor, and the share of its limit."""
    stages = [["", "images/s", "least to most", "us", "core us", "share of the limit"]]
    for stage in _group(result, LADDER):
        limit = stage.settings["limit"]
        share = "" if limit is None else f"{Ratio.between(stage, result[str(limit)]).median:.0%} of {limit}"
        core = f"{1e3 * Spread.of(stage.cpu_ms).median:,.1f}"
        stages.append([stage.name, *_rates(stage), f"{1e6 / stage.spread.median:,.1f}", core, share])
    limits = [["limits", "images/s", "least to most"]]
    limits += [[each.name, *_rates(each)] for each in _group(result, LIMITS)]
    lines = [result.title, "", *columns(stages, left=(0, 5)), "", *columns(limits)]
    return "\n".join([*lines, *(f"not measured: {name}: {reason}" for name, reason in result.skipped.items())])


def _rates(series: Series) -> tuple[str, str]:
    spread = series.spread
    return f"{spread.median:,.0f}", f"{spread.least:,.0f} to {spread.most:,.0f}"


def _group(result: Result, name: str) -> Sequence[Series]:
    return [series for series in result.series if series.settings.get("group") == name]
