"""What a job prints: the plan and its estimate beforehand, and in the end what became of the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preprocess.job.estimate import Estimate, estimate, length
from preprocess.job.slices import WHOLE
from preprocess.job.task import ShardJob, ShardResult
from preprocess.job.upload import UploadJob
from preprocess.job.workers import default_workers
from preprocess.options import Options
from shards.common.space import size
from shards.format.layout import REJECTS
from shards.format.manifest import Manifest
from shards.remote.object_store import ObjectStore


def print_plan(job: ShardJob | UploadJob, options: Options) -> None:
    """Prints what the job would make."""
    plan = job.plan
    print(f"{plan.source} ({plan.fingerprint[:8]}) -> {options.out}")
    for split, rows in plan.splits.items():
        longest = -(-rows // plan.shards(split))
        print(f"{split}: {rows:,} images in {plan.shards(split):,} shards of at most {longest:,}")
    print("settings: " + ", ".join(f"{name} {value}" for name, value in plan.settings_in_words().items()))
    if options.part != WHOLE:
        print(f"slice {options.part}: {len(options.part.of(plan.tasks)):,} of {len(plan.tasks):,} shards")
    unfinished = job.unfinished(plan.tasks)
    if len(unfinished) < len(plan.tasks):
        print(f"{len(plan.tasks) - len(unfinished):,} of {len(plan.tasks):,} shards are finished already")


def print_estimate(job: ShardJob | UploadJob, options: Options) -> Estimate:
    """Estimates the disk space that all unfinished shards need, and the time that this slice takes; prints both.

    All slices share one disk, so the space is that of all.
    """
    needed = estimate(job.local, job.unfinished(job.plan.tasks))
    own = sum(len(job.plan.rows(*task)) for task in job.unfinished(options.part.of(job.plan.tasks)))
    workers = min(options.workers or default_workers(), default_workers())
    of_slice = f" in slice {options.part}" if options.part != WHOLE else ""
    print(
        f"estimate: {size(needed.bytes)} for {needed.images:,} images; {own:,}{of_slice} take "
        f"{length(needed.duration(own, workers))} with {workers} {'worker' if workers == 1 else 'workers'}",
        flush=True,
    )
    return needed


def print_complete(out: Path | ObjectStore, manifest: Manifest) -> None:
    """Prints that there is nothing to do."""
    print(f"{out} is complete already: {contents(manifest)}")


def print_speed(options: Options, results: Sequence[ShardResult], seconds: float) -> None:
    """Prints how many images this run converted and how fast, and what to do after a slice."""
    made = [result for result in results if result.fresh]
    images = sum(result.info.samples + len(result.rejects) for result in made)
    found = f", {len(results) - len(made)} shards were finished before" if len(made) < len(results) else ""
    slice_of = f" slice {options.part} is done:" if options.tasks is not None else ""
    print(f"{options.out}:{slice_of} {images:,} images in {seconds:.1f} s, {images / seconds:,.0f} images/s{found}")
    if options.tasks is not None:
        print("when all slices are done: the same command with --finish instead of --tasks writes the manifest")


def print_summary(out: Path | ObjectStore, manifest: Manifest) -> None:
    """Prints of each split how many samples and rejects there are, from which kinds of files and for which reasons."""
    for name, split in manifest.splits.items():
        print(
            f"{name}: samples {split.samples:,}, shards {len(split.shards):,}, MB {split.bytes / 1e6:,.1f}, "
            f"rejects {split.rejects:,}{f' (see {out}/{name}/{REJECTS})' if split.rejects else ''}"
        )
        print(f"  from {_counted(split.kinds)}")
        if split.reasons:
            print(f"  without {_counted(split.reasons, '; ')}")


def contents(manifest: Manifest) -> str:
    """The number of samples of each split, in words."""
    return ", ".join(f"{split.samples:,} samples in {name}" for name, split in manifest.splits.items())


def _counted(numbers: Mapping[str, int], between: str = ", ") -> str:
    """Names with their numbers, the most frequent first."""
    ordered = sorted(numbers.items(), key=lambda entry: (-entry[1], entry[0]))
    return between.join(f"{name}: {count:,}" for name, count in ordered)
