"""The whole job: opens the source, plans, makes the shards in worker processes, and writes the manifest last.

Each step first looks for what an earlier, killed run left, so starting the same command again resumes the job.
"""

import shutil
import time
from pathlib import Path

from preprocess.job.estimate import Forecast, check_space
from preprocess.job.finish import check_files, finish
from preprocess.job.make import disk_full_in_one_line, find_shards, make_shards
from preprocess.job.out import (
    check_complete,
    check_out,
    is_finished,
    read_plan,
    resume_or_write_plan,
)
from preprocess.job.plan import Plan
from preprocess.job.repair import repair
from preprocess.job.slices import WHOLE, locked
from preprocess.job.small_images import refuse_small_images
from preprocess.job.summary import print_complete, print_end, print_estimate, print_plan, print_summary
from preprocess.job.task import WORK, ShardJob, ShardResult, plan_path
from preprocess.job.upload import Upload, UploadJob, check_remote_out, check_stage, remote_manifest
from preprocess.job.workers import default_workers
from preprocess.options import Options
from preprocess.sources import open_source
from preprocess.sources.source import Source
from shards.common.atomic import refuse_unwritable
from shards.common.errors import UsageError
from shards.common.signals import stopped_by_signals
from shards.common.space import free_bytes, size
from shards.common.terminal import counted, doing
from shards.format.layout import MANIFEST
from shards.format.manifest import Manifest
from shards.format.mend import directory_sizes
from shards.remote.object_store import ObjectStore
from shards.remote.urls import is_url


def preprocess(options: Options) -> Forecast | None:
    """Makes the data set that the options describe, or a slice of it, or resumes it, or finds it complete.

    Prints what became of the images; returns what a dry run of an unfinished data set expects. Raises UsageError for
    options that do not fit the source or OUT, ShardfeedError for what stopped the job, StoppedBySignal for a signal;
    the shards that are finished by then are kept.
    """
    with stopped_by_signals():
        if is_url(options.out):
            return _into_store(options, ObjectStore(str(options.out)))
        out = Path(options.out)
        if options.repair:
            _repair(options, out)
            return None
        check_out(out)
        if not is_finished(out):
            refuse_unwritable("OUT", out, directory=True)
        if options.dry_run or is_finished(out):
            return _preview(options, out)
        _into_directory(options, out)
        return None


def _into_directory(options: Options, out: Path) -> None:
    with disk_full_in_one_line(out), locked(out / WORK, options.part):
        began = time.monotonic()
        source, plan = _open(options)
        if (out / MANIFEST).exists():
            # Killed after the manifest was written, or finished by another job while this one opened its source.
            _complete(options, out, plan)
            if options.part == WHOLE:
                shutil.rmtree(out / WORK, ignore_errors=True)
            return
        _check_sizes(options, source, plan)
        job = ShardJob(source, resume_or_write_plan(out, plan), out)
        results = _shards(job, options)
        manifest = None
        if options.tasks is None:
            check_files(results, lambda name: directory_sizes(out, name))
            manifest = finish(out, job.plan, source, results)
            print_summary(out, manifest, source, results)
    print_end(options, results, time.monotonic() - began, out, manifest)


def _into_store(options: Options, out: ObjectStore) -> Forecast | None:
    """Like `_into_directory`, for OUT behind a URL: makes the shards in the cache and uploads them."""
    if options.repair:
        raise UsageError(f"--repair mends a directory: copy {out} to a disk, mend it there, and upload it again")
    began = time.monotonic()
    check_remote_out(out)
    source, plan = _open(options)
    manifest = remote_manifest(out)
    if manifest is not None:
        check_complete(out, manifest, plan, str(options.source), out.sizes)
        print_complete(out, manifest)
        if options.part == WHOLE and not options.dry_run:
            out.remove(WORK)  # left by a job that was killed after it wrote the manifest
        return None
    _check_sizes(options, source, plan)
    if options.dry_run:
        job = UploadJob(ShardJob(source, plan, Path()), out)
        print_plan(job, options)
        return print_estimate(job, options)
    upload = Upload.begin(out, plan)
    with disk_full_in_one_line(upload.stage), locked(upload.stage / WORK, options.part):
        local = ShardJob(source, resume_or_write_plan(upload.stage, upload.plan), upload.stage)
        results = _shards(UploadJob(local, out), options)
        manifest = None
        if options.tasks is None:
            manifest = upload.finish(source, results)
            print_summary(out, manifest, source, results)
    print_end(options, results, time.monotonic() - began, out, manifest)
    return None


def _repair(options: Options, out: Path) -> None:
    manifest = Manifest.read(out)
    refuse_unwritable("OUT", out, directory=True)
    shards = sum(len(split.shards) for split in manifest.splits.values())
    print(f"{out}: comparing {counted(shards, 'shard')} with the manifest, to make damaged files again", flush=True)
    with disk_full_in_one_line(out), locked(out / WORK):
        repair(options, manifest)


def _preview(options: Options, out: Path) -> Forecast | None:
    """Prints what OUT holds, or what the job would make and returns what that takes; writes nothing."""
    source, plan = _open(options)
    if (out / MANIFEST).exists():
        _complete(options, out, plan)
        return None
    _check_sizes(options, source, plan)
    if plan_path(out).exists():
        plan = read_plan(out, plan)
    job = ShardJob(source, plan, out)
    print_plan(job, options)
    expected = print_estimate(job, options)
    free, place = free_bytes(out)
    print(f"free in {place}: {size(free)}{', which is not enough' if expected.needed.most > free else ''}")
    return expected


def _complete(options: Options, out: Path, plan: Plan) -> None:
    manifest = Manifest.read(out)
    check_complete(out, manifest, plan, str(options.source), lambda split: directory_sizes(out, split))
    print_complete(out, manifest)


def _open(options: Options) -> tuple[Source, Plan]:
    with doing(f"reading what {options.source} holds"):
        source = open_source(
            options.source, options.splits, options.image_column, options.label_column, options.val_labels, options.keep
        )
    return source, Plan.of_source(source, options.settings)


def _check_sizes(options: Options, source: Source, plan: Plan) -> None:
    if not options.enlarge and not options.finish:
        refuse_small_images(source, plan)


def _shards(job: ShardJob | UploadJob, options: Options) -> list[ShardResult]:
    """Makes the shards of this job's slice; with --finish, finds those of all slices."""
    if options.finish:
        return find_shards(job, options)
    if not options.force and job.unfinished(job.plan.tasks):
        needed = print_estimate(job, options).needed
        if isinstance(job, ShardJob):
            check_space(job.out, needed)
        elif options.executor == "local":
            check_stage(job, needed, options.workers or default_workers())
    return make_shards(job, options.part.of(job.plan.tasks), options)
