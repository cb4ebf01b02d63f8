"""Checks that a data set is what its manifest says, down to every sample: `python -m shards verify DIR [--decode]`.

Each shard is read once from end to end. Its SHA-256 is compared with the manifest, and everything in it with
index.parquet and the `.idx`: names, positions, lengths, labels, checksums, sizes in pixels. `--decode` decodes every
image too, with libjpeg-turbo by way of simplejpeg: the decoder that Pillow and DALI have inside, but one that also
says when the data was corrupt, where those deliver a smear. On a core it checks about as many images as are decoded.
Raw pixels need no decoding: an image whose header and length are right, and its checksum, is what was stored.
"""

import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm
from zlib_ng.zlib_ng import crc32

from shards.common.errors import ShardfeedError
from shards.format.index import Index
from shards.format.layout import BLOCK, INDEX, MANIFEST, REJECTS, Encoding, dali_index_name, extension, split_dir
from shards.format.manifest import Manifest, ShardInfo, SplitInfo, index_info
from shards.format.ppm import ppm_size
from shards.format.tar import archive_end, dali_index, label_text, tar_header

# Called with how many more samples are checked.
Progress = Callable[[int], None]
MAX_KEY = 96  # characters: with its extension a name has 100 in a tar's header
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be. `file`: relative to the data set; the rest where it is of a sample.

    `offset`: position in the tar of the first byte of the sample's image.
    """

    file: str
    message: str
    key: str | None = None
    offset: int | None = None

    def __str__(self) -> str:
        sample = "" if self.key is None else f": sample {self.key} at offset {self.offset}"
        return f"{self.file}{sample}: {self.message}"


@dataclass(frozen=True)
class Verified:
    """What was looked at, and all that is wrong with it, in the order of the shards."""

    shards: int
    samples: int
    bytes: int
    problems: tuple[Problem, ...]


def verify(root: str | Path, decode: bool = False, workers: int | None = None) -> Verified:
    """Checks the data set in `root` with `workers` threads, one for each core if None; shows progress on a terminal.

    Raises UsageError where `root` holds no finished data set.
    """
    root = Path(root)
    manifest = Manifest.read(root)
    classes, encoding = len(manifest.class_names), manifest.settings.encoding
    problems = list(_unexpected(root, manifest))
    work: list[tuple[str, int, ShardInfo, Index | None]] = []
    for split, info in manifest.splits.items():
        index, found = _split_index(root, split, info)
        problems += [*found, *_count_problems(root, split, info)]
        bounds = [0] * (len(info.shards) + 1)
        if index is not None:
            bounds = np.searchsorted(index.shard, np.arange(len(info.shards) + 1)).tolist()
        for number, shard in enumerate(info.shards):
            part = None if index is None else index.rows(slice(bounds[number], bounds[number + 1]))
            work.append((split, number, shard, part))
    results: dict[int, list[Problem]] = {}
    threads = workers or len(os.sched_getaffinity(0))
    lock = threading.Lock()
    total = sum(info.samples for info in manifest.splits.values())
    executor = ThreadPoolExecutor(threads, thread_name_prefix="shardfeed-verify")
    try:
        with tqdm(total=total, unit="images", disable=None) as bar:

            def progress(samples: int) -> None:
                with lock:
                    bar.update(samples)

            futures = {
                executor.submit(check_shard, root, split, shard, index, classes, decode, progress, encoding): place
                for place, (split, _, shard, index) in enumerate(work)
            }
            for future in as_completed(futures):
                results[futures[future]] = future.result()
    finally:
        # After Ctrl-C what is not begun need not be.
        executor.shutdown(cancel_futures=True)
    for place in range(len(work)):
        problems += results[place]
    return Verified(len(work), total, sum(shard.bytes for _, _, shard, _ in work), tuple(problems))


def check_shard(
    root: Path,
    split: str,
    info: ShardInfo,
    index: Index | None,
    classes: int,
    decode: bool = False,
    progress: Progress = lambda samples: None,
    encoding: Encoding = "jpeg",
) -> list[Problem]:
    """All that is wrong with one shard and its `.idx`; empty for a shard that is whole.

    `info`: what the manifest says of it. `index`: its rows of the index, with keys, or None to compare hashes only.
    `classes`: labels are below. `encoding`: of its images. Problems of reading are problems of the shard: no OSError
    is raised.
    """
    path = split_dir(root, split) / info.name
    name = f"{split}/{info.name}"
    problems: list[Problem] = []
    try:
        with path.open("rb") as file:
            reader = _Reader(file)
            if index is not None:
                problems += _check_samples(name, reader, index, classes, decode, progress, encoding)
            while reader.read(_CHUNK):
                pass
    except FileNotFoundError:
        problems.append(Problem(name, "is missing"))
    except OSError as error:
        problems.append(Problem(name, f"cannot be read: {error.strerror}"))
    else:
        if reader.position != info.bytes:
            problems.insert(0, Problem(name, f"has {reader.position:,} bytes, the manifest says {info.bytes:,}"))
        elif reader.sha256.hexdigest() != info.sha256:
            problems.insert(0, Problem(name, "its SHA-256 is not the manifest's: its bytes have changed"))
        if index is not None and len(index) != info.samples:
            message = f"has {len(index):,} samples by {INDEX}, {info.samples:,} by the manifest"
            problems.append(Problem(name, message))
    return problems + _check_dali_index(root, split, info, index, encoding)


class _Reader:
    """Reads a file from its beginning to its end, and hashes what it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.position = 0

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        self.position += len(data)
        return data


def _check_samples(
    name: str, reader: _Reader, index: Index, classes: int, decode: bool, progress: Progress, encoding: Encoding
) -> Iterator[Problem]:
    assert index.key is not None
    ending = extension(encoding)
    columns = (index.key, index.offset, index.size, index.label, index.width, index.height, index.crc32)
    for key, offset, size, label, width, height, checksum in zip(*(column.tolist() for column in columns), strict=True):

        def problem(message: str, key: str = key, offset: int = reader.position + BLOCK) -> Problem:
            return Problem(name, message, key, offset)

        if offset != reader.position + BLOCK:
            yield problem(f"{INDEX} says offset {offset}")
        header = reader.read(BLOCK)
        # Where the tar contradicts the index it is followed, so that one mistake is not reported for all that follow.
        there, length = _parse_header(header, f"{key}.{ending}", size)
        if there is None:
            yield problem("the tar's header of its image is damaged")
        elif (there, length) != (f"{key}.{ending}", size):
            yield problem(f"{INDEX} says {key}.{ending} of {size} bytes, the tar has {there} of {length}")
        data = reader.read(length)
        padding = reader.read(-length % BLOCK)
        label_header, label_block = reader.read(BLOCK), reader.read(BLOCK)
        if len(label_block) < BLOCK:
            yield problem("the shard ends in it")
            return
        if crc32(data) != checksum:
            yield problem("its image is damaged: the CRC-32 is not that of the index")
        yield from map(problem, _image_problems(data, width, height, decode, encoding))
        text = label_text(label)
        if label_header != tar_header(f"{key}.cls", len(text)) or label_block != text.ljust(BLOCK, b"\0"):
            yield problem(f"its label in the tar is not the {label} of {INDEX}")
        elif not 0 <= label < classes:
            yield problem(f"its label {label} is not among the {classes} classes")
        if padding.strip(b"\0"):
            yield problem("there is something between its image and its label")
        progress(1)
    end = archive_end(reader.position)
    if reader.read(len(end)) != end:
        yield Problem(name, f"does not end behind its last sample by {INDEX}")


def _parse_header(header: bytes, name: str, size: int) -> tuple[str | None, int]:
    """Name and length of the file that a block of the tar announces; None and `size` for a damaged one."""
    if header == tar_header(name, size):  # nearly always
        return name, size
    try:
        there, length = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        if header == tar_header(there, length):
            return there, length
    except ValueError:
        pass
    return None, size


def _image_problems(data: bytes, width: int, height: int, decode: bool, encoding: Encoding) -> Iterator[str]:
    try:
        size = ppm_size(data) if encoding == "raw" else jpeg_size(data)
    except ValueError as error:
        yield f"its image is damaged: {error}"
        return
    if size != (width, height):
        yield f"{INDEX} says {width} x {height} pixels, its image has {size[0]} x {size[1]}"
    if decode and encoding == "jpeg" and (reason := _decoding_error(data)):
        yield f"its image cannot be decoded: {reason}"


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels by a JPEG's frame header (ITU-T T.81, B.2.2). Raises ValueError where it has none."""
    position = 2
    try:
        if not data.startswith(b"\xff\xd8"):
            raise ValueError("it does not start like a JPEG")
        while True:
            start, marker, length = struct.unpack_from(">BBH", data, position)
            if start != 0xFF or marker == 0xDA:
                raise ValueError("it has no frame header before its first scan")
            if marker == 0xFF:  # padding
                position += 1
                continue
            if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack_from(">HH", data, position + 5)
                return width, height
            position += 2 + length
    except struct.error:
        raise ValueError("it ends inside its header") from None


def _decoding_error(data: bytes) -> str | None:
    import simplejpeg

    try:
        simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        if "subsampling" not in str(error):
            return str(error)
        return _pillow_error(data)  # ways of subsampling that simplejpeg does not know
    return None


def _pillow_error(data: bytes) -> str | None:
    import io

    from PIL import Image

    try:
        Image.open(io.BytesIO(data), formats=["JPEG"]).load()
    except (OSError, SyntaxError, ValueError) as error:
        return str(error)
    return None


def _check_dali_index(
    root: Path, split: str, info: ShardInfo, index: Index | None, encoding: Encoding
) -> list[Problem]:
    file = dali_index_name(info.name)
    name = f"{split}/{file}"
    try:
        there = (split_dir(root, split) / file).read_bytes()
    except FileNotFoundError:
        return [Problem(name, "is missing")]
    except OSError as error:
        return [Problem(name, f"cannot be read: {error.strerror}")]
    if index is None or there == (expected := dali_index(index, encoding)):
        return []
    lines, wanted = there.split(b"\n"), expected.split(b"\n")
    differing = next(i for i in range(max(len(lines), len(wanted))) if lines[i : i + 1] != wanted[i : i + 1])
    return [Problem(name, f"line {differing + 1} is not what {INDEX} says")]


def _split_index(root: Path, split: str, info: SplitInfo) -> tuple[Index | None, list[Problem]]:
    """The index of a split, or None where it cannot be used; and what is wrong with it as a whole."""
    name = f"{split}/{INDEX}"
    path = split_dir(root, split) / INDEX
    if not path.is_file():
        return None, [Problem(name, "is missing")]
    try:
        index = Index.read(path, keys=True)
    except ShardfeedError:
        return None, [Problem(name, "is damaged: it cannot be read")]
    if np.any(np.diff(index.shard) < 0) or np.any(index.shard < 0) or np.any(index.shard >= len(info.shards)):
        return None, [Problem(name, "is damaged: its rows are not in the order of the shards")]
    assert index.key is not None
    keys = index.key.tolist()
    if np.any(index.size < 1) or not all(key.isascii() and 0 < len(key) <= MAX_KEY for key in keys):
        return None, [Problem(name, "is damaged: it holds lengths or keys that cannot be")]
    problems = []
    # An index that cannot be used at all was named above.
    if info.index is not None and index_info(path) != info.index:
        problems.append(Problem(name, "its SHA-256 is not the manifest's: its bytes have changed"))
    if len(index) != info.samples:
        problems.append(Problem(name, f"has {len(index):,} rows, the manifest says {info.samples:,} samples"))
    if len(set(keys)) != len(index):
        problems.append(Problem(name, "has the same key twice"))
    return index, problems


def _count_problems(root: Path, split: str, info: SplitInfo) -> Iterator[Problem]:
    path = split_dir(root, split) / REJECTS
    if path.is_file():
        rejects = path.read_bytes().count(b"\n")
        if rejects != info.rejects:
            yield Problem(f"{split}/{REJECTS}", f"has {rejects:,} lines, the manifest says {info.rejects:,} rejects")
    elif info.rejects:
        yield Problem(f"{split}/{REJECTS}", "is missing")
    if info.kinds and sum(info.kinds.values()) != info.samples:
        yield Problem(MANIFEST, f"the kinds of {split} do not add up to its {info.samples:,} samples")


def _unexpected(root: Path, manifest: Manifest) -> Iterator[Problem]:
    """What lies in the data set and is not of it: readers that go by the names of files would take it in."""
    expected = {MANIFEST, *manifest.splits}
    for split, info in manifest.splits.items():
        tars = [shard.name for shard in info.shards]
        names: Sequence[str] = [INDEX, REJECTS, *tars, *map(dali_index_name, tars)]
        expected |= {f"{split}/{name}" for name in names}
    for directory in ("", *manifest.splits):
        if not (root / directory).is_dir():
            continue
        for path in sorted((root / directory).iterdir()):
            name = path.relative_to(root).as_posix()
            if name not in expected:
                yield Problem(name, "should not be there")
