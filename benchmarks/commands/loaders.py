"""python -m benchmarks loaders --data DIR --source SOURCE: this project's loader against others, in turns.

All deliver torch tensors of the same shape, type and crop, each the way its own documentation recommends, each in a
process of its own (benchmarks/peers/). Always measured: the naive path over SOURCE, the data set that the shards were
made from; DALI's own reader and operators; this project's loader. More with --peers:

    folder torchvision torchcodec     an image folder with Pillow, or decoded by torchvision or torchcodec
    timm webdataset                   timm's loader; webdataset
    ffcv spdl litdata streaming tfdata     other systems; these and torchcodec: `python -m benchmarks peers-install`
    turbojpeg                         a limit: libjpeg-turbo decodes on every core, and nothing else is done
    fast-dct                          this loader with the less exact DCT, which FFCV and tf.data use
    gpu gpu-region gpu-hardware       this loader on a GPU: a CPU decodes, the GPU's cores, its JPEG engines,
    gpu-hybrid                        or cores and engines share the regions
    gpu-hardware-0.5 -0.8 -0.95       the engines with that share of a batch, as `hw_decoder_load`
    gpu-lent                          as gpu, but batches are lent and not copied; dali-gpu: plain DALI on a GPU

or `--peers all`. A peer that cannot be measured is left out and named with the reason; so is the naive path without
--source. Takes about two minutes with the defaults, and a minute more for each peer; the peers' own formats of the
images stay in --work for the next time.

With --views simclr (or another preset of shards/sampling/presets.py) batches hold all views of each image, and
others are measured: this loader with one decode for all views, also on a GPU, this loader once a view, and a DataLoader
with torchvision's transforms on PIL images of the stored files. --no-colour leaves crops and flips.

--reads disk empties the page cache of all files before each turn, which ends with the first epoch; --reads http puts
the shards behind a web server on this machine, and empties the loaders' caches of them.
"""

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.measure.harness import Intervals, Schedule, measure
from benchmarks.measure.progress import watched
from benchmarks.measure.result import Ratio, Result, ResultFile, Series, write
from benchmarks.measure.settings import BatchSpec, DType, batch_spec, command_line
from benchmarks.peers.roster import BASES, DALI, NAIVE, OURS, ROSTER, VIEW_BASES, VIEWS, Entry
from benchmarks.processes.process import Ended, Hangs, PeerProcess
from benchmarks.processes.task import PeerTask, Reads
from benchmarks.processes.web import served
from benchmarks.report import table
from benchmarks.rows.start import best_of
from shards import Split
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import usable_cores
from shards.dataset import choose_split

ALL = "all"
ALWAYS = {NAIVE, DALI, OURS}
FAILED = "failed: "  # how the reason begins why a peer that should have been measured is not there


@dataclass(frozen=True)
class Options:
    """Compares the loader with the naive PIL path over the Hugging Face dataset, with plain DALI, and with others."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    source: str | None = None
    """The data set they were made from, for the naive path, which is left out without it: anything that
    `python -m preprocess` takes, made-up images apart."""
    peers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAMES")] = ()
    """More peers: folder, torchvision, torchcodec, timm, webdataset, streaming, litdata, spdl, tfdata, ffcv, turbojpeg,
    fast-dct, gpu, gpu-region, gpu-hybrid, gpu-hardware, gpu-lent, dali-gpu, gpu-hardware-0.5, gpu-hardware-0.8,
    gpu-hardware-0.95; or all."""
    split: str = "train"
    """The split to read, of the shards and of SOURCE."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    batch_size: int = BatchSpec.batch_size
    """Images a batch."""
    size: int = BatchSpec.size
    """Side of the crop in pixels."""
    resize: int | None = None
    """Shorter side before the crop; in proportion 256 to 224 if not given, at most what is stored."""
    crop: Literal["random", "rrc"] = "random"
    """random: Resize and RandomCrop; rrc: RandomResizedCrop."""
    views: Literal["none", "simclr", "mocov3", "dino", "swav", "mae"] = "none"
    """Measure all views of a method of self-supervised learning, in place of single images."""
    colour: bool = True
    """With --views: changes colours too, not only crops and flips."""
    reads: Reads = "memory"
    """Where data come from in each turn: memory, the page cache, from the turns before; disk, with nothing in the page
    cache; http, a web server on this machine, with an empty cache."""
    dtype: DType = BatchSpec.dtype
    """float32: normalised; uint8: the pixels."""
    seed: int = 0
    """Of order, crops and flips."""
    rounds: int = Schedule.rounds
    """Measuring intervals of each, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Length of a measuring interval."""
    threads: int | None = None
    """Threads of peers that have threads; one per core if not given, and one more where DALI decodes."""
    workers: int | None = None
    """Processes of peers that have worker processes; one per core if not given."""
    sweep: tuple[int, ...] = ()
    """Numbers of threads or processes to try for each; the one with the most images/s in one turn is measured."""
    work: Path | None = None
    """Directory for the peers' own formats of these images, kept for the next time; a temporary one if not given."""
    out: Path = Path("Results/benchmarks")
    """Directory for the chart and the JSON."""

    def __post_init__(self) -> None:
        if min((1 if self.threads is None else self.threads, *self.sweep)) < 1 or (self.workers or 0) < 0:
            raise UsageError("--threads and --sweep must be 1 or more, --workers 0 or more")
        _names(self.peers)
        Schedule(self.rounds, self.seconds)


def run(options: Options) -> None:
    """Measures, prints the table, and writes the result and its chart to options.out.

    Raises UsageError for data or options that do not fit together.
    """
    from benchmarks.report.charts import charts
    from benchmarks.report.draw import panels

    result = compare(options)
    path = write(result, options.out)  # over what was kept meanwhile
    chart = path.with_suffix(".png")
    panels(charts(result), chart, table.circumstances(result))
    print(table.text(result))
    print(f"\nchart  {chart}\nresult {path}")
    show_result({**summary(result), "chart": chart, "result": path})
    if failed := failures(result):
        raise ShardfeedError(f"{', '.join(failed)} failed, as the table says; the others are in {path}")


def failures(result: Result) -> list[str]:
    """Who failed, unlike those that cannot be measured here."""
    return [title for title, reason in result.skipped.items() if reason.startswith(FAILED)]


def summary(result: Result) -> dict[str, Any]:
    """The figures that programs ask for most, in one flat dictionary."""
    ours, naive = ROSTER[OURS].title, ROSTER[NAIVE].title
    figures: dict[str, Any] = {"benchmark": result.benchmark, "date": result.date}
    for name, title in (("naive", naive), ("loader", ours)):
        if title in {series.name for series in result.series}:
            figures[f"{name}_images_per_s"] = result[title].spread.median
    if "views" in result.settings:
        figures |= {series.name: series.spread.median for series in result.series}
    for ratio in result.ratios:
        if (ratio.of, ratio.to) == (ours, naive):
            figures |= {"ratio": ratio.median, "ratio_min": ratio.least, "ratio_max": ratio.most}
    return figures


def compare(options: Options) -> Result:
    """Measures, and keeps what it has measured in a file of options.out. A peer that fails is left out.

    Raises UsageError for data or options that do not fit together, ShardfeedError where no peer is left.
    """
    schedule, entries = Schedule(options.rounds, options.seconds), _entries(options)
    split = choose_split(options.data, [options.split])
    batch, stored = _batch(options, split), split.manifest.settings
    skipped: dict[str, str] = {}
    peers: dict[str, PeerProcess] = {}
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(ResultFile(options.out))
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        data = str(options.data)
        if options.reads == "http":
            data = stack.enter_context(served(options.data))
        for name in watched(list(entries), lambda name: f"starting {name}", "peer"):
            entry, always = entries[name], name in ALWAYS | VIEWS.keys()
            reason = entry.absence(stored.encoding, batch, options.reads, split.manifest.indexed)
            if name == NAIVE and options.source is None:
                reason = "it reads the originals: give --source"
            if reason is None:
                try:
                    peer = started(entry, options, data, batch, work, stored.encoding == "raw")
                    peers[name] = stack.enter_context(peer)
                except UsageError as error:
                    if always:
                        raise  # SOURCE is not that of the shards, for example
                    reason = str(error).removeprefix(f"{entry.title}: ")
                except ShardfeedError as error:
                    failed = always or isinstance(error, Hangs | Ended)
                    reason = (FAILED if failed else "") + str(error).removeprefix(f"{entry.title}: ")
            if reason is not None:
                skipped[entry.title] = reason
                if reason.startswith(FAILED):  # a mistyped --source, which the table would say minutes later
                    print(f"{entry.title} {reason}; the others go on", file=sys.stderr)

        def result(intervals: Intervals) -> Result:
            return _result(options, schedule, split, batch, peers, intervals, skipped)

        lost: dict[str, str] = {}
        intervals = measure(list(peers.values()), schedule, keep=lambda found: file.keep(result(found)), failed=lost)
        skipped |= {title: FAILED + reason.removeprefix(f"{title}: ") for title, reason in lost.items()}
        return file.dated(result(intervals))


def _entries(options: Options) -> dict[str, Entry]:
    """The peers to measure, in the order of the roster. Raises UsageError for options that do not fit together."""
    if options.views == "none":
        return {name: ROSTER[name] for name in _names(options.peers)}
    if options.peers or options.source:
        raise UsageError("--views measures peers of its own: leave out --peers and --source")
    own = {"views": options.views, "colour": options.colour}
    return {name: replace(entry, options={**entry.options, **own}) for name, entry in VIEWS.items()}


def _result(
    options: Options,
    schedule: Schedule,
    split: Split,
    batch: BatchSpec,
    peers: Mapping[str, PeerProcess],
    intervals: Intervals,
    skipped: Mapping[str, str],
) -> Result:
    """What was measured of those that have `intervals`."""
    there = {name: each for name, each in peers.items() if each.name in intervals}
    series = {name: Series.of(each.name, intervals[each.name], each.settings) for name, each in there.items()}
    bases = BASES if options.views == "none" else VIEW_BASES
    row, stored = row_name(options, batch, split), split.manifest.settings
    return Result.now(
        "loaders",
        f"{batch.batch_size} x 3 x {batch.size} x {batch.size} a batch: {row}",
        command_line("loaders", options),
        list(series.values()),
        schedule=schedule,
        ratios=[Ratio.between(series[OURS], series[base]) for base in bases if {OURS, base} <= series.keys()],
        skipped=skipped,
        settings={
            **asdict(batch),
            "row": row,
            "stored": stored.short_side,
            "encoding": stored.encoding,
            "images": len(split),
            **({"sweep": ", ".join(map(str, options.sweep))} if options.sweep else {}),
            **({"views": options.views, "colour": options.colour} if options.views != "none" else {}),
            **({"reads": options.reads} if options.reads != "memory" else {}),
            **({"tars": True} if split.manifest.indexed else {}),
        },
    )


def row_name(options: Options, batch: BatchSpec, split: Split) -> str:
    """What is stored, cropped and delivered, in a few words."""
    stored = split.manifest.settings
    size = "original" if stored.short_side is None else f"{stored.short_side}-px"
    kind = "raw" if stored.encoding == "raw" else "JPEG in tars of others" if split.manifest.indexed else "JPEG"
    crop = batch.crop if options.views == "none" else f"{options.views} views"
    plain = "" if options.colour else " without colour"
    reads = {"memory": "", "disk": ", cold disk", "http": ", HTTP"}[options.reads]
    return f"{size} {kind}, {crop}{plain}, {batch.dtype}{reads}"


def started(entry: Entry, options: Options, data: str, batch: BatchSpec, work: Path, raw: bool) -> PeerProcess:
    """The process of a peer, with the best of --sweep. Raises ShardfeedError if it cannot work."""

    def task(threads: int) -> PeerTask:
        return PeerTask(
            data=data,
            split=options.split,
            source=options.source or "",
            image_column=options.image_column,
            label_column=options.label_column,
            work=str(work),
            batch=batch,
            threads=threads,
            reads=options.reads,
            options=entry.options,
        )

    if options.sweep:
        return best_of(entry, task, options.sweep, options.seconds)
    return entry.start(task(_threads(entry, options, raw)))


def _threads(entry: Entry, options: Options, raw: bool) -> int:
    """Threads or worker processes: by default one a core, and our loader's own number where DALI decodes."""
    from shards.defaults import default_threads  # brings torch and DALI, for which --help need not wait

    wanted = options.workers if entry.processes else options.threads
    if wanted is not None:
        return wanted
    return usable_cores() if entry.processes or entry.environment else default_threads(raw)


def _names(peers: tuple[str, ...]) -> list[str]:
    """The peers to measure, in the order of the roster. Raises UsageError for names that it does not hold."""
    unknown = set(peers) - ROSTER.keys() - {ALL}
    if unknown:
        raise UsageError(f"no peer {', '.join(sorted(unknown))}: choose from {', '.join(ROSTER)}, {ALL}")
    chosen = ALWAYS | (ROSTER.keys() if ALL in peers else set(peers))
    return [name for name in ROSTER if name in chosen]


def _batch(options: Options, split: Split) -> BatchSpec:
    """What a batch is. Raises UsageError for options that do not fit to the split."""
    fields = ("batch_size", "size", "resize", "crop", "dtype", "seed")
    return batch_spec(split, **{name: getattr(options, name) for name in fields})
