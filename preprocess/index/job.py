"""The whole indexing job: looks at the tars, reads each in a task of its own, and writes the manifest last."""

import contextlib
import errno
import os
import shutil
import sys
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from preprocess.index.finish import finish, finished, reject_entries
from preprocess.index.options import Options
from preprocess.index.scan import UNLABELLED, Rules
from preprocess.index.tar_job import TarJob, TarResult, Task, listed_samples
from preprocess.job.make import TooManyRejects, check_rejects
from preprocess.job.slices import locked
from preprocess.job.summary import contents, print_next
from preprocess.job.workers import Progress, ProgressBar, default_workers, run_tasks
from shards.common.atomic import refuse_unwritable
from shards.common.cli import show_result
from shards.common.errors import Cancelled, ShardfeedError, UsageError
from shards.common.signals import StoppedBySignal, stopped_by_signals
from shards.common.terminal import counted
from shards.dataset.open import is_a_split
from shards.format.layout import MANIFEST, REJECTS
from shards.format.manifest import Manifest
from shards.indexed.find import beside, in_cache
from shards.indexed.labels import JSON, Label
from shards.indexed.source import INFO, Source, open_source
from shards.remote.cache import Cache, cache_home
from shards.remote.urls import is_url

WORK = ".indexing"
# Tars that are read at once behind a URL: requests wait most of the time.
STREAMS = 32
SHOWN = 10  # lines about tars that the end prints of a split
# Where more images are cleaned than this, a conversion is the better way.
ODD_SHARE = 0.1
MOSTLY_ODD = "; that many are better converted (`python -m preprocess`): smaller, and faster to load"


class NoSample(ShardfeedError):
    """No tar holds a sample that can be used."""


def index(options: Options) -> None:
    """Indexes the tars that the options name, goes on where a killed run stopped, or finds them indexed; prints it.

    Raises UsageError for a source that holds no tars, or options that do not fit it, ShardfeedError where the job
    cannot go on, TooManyRejects for more than --max-rejects; tars that were read are not read again. Raises
    ShardfeedError too, at the end, for tars that are damaged or cut off.
    """
    began = time.monotonic()
    with stopped_by_signals():
        _check_source(options)
        source = open_source(options.source)
        out = _out(options)
        names = None if options.class_names is None else _class_names(options.class_names)
        rules = _rules(options, source, names)
        with _failures(out), locked(out / WORK):
            job = TarJob.of(source, rules, out / WORK)
            complete = finished(job, out)
            if complete is not None:
                shutil.rmtree(out / WORK, ignore_errors=True)
                print(f"{out} is complete already: {contents(complete)}")
                _print_end(options, out, complete)
                return
            results = _read_all(job, source, options.workers or default_workers())
            if not any(result.samples + result.cleaned for result in results):
                raise NoSample(f"no tar of {options.source} holds a sample: {_why(job, results)}")
            _check_rejects(options, source, job, out, results)
            classes = 1 + max(result.largest_label for result in results)
            manifest = finish(job, source, out, results, names or tuple(map(str, range(classes))))
            manifest.write(out)
            shutil.rmtree(out / WORK, ignore_errors=True)
    _report(options, source, out, manifest, results, time.monotonic() - began)


def _check_source(options: Options) -> None:
    """Raises UsageError for a directory that holds another data set, and for a URL to write to."""
    if options.to is not None and is_url(str(options.to)):
        raise UsageError(f"--to {options.to}: the index is written on this machine, give a directory")
    for place in [options.source, *([] if options.to is None else [str(options.to)])]:
        held = not is_url(place) and (Path(place) / MANIFEST).is_file()
        if held and not Manifest.read(place).indexed:
            raise UsageError(f"{place} is a data set already, which needs no index: use it as it is")
        if not held and not is_url(place) and is_a_split(Path(place)):
            whole = Path(place).parent
            raise UsageError(
                f"{place} is one split of the data set in {whole}, which needs no index: use that as it is"
            )


def _out(options: Options) -> Path:
    """The directory for the index. Makes it."""
    if options.to is not None:
        out = Path(options.to).expanduser().absolute()
        refuse_unwritable("--to", out, directory=True)
    else:
        here = beside(options.source)
        writable = here is not None and os.access(here if here.is_dir() else here.parent, os.W_OK)
        if here is not None and writable:
            out = here
        else:
            Cache().claim()
            out = in_cache(options.source, cache_home())
    out.mkdir(parents=True, exist_ok=True)
    return out


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--class-names {path} cannot be read: {error}") from None
    if not names:
        raise UsageError(f"--class-names {path} holds no names: one a line")
    return names


def _rules(options: Options, source: Source, names: tuple[str, ...] | None) -> Rules:
    fields = {hint.alt_label for hint in source.hints.values() if hint.alt_label}
    label = None if options.label is None else Label.parse(options.label)
    if label is None and len(fields) == 1:
        label = Label(JSON, fields.pop())
    return Rules(options.images, label, names, whole=not source.remote)


def _read_all(job: TarJob, source: Source, workers: int) -> list[TarResult]:
    """The results of all tars, in order."""
    tasks = [(split, number) for split, tars in source.splits.items() for number in range(len(tars))]
    results: dict[Task, TarResult] = {}
    with ProgressBar(_expected(source)) as bar:
        if source.remote:
            running = _in_threads(job, tasks, bar.advance)
        else:
            running = run_tasks(job.run, tasks, workers, bar.advance)
        with contextlib.closing(running):
            for result in running:
                results[result.split, result.number] = result
    return [results[task] for task in tasks]


def _in_threads(job: TarJob, tasks: Sequence[Task], progress: Progress) -> Generator[TarResult, None, None]:
    """Threads of this process, which wait for a store most of the time."""
    stop, lock = threading.Event(), threading.Lock()

    def together(*more: int) -> None:
        with lock:
            progress(*more)

    with ThreadPoolExecutor(min(STREAMS, len(tasks))) as threads:
        try:
            futures = [threads.submit(job.run, task, together, stop) for task in tasks]
            for future in as_completed(futures):
                yield future.result()
        finally:
            stop.set()
            threads.shutdown(cancel_futures=True)


def _expected(source: Source) -> int | None:
    """How many samples there should be, by `_info.json` or DALI's indices, for the bar; None where nobody says."""
    numbers = [hint.num_samples for hint in source.hints.values()]
    if not numbers and not source.remote:
        tars = [tar for each in source.splits.values() for tar in each]
        numbers = [listed_samples(Path(source.directory) / tar.name) for tar in tars]
    known = [number for number in numbers if number is not None]
    return sum(known) if known and len(known) == len(numbers) else None


@contextlib.contextmanager
def _failures(out: Path) -> Iterator[None]:
    """Adds to what stops the job that the tars that were read are kept."""
    again = "the same command, started again, goes on with the tars that are left"
    try:
        yield
    except (UsageError, TooManyRejects, NoSample):
        raise  # the same command would fail in the same way
    except Cancelled:
        raise ShardfeedError(f"stopped; {again}") from None
    except ShardfeedError as error:
        raise ShardfeedError(f"{error}; {again}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ShardfeedError(f"there is no space left for {out}: free some; {again}") from None
    except (KeyboardInterrupt, StoppedBySignal):
        print(f"stopped; {again}", file=sys.stderr)
        raise


def _check_rejects(options: Options, source: Source, job: TarJob, out: Path, results: Sequence[TarResult]) -> None:
    """Raises TooManyRejects as a conversion does. Splits none of whose samples has a label, as of tests, are let be."""
    for split in source.splits:
        done = [result for result in results if result.split == split]
        rejects = list(reject_entries(job, source, done))
        rows = sum(result.samples + result.cleaned for result in done) + len(rejects)
        if len(rejects) == rows and all(each.reason.startswith(UNLABELLED) for each in rejects):
            continue
        check_rejects(out, split, rejects, rows, options.max_rejects, "mend the tars")


def _why(job: TarJob, results: Sequence[TarResult]) -> str:
    """What is wrong with the first tar or sample."""
    for result in results:
        if result.rejects:
            key, reason = job.rejects((result.split, result.number))[0]
            return f"{key}: {reason}"
        if result.notes:
            return f"{job.splits[result.split][result.number].name}: {result.notes[0]}"
    return "they are empty"


def _report(
    options: Options, source: Source, out: Path, manifest: Manifest, results: Sequence[TarResult], seconds: float
) -> None:
    for split, info in manifest.splits.items():
        tars, cleaned = source.splits[split], sum(result.cleaned for result in results if result.split == split)
        size = sum(shard.bytes for shard in info.shards[len(tars) :])
        print(f"{split}: {counted(info.samples, 'sample')} in {counted(len(tars), 'tar')}")
        print(f"  kinds    {', '.join(f'{kind} {count:,}' for kind, count in info.kinds.items())}")
        if cleaned:
            advice = MOSTLY_ODD if cleaned > info.samples * ODD_SHARE else ""
            print(f"  cleaned  {cleaned:,}, stored as pixels: {size / 1e6:,.1f} MB{advice}")
        if info.rejects:
            print(f"  rejects  {info.rejects:,}: see {out / split / REJECTS}")
        lines = [f"{tars[each.number].name}: {note}" for each in results if each.split == split for note in each.notes]
        hint, found = source.hints.get(split), info.samples + info.rejects
        if hint is not None and hint.num_samples not in (None, found):
            lines.append(f"{INFO} says {hint.num_samples:,} samples of {split}, and {found:,} were found")
        for line in lines[:SHOWN]:
            print(line, file=sys.stderr)
        if len(lines) > SHOWN:
            print(f"{len(lines) - SHOWN:,} more such lines are in {out / split / REJECTS}", file=sys.stderr)
    rate = sum(info.samples for info in manifest.splits.values()) / seconds
    print(f"the index is in {out}; {seconds:,.1f} s, {rate:,.0f} samples/s")
    _print_end(options, out, manifest)
    if bad := [source.splits[each.split][each.number].name for each in results if each.damaged]:
        raise ShardfeedError(
            f"{counted(len(bad), 'tar')} of {len(results):,} cannot be read to the end: {bad[0]}"
            f"{', ...' if len(bad) > 1 else ''}; the samples before that are in the index. Copy or unpack such tars "
            "again, and start the same command again"
        )


def _print_end(options: Options, out: Path, manifest: Manifest) -> None:
    print_next(options.to or options.source, manifest)
    splits = {name: {"samples": info.samples, "rejects": info.rejects} for name, info in manifest.splits.items()}
    show_result({"index": out, "splits": splits})
