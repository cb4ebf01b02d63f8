"""One shard of a plan: an independent task, whose marker is written after the shard is in place.

A task that finds its marker compares the shard with it, and leaves a shard that is whole as it is.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from preprocess.job.plan import Plan
from preprocess.job.workers import Progress
from preprocess.sources.source import Source
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError
from shards.format.index import Index
from shards.format.layout import Encoding, dali_index_name, sample_key, shard_name, split_dir
from shards.format.manifest import ShardInfo, index_info
from shards.format.tar import Sample, dali_index, sample_bytes, write_shard

WORK = ".work"
PLAN = "plan.json"

Task = tuple[str, int]


@dataclass(frozen=True)
class Rejected:
    """A source row that is left out, and why. `row`: None for a file of the source that is no row of it."""

    split: str
    row: int | None
    path: str
    reason: str


@dataclass(frozen=True)
class Made:
    """A sample made of a source row, the kind of its image file, and whether the image was smaller."""

    sample: Sample
    kind: str
    enlarged: bool


@dataclass
class Tally:
    """What became of the rows of a shard so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    rejects: list[Rejected] = field(default_factory=list)
    enlarged: int = 0


@dataclass(frozen=True)
class ShardResult:
    """A finished shard.

    `kinds`: number of samples by kind of image file; `enlarged`: samples whose image was smaller; `index`: SHA-256 of
    the file of its part of the index, which holds the labels; `fresh`: made by this run, not found.
    """

    split: str
    number: int
    info: ShardInfo
    kinds: dict[str, int]
    rejects: tuple[Rejected, ...]
    enlarged: int = 0
    index: str = ""
    fresh: bool = True


@dataclass(frozen=True)
class ShardJob:
    """Makes any shard of a data set. It pickles, for worker processes."""

    source: Source
    plan: Plan
    out: Path

    @property
    def local(self) -> "ShardJob":
        """Itself; an UploadJob returns the ShardJob that it wraps."""
        return self

    def run(self, task: Task, progress: Progress) -> ShardResult:
        """Makes one shard, its index and its marker, or finds them whole.

        Raises OSError where the shard cannot be written, ShardfeedError that names the row where the source fails.
        """
        found = self.find(task, progress)
        if found is not None:
            return found
        split, number = task
        tally = Tally()
        info, index = write_shard(self.out, split, number, self.samples(task, tally, progress), self._encoding)
        progress(0, info.bytes - sum(map(sample_bytes, index.size.tolist())), 0, 0)  # the archive's end
        index = self.with_columns(split, index)
        part = index_path(self.out, split, number)
        index.write(part)
        result = ShardResult(
            split=split,
            number=number,
            info=info,
            kinds=dict(sorted(tally.kinds.items())),
            rejects=tuple(tally.rejects),
            enlarged=tally.enlarged,
            index=index_info(part).sha256,
        )
        with replacing(marker_path(self.out, split, number)) as file:
            file.write(json.dumps(dataclasses.asdict(result)).encode())
        return result

    def find(self, task: Task, progress: Progress) -> ShardResult | None:
        """The shard that the marker describes, if its files and rows are those of the marker; None if not."""
        split, number = task
        found = self._read_marker(split, number)
        if found is None:
            return None
        try:
            part = index_path(self.out, split, number)
            index, index_sha256 = Index.read(part, keys=True, extra=self.plan.keep), index_info(part).sha256
            tar = split_dir(self.out, split) / shard_name(split, number)
            with tar.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            idx = tar.with_name(dali_index_name(tar.name)).read_bytes()
        except (FileNotFoundError, ShardfeedError):
            return None
        if index_sha256 != found.index or sha256 != found.info.sha256 or tar.stat().st_size != found.info.bytes:
            return None
        if not self._has_all_rows(task, found, index) or idx != dali_index(index, self._encoding):
            return None
        progress(0, found.info.bytes, len(found.rejects), found.info.samples + len(found.rejects))
        return found

    def unfinished(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks that have no marker; the shards of the others are not checked."""
        return [task for task in tasks if self._read_marker(*task) is None]

    def rows_as_read(self, task: Task) -> list[int]:
        """The rows of a shard in the order in which they are read and converted."""
        rows = self.plan.rows(*task).tolist()
        return sorted(rows) if self._in_source_order else rows

    def samples(self, task: Task, tally: Tally, progress: Progress) -> Iterator[Sample]:
        """Yields the samples of a shard in order; adds to `tally`."""
        converted = self._converted(task, tally, progress)
        if not self._in_source_order:
            yield from converted
            return
        # The source is read forwards only, for disks that are slow to seek; the converted images wait in memory.
        waiting = {sample.key: sample for sample in converted}
        for row in self.plan.rows(*task).tolist():
            if sample := waiting.pop(sample_key(row), None):
                yield sample

    def with_columns(self, split: str, index: Index) -> Index:
        """The index of a shard with the columns of its rows that the plan keeps."""
        if not self.plan.keep:
            return index
        assert index.key is not None
        return dataclasses.replace(index, extra=self.source.columns(split, [int(key) for key in index.key]))

    def convert_row(self, split: str, row: int) -> Made | Rejected:
        """Reads and converts one row.

        Raises ShardfeedError that names the row where the source cannot be read or the conversion fails unexpectedly.
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
        sample = Sample(sample_key(row), image.data, item.label, image.width, image.height)
        return Made(sample, image.kind, image.enlarged)

    @property
    def _encoding(self) -> Encoding:
        return self.plan.settings.encoding

    @property
    def _in_source_order(self) -> bool:
        return self.plan.settings.window is not None

    def _converted(self, task: Task, tally: Tally, progress: Progress) -> Iterator[Sample]:
        for row in self.rows_as_read(task):
            made = self.convert_row(task[0], row)
            if isinstance(made, Rejected):
                tally.rejects.append(made)
                progress(1, 0, 1, 0)
                continue
            tally.kinds[made.kind] += 1
            tally.enlarged += made.enlarged
            yield made.sample
            progress(1, sample_bytes(len(made.sample.data)), 0, 0)

    def _has_all_rows(self, task: Task, found: ShardResult, index: Index) -> bool:
        """Whether each row of the shard is a sample or a reject, by the marker's counts too."""
        assert index.key is not None
        rows, rejected = self.plan.rows(*task).tolist(), {each.row for each in found.rejects}
        kept = [row for row in rows if row not in rejected]
        return (
            index.key.tolist() == [sample_key(row) for row in kept]
            and len(kept) + len(found.rejects) == len(rows)
            and len(kept) == found.info.samples == sum(found.kinds.values())
            and index.shard.tolist() == [task[1]] * len(kept)
        )

    def _read_marker(self, split: str, number: int) -> ShardResult | None:
        try:
            return read_marker((split, number), marker_path(self.out, split, number).read_bytes())
        except FileNotFoundError:
            return None


def read_marker(task: Task, data: bytes) -> ShardResult | None:
    """The shard that a marker describes; None for a damaged marker, so that the shard is made again."""
    split, number = task
    try:
        content = json.loads(data)
        result = ShardResult(
            split=split,
            number=number,
            info=ShardInfo(**content["info"]),
            kinds=dict(content["kinds"]),
            rejects=tuple(Rejected(**entry) for entry in content["rejects"]),
            enlarged=content["enlarged"],
            index=content["index"],
            fresh=False,
        )
    except (ValueError, KeyError, TypeError):
        return None
    return result if _is_sound(result) else None


def _is_sound(result: ShardResult) -> bool:
    """Whether the values of a marker have the right types, and are those of its shard."""
    info = result.info
    numbers = (info.samples, info.bytes, result.enlarged, *result.kinds.values())
    return (
        info.name == shard_name(result.split, result.number)
        and (info.place, info.modified) == ("", "")  # which only tars of others have
        and isinstance(info.sha256, str)
        and all(type(number) is int and number >= 0 for number in numbers)
        and all(each.split == result.split and type(each.row) is int for each in result.rejects)
        and all(isinstance(each.path, str) and isinstance(each.reason, str) for each in result.rejects)
    )


def plan_path(out: Path) -> Path:
    """The file that holds the plan of an unfinished data set."""
    return out / WORK / PLAN


def how_to_go_on(out: Path, kept: str = "") -> str:
    """The end of a message about a job that stopped: the same command continues, unless OUT was removed meanwhile.

    Without its plan, what the job wrote after that is taken for files of something else.
    """
    others = out.is_dir() and any(path.name != WORK for path in out.iterdir())
    if plan_path(out).exists() or not others:
        return f"{kept}the same command goes on from there"
    return (
        f"the plan in {out / WORK} has been removed, so remove what is left of {out} and start the same command again"
    )


def index_path(out: Path, split: str, number: int) -> Path:
    """The file that holds a finished shard's part of the index until all shards are finished."""
    return out / WORK / f"{split}-{number:05d}.parquet"


def marker_path(out: Path, split: str, number: int) -> Path:
    """The file that marks a shard as finished."""
    return out / WORK / f"{split}-{number:05d}.json"
