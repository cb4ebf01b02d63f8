"""All shards of a job: made by worker processes or a Ray cluster, or, for `--finish`, found."""

import contextlib
import errno
import math
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

from preprocess.job.finish import write_rejects
from preprocess.job.task import Rejected, ShardJob, ShardResult, Task, how_to_go_on, plan_path
from preprocess.job.upload import UploadJob
from preprocess.job.workers import Progress, ProgressBar, WorkerDied, default_workers, run_tasks
from preprocess.options import Options
from shards.common.errors import ShardfeedError, UsageError
from shards.common.signals import StoppedBySignal
from shards.common.terminal import some
from shards.format.layout import REJECTS, shard_name, split_dir

SHOWN_REJECTS = 3
SHOWN_SHARDS = 10


class TooManyRejects(ShardfeedError):
    """More images cannot be used than --max-rejects allows."""


def make_shards(job: ShardJob | UploadJob, tasks: Sequence[Task], options: Options) -> list[ShardResult]:
    """Makes the shards of `tasks`, or finds them finished; the results are in the order of `tasks`.

    Raises ShardfeedError where more images of a split are rejected than `--max-rejects` allows.
    """
    rejects: dict[str, list[Rejected]] = {split: [] for split in job.plan.splits}
    results: dict[Task, ShardResult] = {}
    # From the inside: the workers end, the bar is closed, and then it is said what is kept.
    with (
        _say_how_to_resume(job, tasks, results),
        ProgressBar(sum(len(job.plan.rows(*task)) for task in tasks)) as bar,
        contextlib.closing(_run(job, tasks, options, bar.advance)) as running,
    ):
        for result in running:
            results[result.split, result.number] = result
            rejects[result.split] += result.rejects
            _check_rejects(job.local, result.split, rejects[result.split], options.max_rejects)
    return [results[task] for task in tasks]


def find_shards(job: ShardJob | UploadJob, options: Options) -> list[ShardResult]:
    """Checks that all shards of the plan are finished. Raises ShardfeedError that names those that are missing."""
    tasks = job.plan.tasks
    results: dict[Task, ShardResult] = {}
    with (
        ProgressBar(sum(job.plan.splits.values())) as bar,
        contextlib.closing(run_tasks(job.find, tasks, options.workers or default_workers(), bar.advance)) as running,
    ):
        for result in running:
            if result is not None:
                results[result.split, result.number] = result
    missing = [shard_name(*task) for task in tasks if task not in results]
    if missing:
        raise ShardfeedError(
            f"{len(missing)} of {len(tasks)} shards are missing or damaged: {some(missing, SHOWN_SHARDS)}. Run the "
            "slices that hold them again (--tasks), or run without --tasks and --finish to make them here"
        )
    for split in job.plan.splits:
        rejects = [entry for result in results.values() for entry in result.rejects if entry.split == split]
        _check_rejects(job.local, split, rejects, options.max_rejects)
    return [results[task] for task in tasks]


def _run(
    job: ShardJob | UploadJob, tasks: Sequence[Task], options: Options, progress: Progress
) -> Generator[ShardResult, None, None]:
    """Yields the shards as they are finished, on this machine or on a Ray cluster."""
    if options.executor == "local":
        return run_tasks(job.run, tasks, options.workers or default_workers(), progress)
    from preprocess.job.ray import run_on_ray

    return run_on_ray(options, job.plan, tasks, progress)


def _check_rejects(job: ShardJob, split: str, rejects: list[Rejected], allowed: float) -> None:
    mend = "mend them in the source and start in another directory"
    check_rejects(job.out, split, rejects, job.plan.splits[split], allowed, mend)


def check_rejects(out: Path, split: str, rejects: list[Rejected], rows: int, allowed: float, mend: str) -> None:
    """Raises TooManyRejects, and writes the rejects, where they are more than the part `allowed` of a split's `rows`.

    `mend`: what to do in place of leaving them out.
    """
    if len(rejects) <= allowed * rows:
        return
    write_rejects(out, split, rejects)
    named = [each.path if each.row is None else f"row {each.row} ({each.path})" for each in rejects[:SHOWN_REJECTS]]
    shown = "; ".join(f"{name}: {entry.reason}" for name, entry in zip(named, rejects, strict=False))
    share = len(rejects) / rows
    digits = 10 ** math.floor(math.log10(share))
    raise TooManyRejects(
        f"{len(rejects)} of the {rows:,} images of {split} cannot be used, and --max-rejects {allowed:g} allows "
        f"{math.floor(allowed * rows)}: {shown}{'; ...' if len(rejects) > SHOWN_REJECTS else ''} (all rejects so far "
        f"are in {split_dir(out, split) / REJECTS}). To leave them out and go on, add --max-rejects "
        f"{min(1.0, math.ceil(share / digits) * digits):g}; or {mend}"
    )


@contextlib.contextmanager
def _say_how_to_resume(
    job: ShardJob | UploadJob, tasks: Sequence[Task], results: Mapping[Task, ShardResult]
) -> Iterator[None]:
    """Adds to any error that stops the job how many shards are finished, and that the same command resumes it."""
    try:
        yield
    except BaseException as error:
        out = job.local.out
        kept = _kept(job, tasks, results)
        state = how_to_go_on(out, f"{kept} of {len(tasks)} shards are finished and kept; ")
        if kept < len(tasks) and plan_path(out).exists():
            state += ", and converts the images of unfinished shards again"
        if isinstance(error, WorkerDied):
            raise ShardfeedError(f"{error} {_where(job.local, error)}. {state}") from error
        if isinstance(error, (UsageError, TooManyRejects)):
            raise  # the same command would fail in the same way
        if isinstance(error, ShardfeedError):
            raise ShardfeedError(f"{error}. {state}") from error
        if _is_disk_full(error):
            raise ShardfeedError(f"{_disk_full(out)}. {state}") from error
        how = f"stopped by {error.name}" if isinstance(error, StoppedBySignal) else "stopped"
        print(f"{how}: {state}", file=sys.stderr)
        raise


def _kept(job: ShardJob | UploadJob, tasks: Sequence[Task], results: Mapping[Task, ShardResult]) -> int:
    """How many of `tasks` are finished: also those that workers finished while they were stopped.

    A store is not asked: it may be what stopped the job.
    """
    return len(results) if isinstance(job, UploadJob) else len(tasks) - len(job.unfinished(tasks))


@contextlib.contextmanager
def disk_full_in_one_line(out: Path) -> Iterator[None]:
    """Turns the error of a full disk, before the first shard or after the last one, into a ShardfeedError."""
    try:
        yield
    except OSError as error:
        if not _is_disk_full(error):
            raise
        raise ShardfeedError(f"{_disk_full(out)}. Then {how_to_go_on(out)}") from error


def _is_disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _disk_full(out: Path) -> str:
    return f"there is no space left for {out}: free some"


def _where(job: ShardJob, error: WorkerDied) -> str:
    split, number = error.task
    rows = job.rows_as_read((split, number))
    row = f"row {rows[error.done]} of {split}, in " if error.done < len(rows) else ""
    return f"at {row}{shard_name(split, number)}"
