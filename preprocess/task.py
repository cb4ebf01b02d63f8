"""One shard, made from a plan: an independent task whose marker is written after the shard is in place.

A task that finds its marker checks the shard against it and, if all is well, leaves it as it is.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from preprocess.plan import Plan
from preprocess.stored import Source
from shards.atomic import replacing
from shards.errors import ShardfeedError
from shards.index import Index
from shards.layout import dali_index_name, sample_key, shard_name, split_dir
from shards.manifest import ShardInfo
from shards.writer import Sample, dali_index, write_shard

WORK = ".work"
PLAN = "plan.json"

Task = tuple[str, int]
# Called as work goes on with how many more (images seen, bytes kept, images rejected) there are.
Progress = Callable[[int, int, int], None]


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
        """Makes one shard, its index and its marker, or finds them whole. Raises OSError as the file system does."""
        split, number = task
        found = self._find(split, number)
        if found is not None:
            progress(found.info.samples + len(found.rejects), found.info.bytes, len(found.rejects))
            return found
        kinds: Counter[str] = Counter()
        rejects: list[Rejected] = []
        info, index = write_shard(self.out, split, number, self._samples(split, number, kinds, rejects, progress))
        result = ShardResult(split, number, info, dict(sorted(kinds.items())), tuple(rejects))
        index.write(index_path(self.out, split, number))
        with replacing(_marker_path(self.out, split, number)) as file:
            file.write(json.dumps(dataclasses.asdict(result)).encode())
        return result

    def _samples(
        self, split: str, number: int, kinds: Counter[str], rejects: list[Rejected], progress: Progress
    ) -> Iterator[Sample]:
        from preprocess.image import Reject, convert, one_thread

        settings = self.plan.settings
        with one_thread():
            for row in self.plan.rows(split, number).tolist():
                path = f"row {row}"
                try:
                    item = self.source.row(split, row)
                    path = item.path
                    image = convert(item.data, settings.short_side, settings.quality)
                except (Reject, FileNotFoundError, PermissionError, IsADirectoryError) as error:
                    reason = str(error) if isinstance(error, Reject) else f"its file cannot be read: {error}"
                    rejects.append(Rejected(split, row, path, reason))
                    progress(1, 0, 1)
                    continue
                kinds[image.kind] += 1
                yield Sample(sample_key(row), image.data, item.label, image.width, image.height)
                progress(1, len(image.data), 0)

    def _find(self, split: str, number: int) -> ShardResult | None:
        try:
            content = json.loads(_marker_path(self.out, split, number).read_bytes())
            index = Index.read(index_path(self.out, split, number), keys=True)
            tar = split_dir(self.out, split) / shard_name(split, number)
            with tar.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            idx = tar.with_name(dali_index_name(tar.name)).read_bytes()
            found = ShardResult(
                split=split,
                number=number,
                info=ShardInfo(**content["info"]),
                kinds=content["kinds"],
                rejects=tuple(Rejected(**entry) for entry in content["rejects"]),
                fresh=False,
            )
        except (FileNotFoundError, ShardfeedError, ValueError, KeyError, TypeError):
            # Never finished, or damaged since: it is made again, and comes out the same.
            return None
        return found if sha256 == found.info.sha256 and idx == dali_index(index) else None


def plan_path(out: Path) -> Path:
    """Where the plan of an unfinished data set lies."""
    return out / WORK / PLAN


def index_path(out: Path, split: str, number: int) -> Path:
    """Where a finished shard's part of the index waits until all are there."""
    return out / WORK / f"{split}-{number:05d}.parquet"


def _marker_path(out: Path, split: str, number: int) -> Path:
    return out / WORK / f"{split}-{number:05d}.json"
