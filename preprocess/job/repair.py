"""Makes damaged or missing files of a finished data set again from its source: the same bytes, or none.

The manifest holds the SHA-256 of each shard and the settings, which give the plan. A shard is made again in the work
directory, and moved into place only if its SHA-256 is the manifest's, so no file gets worse. Indices and the lists of
rejects are compared with the shards, and written again where they differ. The bytes of an index depend on the parquet
library: where they differ from the manifest's, the manifest is written again too.
"""

import dataclasses
import hashlib
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import numpy as np
from zlib_ng.zlib_ng import crc32

from preprocess.images import jpeg_header as jpeg
from preprocess.job.finish import general, passed_over, rejects_lines, write_rejects
from preprocess.job.plan import NOT_INSTALLED, Plan
from preprocess.job.summary import contents
from preprocess.job.task import WORK, Rejected, ShardJob, Tally, Task
from preprocess.job.workers import Progress, ProgressBar, default_workers, run_tasks
from preprocess.options import Options
from preprocess.sources import open_source
from shards.common.atomic import replacing, sync_directory
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import counted, doing
from shards.common.versions import version
from shards.format.index import DTYPES, Index
from shards.format.layout import INDEX, MANIFEST, REJECTS, Encoding, dali_index_name, extension, shard_name, split_dir
from shards.format.manifest import ADVICE, IndexInfo, Manifest, Settings, ShardInfo, index_info
from shards.format.ppm import ppm_size
from shards.format.tar import dali_index, write_shard
from shards.format.verify import count_problems, unexpected_files

STAGE = "repair"


@dataclass(frozen=True)
class Repaired:
    """A shard that was checked. `index`: of its samples, None where the shard could not be mended.

    `files`: names of the files written again; `fault`: why the shard could not be mended, or "". `blamed`: the
    manifest, where the shard that is there is what the source gives; versions, where it is not, and what is made again
    is not the manifest's either.
    """

    task: Task
    index: Index | None
    files: tuple[str, ...] = ()
    fault: str = ""
    blamed: Literal["", "manifest", "versions"] = ""


@dataclass(frozen=True)
class RepairJob:
    """Checks and mends any shard. It pickles, for worker processes."""

    job: ShardJob
    shards: Mapping[Task, ShardInfo]

    def run(self, task: Task, progress: Progress) -> Repaired:
        """Makes a damaged shard again, and its DALI index; leaves what is whole as it is."""
        split, number = task
        tar = split_dir(self.job.out, split) / self.shards[task].name
        if _sha256(tar) != self.shards[task].sha256:
            return self._remake(task, tar, progress)
        index = self.job.with_columns(split, _index_of(tar, number, self._encoding))
        progress(0, self.shards[task].bytes, 0, len(self.job.plan.rows(split, number)))
        idx = tar.with_name(dali_index_name(tar.name))
        if idx.is_file() and idx.read_bytes() == dali_index(index, self._encoding):
            return Repaired(task, index)
        with replacing(idx) as file:
            file.write(dali_index(index, self._encoding))
        return Repaired(task, index, (idx.name,))

    @property
    def _encoding(self) -> Encoding:
        return self.job.plan.settings.encoding

    def _remake(self, task: Task, tar: Path, progress: Progress) -> Repaired:
        stage = self.job.out / WORK / STAGE
        made, index = write_shard(stage, *task, self.job.samples(task, Tally(), progress), self._encoding)
        staged = split_dir(stage, task[0]) / made.name
        wanted = self.shards[task].sha256
        if made.sha256 != wanted:
            staged.unlink()
            hashes = f"(SHA-256 {made.sha256[:8]}, manifest {wanted[:8]})"
            if made.sha256 == _sha256(tar):
                fault = f"{made.name} is as the source gives it, not as the manifest says {hashes}"
                return Repaired(task, None, fault=fault, blamed="manifest")
            return Repaired(task, None, fault=f"{made.name} comes out with other bytes {hashes}", blamed="versions")
        tar.parent.mkdir(exist_ok=True)
        idx = dali_index_name(made.name)
        staged.with_name(idx).replace(tar.with_name(idx))
        staged.replace(tar)
        sync_directory(tar.parent)
        if _sha256(tar) != wanted:
            return Repaired(task, None, fault=f"{made.name} reads back with other bytes than were written")
        return Repaired(task, self.job.with_columns(task[0], index), (made.name, idx))


def repair(options: Options, manifest: Manifest) -> None:
    """Mends the data set in OUT from SOURCE, and prints which files were written again. The caller holds the lock.

    Raises UsageError for a different source, ShardfeedError that names the files that could not be mended.
    """
    out = Path(options.out)
    plan = _plan(options, manifest)
    with doing(f"reading what {options.source} holds"):
        source = open_source(
            options.source,
            tuple(manifest.splits),
            options.image_column,
            options.label_column,
            options.val_labels,
            tuple(manifest.columns),
        )
    if source.fingerprint != manifest.fingerprint:
        raise UsageError(
            f"{options.source} is not what {out} was made from ({manifest.source}): its content differs "
            f"(fingerprint {source.fingerprint[:8]}, manifest {manifest.fingerprint[:8]}); give the original source"
        )
    job = ShardJob(source, plan, out)
    shards = {
        (split, number): shard for split, info in manifest.splits.items() for number, shard in enumerate(info.shards)
    }
    found: dict[Task, Repaired] = {}
    with ProgressBar(sum(plan.splits.values())) as bar:
        workers = options.workers or default_workers()
        for repaired in run_tasks(RepairJob(job, shards).run, plan.tasks, workers, bar.advance):
            found[repaired.task] = repaired
            for name in repaired.files:
                bar.write(f"made again: {name}")
    faults = [found[task].fault for task in plan.tasks if found[task].fault]
    mended = sum(len(repaired.files) for repaired in found.values())
    for split in plan.splits:
        parts = [found[task].index for task in plan.tasks if task[0] == split]
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):
            faults.append(f"{split}/{INDEX} was not checked, because not all shards are the manifest's")
            continue
        written = _mend_index(out, split, Index.concatenate(whole), manifest.splits[split].index)
        if written is not None:
            mended += 1
            manifest = _with_index(out, split, written, manifest)
        rewritten, fault = _mend_rejects(job, split, Index.concatenate(whole), manifest)
        mended += rewritten
        faults += fault
    shutil.rmtree(out / WORK, ignore_errors=True)
    if faults:
        why = _why([found[task] for task in plan.tasks if found[task].fault], manifest)
        raise ShardfeedError(f"{out} is not whole: {'; '.join(faults)}{why}")
    # What `verify` looks at besides shards and indices, and what a source cannot mend.
    left = unexpected_files(out, manifest)
    left += [problem for split, info in manifest.splits.items() for problem in count_problems(out, split, info)]
    if left:
        raise ShardfeedError(
            f"{out}: every shard has the manifest's SHA-256, but {'; '.join(map(str, left))}. Remove what should not "
            f"be there; a manifest that is wrong: {ADVICE}"
        )
    state = f"{counted(mended, 'file')} made again, now whole" if mended else "nothing is damaged or missing"
    print(f"{out}: {state}: {contents(manifest)}; every shard has the manifest's SHA-256")


def _why(faults: Sequence[Repaired], manifest: Manifest) -> str:
    """Why shards came out with other bytes: other versions of the libraries made them, or the manifest was changed."""
    blamed = {each.blamed for each in faults} - {""}
    if not blamed:
        return ""
    made_with = {"shardfeed": manifest.program_version, **manifest.libraries}
    here = {name: version(name) or NOT_INSTALLED for name in made_with}
    others = [f"{name} {made_with[name]}, here {here[name]}" for name in made_with if made_with[name] != here[name]]
    if "versions" in blamed and others:
        return f". Other versions make other bytes; it was made with {', '.join(others)}"
    return f". The manifest was changed: {ADVICE}"


def _plan(options: Options, manifest: Manifest) -> Plan:
    """The plan that the data set was made by. Raises UsageError for options that contradict it."""
    plan = Plan.of_manifest(manifest, manifest.libraries, manifest.program_version)
    if options.settings not in (Settings(), manifest.settings):
        given = Plan(plan.source, plan.fingerprint, plan.splits, options.settings, plan.program_version, plan.libraries)
        raise UsageError(
            f"{options.out} was made with other settings ({'; '.join(plan.differences(given))}): "
            "--repair takes them from the manifest, so leave these options out"
        )
    if options.splits is not None and set(options.splits) != set(manifest.splits):
        raise UsageError(f"{options.out} holds {' and '.join(manifest.splits)}: --repair mends all, leave out --splits")
    if options.keep and set(options.keep) != set(manifest.columns):
        raise UsageError(f"{options.out} keeps {', '.join(manifest.columns) or 'no columns'}: leave out --keep")
    for split, info in manifest.splits.items():
        if [shard.name for shard in info.shards] != [shard_name(*task) for task in plan.tasks if task[0] == split]:
            raise ShardfeedError(
                f"the manifest of {options.out} is damaged: the shards it names for {split} are not those of its "
                "settings; make the data set again in another directory"
            )
    return plan


def _sha256(path: Path) -> str:
    """The hash of a file, or "" where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _index_of(tar: Path, number: int, encoding: Encoding) -> Index:
    """The index of a shard that is known to be whole."""
    rows: list[tuple[int, int, int, int, int, int, int]] = []
    keys: list[str] = []
    with tarfile.open(tar) as archive:
        members = iter(archive)
        for image, label in zip(members, members, strict=True):
            data = _read(archive.extractfile(image))
            number_of_class = int(_read(archive.extractfile(label)))
            size = _size(data, encoding)
            rows.append((number, image.offset_data, len(data), number_of_class, *size, crc32(data)))
            keys.append(image.name.removesuffix(f".{extension(encoding)}"))
    return Index.from_rows(rows, keys)


def _size(data: bytes, encoding: Encoding) -> tuple[int, int]:
    if encoding == "raw":
        return ppm_size(data)
    header = jpeg.read_header(data)
    return header.width, header.height


def _read(file: IO[bytes] | None) -> bytes:
    assert file is not None, "shards hold nothing but files"
    return file.read()


def _mend_index(out: Path, split: str, index: Index, known: IndexInfo | None) -> IndexInfo | None:
    """Writes the index of a split again where it is damaged; returns its entry of the manifest, None if it is whole.

    Compares bytes, since damage to a table need not show in its content. `known`: the manifest's entry.
    """
    path = split_dir(out, split) / INDEX
    made = out / WORK / STAGE / f"{split}.parquet"
    index.write(made)
    if path.is_file():
        there, here = index_info(path), index_info(made)
        # Other versions of the parquet library make other bytes of the same table.
        if (there == here and known in (None, here)) or (there == known and _is_table(path, index)):
            return None
    written = index_info(made)
    made.replace(path)
    sync_directory(path.parent)
    print(f"made again: {split}/{INDEX}")
    return written


def _is_table(path: Path, index: Index) -> bool:
    """Whether an index file holds these rows."""
    try:
        there = Index.read(path, keys=True, extra=tuple(index.extra))
    except ShardfeedError:
        return False
    return there.extra == index.extra and all(
        np.array_equal(getattr(there, name), getattr(index, name)) for name in (*DTYPES, "key")
    )


def _with_index(out: Path, split: str, written: IndexInfo, manifest: Manifest) -> Manifest:
    """The manifest with the entry of an index just written. It is written too, where its entry differs."""
    info = manifest.splits[split]
    if info.index in (None, written):
        return manifest
    changed = dataclasses.replace(manifest, splits={**manifest.splits, split: dataclasses.replace(info, index=written)})
    changed.write(out)
    print(f"written again for it: {MANIFEST}")
    return changed


def _mend_rejects(job: ShardJob, split: str, index: Index, manifest: Manifest) -> tuple[int, list[str]]:
    """Writes the rejects of a split again where they are damaged: the number of files written, and what failed."""
    path = split_dir(job.out, split) / REJECTS
    assert index.key is not None
    rows = sorted(set(range(job.plan.splits[split])) - {int(key) for key in index.key})
    if _are_the_rejects(path, rows, manifest.splits[split].reasons):
        return 0, []
    made = [job.convert_row(split, row) for row in rows]
    rejects = [entry for entry in made if isinstance(entry, Rejected)]
    if len(rejects) < len(rows):
        return 0, [f"{path.name} of {split} cannot be made again: {len(rows) - len(rejects)} rejects are usable today"]
    write_rejects(job.out, split, [*rejects, *passed_over(job.source, split)])
    print(f"made again: {split}/{REJECTS}")
    return 1, []


def _are_the_rejects(path: Path, rows: Sequence[int], reasons: Mapping[str, int]) -> bool:
    try:
        content = path.read_bytes()
        rejects = [Rejected(**json.loads(line)) for line in content.splitlines()]
    except (OSError, ValueError, TypeError):
        return False
    # Files that are no rows may have come and gone in the source since.
    of_rows = [entry for entry in rejects if entry.row is not None]
    counts = Counter(general(entry.reason) for entry in of_rows)
    return [entry.row for entry in of_rows] == rows and counts == reasons and rejects_lines(rejects) == content
