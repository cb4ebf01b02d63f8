"""The whole job: opens the source, plans, makes the shards in worker processes, and finishes with the manifest.

Every step finds what an earlier, killed run left, so that starting again is all there is to resuming.
"""

import contextlib
import errno
import json
import math
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from preprocess.options import Options
from preprocess.plan import Plan
from preprocess.source import open_source
from preprocess.task import WORK, Job, Rejected, ShardResult, Task, index_path, plan_path
from preprocess.workers import run_tasks
from shards.atomic import replacing, sync_directory
from shards.errors import ShardfeedError, UsageError
from shards.index import Index
from shards.layout import INDEX, MANIFEST, REJECTS, split_dir
from shards.manifest import FORMAT_VERSION, Manifest, SplitInfo
from shards.versions import version

# Other versions of these may make other bytes of the same picture.
LIBRARIES = ("pillow", "torch", "torchvision")
NOT_INSTALLED = "not installed"
SHOWN_REJECTS = 3


def preprocess(options: Options) -> Manifest:
    """Makes the data set that the options describe, goes on with it, or finds it complete; prints what became of it.

    Raises UsageError for options that do not fit the source or what OUT holds, ShardfeedError for what stopped the
    job; whatever shards are finished by then are kept.
    """
    out = options.out
    settings = options.settings
    _check_out(out)
    source = open_source(options.source, options.splits, options.image_column, options.label_column)
    plan = Plan(
        source=source.name,
        fingerprint=source.fingerprint,
        splits={split: source.num_rows(split) for split in source.splits},
        settings=settings,
        program_version=version("shardfeed") or NOT_INSTALLED,
        libraries={name: version(name) or NOT_INSTALLED for name in LIBRARIES},
    )
    if (out / MANIFEST).exists():
        manifest = _finished(out, plan)
        print(f"{out} is complete already: {_contents(manifest)}")
        return manifest
    plan = _started(out, plan)
    started = time.monotonic()
    results = _make_shards(Job(source, plan, out), options)
    manifest = _finish(out, plan, source.class_names, results)
    _summarise(out, manifest, results, time.monotonic() - started)
    return manifest


def _check_out(out: Path) -> None:
    """Refuses a directory that holds something else. Before the source is opened, which can take long."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: give a directory for the shards")
    if not out.exists() or (out / MANIFEST).exists() or plan_path(out).exists():
        return
    # A job killed while it wrote its plan leaves a work directory without one.
    foreign = sorted(path.name for path in out.iterdir() if path.name != WORK)
    if foreign:
        raise UsageError(
            f"{out} holds other files ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}) "
            "and no data set of this program: give another directory, or empty this one"
        )


def _finished(out: Path, plan: Plan) -> Manifest:
    manifest = Manifest.read(out)
    made = replace(
        plan,
        source=manifest.source,
        fingerprint=manifest.fingerprint,
        splits={name: split.samples + split.rejects for name, split in manifest.splits.items()},
        settings=manifest.settings,
    )
    if differences := made.differences(plan):
        raise UsageError(f"{out} holds another data set ({'; '.join(differences)}): give another directory")
    # Killed between the manifest and this: all that is left to do.
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest


def _started(out: Path, plan: Plan) -> Plan:
    """The plan of the job in `out`: the one found there, or this one, written down."""
    path = plan_path(out)
    if not path.exists():
        plan.write(path)
        sync_directory(out)
        return plan
    before = Plan.read(path)
    if differences := before.differences(plan):
        raise UsageError(
            f"{out} holds a half-done data set made differently ({'; '.join(differences)}): "
            "repeat what it was started with to go on, or give another directory"
        )
    return before


def _make_shards(job: Job, options: Options) -> list[ShardResult]:
    """Makes, or finds whole, every shard of the plan; the results are in the plan's order."""
    tasks = job.plan.tasks
    workers = options.workers or len(os.sched_getaffinity(0))
    rejects: dict[str, list[Rejected]] = {split: [] for split in job.plan.splits}
    results: dict[Task, ShardResult] = {}
    with (
        _Bar(sum(job.plan.splits.values())) as bar,
        _how_to_go_on(job.out, results, len(tasks)),
        contextlib.closing(run_tasks(job.run, tasks, workers, bar.advance)) as running,
    ):
        for result in running:
            results[result.split, result.number] = result
            rejects[result.split] += result.rejects
            _check_rejects(job, result.split, rejects[result.split], options.max_rejects)
    return [results[task] for task in tasks]


@contextlib.contextmanager
def _how_to_go_on(out: Path, results: Mapping[Task, ShardResult], shards: int) -> Iterator[None]:
    """Adds to whatever stops the job how much of it is done and that it can be continued."""
    try:
        yield
    except BaseException as error:
        state = f"{len(results)} of {shards} shards are finished and kept; the same command goes on from there"
        if isinstance(error, ShardfeedError):
            raise ShardfeedError(f"{error}. {state}") from error
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ShardfeedError(f"there is no space left for {out}: free some. {state}") from error
        print(f"stopped: {state}", file=sys.stderr)
        raise


def _check_rejects(job: Job, split: str, rejects: list[Rejected], allowed: float) -> None:
    rows = job.plan.splits[split]
    if len(rejects) <= allowed * rows:
        return
    _write_rejects(job.out, split, rejects)
    shown = "; ".join(f"row {entry.row} ({entry.path}): {entry.reason}" for entry in rejects[:SHOWN_REJECTS])
    share = len(rejects) / rows
    digits = 10 ** math.floor(math.log10(share))
    raise ShardfeedError(
        f"{len(rejects)} of the {rows:,} images of {split} cannot be used, and --max-rejects {allowed:g} allows "
        f"{math.floor(allowed * rows)}: {shown}{'; ...' if len(rejects) > SHOWN_REJECTS else ''} (all so far are in "
        f"{split_dir(job.out, split) / REJECTS}). Mend them in the source and start anew, or do without them: "
        f"--max-rejects {min(1.0, math.ceil(share / digits) * digits):g}"
    )


def _write_rejects(out: Path, split: str, rejects: list[Rejected]) -> None:
    lines = [json.dumps(asdict(entry), ensure_ascii=False) for entry in sorted(rejects, key=lambda entry: entry.row)]
    with replacing(split_dir(out, split) / REJECTS) as file:
        file.write("".join(f"{line}\n" for line in lines).encode())


def _finish(out: Path, plan: Plan, class_names: tuple[str, ...], results: list[ShardResult]) -> Manifest:
    """Writes each split's index and rejects, then the manifest; removes the work directory."""
    splits: dict[str, SplitInfo] = {}
    for split in plan.splits:
        done = [result for result in results if result.split == split]
        rejects = [entry for result in done for entry in result.rejects]
        Index.concatenate([Index.read(index_path(out, split, result.number), keys=True) for result in done]).write(
            split_dir(out, split) / INDEX
        )
        _write_rejects(out, split, rejects)
        splits[split] = SplitInfo(
            samples=sum(result.info.samples for result in done),
            rejects=len(rejects),
            shards=tuple(result.info for result in done),
            kinds=dict(sorted(sum((Counter(result.kinds) for result in done), Counter()).items())),
        )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        program_version=plan.program_version,
        source=plan.source,
        fingerprint=plan.fingerprint,
        class_names=class_names,
        settings=plan.settings,
        splits=splits,
        libraries=plan.libraries,
    )
    manifest.write(out)
    shutil.rmtree(out / WORK)
    return manifest


def _summarise(out: Path, manifest: Manifest, results: list[ShardResult], seconds: float) -> None:
    for name, split in manifest.splits.items():
        print(
            f"{name}: samples {split.samples:,}, shards {len(split.shards):,}, MB {split.bytes / 1e6:,.1f}, "
            f"rejects {split.rejects:,}{f' (see {split_dir(out, name) / REJECTS})' if split.rejects else ''}"
        )
        kinds = sorted(split.kinds.items(), key=lambda entry: (-entry[1], entry[0]))
        print("  from " + ", ".join(f"{kind}: {count:,}" for kind, count in kinds))
    fresh = [result for result in results if result.fresh]
    images = sum(result.info.samples + len(result.rejects) for result in fresh)
    kept = f", {len(results) - len(fresh)} shards were there" if len(fresh) < len(results) else ""
    print(f"{out}: {images:,} images in {seconds:.1f} s, {images / seconds:,.0f} images/s{kept}")


def _contents(manifest: Manifest) -> str:
    return ", ".join(f"{split.samples:,} samples in {name}" for name, split in manifest.splits.items())


class _Bar:
    """One progress bar over all workers: images/s, MB kept, rejects."""

    def __init__(self, images: int) -> None:
        self._bar = tqdm(total=images, unit="images", disable=None)
        self._bytes = 0
        self._rejects = 0

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, images: int, size: int, rejects: int) -> None:
        self._bytes += size
        self._rejects += rejects
        self._bar.set_postfix_str(f"{self._bytes / 1e6:,.0f} MB, {self._rejects} rejected", refresh=False)
        self._bar.update(images)
