"""OUT behind a URL: each shard is made on this machine's disk, uploaded, read back and compared, and then marked.

The layout is that of a directory: plan and markers under `.work`, the manifest last. Shards are made in a directory of
the cache, the stage, and removed from it once they are uploaded, so each worker needs room for two shards: the one it
makes, and what it reads back.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from preprocess.job.estimate import Estimate
from preprocess.job.finish import check_files, finish
from preprocess.job.out import read_plan, refuse_other_files
from preprocess.job.plan import Plan
from preprocess.job.task import PLAN, WORK, ShardJob, ShardResult, Task, index_path, marker_path, plan_path, read_marker
from preprocess.job.workers import Progress
from preprocess.sources.source import Source
from shards.common.errors import ShardfeedError, UsageError
from shards.common.space import check_room
from shards.format.layout import INDEX, MANIFEST, REJECTS, dali_index_name, shard_name, split_dir
from shards.format.manifest import Manifest
from shards.remote.cache import cache_home
from shards.remote.object_store import ObjectStore

# How often a file is uploaded before it is an error that other bytes are read back.
WRONG_BYTES = 3
# Small files that are downloaded at the same time.
TRANSFERS = 16
_PLAN = f"{WORK}/{PLAN}"


@dataclass(frozen=True)
class Upload:
    """A data set behind a URL. `stage`: the directory in which this machine makes the shards of this plan."""

    remote: ObjectStore
    stage: Path
    plan: Plan

    @classmethod
    def begin(cls, remote: ObjectStore, plan: Plan) -> "Upload":
        """Uploads the plan, or resumes the one found there. Raises UsageError where that one makes other bytes."""
        with tempfile.TemporaryDirectory() as directory:
            path = plan_path(Path(directory))
            plan.write(path)
            remote.create(_PLAN, path.read_bytes())
        plan = check_plan(remote, plan)
        digest = hashlib.sha256(f"{remote}\n{plan.digest}".encode()).hexdigest()[:32]
        return cls(remote, cache_home() / "staging" / digest, plan)

    def finish(self, source: Source, results: Sequence[ShardResult]) -> Manifest:
        """Makes the index and the rejects of each split from the shards' parts, uploads them, and the manifest last.

        Raises UsageError where another job has replaced the plan, ShardfeedError where one has removed it.
        """
        check_plan(self.remote, self.plan)
        check_files(results, self.remote.sizes)
        with ThreadPoolExecutor(TRANSFERS) as threads:
            list(threads.map(self._fetch_index, results))
        manifest = finish(self.stage, self.plan, source, results)
        for split in manifest.splits:
            for name in (INDEX, REJECTS):
                send(split_dir(self.stage, split) / name, self.remote, f"{split}/{name}")
        send(self.stage / MANIFEST, self.remote, MANIFEST)
        self.remote.remove(WORK)
        shutil.rmtree(self.stage, ignore_errors=True)
        return manifest

    def _fetch_index(self, result: ShardResult) -> None:
        """Fetches a shard's part of the index. Raises ShardfeedError where it is not the one that the marker names."""
        path = index_path(self.stage, result.split, result.number)
        name = f"{WORK}/{path.name}"
        for _ in range(WRONG_BYTES):
            try:
                data = self.remote.read(name)
            except FileNotFoundError:
                raise _gone(self.remote) from None
            if hashlib.sha256(data).hexdigest() == result.index:
                path.write_bytes(data)
                return
        raise ShardfeedError(
            f"{self.remote.at(name)} is not what was uploaded there (its SHA-256 differs; {WRONG_BYTES} attempts): "
            "remove it and start the same command again, which makes its shard again"
        )


@dataclass(frozen=True)
class UploadJob:
    """Makes and uploads any shard of a data set behind a URL. It pickles, for worker processes.

    `local`: the job that makes the shards, in the stage.
    """

    local: ShardJob
    remote: ObjectStore

    @property
    def plan(self) -> Plan:
        """The plan of the data set."""
        return self.local.plan

    def run(self, task: Task, progress: Progress) -> ShardResult:
        """Makes and uploads one shard, its index and its marker, or finds them there. Raises as ShardJob.run does."""
        found = self.find(task, progress)
        if found is not None:
            return found
        result = self.local.run(task, progress)
        tar = self._tar(task)
        index, marker = index_path(self.local.out, *task), marker_path(self.local.out, *task)
        marker.write_text(json.dumps({**json.loads(marker.read_bytes()), "plan": self.plan.digest}))
        check_plan(self.remote, self.plan)
        own = [tar, tar.with_name(dali_index_name(tar.name)), index, marker]
        for path in own:
            send(path, self.remote, path.relative_to(self.local.out).as_posix())
        for path in reversed(own):
            path.unlink()
        return result

    def find(self, task: Task, progress: Progress) -> ShardResult | None:
        """The shard that the marker describes, if it is there in full length and its indices exist; None if not."""
        try:
            data = self.remote.read(f"{WORK}/{marker_path(self.local.out, *task).name}")
        except FileNotFoundError:
            return None
        found = read_marker(task, data)
        if found is None or json.loads(data).get("plan") != self.plan.digest:
            return None
        if self.remote.size(f"{task[0]}/{found.info.name}") != found.info.bytes:
            return None
        indices = (f"{task[0]}/{dali_index_name(found.info.name)}", f"{WORK}/{index_path(self.local.out, *task).name}")
        if not all(map(self.remote.size, indices)):
            return None
        progress(0, found.info.bytes, len(found.rejects), found.info.samples + len(found.rejects))
        return found

    def unfinished(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that have no marker; the shards of the others are not checked."""
        there = self.remote.sizes(WORK)
        return [task for task in tasks if marker_path(self.local.out, *task).name not in there]

    def _tar(self, task: Task) -> Path:
        return split_dir(self.local.out, task[0]) / shard_name(*task)


def check_plan(remote: ObjectStore, plan: Plan) -> Plan:
    """The plan in the store. Raises UsageError where it makes other bytes than `plan`, ShardfeedError without one.

    A store has no locks. Where it cannot create an object in one step, two jobs that begin at the same moment may both
    write their plan, and the last one stays. So each job calls this before it uploads a shard, and before the
    manifest; the job whose plan was replaced stops. The markers that it has written hold its plan's digest, so the
    other job makes those shards again. Two jobs of the same plan make the same bytes.
    """
    try:
        data = remote.read(_PLAN)
    except FileNotFoundError:
        raise _gone(remote) from None
    with tempfile.TemporaryDirectory() as directory:
        path = plan_path(Path(directory))
        path.parent.mkdir()
        path.write_bytes(data)
        return read_plan(Path(directory), plan, str(remote))


def check_stage(job: UploadJob, needed: Estimate, workers: int) -> None:
    """Raises ShardfeedError where the stage has too little room: each worker keeps a shard there, and reads it back."""
    if not needed.images:
        return
    rows = sorted((len(job.plan.rows(*task)) for task in job.plan.tasks), reverse=True)
    check_room(
        f"making {min(workers, len(rows))} shards at the same time",
        {job.local.out: round(2 * sum(rows[:workers]) * needed.most / needed.images)},
        "set XDG_CACHE_HOME to a directory on another disk, give fewer --workers, or skip this check with --force",
    )


def _gone(remote: ObjectStore) -> ShardfeedError:
    return ShardfeedError(
        f"another job has finished or removed {remote} meanwhile: start the same command again to see what it holds"
    )


def check_remote_out(remote: ObjectStore) -> None:
    """Raises UsageError for a place that holds other files, and for a web server."""
    if remote.scheme in ("http", "https"):
        raise UsageError(f"{remote}: a web server cannot be written to: give a directory, or s3://BUCKET/PATH")
    there = remote.sizes()
    if MANIFEST not in there:
        refuse_other_files(remote, there)


def remote_manifest(remote: ObjectStore) -> Manifest | None:
    """The manifest of a finished data set; None where it is not finished."""
    try:
        data = remote.read(MANIFEST)
    except FileNotFoundError:
        return None
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / MANIFEST).write_bytes(data)
        return Manifest.read(directory)


def send(path: Path, remote: ObjectStore, name: str) -> None:
    """Uploads a file and compares what is read back. Raises ShardfeedError where it differs after three attempts."""
    sent = _sha256(path)
    back = path.with_name(f"{path.name}.back")
    try:
        for _ in range(WRONG_BYTES):
            remote.put(path, name)
            remote.fetch(name, back)
            if _sha256(back) == sent:
                return
    finally:
        back.unlink(missing_ok=True)
    raise ShardfeedError(
        f"{remote.at(name)} comes back with other bytes than were sent ({WRONG_BYTES} attempts): check the store and "
        "the network, and start the same command again"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
