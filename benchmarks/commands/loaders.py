"""python -m benchmarks loaders --data DIR --source SOURCE: this project's loader against others, in turns.

All deliver torch tensors of the same shape, type and crop, each the way its own documentation recommends, each in a
process of its own (benchmarks/peers/). Always measured: the naive path over SOURCE, the data set that the shards were
made from; DALI's own reader and operators; this project's loader. More with --peers:

    folder torchvision webdataset     an image folder with Pillow, or decoded by torchvision; webdataset
    ffcv spdl litdata streaming tfdata     other systems, installed by `python -m benchmarks peers-install`
    turbojpeg                         a limit: libjpeg-turbo decodes on every core, and nothing else is done
    fast-dct                          this loader with the less exact DCT, which FFCV and tf.data use
    gpu gpu-region gpu-hardware       this loader on a GPU: a CPU decodes, the GPU's cores, its JPEG engines,
    gpu-hybrid                        or cores and engines share the regions
    gpu-hardware-0.5 -0.8 -0.95       the engines with that share of a batch, as `hw_decoder_load`
    gpu-lent                          as gpu, but batches are lent and not copied; dali-gpu: plain DALI on a GPU

or `--peers all`. A peer that cannot be measured is left out and named with the reason; so is the naive path without
--source. Takes about two minutes with the defaults, and a minute more for each peer; the peers' own formats of the
images stay in --work for the next time.

With --views simclr (or another preset of shards/sampling/presets.py) batches hold all views of each image, and three
others are measured: this loader with one decode for all views, this loader once a view, and a DataLoader with
torchvision's transforms on PIL images of the stored files. --no-colour leaves crops and flips.
"""

import contextlib
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from benchmarks.measure.harness import Intervals, Schedule, measure
from benchmarks.measure.progress import note, watched
from benchmarks.measure.result import Ratio, Result, ResultFile, Series, Setting, write
from benchmarks.measure.settings import BatchSpec, DType, batch_spec, command_line
from benchmarks.peers.roster import BASES, DALI, NAIVE, OURS, ROSTER, VIEWS, Entry
from benchmarks.processes.process import PeerProcess
from benchmarks.processes.task import PeerTask
from benchmarks.report import table
from shards import Split
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import usable_cores
from shards.dataset import choose_split

ALL = "all"
ALWAYS = {NAIVE, DALI, OURS}
# Seconds of a turn before the one of --sweep that counts.
TRIAL = 0.2
FAILED = "failed: "  # how the reason begins why a peer that should have been measured is not there

# Peers that read the tars of others, or none at all.
READ_TARS = frozenset({"shardfeed", "naive"})


@dataclass(frozen=True)
class Options:
    """Compares the loader with the naive PIL path over the Hugging Face dataset, with plain DALI, and with others."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    source: str | None = None
    """The data set they were made from, for the naive path, which is left out without it: anything that
    `python -m preprocess` takes, made-up images apart."""
    peers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAMES")] = ()
    """More peers: folder, torchvision, webdataset, streaming, litdata, spdl, tfdata, ffcv, turbojpeg, fast-dct, gpu,
    gpu-region, gpu-hybrid, gpu-hardware, gpu-lent, dali-gpu, gpu-hardware-0.5, gpu-hardware-0.8, gpu-hardware-0.95; or
    all."""
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
    """For --views: also change colours, not only crop and flip."""
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
            raise UsageError("the number of threads must be at least 1, the number of workers 0 or more")
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
    if result.benchmark == "views":
        figures |= {series.name: series.spread.median for series in result.series}
    for ratio in result.ratios:
        if (ratio.of, ratio.to) == (ours, naive):
            figures |= {"ratio": ratio.median, "ratio_min": ratio.least, "ratio_max": ratio.most}
    return figures


def compare(options: Options) -> Result:
    """Measures, and keeps what it has measured in a file of options.out. A peer that fails is left out.

    Raises UsageError for data or options that do not fit together, ShardfeedError where no peer is left.
    """
    schedule, names = Schedule(options.rounds, options.seconds), _names(options.peers)
    split = choose_split(options.data, [options.split])
    if options.views != "none":
        return compare_views(options, split, schedule)
    batch = _batch(options, split)
    stored = split.manifest.settings
    skipped: dict[str, str] = {}
    peers: dict[str, PeerProcess] = {}
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(ResultFile(options.out))
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        for name in watched(names, lambda name: f"starting {name}", "peer"):
            entry = ROSTER[name]
            reason = entry.absence(stored.encoding)
            if split.manifest.indexed and entry.module not in READ_TARS:
                reason = "reads shards that a conversion made, and not tars of others"
            if name == NAIVE and options.source is None:
                reason = "it reads the originals: give --source"
            if reason is None:
                try:
                    peers[name] = stack.enter_context(started(entry, options, batch, work, stored.encoding == "raw"))
                except UsageError as error:
                    if name in ALWAYS:
                        raise  # SOURCE is not that of the shards, for example
                    reason = str(error).removeprefix(f"{entry.title}: ")
                except ShardfeedError as error:
                    reason = (FAILED if name in ALWAYS else "") + str(error).removeprefix(f"{entry.title}: ")
            if reason is not None:
                skipped[entry.title] = reason

        def result(intervals: Intervals) -> Result:
            return _result(options, schedule, split, batch, peers, intervals, skipped)

        failed: dict[str, str] = {}
        intervals = measure(list(peers.values()), schedule, keep=lambda found: file.keep(result(found)), failed=failed)
        skipped |= {title: FAILED + reason.removeprefix(f"{title}: ") for title, reason in failed.items()}
        return file.dated(result(intervals))


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
    row, stored = row_name(batch, split), split.manifest.settings
    return Result.now(
        "loaders",
        f"{batch.batch_size} x 3 x {batch.size} x {batch.size} a batch: {row}",
        command_line("loaders", options),
        list(series.values()),
        schedule=schedule,
        ratios=[Ratio.between(series[OURS], series[base]) for base in BASES if {OURS, base} <= series.keys()],
        skipped=skipped,
        settings={
            **asdict(batch),
            "row": row,
            "stored": stored.short_side,
            "encoding": stored.encoding,
            "images": len(split),
            **({"sweep": ", ".join(map(str, options.sweep))} if options.sweep else {}),
        },
    )


def compare_views(options: Options, split: Split, schedule: Schedule) -> Result:
    """Measures the views of a method. Raises UsageError for options that do not fit together."""
    if options.peers or options.source or options.sweep:
        raise UsageError("--views measures peers of its own: leave out --peers, --source and --sweep")
    batch, raw = _batch(options, split), split.manifest.settings.encoding == "raw"
    chosen: dict[str, Setting] = {"views": options.views, "colour": options.colour}
    options.out.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        peers = {}
        for name in watched(list(VIEWS), lambda name: f"starting {name}", "peer"):
            entry = replace(VIEWS[name], options={**VIEWS[name].options, **chosen})
            peers[name] = stack.enter_context(started(entry, options, batch, work, raw))
        intervals = measure(list(peers.values()), schedule)
    once, *others = (Series.of(each.name, intervals[each.name], each.settings) for each in peers.values())
    row = f"{row_name(batch, split).split(',')[0]}, {options.views} views{'' if options.colour else ' without colour'}"
    return Result.now(
        "views",
        f"all views of {batch.batch_size} images a batch: {row}, {batch.dtype}",
        command_line("loaders", options),
        [once, *others],
        schedule=schedule,
        ratios=[Ratio.between(once, other) for other in others],
        settings={**asdict(batch), **chosen, "row": row, "images": len(split)},
    )


def row_name(batch: BatchSpec, split: Split) -> str:
    """What is stored, cropped and delivered, in a few words."""
    stored = split.manifest.settings
    size = "original" if stored.short_side is None else f"{stored.short_side}-px"
    kind = "raw" if stored.encoding == "raw" else "JPEG"
    return f"{size} {kind}, {batch.crop}, {batch.dtype}"


def thread_counts() -> tuple[int, ...]:
    """Numbers of threads to try: half of the cores, as many, one more, as this loader takes, and twice as many."""
    cores = usable_cores()
    return tuple(sorted({max(1, cores // 2), cores, cores + 1, 2 * cores}))


def started(entry: Entry, options: Options, batch: BatchSpec, work: Path, raw: bool) -> PeerProcess:
    """The process of a peer, with the best of --sweep. Raises ShardfeedError if it cannot work."""

    def speed(threads: int) -> float:
        """Images/s in one turn; 0 for a number of threads that the peer refuses, as FFCV refuses more than cores."""
        note(f"{entry.title}: trying {threads} {'processes' if entry.processes else 'threads'}")
        try:
            with entry.start(_task(entry, options, batch, work, threads)) as process:
                process.turn(Schedule(seconds=TRIAL))
                return process.turn(Schedule(seconds=options.seconds)).images_per_s
        except ShardfeedError:
            return 0.0

    threads = max(options.sweep, key=speed) if options.sweep else _threads(entry, options, raw)
    return entry.start(_task(entry, options, batch, work, threads))


def _threads(entry: Entry, options: Options, raw: bool) -> int:
    """Threads or worker processes: by default one a core, and our loader's own number where DALI decodes."""
    from shards.defaults import default_threads  # brings torch and DALI, for which --help need not wait

    wanted = options.workers if entry.processes else options.threads
    if wanted is not None:
        return wanted
    return usable_cores() if entry.processes or entry.environment else default_threads(raw)


def _task(entry: Entry, options: Options, batch: BatchSpec, work: Path, threads: int) -> PeerTask:
    return PeerTask(
        data=str(options.data),
        split=options.split,
        source=options.source or "",
        image_column=options.image_column,
        label_column=options.label_column,
        work=str(work),
        batch=batch,
        threads=threads,
        options=entry.options,
    )


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
