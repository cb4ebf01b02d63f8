"""python -m benchmarks stages --data DIR: where the time of a run goes, stage by stage, and what the machine allows.

Puts the loader together stage by stage (benchmarks/stages/ladder.py), from reading alone to finished batches. Each
stage is given in images/s and as a share of its limit, which is measured beside it (benchmarks/stages/limits.py): the
disk in sequence, libjpeg-turbo alone on every core, copying memory, and PCIe where there is a GPU. About two minutes
with the defaults.
"""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure.harness import Schedule
from benchmarks.measure.result import Result, Series
from benchmarks.measure.settings import BatchSpec, DType, batch_spec, command_line, loader_settings
from benchmarks.report.table import show
from benchmarks.stages.ladder import COPY, READ, READ_COLD, ladder
from shards.dataset import choose_split
from shards.sampling.crops import Crop
from shards.sampling.order import Order


@dataclass(frozen=True)
class Options:
    """Measures the stages of one run, from reading alone to finished batches, and the limits of the machine."""

    data: Path
    """Shards with a split `train`, as written by `python -m preprocess`."""
    batch_size: int = BatchSpec.batch_size
    """Images a batch."""
    size: int = BatchSpec.size
    """Side of the output in pixels."""
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
    out: Path = Path("Results/benchmarks")
    """Directory for the JSON."""


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result to options.out.

    Raises UsageError for options that do not fit the data.
    """
    schedule = Schedule(options.rounds, options.seconds)
    split = choose_split(options.data, ["train"])
    batch = batch_spec(split, batch_size=options.batch_size, size=options.size, crop=options.crop, dtype=options.dtype)
    settings = loader_settings(split, batch, options.order, options.threads)
    options.out.mkdir(parents=True, exist_ok=True)  # fail on a wrong path before measuring, not after
    series = ladder(settings, schedule)
    result = Result.now(
        "stages",
        f"The stages of one run: {batch.batch_size} x 3 x {batch.size} x {batch.size} {batch.dtype}, "
        f"crop {batch.crop}, {settings.threads} threads",
        command_line("stages", options),
        series,
        schedule=schedule,
        settings={
            "resize": batch.resize,
            "order": options.order,
            "threads": settings.threads,
            "stored": split.manifest.settings.short_side or "original",
            "encoding": split.manifest.settings.encoding,
            "images": len(split),
            "shards_mb": round(split.info.bytes / 1e6, 1),
        },
        skipped=not_measured(series),
    )
    show(result, options.out)


def not_measured(series: list[Series]) -> dict[str, str]:
    """What these series leave out, or cannot show, each with the reason."""
    speeds = {each.name: each.spread.median for each in series}
    reasons = {}
    if COPY not in speeds:
        reasons["copy to the GPU, PCIe"] = "torch sees no GPU here"
    if speeds[READ_COLD] > 0.9 * speeds[READ]:
        reasons["cold disk"] = "reading cold is as fast as warm: this file system may keep the shards in memory"
    return reasons
