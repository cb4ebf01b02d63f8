"""One shard, made from a plan: an independent task whose marker is written after the shard is in place.

A task that finds its marker checks the shard against it and, if all is well, leaves it as it is.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from preprocess.job.plan import Plan
from preprocess.job.workers import Progress
from preprocess.sources.source import Source
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError
from shards.format.index import Index
from shards.format.layout import Encoding, dali_index_name, sample_key, shard_name, split_dir
from shards.format.manifest import ShardInfo
from shards.format.tar import Sample, dali_index, write_shard

WORK = ".work"
PLAN = "plan.json"

Task = tuple[str, int]


@dataclass(frozen=True)
class Rejected:
    """A source row that is in no shard, and why."""

    split: str
    row: int
    path: str
    reason: str


@dataclass(frozen=True)
class ShardResult:
    """A finished shard. `kinds`: samples by kind of input; `fresh`: made by this process and not found."""

    split: str
    number: int
    info: ShardInfo
    kinds: dict[str, int]
    rejects: tuple[Rejected, ...]
    fresh: bool = True


@dataclass(frozen=True)
class Job:
    """All that a worker process needs to make any shard of a data set."""

    source: Source
    plan: Plan
    out: Path

    def run(self, task: Task, progress: Progress) -> ShardResult:
        """Makes one shard, its index and its marker, or finds them whole.

        Raises OSError as the file system of the shards does, ShardfeedError that names the row where a source fails.
        """
        found = self.find(task, progress)
        if found is not None:
            return found
        split, number = task
        kinds: Counter[str] = Counter()
        rejects: list[Rejected] = []
        info, index = write_shard(self.out, split, number, self.samples(task, kinds, rejects, progress), self._encoding)
        result = ShardResult(split, number, info, dict(sorted(kinds.items())), tuple(rejects))
        index.write(index_path(self.out, split, number))
        with replacing(marker_path(self.out, split, number)) as file:
            file.write(json.dumps(dataclasses.asdict(result)).encode())
        return result

    def find(self, task: Task, progress: Progress) -> ShardResult | None:
        """The shard as its marker tells, if it is finished and its files are what the marker says; None if not."""
        split, number = task
        found = self._read_marker(split, number)
        if found is None:
            return None
        try:
            index = Index.read(index_path(self.out, split, number), keys=True)
            tar = split_dir(self.out, split) / shard_name(split, number)
            with tar.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            idx = tar.with_name(dali_index_name(tar.name)).read_bytes()
        except (FileNotFoundError, ShardfeedError):
            return None
        if sha256 != found.info.sha256 or idx != dali_index(index, self._encoding):
            return None
        progress(0, found.info.bytes, len(found.rejects), found.info.samples + len(found.rejects))
        return found

    def looks_finished(self, task: Task) -> bool:
        """Whether there is a marker; what it says is not checked."""
        return self._read_marker(*task) is not None

    def rows_as_read(self, task: Task) -> list[int]:
        """The rows of a shard in the order in which they are read and converted."""
        rows = self.plan.rows(*task).tolist()
        return sorted(rows) if self._in_source_order else rows

    def samples(self, task: Task, kinds: Counter[str], rejects: list[Rejected], progress: Progress) -> Iterator[Sample]:
        """Yields what goes into a shard, in its order, and adds up the kinds of input and the rejects."""
        converted = self._converted(task, kinds, rejects, progress)
        if not self._in_source_order:
            yield from converted
            return
        # A disk that hates to seek is read forwards only; the converted images of one shard wait in memory meanwhile.
        waiting = {sample.key: sample for sample in converted}
        for row in self.plan.rows(*task).tolist():
            if sample := waiting.pop(sample_key(row), None):
                yield sample

    def convert_row(self, split: str, row: int) -> tuple[Sample, str] | Rejected:
        """Reads and converts one row: the sample and the kind of file it was, or why there is none.

        Raises ShardfeedError that names the row where its source cannot be read, or something unforeseen happens.
        """
        from preprocess.images.convert import Reject, convert

        path = f"row {row}"
        settings = self.plan.settings
        try:
            item = self.source.row(split, row)
            path = item.path
            image = convert(item.data, settings.short_side, settings.quality, settings.encoding)
        except Reject as error:
            return Rejected(split, row, path, str(error))
        except (FileNotFoundError, PermissionError, IsADirectoryError) as error:
            return Rejected(split, row, path, f"its file cannot be read: {error}")
        except Exception as error:
            named = f"row {row} of {split} in {self.source.name}" + (f" ({path})" if path != f"row {row}" else "")
            raise ShardfeedError(f"{named} cannot be read or converted: {type(error).__name__}: {error}") from error
        return Sample(sample_key(row), image.data, item.label, image.width, image.height), image.kind

    @property
    def _encoding(self) -> Encoding:
        return self.plan.settings.encoding

    @property
    def _in_source_order(self) -> bool:
        return self.plan.settings.window is not None

    def _converted(
        self, task: Task, kinds: Counter[str], rejects: list[Rejected], progress: Progress
    ) -> Iterator[Sample]:
        for row in self.rows_as_read(task):
            made = self.convert_row(task[0], row)
            if isinstance(made, Rejected):
                rejects.append(made)
                progress(1, 0, 1, 0)
                continue
            sample, kind = made
            kinds[kind] += 1
            yield sample
            progress(1, len(sample.data), 0, 0)

    def _read_marker(self, split: str, number: int) -> ShardResult | None:
        try:
            return read_marker((split, number), marker_path(self.out, split, number).read_bytes())
        except FileNotFoundError:
            return None


def read_marker(task: Task, data: bytes) -> ShardResult | None:
    """The shard that a marker tells of; None for a damaged one: the shard is made again, and comes out the same."""
    split, number = task
    try:
        content = json.loads(data)
        return ShardResult(
            split=split,
            number=number,
            info=ShardInfo(**content["info"]),
            kinds=content["kinds"],
            rejects=tuple(Rejected(**entry) for entry in content["rejects"]),
            fresh=False,
        )
    except (ValueError, KeyError, TypeError):
        return None


def plan_path(out: Path) -> Path:
    """Where the plan of an unfinished data set lies."""
    return out / WORK / PLAN


def index_path(out: Path, split: str, number: int) -> Path:
    """Where a finished shard's part of the index waits until all are there."""
    return out / WORK / f"{split}-{number:05d}.parquet"


def marker_path(out: Path, split: str, number: int) -> Path:
    """Where the marker of a finished shard lies."""
    return out / WORK / f"{split}-{number:05d}.json"
