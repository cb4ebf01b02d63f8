"""The whole job: opens the source, plans, makes the shards in worker processes, and finishes with the manifest.

Every step finds what an earlier, killed run left, so that starting again is all there is to resuming.
"""

import contextlib
import math
import shutil
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path

from preprocess.job.bar import Bar
from preprocess.job.begin import check_out, check_same, finished, found_plan, new_plan, only_a_manifest, started
from preprocess.job.estimate import Estimate, check_space, estimate, free_bytes, length, size
from preprocess.job.finish import contents, finish, summarise, write_rejects
from preprocess.job.repair import repair
from preprocess.job.slices import WHOLE, locked
from preprocess.job.stops import how_to_go_on, no_space_is_clear
from preprocess.job.task import WORK, Job, Rejected, ShardResult, Task, plan_path
from preprocess.job.upload import Upload, UploadingJob, check_remote_out, remote_manifest
from preprocess.job.workers import Progress, default_workers, run_tasks
from preprocess.options import Options
from preprocess.sources import open_source
from preprocess.sources.source import Source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.signals import stopped_by_signals
from shards.format.layout import MANIFEST, REJECTS, shard_name, split_dir
from shards.format.manifest import Manifest
from shards.remote.object_store import ObjectStore, is_url

SHOWN_REJECTS = 3
SHOWN_SHARDS = 10


def preprocess(options: Options) -> None:
    """Makes the data set that the options describe or a slice of it, goes on with it, or finds it complete.

    Prints what became of it. Raises UsageError for options that do not fit the source or what OUT holds,
    ShardfeedError for what stopped the job, StoppedBySignal for a signal; finished shards are kept.
    """
    with stopped_by_signals():
        if is_url(options.out):
            _run_remote(options, ObjectStore(str(options.out)))
            return
        out = Path(options.out)
        if options.repair:
            manifest = Manifest.read(out)
            with no_space_is_clear(out), locked(out / WORK):
                repair(options, manifest)
            return
        check_out(out)
        if options.dry_run or only_a_manifest(out):
            _look(options, out)
            return
        with no_space_is_clear(out), locked(out / WORK, options.part):
            _run(options, out)


def _run(options: Options, out: Path) -> None:
    """Does the work, with the lock held."""
    began = time.monotonic()
    source = _open(options)
    plan = new_plan(source, options)
    if (out / MANIFEST).exists():
        # Killed between the manifest and the end, or finished by another job while this one waited for its source.
        _say_complete(out, finished(out, plan))
        if options.part == WHOLE:
            shutil.rmtree(out / WORK, ignore_errors=True)
        return
    job = Job(source, started(out, plan), out)
    results = _all_shards(job, options)
    if options.tasks is None:
        summarise(out, finish(out, job.plan, source.class_names, results))
    _say_speed(options, results, time.monotonic() - began)


def _run_remote(options: Options, remote: ObjectStore) -> None:
    """Does the work where OUT is behind a URL: see preprocess/job/upload.py."""
    if options.repair:
        raise UsageError(f"--repair mends a directory: copy {remote} to a disk, mend it there, and upload it again")
    began = time.monotonic()
    check_remote_out(remote)
    source = _open(options)
    plan = new_plan(source, options)
    manifest = remote_manifest(remote)
    if manifest is not None:
        check_same(remote, manifest, plan)
        _say_complete(remote, manifest)
        if options.part == WHOLE and not options.dry_run:
            remote.remove(WORK)  # killed between the manifest and the end
        return
    if options.dry_run:
        _say_plan(UploadingJob(Job(source, plan, Path()), remote), options, remote)
        return
    upload = Upload.begin(remote, plan)
    with no_space_is_clear(upload.stage), locked(upload.stage / WORK, options.part):
        job = upload.job(Job(source, started(upload.stage, upload.plan), upload.stage))
        results = _all_shards(job, options)
        if options.tasks is None:
            summarise(str(remote), upload.finish(source.class_names, results))
    _say_speed(options, results, time.monotonic() - began)


def _open(options: Options) -> Source:
    return open_source(options.source, options.splits, options.image_column, options.label_column)


def _all_shards(job: Job | UploadingJob, options: Options) -> list[ShardResult]:
    """The shards that are asked for: made, or with --finish found."""
    if options.finish:
        return _find_shards(job, options)
    tasks = options.part.of(job.plan.tasks)
    if not options.force and (unfinished := _unfinished(job, job.plan.tasks)):
        needed = estimate(_local(job), unfinished)
        if isinstance(job, Job):
            check_space(job.out, needed)
        print(_expectation(job, needed, tasks, options), flush=True)
    return _make_shards(job, tasks, options)


def _local(job: Job | UploadingJob) -> Job:
    return job if isinstance(job, Job) else job.made


def _look(options: Options, out: Path) -> None:
    """Says what there is or would be, and writes nothing."""
    source = _open(options)
    plan = new_plan(source, options)
    if (out / MANIFEST).exists():
        _say_complete(out, finished(out, plan))
        return
    if plan_path(out).exists():
        plan = found_plan(out, plan)
    needed = _say_plan(Job(source, plan, out), options, out)
    free, place = free_bytes(out)
    print(f"free in {place}: {size(free)}{', which is not enough' if needed.most > free else ''}")


def _say_plan(job: Job | UploadingJob, options: Options, out: Path | ObjectStore) -> Estimate:
    """Prints what would be made, and an estimate of what it takes."""
    plan = job.plan
    tasks = options.part.of(plan.tasks)
    print(f"{plan.source} ({plan.fingerprint[:8]}) -> {out}")
    for split, rows in plan.splits.items():
        length = -(-rows // plan.shards(split))
        print(f"{split}: {rows:,} images in {plan.shards(split):,} shards of at most {length:,}")
    print("settings: " + ", ".join(f"{name} {value}" for name, value in plan.settings_in_words().items()))
    if options.part != WHOLE:
        print(f"slice {options.part}: {len(tasks):,} of {len(plan.tasks):,} shards")
    unfinished = _unfinished(job, plan.tasks)
    if len(unfinished) < len(plan.tasks):
        print(f"{len(plan.tasks) - len(unfinished):,} of {len(plan.tasks):,} shards are finished already")
    needed = estimate(_local(job), unfinished)
    print(_expectation(job, needed, tasks, options))
    return needed


def _unfinished(job: Job | UploadingJob, tasks: Sequence[Task]) -> list[Task]:
    if isinstance(job, UploadingJob):
        return job.unfinished(tasks)
    return [task for task in tasks if not job.looks_finished(task)]


def _expectation(job: Job | UploadingJob, needed: Estimate, tasks: Sequence[Task], options: Options) -> str:
    """The estimate in words. All slices share the disk, so its size is that of all; its time is this slice's."""
    own = sum(len(job.plan.rows(*task)) for task in _unfinished(job, tasks))
    workers = min(_workers(options), default_workers())
    of_slice = f" in slice {options.part}" if options.part != WHOLE else ""
    seconds = needed.duration(own, workers)
    return (
        f"estimate: {size(needed.bytes)} for {needed.images:,} images; {own:,}{of_slice} take {length(seconds)} "
        f"with {workers} {'worker' if workers == 1 else 'workers'}"
    )


def _workers(options: Options) -> int:
    return options.workers or default_workers()


def _make_shards(job: Job | UploadingJob, tasks: Sequence[Task], options: Options) -> list[ShardResult]:
    """Makes, or finds whole, the shards of the plan that are asked for; the results are in the plan's order."""
    rejects: dict[str, list[Rejected]] = {split: [] for split in job.plan.splits}
    results: dict[Task, ShardResult] = {}
    with (
        Bar(sum(len(job.plan.rows(*task)) for task in tasks)) as bar,
        how_to_go_on(_local(job), results, len(tasks)),
        contextlib.closing(_results(job, tasks, options, bar.advance)) as running,
    ):
        for result in running:
            results[result.split, result.number] = result
            rejects[result.split] += result.rejects
            _check_rejects(_local(job), result.split, rejects[result.split], options.max_rejects)
    return [results[task] for task in tasks]


def _results(
    job: Job | UploadingJob, tasks: Sequence[Task], options: Options, progress: Progress
) -> Generator[ShardResult, None, None]:
    """The shards as they are finished, by whatever runs the tasks."""
    if options.executor == "local":
        return run_tasks(job.run, tasks, _workers(options), progress)
    from preprocess.job.ray import run_on_ray

    return run_on_ray(options, job.plan, tasks, progress)


def _find_shards(job: Job | UploadingJob, options: Options) -> list[ShardResult]:
    """All shards of the plan, each checked. Raises ShardfeedError that names those that are missing."""
    tasks = job.plan.tasks
    results: dict[Task, ShardResult] = {}
    with (
        Bar(sum(job.plan.splits.values())) as bar,
        contextlib.closing(run_tasks(job.find, tasks, _workers(options), bar.advance)) as running,
    ):
        for result in running:
            if result is not None:
                results[result.split, result.number] = result
    missing = [shard_name(*task) for task in tasks if task not in results]
    if missing:
        shown = ", ".join(missing[:SHOWN_SHARDS]) + (", ..." if len(missing) > SHOWN_SHARDS else "")
        raise ShardfeedError(
            f"{len(missing)} of {len(tasks)} shards are missing or damaged: {shown}. Run the slices that hold them "
            "again (--tasks), or run without --tasks and --finish to make them here"
        )
    for split in job.plan.splits:
        _check_rejects(_local(job), split, _rejects_of(results, split), options.max_rejects)
    return [results[task] for task in tasks]


def _rejects_of(results: Mapping[Task, ShardResult], split: str) -> list[Rejected]:
    return [entry for result in results.values() for entry in result.rejects if entry.split == split]


def _check_rejects(job: Job, split: str, rejects: list[Rejected], allowed: float) -> None:
    rows = job.plan.splits[split]
    if len(rejects) <= allowed * rows:
        return
    write_rejects(job.out, split, rejects)
    shown = "; ".join(f"row {entry.row} ({entry.path}): {entry.reason}" for entry in rejects[:SHOWN_REJECTS])
    share = len(rejects) / rows
    digits = 10 ** math.floor(math.log10(share))
    raise ShardfeedError(
        f"{len(rejects)} of the {rows:,} images of {split} cannot be used, and --max-rejects {allowed:g} allows "
        f"{math.floor(allowed * rows)}: {shown}{'; ...' if len(rejects) > SHOWN_REJECTS else ''} (all so far are in "
        f"{split_dir(job.out, split) / REJECTS}). Mend them in the source and start anew, or do without them: "
        f"--max-rejects {min(1.0, math.ceil(share / digits) * digits):g}"
    )


def _say_complete(out: Path | ObjectStore, manifest: Manifest) -> None:
    print(f"{out} is complete already: {contents(manifest)}")


def _say_speed(options: Options, results: Sequence[ShardResult], seconds: float) -> None:
    fresh = [result for result in results if result.fresh]
    images = sum(result.info.samples + len(result.rejects) for result in fresh)
    kept = f", {len(results) - len(fresh)} shards were there" if len(fresh) < len(results) else ""
    slice_of = f" slice {options.part} is done:" if options.tasks is not None else ""
    print(f"{options.out}:{slice_of} {images:,} images in {seconds:.1f} s, {images / seconds:,.0f} images/s{kept}")
    if options.tasks is not None:
        print("when all slices are done: the same command with --finish instead of --tasks writes the manifest")
