"""What a job prints: the plan and its estimate beforehand, and in the end what became of the images."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from preprocess.job.estimate import Forecast, estimate, time_in_words
from preprocess.job.next_steps import WORK_NOW, next_steps
from preprocess.job.slices import WHOLE
from preprocess.job.task import ShardJob, ShardResult
from preprocess.job.upload import UploadJob
from preprocess.job.workers import default_workers
from preprocess.options import Options
from preprocess.sources.source import Source
from shards.common.space import size
from shards.common.terminal import counted, doing
from shards.format.layout import REJECTS
from shards.format.manifest import Manifest
from shards.remote.object_store import ObjectStore


def print_plan(job: ShardJob | UploadJob, options: Options) -> None:
    """Prints what the job would make."""
    plan = job.plan
    print(f"{plan.source} ({plan.fingerprint[:8]}) -> {options.out}")
    for split, rows in plan.splits.items():
        longest = -(-rows // plan.shards(split))
        print(f"{split}: {counted(rows, 'image')} in {counted(plan.shards(split), 'shard')} of at most {longest:,}")
    print("settings: " + ", ".join(f"{name} {value}" for name, value in plan.settings_in_words().items()))
    if options.part != WHOLE:
        print(f"slice {options.part}: {len(options.part.of(plan.tasks)):,} of {counted(len(plan.tasks), 'shard')}")
    unfinished = job.unfinished(plan.tasks)
    if len(unfinished) < len(plan.tasks):
        done = len(plan.tasks) - len(unfinished)
        print(f"{done:,} of {counted(len(plan.tasks), 'shard')} {'is' if done == 1 else 'are'} finished already")


def print_estimate(job: ShardJob | UploadJob, options: Options) -> Forecast:
    """Estimates the disk space that all unfinished shards need, and the time that this slice takes; prints both.

    All slices share one disk, so the space is that of all.
    """
    own = [len(job.plan.rows(*task)) for task in job.unfinished(options.part.of(job.plan.tasks))]
    # More than one a core do not make it faster.
    workers = min(options.workers or default_workers(), default_workers(), max(1, len(own)))
    with doing("converting a sample of the images for an estimate"):
        needed = estimate(job.local, job.unfinished(job.plan.tasks), workers)
    of_slice = f" in slice {options.part}" if options.part != WHOLE else ""
    seconds = needed.duration(own, workers)
    print(
        f"estimate: {size(needed.bytes)} for {counted(needed.images, 'image')}; {sum(own):,}{of_slice} in "
        f"{time_in_words(seconds)} with {counted(workers, 'worker')}",
        flush=True,
    )
    return Forecast(needed, sum(own), len(own), workers, seconds)


def print_complete(out: Path | ObjectStore, manifest: Manifest) -> None:
    """Prints that there is nothing to do."""
    print(f"{out} is complete already: {contents(manifest)}")
    print_next(out, manifest)


def print_end(
    options: Options,
    results: Sequence[ShardResult],
    seconds: float,
    out: Path | ObjectStore,
    manifest: Manifest | None,
) -> None:
    """Prints how many images this run converted and how fast, and what to do now. `manifest`: None after a slice."""
    made = [result for result in results if result.fresh]
    images = sum(result.info.samples + len(result.rejects) for result in made)
    before = len(results) - len(made)
    found = f", {counted(before, 'shard')} {'was' if before == 1 else 'were'} finished before" if before else ""
    slice_of = f" slice {options.part} is done:" if options.tasks is not None else ""
    if made:
        speed = f"{counted(images, 'image')} in {seconds:.1f} s, {images / seconds:,.0f} images/s{found}"
    else:
        speed = f"nothing was left to do{found}"
    print(f"{options.out}:{slice_of} {speed}")
    if manifest is not None:
        print_next(out, manifest)
    else:
        print("when all slices are done: the same command with --finish instead of --tasks writes the manifest")


def print_summary(out: Path | ObjectStore, manifest: Manifest, source: Source, results: Sequence[ShardResult]) -> None:
    """Prints what became of each split: samples and rejects, kinds of files, reasons, files that are no rows."""
    for name, split in manifest.splits.items():
        passed_over = len(source.passed_over(name))
        print(
            f"{name}: samples {split.samples:,}, shards {len(split.shards):,}, MB {split.bytes / 1e6:,.1f}, "
            f"rejects {split.rejects:,}{f', files passed over {passed_over:,}' if passed_over else ''}"
            f"{f' (see {out}/{name}/{REJECTS})' if split.rejects or passed_over else ''}"
        )
        print(f"  from {_listed(split.kinds)}")
        enlarged = sum(result.enlarged for result in results if result.split == name)
        if enlarged:
            print(f"  {counted(enlarged, 'image')} enlarged to a shorter side of {manifest.settings.short_side} pixels")
        if split.reasons:
            print(f"  left out: {_listed(split.reasons, '; ')}")


def print_next(out: str | Path | ObjectStore, manifest: Manifest) -> None:
    """Prints the lines that work with a data set. `out`: as for `next_steps`."""
    steps = next_steps(out, manifest)
    if steps:
        print(WORK_NOW)
    for line in steps:
        print(f"  {line}")


def contents(manifest: Manifest) -> str:
    """The number of samples of each split, in words."""
    return ", ".join(f"{counted(split.samples, 'sample')} in {name}" for name, split in manifest.splits.items())


def _listed(numbers: Mapping[str, int], between: str = ", ") -> str:
    """Names with their numbers, the most frequent first."""
    ordered = sorted(numbers.items(), key=lambda entry: (-entry[1], entry[0]))
    return between.join(f"{name}: {count:,}" for name, count in ordered)
