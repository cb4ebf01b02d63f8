"""Shards made on a Ray cluster: python -m preprocess SOURCE OUT --executor ray [--address ray://HOST:10001 | auto].

One Ray task makes one shard; Ray places them, and starts those again whose worker or machine died. Without
--address (and without RAY_ADDRESS, which `ray job submit` sets) Ray is started on this machine for the length of the
job. Every machine opens SOURCE by the same name and must find the same content there, have this project installed with
the same image libraries, and write to the same OUT: a directory that all share, or a URL.
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

from preprocess.job.begin import new_plan
from preprocess.job.plan import Plan
from preprocess.job.task import Job, ShardResult, Task
from preprocess.job.upload import Upload, UploadingJob
from preprocess.job.workers import FIELDS, GRACE, POLL, Progress
from preprocess.options import Options
from preprocess.sources import open_source
from shards.common.errors import MissingDependency, ShardfeedError
from shards.format.layout import shard_name
from shards.remote.object_store import ObjectStore, is_url

# How often a shard is begun again whose worker or machine was lost.
RETRIES = 5
# Tasks handed to Ray for each core of the cluster: one at work and one that waits, so that none is idle.
IN_FLIGHT = 2
# Seconds between two reports of a worker.
REPORT = 0.5
# Shards pass through files, only their descriptions through Ray's memory: the least that it takes.
OBJECT_STORE_BYTES = 80 * 2**20


def run_on_ray(
    options: Options, plan: Plan, tasks: Sequence[Task], progress: Progress
) -> Generator[ShardResult, None, None]:
    """Yields the shards of `tasks` as they are finished, as `preprocess.job.workers.run_tasks` does.

    `progress` is called in this process. Raises what a task raised first, ShardfeedError where a shard's workers died
    again and again. Close the iterator to cancel what is under way.
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
                # They remove their partial files.
                ray.wait(list(running), num_returns=len(running), timeout=GRACE)


@contextlib.contextmanager
def _cluster(options: Options) -> Iterator[Any]:
    """Ray, connected to a cluster or started here, where it is stopped again."""
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
            f"Ray at {address or 'this machine'} cannot be reached ({reason}): is it running, and of the same version?"
        ) from None
    try:
        yield ray
    finally:
        ray.shutdown()


class _Counts:
    """An actor that adds up how far the workers are. A shard that is begun again counts from its beginning."""

    def __init__(self) -> None:
        self._of: dict[Task, list[int]] = {}

    def report(self, task: Task, numbers: list[int]) -> None:
        self._of[task] = numbers

    def total(self) -> list[int]:
        return [sum(column) for column in zip([0] * FIELDS, *self._of.values(), strict=True)]


def _make(pickled: bytes, task: Task, counts: Any) -> ShardResult:
    """What runs on the cluster: makes one shard."""
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
def _opened(pickled: bytes) -> Job | UploadingJob:
    """The job as this machine sees it, once for each worker. Raises ShardfeedError where it would make other bytes."""
    options, plan = pickle.loads(pickled)
    source = open_source(options.source, options.splits, options.image_column, options.label_column)
    if differences := plan.differences(new_plan(source, options)):
        raise ShardfeedError(
            f"{socket.gethostname()} would make another data set ({'; '.join(differences)}): all machines of the "
            "cluster need the same source and the same versions"
        )
    if not is_url(options.out):
        return Job(source, plan, Path(options.out).absolute())
    upload = Upload.begin(ObjectStore(str(options.out)), plan)
    return upload.job(Job(source, upload.plan, upload.stage))


def _report(ray: Any, counts: Any, seen: Sequence[int], progress: Progress) -> Sequence[int]:
    try:
        now: list[int] = ray.get(counts.total.remote(), timeout=GRACE)
    except ray.exceptions.RayError:  # it was on a machine that was lost: the bar waits, the shards do not
        return seen
    images, size, rejects, found = (new - old for new, old in zip(now, seen, strict=True))
    progress(images, size, rejects, found)
    return now


def _result(ray: Any, reference: Any, task: Task) -> ShardResult:
    try:
        result: ShardResult = ray.get(reference)
        return result
    except ray.exceptions.RayTaskError as error:
        # What the task raised, without the traceback that Ray puts into its message.
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())
        raise ShardfeedError(
            f"the workers that made {shard_name(*task)} died {RETRIES + 1} times ({type(error).__name__}: {reason})"
        ) from None
