"""Shards made on a Ray cluster: python -m preprocess SOURCE OUT --executor ray [--address ray://HOST:10001 | auto].

One Ray task makes one shard. Ray places the tasks, and starts a task again whose worker or machine died. Without
--address (and without RAY_ADDRESS, which `ray job submit` sets) Ray is started on this machine for the length of the
job. Every machine opens SOURCE by the same name and must find the same content there, must have this project installed
with the same image libraries, and writes to the same OUT: a directory that all machines share, or a URL.
"""

import contextlib
import functools
import os
import pickle
import socket
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from preprocess.job.plan import Plan
from preprocess.job.task import ShardJob, ShardResult, Task
from preprocess.job.upload import Upload, UploadJob
from preprocess.job.workers import FIELDS, GRACE, POLL, Progress
from preprocess.options import Options
from preprocess.sources import open_source
from shards.common.errors import MissingDependency, ShardfeedError
from shards.format.layout import shard_name
from shards.remote.object_store import ObjectStore
from shards.remote.urls import is_url

# How often a shard is started again after its worker or machine was lost.
RETRIES = 5
# Tasks given to Ray for each core of the cluster: one that runs and one that waits, so that no core is idle.
IN_FLIGHT = 2
# Seconds between two reports of a worker.
REPORT = 0.5
# The smallest store that Ray accepts: shards pass through files, only their descriptions through Ray's memory.
OBJECT_STORE_BYTES = 80 * 2**20


def run_on_ray(
    options: Options, plan: Plan, tasks: Sequence[Task], progress: Progress
) -> Generator[ShardResult, None, None]:
    """Yields the shards of `tasks` as they are finished, as `preprocess.job.workers.run_tasks` does.

    `progress` is called in this process. Raises the first error that a task raised, and ShardfeedError where the
    workers of a shard died RETRIES + 1 times. Close the iterator to cancel the tasks that run.
    """
    with _cluster(options) as ray:
        make = ray.remote(num_cpus=1, max_retries=RETRIES)(_make)
        counts = ray.remote(num_cpus=0, max_restarts=-1)(_Counts).remote()
        job = ray.put(pickle.dumps((options, plan)))
        limit = options.workers or IN_FLIGHT * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting = list(reversed(tasks))
        running: dict[Any, Task] = {}
        seen: Sequence[int] = [0] * FIELDS
        try:
            while waiting or running:
                while waiting and len(running) < limit:
                    task = waiting.pop()
                    running[make.options(name=shard_name(*task)).remote(job, task, counts)] = task
                ready, _ = ray.wait(list(running), timeout=POLL)
                seen = _report(ray, counts, seen, progress)
                for reference in ready:
                    yield _result(ray, reference, running.pop(reference))
            _report(ray, counts, seen, progress)
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:
                # Until they have removed their partial files.
                ray.wait(list(running), num_returns=len(running), timeout=GRACE)


@contextlib.contextmanager
def _cluster(options: Options) -> Iterator[Any]:
    """Connects to a Ray cluster, or starts Ray on this machine and stops it in the end."""
    try:
        import ray
    except ImportError:
        raise MissingDependency("--executor ray needs Ray: pip install 'shardfeed[ray]'") from None
    address = options.address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False}
    try:
        if address:
            ray.init(address, **quiet)
        else:
            ray.init(
                "local",
                num_cpus=options.workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ShardfeedError(
            f"Ray at {address or 'this machine'} cannot be reached ({reason}): check that it runs, and that both "
            "sides have the same version"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class _Counts:
    """A Ray actor that adds up the progress of all workers. A shard that is started again counts from its beginning."""

    def __init__(self) -> None:
        self._of: dict[Task, list[int]] = {}

    def report(self, task: Task, numbers: list[int]) -> None:
        self._of[task] = numbers

    def total(self) -> list[int]:
        return [sum(column) for column in zip([0] * FIELDS, *self._of.values(), strict=True)]


def _make(pickled: bytes, task: Task, counts: Any) -> ShardResult:
    """Makes one shard; runs on the cluster."""
    job = _opened(pickled)
    numbers = [0] * FIELDS
    reported = time.monotonic()

    def progress(*more: int) -> None:
        nonlocal reported
        for field, number in enumerate(more):
            numbers[field] += number
        if time.monotonic() - reported > REPORT:
            reported = time.monotonic()
            counts.report.remote(task, list(numbers))

    result = job.run(task, progress)
    counts.report.remote(task, numbers)
    return result


@functools.lru_cache(maxsize=1)
def _opened(pickled: bytes) -> ShardJob | UploadJob:
    """The job on this machine, opened once in each worker. Raises ShardfeedError where it would make other bytes."""
    options, plan = pickle.loads(pickled)
    source = open_source(
        options.source, options.splits, options.image_column, options.label_column, options.val_labels, options.keep
    )
    if differences := plan.differences(Plan.of_source(source, options.settings)):
        raise ShardfeedError(
            f"{socket.gethostname()} would make a different data set ({'; '.join(differences)}): all machines of the "
            "cluster need the same source and the same versions"
        )
    if not is_url(options.out):
        return ShardJob(source, plan, Path(options.out).absolute())
    upload = Upload.begin(ObjectStore(str(options.out)), plan)
    return UploadJob(ShardJob(source, upload.plan, upload.stage), upload.remote)


def _report(ray: Any, counts: Any, seen: Sequence[int], progress: Progress) -> Sequence[int]:
    try:
        now: list[int] = ray.get(counts.total.remote(), timeout=GRACE)
    except ray.exceptions.RayError:  # the actor's machine was lost: the bar stands still, the shards go on
        return seen
    images, size, rejects, found = (new - old for new, old in zip(now, seen, strict=True))
    progress(images, size, rejects, found)
    return now


def _result(ray: Any, reference: Any, task: Task) -> ShardResult:
    try:
        result: ShardResult = ray.get(reference)
        return result
    except ray.exceptions.RayTaskError as error:
        # The error of the task, without the traceback that Ray adds to its message.
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())
        raise ShardfeedError(
            f"the workers that made {shard_name(*task)} died {RETRIES + 1} times ({type(error).__name__}: {reason})"
        ) from None
