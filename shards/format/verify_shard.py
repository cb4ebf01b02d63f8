"""Checks of one shard: its hash, every sample in it, and its `.idx`, against the manifest and index.parquet."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from zlib_ng.zlib_ng import crc32

from shards.format.index import Index
from shards.format.layout import BLOCK, INDEX, dali_index_name, extension, split_dir
from shards.format.manifest import Manifest, ShardInfo
from shards.format.tar import archive_end, dali_index, label_text, tar_header
from shards.format.verify_image import decoding_error, image_size

# Called with how many more samples are checked.
Progress = Callable[[int], None]
_CHUNK = 1 << 20
FOREIGN = "should not be there"


@dataclass(frozen=True)
class Problem:
    """Something that is not as it should be. `file`: relative to the data set; `key` and `offset`: of the sample.

    `offset`: position in the tar of the first byte of the sample's image.
    """

    file: str
    message: str
    key: str | None = None
    offset: int | None = None

    @property
    def foreign(self) -> bool:
        """Whether the file belongs to something else: nothing of the data set is damaged by it."""
        return self.message == FOREIGN

    def __str__(self) -> str:
        sample = "" if self.key is None else f": sample {self.key} at offset {self.offset}"
        return f"{self.file}{sample}: {self.message}"


@dataclass(frozen=True)
class ShardCheck:
    """What the shards of the data set in `root` are compared with. `decode`: decode every image too."""

    root: Path
    manifest: Manifest
    decode: bool = False

    def problems(
        self, split: str, info: ShardInfo, index: Index | None, progress: Progress = lambda samples: None
    ) -> list[Problem]:
        """All that is wrong with one shard and its `.idx`; empty for a shard that is whole.

        `info`: the shard in the manifest. `index`: its rows of the index, with keys, or None to compare hashes only.
        An error of reading is a problem of the shard: no OSError is raised.
        """
        path = split_dir(self.root, split) / info.name
        name = f"{split}/{info.name}"
        problems: list[Problem] = []
        try:
            with path.open("rb") as file:
                reader = _Reader(file)
                if index is not None:
                    problems += self._of_samples(name, reader, index, progress)
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
        return problems + self._of_dali_index(split, info, index)

    def _of_samples(self, name: str, reader: "_Reader", index: Index, progress: Progress) -> Iterator[Problem]:
        assert index.key is not None
        encoding = self.manifest.settings.encoding
        ending = extension(encoding)
        sizes: list[tuple[str, int, int]] = []
        columns = (index.key, index.offset, index.size, index.label, index.width, index.height, index.crc32)
        rows = zip(*(column.tolist() for column in columns), strict=True)
        for key, offset, size, label, width, height, checksum in rows:

            def problem(message: str, key: str = key, offset: int = reader.position + BLOCK) -> Problem:
                return Problem(name, message, key, offset)

            if offset != reader.position + BLOCK:
                yield problem(f"{INDEX} says offset {offset}")
            header = reader.read(BLOCK)
            # Where tar and index differ, go on by the tar: one mistake is not reported for every sample after it.
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
            try:
                pixels = image_size(data, encoding)
            except ValueError as error:
                yield problem(f"its image is damaged: {error}")
            else:
                sizes.append((key, *pixels))
                yield from map(problem, self._of_image(data, pixels, (width, height)))
            yield from map(problem, self._of_label(key, label, label_header, label_block))
            if padding.strip(b"\0"):
                yield problem("there is something between its image and its label")
            progress(1)
        end = archive_end(reader.position)
        if reader.read(len(end)) != end:
            yield Problem(name, f"does not end behind its last sample by {INDEX}")
        yield from self._of_shorter_sides(name, sizes)

    def _of_image(self, data: bytes, pixels: tuple[int, int], indexed: tuple[int, int]) -> Iterator[str]:
        if pixels != indexed:
            yield f"{INDEX} says {indexed[0]} x {indexed[1]} pixels, its image has {pixels[0]} x {pixels[1]}"
        jpeg = self.manifest.settings.encoding == "jpeg"
        if self.decode and jpeg and (reason := decoding_error(data)):
            yield f"its image cannot be decoded: {reason}"

    def _of_label(self, key: str, label: int, header: bytes, block: bytes) -> Iterator[str]:
        text, classes = label_text(label), len(self.manifest.class_names)
        if header != tar_header(f"{key}.cls", len(text)) or block != text.ljust(BLOCK, b"\0"):
            yield f"its label in the tar is not the {label} of {INDEX}"
        elif not 0 <= label < classes:
            yield f"its label {label} is not among the {classes} classes"

    def _of_shorter_sides(self, name: str, sizes: Sequence[tuple[str, int, int]]) -> Iterator[Problem]:
        """One problem for the whole shard. `sizes`: key, width and height of its images."""
        short_side = self.manifest.settings.short_side
        others = [size for size in sizes if short_side not in (None, min(size[1:]))]
        if others:
            key, width, height = others[0]
            yield Problem(
                name,
                f"the manifest says that the shorter side is {short_side} pixels (short_side): {len(others):,} of "
                f"{len(sizes):,} images have another one, first sample {key} of {width} x {height} pixels",
            )

    def _of_dali_index(self, split: str, info: ShardInfo, index: Index | None) -> list[Problem]:
        file = dali_index_name(info.name)
        name = f"{split}/{file}"
        try:
            there = (split_dir(self.root, split) / file).read_bytes()
        except FileNotFoundError:
            return [Problem(name, "is missing")]
        except OSError as error:
            return [Problem(name, f"cannot be read: {error.strerror}")]
        if index is None or there == (expected := dali_index(index, self.manifest.settings.encoding)):
            return []
        lines, wanted = there.split(b"\n"), expected.split(b"\n")
        differing = next(i for i in range(max(len(lines), len(wanted))) if lines[i : i + 1] != wanted[i : i + 1])
        return [Problem(name, f"line {differing + 1} is not what {INDEX} says")]


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


def _parse_header(header: bytes, name: str, size: int) -> tuple[str | None, int]:
    """Name and length of the file that a header block announces; None and `size` for a damaged block."""
    if header == tar_header(name, size):  # nearly always
        return name, size
    try:
        there, length = header[:100].rstrip(b"\0").decode("ascii"), int(header[124:135], 8)
        if header == tar_header(there, length):
            return there, length
    except ValueError:
        pass
    return None, size
