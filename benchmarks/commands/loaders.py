"""python -m benchmarks loaders --data DIR --source SOURCE: this project's loader against others, in turns.

All deliver torch tensors of the same shape, type and recipe, each the way its own documentation recommends, each in a
process of its own (benchmarks/peers/). Always there: the naive path over SOURCE, the data set that the shards were made
from; DALI's own reader and operators; this project's loader. More with --peers:

    folder torchvision webdataset     an image folder with Pillow, or decoded by torchvision; webdataset
    ffcv spdl litdata streaming tfdata     other systems, installed by `python -m benchmarks peers-install`
    turbojpeg                         a limit: libjpeg-turbo decodes in processes, and nothing else
    fast-dct                          this loader with the less exact DCT, which FFCV and tf.data use
    gpu gpu-region gpu-hardware       this loader on a GPU: a CPU decodes, the GPU's cores, its JPEG engines
    gpu-hardware-0.5 -0.8 -0.95       the engines with that share of a batch, as `hw_decoder_load`

or `--peers all`. What cannot be measured is left out and named with the reason; the naive path is, without --source.
Takes about two minutes with the defaults, and a minute more for each peer; what a peer makes of the shards is kept in
--work for the next time.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.measure.harness import Schedule, measure
from benchmarks.measure.result import Ratio, Result, Series, write
from benchmarks.measure.settings import command_line
from benchmarks.peers import naive
from benchmarks.processes.job import Job
from benchmarks.processes.remote import Remote
from benchmarks.processes.roster import BASES, DALI, NAIVE, OURS, ROSTER, Entry
from benchmarks.report import table
from shards import Split
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import choose_split

ALL = "all"
ALWAYS = {NAIVE, DALI, OURS}
TRIAL = 0.1  # seconds of the turn that shows whether a contender works


@dataclass(frozen=True)
class Options:
    """Compares the loader with the naive PIL path over the Hugging Face dataset, with plain DALI, and with others."""

    data: Path
    """Shards, as written by `python -m preprocess`."""
    source: str | None = None
    """The data set they were made from, for the naive path, which is left out if not given: whatever
    `python -m preprocess` takes, made-up images apart."""
    peers: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAMES")] = ()
    """Who else: folder, torchvision, webdataset, streaming, litdata, spdl, tfdata, ffcv, turbojpeg, fast-dct, gpu,
    gpu-region, gpu-hardware, gpu-hardware-0.5, gpu-hardware-0.8, gpu-hardware-0.95; or all."""
    split: str = "train"
    """The split to read, of both."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    batch_size: int = naive.Recipe.batch_size
    """Images a batch."""
    size: int = naive.Recipe.size
    """Side of the crop in pixels."""
    resize: int | None = None
    """Shorter side before the crop; in proportion 256 to 224 if not given, at most what is stored."""
    crop: naive.Crop = naive.Recipe.crop
    """random: Resize and RandomCrop; rrc: RandomResizedCrop."""
    dtype: naive.DType = naive.Recipe.dtype
    """float32: normalised; uint8: the pixels."""
    seed: int = 0
    """Of order, crops and flips."""
    rounds: int = Schedule.rounds
    """Windows measured of each, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Length of a window."""
    threads: int | None = None
    """Threads of those that have threads; a core each if not given, and one more where DALI decodes."""
    workers: int | None = None
    """Processes of those that have processes; one a core if not given."""
    sweep: tuple[int, ...] = ()
    """Numbers of threads or processes to try for each; the one with the most images/s in one turn is measured."""
    work: Path | None = None
    """Directory for the peers' own formats of these images, kept for the next time; a temporary one if not given."""
    out: Path = Path("results")
    """Directory for the chart and the JSON."""


def run(options: Options) -> None:
    """Measures, prints the table and, as the last line, the JSON; writes the result and its charts to options.out.

    Raises UsageError for data or options that do not fit together.
    """
    from benchmarks.report.charts import png
    from benchmarks.report.pictures import charts

    result = compare(options)
    path = write(result, options.out)
    chart = path.with_suffix(".png")
    png(charts(result)[0], chart, table.setting(result))
    print(table.text(result))
    print(f"\nchart  {chart}\nresult {path}\n")
    print(json.dumps({**summary(result), "chart": str(chart), "result": str(path)}))


def summary(result: Result) -> dict[str, Any]:
    """The figures that programs ask for most, in one flat dictionary."""
    figures: dict[str, Any] = {"benchmark": result.benchmark, "date": result.date}
    for name, entry in (("naive", NAIVE), ("loader", OURS)):
        if ROSTER[entry].title not in result.skipped:
            figures[f"{name}_images_per_s"] = result[ROSTER[entry].title].spread.median
    for ratio in result.ratios:
        if (ratio.of, ratio.to) == (ROSTER[OURS].title, ROSTER[NAIVE].title):
            figures |= {"ratio": ratio.median, "ratio_min": ratio.least, "ratio_max": ratio.most}
    return figures


def compare(options: Options) -> Result:
    """Measures. Raises UsageError for data or options that do not fit together."""
    schedule = Schedule(options.rounds, options.seconds)
    split = choose_split(options.data, [options.split])
    recipe = _recipe(options, split)
    names = _names(options.peers)
    options.out.mkdir(parents=True, exist_ok=True)  # a wrong path is better known before measuring than after
    skipped: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-")))
        jobs = _Jobs(options, recipe, work, raw=split.manifest.settings.encoding == "raw")
        contenders: dict[str, Remote] = {}
        try:
            for name in names:
                entry = ROSTER[name]
                reason = entry.absence(split.manifest.settings.encoding)
                if name == NAIVE and options.source is None:
                    reason = "it reads the originals: give --source"
                try:
                    if reason is None:
                        contenders[name] = stack.enter_context(jobs.started(entry))
                except ShardfeedError as error:
                    if name in ALWAYS:
                        raise
                    reason = str(error).removeprefix(f"{entry.title}: ")
                if reason is not None:
                    skipped[entry.title] = reason
            windows = measure(list(contenders.values()), schedule)
        finally:
            for each in contenders.values():
                each.stop()  # all at once, before any is waited for: to end takes seconds
        series = [Series.of(each.name, windows[each.name], each.settings) for each in contenders.values()]
    by_name = dict(zip(contenders, series, strict=True))
    ratios = [Ratio.between(by_name[OURS], by_name[base]) for base in BASES if base in by_name]
    return Result.now(
        "loaders",
        title(recipe, split),
        command_line("loaders", options),
        series,
        schedule=schedule,
        ratios=ratios,
        skipped=skipped,
        settings={
            **dataclasses.asdict(recipe),
            "row": row_name(recipe, split),
            "stored": split.manifest.settings.short_side,
            "encoding": split.manifest.settings.encoding,
            "images": len(split),
        },
    )


def row_name(recipe: naive.Recipe, split: Split) -> str:
    """What is stored, cropped and delivered, in a few words."""
    stored = split.manifest.settings
    size = "original" if stored.short_side is None else f"{stored.short_side}-px"
    kind = "raw" if stored.encoding == "raw" else "JPEG"
    return f"{size} {kind}, {recipe.crop}, {recipe.dtype}"


def title(recipe: naive.Recipe, split: Split) -> str:
    """One line: what was delivered, and from what."""
    return f"{recipe.batch_size} x 3 x {recipe.size} x {recipe.size} a batch: {row_name(recipe, split)}"


@dataclass(frozen=True)
class _Jobs:
    """Starts contenders with the number of threads that they are to have."""

    options: Options
    recipe: naive.Recipe
    work: Path
    raw: bool
    """Whether pixels are stored."""

    def started(self, entry: Entry) -> Remote:
        """A contender, ready and tried; with the best of the numbers of threads to try, if there are any."""
        threads = self._threads(entry)
        if self.options.sweep:
            threads = max(self.options.sweep, key=lambda each: self._speed(entry, each))
        remote = entry.start(self._job(entry, threads))
        try:
            remote.turn(Schedule(seconds=TRIAL))
        except BaseException:
            remote.close()
            raise
        return remote

    def _speed(self, entry: Entry, threads: int) -> float:
        """Images/s in one turn, after one that warms up; 0 for a number that it refuses."""
        try:
            with entry.start(self._job(entry, threads)) as remote:
                remote.turn(Schedule(seconds=TRIAL))
                return remote.turn(Schedule(seconds=self.options.seconds)).images_per_s
        except ShardfeedError:  # FFCV, for one, takes no more threads than there are cores
            return 0.0

    def _job(self, entry: Entry, threads: int) -> Job:
        options = self.options
        return Job(
            data=str(options.data),
            split=options.split,
            source=options.source or "",
            image_column=options.image_column,
            label_column=options.label_column,
            work=str(self.work),
            recipe=self.recipe,
            threads=threads,
            options=entry.options,
        )

    def _threads(self, entry: Entry) -> int:
        from shards.loader import default_threads

        cores = len(os.sched_getaffinity(0))
        if entry.processes:
            return cores if self.options.workers is None else self.options.workers
        if self.options.threads is not None:
            return self.options.threads
        return cores if entry.environment else default_threads(self.raw)


def _names(peers: tuple[str, ...]) -> list[str]:
    """Whom to measure, in the order of the roster. Raises UsageError for names that it does not hold."""
    unknown = set(peers) - ROSTER.keys() - {ALL}
    if unknown:
        raise UsageError(f"no peer {', '.join(sorted(unknown))}: choose from {', '.join(ROSTER)}, {ALL}")
    chosen = ALWAYS | (ROSTER.keys() if ALL in peers else set(peers))
    return [name for name in ROSTER if name in chosen]


def _recipe(options: Options, split: Split) -> naive.Recipe:
    """What a batch is. Raises UsageError for what does not fit the split."""
    stored = split.manifest.settings.short_side
    resize = options.resize
    if resize is None:
        resize = round(options.size * naive.Recipe.resize / naive.Recipe.size)
        resize = resize if stored is None else min(resize, stored)
    few = [each for each in (options.threads, *options.sweep) if each is not None and each < 1]
    if options.batch_size < 1 or few or (options.workers or 0) < 0:
        raise UsageError("the batch size and the number of threads must be at least 1, the number of workers 0 or more")
    if not 1 <= options.size <= resize:
        raise UsageError(f"a crop of {options.size} pixels does not fit into a shorter side of {resize}")
    if len(split) < options.batch_size:
        raise UsageError(
            f"{options.data}: {split.name} holds {len(split)} images, less than a batch of {options.batch_size}"
        )
    return naive.Recipe(options.batch_size, resize, options.size, options.dtype, options.seed, options.crop)
