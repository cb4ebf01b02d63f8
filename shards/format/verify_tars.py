"""Checks an index of tars that others wrote: lengths, times, and every image by its CRC-32.

What a conversion's shards have beside that (a SHA-256 of each tar, labels and headers in a fixed form) such tars lack.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from zlib_ng.zlib_ng import crc32

from shards.common.errors import ShardfeedError
from shards.common.terminal import ProgressLog, progress_bar
from shards.format.index import Index
from shards.format.layout import INDEX, split_dir
from shards.format.manifest import Manifest, ShardInfo, index_info
from shards.format.verify_image import decoding_error
from shards.format.verify_shard import Problem

JPEG = b"\xff\xd8"


def verify_tars(root: Path, manifest: Manifest, decode: bool, threads: int) -> tuple[Problem, ...]:
    """All that is wrong with tars on this machine. `decode`: decode every JPEG too."""
    problems: list[Problem] = []
    work: list[tuple[Path, ShardInfo, Index]] = []
    for split, info in manifest.splits.items():
        path = split_dir(root, split) / INDEX
        try:
            index = Index.read(path, keys=True)
            index.check(path, info.shards, len(manifest.class_names), manifest.settings.encoding)
        except ShardfeedError as error:
            problems.append(Problem(f"{split}/{INDEX}", f"cannot be used: {error}"))
            continue
        if info.index is not None and index_info(path) != info.index:
            problems.append(Problem(f"{split}/{INDEX}", "its SHA-256 is not the manifest's: its bytes have changed"))
        bounds = np.searchsorted(index.shard, np.arange(len(info.shards) + 1)).tolist()
        for number, shard in enumerate(info.shards):
            rows = index.rows(slice(bounds[number], bounds[number + 1]))
            work.append((shard.path(root, split), shard, rows))
    total = sum(info.samples for info in manifest.splits.values())
    with progress_bar(total=total, unit="images") as bar, ThreadPoolExecutor(threads) as executor:
        try:
            checked = executor.map(lambda each: _problems(each[0], each[1], each[2], decode), work)
            log = ProgressLog(total)
            for found, (_, _, rows) in zip(checked, work, strict=True):
                problems += found
                bar.update(len(rows))
                log.advance(len(rows))
        except BaseException:
            executor.shutdown(cancel_futures=True)
            raise
    return tuple(problems)


def _problems(path: Path, shard: ShardInfo, index: Index, decode: bool) -> list[Problem]:
    """What is wrong with one tar."""
    name = str(path)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        return [Problem(name, f"cannot be read: {error.strerror}")]
    problems = []
    try:
        size = os.fstat(file).st_size
        if size != shard.bytes:
            problems.append(Problem(name, f"has {size:,} bytes, the index says {shard.bytes:,}"))
        assert index.key is not None
        columns = (index.key, index.offset, index.size, index.crc32)
        for key, offset, length, checksum in zip(*(column.tolist() for column in columns), strict=True):
            data = os.pread(file, length, offset)
            if len(data) < length:
                problems.append(Problem(name, "the tar ends in it", key, offset))
            elif crc32(data) != checksum:
                problems.append(Problem(name, "its image has changed: the CRC-32 is not the index's", key, offset))
            elif decode and data.startswith(JPEG) and (reason := decoding_error(data)):
                problems.append(Problem(name, f"its image cannot be decoded: {reason}", key, offset))
    except OSError as error:
        problems.append(Problem(name, f"cannot be read: {error.strerror}"))
    finally:
        os.close(file)
    return problems
