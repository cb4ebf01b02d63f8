"""python -m benchmarks stages --data DIR: where the time of a run goes, stage by stage, and what the machine allows.

Puts the loader together stage by stage (benchmarks/stages/ladder.py), from reading alone to finished batches. Each
stage is given in images/s and as a share of its limit, which is measured beside it (benchmarks/stages/limits.py): the
disk in sequence, libjpeg-turbo alone on every core, and PCIe where there is a GPU. About a minute with the defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure.harness import Schedule
from benchmarks.measure.result import Result, ResultFile, Series, Setting
from benchmarks.measure.settings import BatchSpec, DType, LoaderSettings, batch_spec, command_line
from benchmarks.report.table import number, show
from benchmarks.stages.names import LOADER, READ, READ_COLD
from shards.common.terminal import counted
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
    schedule, split = Schedule(options.rounds, options.seconds), choose_split(options.data, ["train"])
    batch = batch_spec(split, batch_size=options.batch_size, size=options.size, crop=options.crop, dtype=options.dtype)
    settings, stored = LoaderSettings(split, batch, options.order, options.threads), split.manifest.settings
    title = (
        f"The stages of one run: {batch.batch_size} x 3 x {batch.size} x {batch.size} {batch.dtype}, "
        f"crop {batch.crop}, {counted(settings.threads, 'thread')}"
    )
    from benchmarks.stages.ladder import ladder  # brings torch and DALI, for which a wrong path need not wait

    about: dict[str, Setting] = {"resize": batch.resize, "order": options.order, "threads": settings.threads}
    about |= {"stored": stored.short_side or "original", "encoding": stored.encoding, "images": len(split)}
    about["shards_mb"] = round(split.info.bytes / 1e6, 1)
    import torch

    skipped = {} if torch.cuda.is_available() else {"copy to the GPU": "torch sees no GPU here"}

    def result(series: Sequence[Series], findings: Sequence[str] = ()) -> Result:
        command = command_line("stages", options)
        return Result.now(
            "stages", title, command, series, schedule=schedule, settings=about, skipped=skipped, findings=findings
        )

    with ResultFile(options.out) as file:
        series = ladder(settings, schedule, keep=lambda found: file.keep(result(found)))
        whole = file.dated(result(series, remarks(series)))
    show(whole, options.out)


def remarks(series: Sequence[Series]) -> list[str]:
    """What has to be known to read these figures."""
    speeds = {each.name: each.spread.median for each in series}
    limits = {each.name: speeds[str(each.settings["limit"])] for each in series if "limit" in each.settings}
    told = [f"The loader gives {number(speeds[LOADER])} images/s, {speeds[LOADER] / limits[LOADER]:.0%} of its limit."]
    if speeds[READ_COLD] > 0.9 * speeds[READ]:
        told.append("Reading cold is as fast as warm: this file system may keep the shards in memory.")
    faster = [name for name, limit in limits.items() if speeds[name] > limit]
    if faster:
        told.append(
            f"More than 100% of the limit ({', '.join(faster)}): the limits are of whole images, of which the loader "
            "needs the crop window; and the machine does not give each turn the same."
        )
    return told
