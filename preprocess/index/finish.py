"""The end of an indexing job: writes table, cleaned images and rejects of each split, and makes the manifest."""

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from preprocess.index.tar_job import TarJob, TarResult
from preprocess.job.finish import general, write_rejects
from preprocess.job.task import Rejected
from shards.common.atomic import replacing
from shards.common.errors import UsageError
from shards.common.versions import version
from shards.format.index import DTYPES, Index
from shards.format.layout import INDEX, sample_key, shard_name, split_dir
from shards.format.manifest import INDEXED_VERSION, Manifest, Settings, ShardInfo, SplitInfo, index_info
from shards.format.tar import Sample, write_shard
from shards.indexed.places import lies_alone
from shards.indexed.source import CLEANED, Source, identity

# Cleaned images in one shard: they are stored decoded, half a megabyte each.
SHARD_SIZE = 1000
# Rows of the table that are written at once: in groups of a thousand it takes ten times as long to read.
ROWS = 1 << 17


def finish(job: TarJob, source: Source, out: Path, results: Sequence[TarResult], names: tuple[str, ...]) -> Manifest:
    """Writes everything but the manifest, in `out`, and returns that.

    `results`: of all tars, in order; `names`: of the classes. Memory does not grow with the number of samples.
    """
    splits, content, beside = {}, hashlib.sha256(), True
    for split, tars in source.splits.items():
        done = [result for result in results if result.split == split]
        tar_infos = [
            ShardInfo(Path(tar.name).name, tar.bytes, result.samples, "", _place(source, out, tar.name), tar.modified)
            for tar, result in zip(tars, done, strict=True)
        ]
        beside = beside and not any(lies_alone(tar.place) for tar in tar_infos)
        path = split_dir(out, split) / INDEX
        cleaned: list[ShardInfo] = []
        with replacing(path) as file, pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
            waiting: list[pa.Table] = []
            for table in _tables(job, source, out, done, cleaned):
                _add(content, table)
                waiting.append(_arrow(table))
                if sum(map(len, waiting)) >= ROWS:
                    writer.write_table(pa.concat_tables(waiting))
                    waiting.clear()
            if waiting:
                writer.write_table(pa.concat_tables(waiting))
        rejects = list(_rejects(job, source, done))
        write_rejects(out, split, rejects)
        reasons = Counter(general(entry.reason) for entry in rejects if "/" in entry.path)
        splits[split] = SplitInfo(
            samples=sum(result.samples + result.cleaned for result in done),
            rejects=sum(result.rejects for result in done),
            shards=(*tar_infos, *cleaned),
            kinds=dict(sorted(sum((Counter(result.kinds) for result in done), Counter()).items())),
            reasons=dict(sorted(reasons.items())),
            index=index_info(path),
            checksums=job.rules.whole,
        )
    return Manifest(
        format_version=INDEXED_VERSION,
        program_version=version("shardfeed") or "",
        source=source.given if beside else identity(source.given),  # read long after, in another directory
        fingerprint=content.hexdigest(),
        class_names=names,
        settings=Settings(short_side=None, quality=100, shard_size=SHARD_SIZE),
        splits=splits,
        libraries={name: version(name) or "" for name in ("Pillow", "simplejpeg")},
        tars_hash="" if any(result.damaged for result in results) else job.parts.name,
    )


def finished(job: TarJob, out: Path) -> Manifest | None:
    """The manifest in `out`, if it is of this very job and what was written beside it is there; else None."""
    try:
        manifest = Manifest.read(out)
    except UsageError:
        return None
    if (manifest.tars_hash, manifest.program_version) != (job.parts.name, version("shardfeed") or ""):
        return None
    lengths = {}
    for split, info in manifest.splits.items():
        assert info.index is not None
        lengths[split_dir(out, split) / INDEX] = info.index.bytes
        lengths |= {shard.path(out, split): shard.bytes for shard in info.shards if f"{split}{CLEANED}/" in shard.place}
    return manifest if all(_has(path, length) for path, length in lengths.items()) else None


def _has(path: Path, length: int) -> bool:
    return path.is_file() and path.stat().st_size == length


def _tables(
    job: TarJob, source: Source, out: Path, done: Sequence[TarResult], cleaned: list[ShardInfo]
) -> Iterator[Index]:
    """The rows of each tar, then those of the shards of cleaned images, which are written and added to `cleaned`."""
    for result in done:
        yield Index.read(job.part((result.split, result.number), "rows"), keys=True)
    waiting = _cleaned(job, done)
    left = sum(result.cleaned for result in done)
    while left:
        name, number = f"{done[0].split}{CLEANED}", len(cleaned)
        keys: list[str] = []

        def some(keys: list[str] = keys) -> Iterator[Sample]:
            for _ in range(SHARD_SIZE):
                if (sample := next(waiting, None)) is None:
                    return
                keys.append(sample.key)
                yield dataclasses.replace(sample, key=sample_key(len(keys) - 1))

        info, table = write_shard(out, name, number, some())
        left -= info.samples
        place = f"{name}/{info.name}" if not source.remote else str(out.absolute() / name / info.name)
        cleaned.append(dataclasses.replace(info, place=place))
        shard = np.full(len(table), len(done) + number, np.int32)
        yield dataclasses.replace(table, shard=shard, key=np.array(keys, object))


def _cleaned(job: TarJob, done: Sequence[TarResult]) -> Iterator[Sample]:
    """The cleaned images of all tars, under their own keys."""
    for result in done:
        if not result.cleaned:
            continue
        task = (result.split, result.number)
        table = Index.read(job.part(task, "cleaned"), keys=True)
        assert table.key is not None
        with (split_dir(job.parts, result.split) / shard_name(*task)).open("rb") as file:
            columns = (table.key, table.offset, table.size, table.label, table.width, table.height)
            for key, offset, size, label, width, height in zip(*(each.tolist() for each in columns), strict=True):
                file.seek(offset)
                yield Sample(key, file.read(size), label, width, height)


def _rejects(job: TarJob, source: Source, done: Sequence[TarResult]) -> Iterator[Rejected]:
    """The samples that are left out, as TAR/KEY, and what is to be said of whole tars."""
    for result in done:
        tar = source.splits[result.split][result.number].name
        yield from (Rejected(result.split, None, tar, note) for note in result.notes)
        yield from reject_entries(job, source, [result])


def reject_entries(job: TarJob, source: Source, done: Sequence[TarResult]) -> Iterator[Rejected]:
    """The samples that are left out, as TAR/KEY."""
    for result in done:
        tar = source.splits[result.split][result.number].name
        for key, reason in job.rejects((result.split, result.number)):
            yield Rejected(result.split, None, f"{tar}/{key}", reason)


def _place(source: Source, out: Path, name: str) -> str:
    """The place of a tar in the manifest: relative to it where the index lies beside the tars."""
    if not source.remote and out.absolute() == Path(source.directory):
        return name
    if not source.remote and out.absolute().parent == Path(source.directory) and out.suffix == ".index":
        return f"../{name}"
    return f"{source.directory}/{name}"


_SCHEMA = pa.schema([*((name, pa.from_numpy_dtype(dtype)) for name, dtype in DTYPES.items()), ("key", pa.string())])


def _arrow(table: Index) -> pa.Table:
    columns = {name: pa.array(getattr(table, name)) for name in DTYPES}
    return pa.table({**columns, "key": pa.array(table.key, pa.string())}, schema=_SCHEMA)


def _add(content: "hashlib._Hash", table: Index) -> None:
    """Adds what identifies the content of some rows, wherever their tars lie."""
    for column in ("shard", "offset", "size", "label", "width", "height", "crc32"):
        content.update(getattr(table, column).tobytes())
    assert table.key is not None
    content.update("\n".join(table.key.tolist()).encode())
