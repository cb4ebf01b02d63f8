"""What a job that does not come to its end says: how much is done, and that the same command goes on."""

import contextlib
import errno
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from preprocess.job.task import Job, ShardResult, Task
from preprocess.job.workers import WorkerDied
from shards.common.errors import ShardfeedError, UsageError
from shards.common.signals import StoppedBySignal
from shards.format.layout import shard_name


@contextlib.contextmanager
def how_to_go_on(job: Job, results: Mapping[Task, ShardResult], shards: int) -> Iterator[None]:
    """Adds to whatever stops the job how much of it is done and that it can be continued."""
    try:
        yield
    except BaseException as error:
        state = f"{len(results)} of {shards} shards are finished and kept; the same command goes on from there"
        if isinstance(error, WorkerDied):
            raise ShardfeedError(f"{error} {_where(job, error)}. {state}") from error
        if isinstance(error, UsageError):
            raise  # the same command would come to the same
        if isinstance(error, ShardfeedError):
            raise ShardfeedError(f"{error}. {state}") from error
        if _is_no_space(error):
            raise ShardfeedError(f"{_no_space(job.out)}. {state}") from error
        how = f"stopped by {error.name}" if isinstance(error, StoppedBySignal) else "stopped"
        print(f"{how}: {state}", file=sys.stderr)
        raise


@contextlib.contextmanager
def no_space_is_clear(out: Path) -> Iterator[None]:
    """Says of a disk that is full before the first shard or after the last one what `how_to_go_on` says in between."""
    try:
        yield
    except OSError as error:
        if not _is_no_space(error):
            raise
        raise ShardfeedError(f"{_no_space(out)}. The same command goes on from where it stopped") from error


def _is_no_space(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _no_space(out: Path) -> str:
    return f"there is no space left for {out}: free some"


def _where(job: Job, error: WorkerDied) -> str:
    split, number = error.task
    rows = job.rows_as_read((split, number))
    row = f"row {rows[error.done]} of {split}, in " if error.done < len(rows) else ""
    return f"at {row}{shard_name(split, number)}"
