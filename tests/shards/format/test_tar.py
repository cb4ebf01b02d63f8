"""Shards are plain WebDataset tars: every reader that claims the format gets the same bytes and labels."""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.format.layout import Encoding, extension
from shards.format.ppm import ppm
from shards.format.tar import MODE, OWNER, Sample, tar_header, write_shard
from tests.conftest import decoded, jpeg, photo

ROWS = [7, 3, 12_345_678, 0, 20]
LABELS = [1, 0, 999, 1, 12]
PIXELS = [photo(16 + i, 20, seed=i) for i in range(len(ROWS))]
FILES: dict[Encoding, Callable[[npt.NDArray[np.uint8]], bytes]] = {"jpeg": jpeg, "raw": ppm}


@dataclass(frozen=True)
class Shard:
    """A shard of five samples as it was written, and what any reader should find in it."""

    encoding: Encoding
    samples: list[Sample]
    path: Path

    @property
    def ending(self) -> str:
        return extension(self.encoding)

    @property
    def expected(self) -> list[tuple[str, bytes, int]]:
        return [(sample.key, sample.data, sample.label) for sample in self.samples]


def samples_of(encoding: Encoding) -> list[Sample]:
    return [
        Sample(f"{row:08d}", FILES[encoding](pixels), label, pixels.shape[1], pixels.shape[0])
        for row, label, pixels in zip(ROWS, LABELS, PIXELS, strict=True)
    ]


SAMPLES = samples_of("jpeg")


@pytest.fixture(params=get_args(Encoding))
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Shard:
    samples = samples_of(request.param)
    info, _ = write_shard(tmp_path, "train", 4, samples, request.param)
    return Shard(request.param, samples, tmp_path / "train" / info.name)


def test_writing_again_gives_the_same_bytes(tmp_path: Path) -> None:
    infos = [write_shard(tmp_path / name, "train", 4, iter(SAMPLES))[0] for name in ("a", "b")]
    assert infos[0] == infos[1]
    for ending in ("tar", "idx"):
        one, other = (tmp_path / name / "train" / f"train-00004.{ending}" for name in ("a", "b"))
        assert one.read_bytes() == other.read_bytes()


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(0, 3000), max_size=12), seed=st.integers(0, 99))
def test_the_tar_is_webdatasets_byte_for_byte(sizes: list[int], seed: int) -> None:
    import webdataset

    rng = np.random.default_rng(seed)
    samples = [Sample(f"{i:08d}", rng.bytes(size), int(rng.integers(0, 1000)), 1, 1) for i, size in enumerate(sizes)]
    theirs = io.BytesIO()
    with webdataset.TarWriter(theirs, user=OWNER, group=OWNER, mode=MODE, mtime=0, encoder=False) as archive:
        for sample in samples:
            # Two calls, since one would sort the label before the image.
            archive.write({"__key__": sample.key, "jpg": sample.data})
            archive.write({"__key__": sample.key, "cls": str(sample.label).encode()})
    with tempfile.TemporaryDirectory() as root:
        info, _ = write_shard(root, "train", 0, samples)
        ours = (Path(root) / "train" / info.name).read_bytes()
    assert ours == theirs.getvalue()
    assert info.sha256 == hashlib.sha256(ours).hexdigest()


def test_many_small_samples_are_written_whole(tmp_path: Path) -> None:
    """More pieces than the kernel takes at once."""
    samples = [Sample(f"{i:08d}", b"x" * (i % 700), i, 1, 1) for i in range(1500)]
    info, _ = write_shard(tmp_path, "train", 0, samples)
    content = (tmp_path / "train" / info.name).read_bytes()
    assert (info.bytes, info.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert [member.size for member in archive.getmembers()[::2]] == [len(sample.data) for sample in samples]


def test_a_kernel_that_takes_less_than_it_is_given_gets_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = write_shard(tmp_path / "whole", "train", 0, SAMPLES)
    monkeypatch.setattr(os, "writev", lambda file, pieces: os.write(file, b"".join(pieces)[:777]))
    parts, _ = write_shard(tmp_path / "parts", "train", 0, SAMPLES)
    one, other = (tmp_path / name / "train" / whole.name for name in ("whole", "parts"))
    assert parts == whole
    assert one.read_bytes() == other.read_bytes()


def test_what_a_tar_header_cannot_hold_is_refused() -> None:
    for name, size in (("x" * 101, 1), ("ok.jpg", 8**11)):
        with pytest.raises(ValueError, match="does not fit"):
            tar_header(name, size)


def test_the_info_describes_the_file(tmp_path: Path) -> None:
    info, _ = write_shard(tmp_path, "train", 4, SAMPLES)
    data = (tmp_path / "train" / info.name).read_bytes()
    assert (info.samples, info.bytes, info.sha256) == (5, len(data), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("encoding", get_args(Encoding))
def test_the_index_points_at_every_image(tmp_path: Path, encoding: Encoding) -> None:
    samples = samples_of(encoding)
    info, index = write_shard(tmp_path, "train", 4, samples, encoding)
    data = (tmp_path / "train" / info.name).read_bytes()
    slices = [data[start : start + size] for start, size in zip(index.offset, index.size, strict=True)]
    assert slices == [sample.data for sample in samples]
    assert index.crc32.tolist() == [zlib.crc32(sample.data) for sample in samples]
    assert index.label.tolist() == LABELS
    assert index.shard.tolist() == [4] * 5
    assert list(zip(index.width, index.height, strict=True)) == [(20, 16 + i) for i in range(5)]


def test_the_last_bytes_of_a_raw_sample_are_its_pixels(tmp_path: Path) -> None:
    info, index = write_shard(tmp_path, "train", 4, samples_of("raw"), "raw")
    data = np.fromfile(tmp_path / "train" / info.name, np.uint8)
    for i, pixels in enumerate(PIXELS):
        end = int(index.offset[i] + index.size[i])
        assert np.array_equal(data[end - pixels.size : end].reshape(pixels.shape), pixels)


def test_an_error_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Sample]:
        yield SAMPLES[0]
        raise KeyError

    with pytest.raises(KeyError):
        write_shard(tmp_path, "train", 0, failing())
    assert not list(tmp_path.rglob("*.*"))


def test_tarfile_reads_it(shard: Shard) -> None:
    with tarfile.open(shard.path) as archive:
        members = archive.getmembers()
        files = {}
        for member in members:
            stream = archive.extractfile(member)
            assert stream is not None
            files[member.name] = stream.read()
    assert [member.name for member in members[:2]] == [f"00000007.{shard.ending}", "00000007.cls"]
    found = [(key, files[f"{key}.{shard.ending}"], int(files[f"{key}.cls"])) for key, _, _ in shard.expected]
    assert found == shard.expected
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "shardfeed")}
    assert shard.path.read_bytes()[257:263] == b"ustar\x00"  # POSIX; GNU's own format has "ustar " there


def test_webdataset_reads_it(shard: Shard) -> None:
    import webdataset

    samples = webdataset.WebDataset(str(shard.path), shardshuffle=False)
    assert [(sample["__key__"], sample[shard.ending], int(sample["cls"])) for sample in samples] == shard.expected


def test_webdataset_decodes_raw_pixels(tmp_path: Path) -> None:
    import webdataset

    info, _ = write_shard(tmp_path, "train", 4, samples_of("raw"), "raw")
    samples = webdataset.WebDataset(str(tmp_path / "train" / info.name), shardshuffle=False).decode("rgb8")
    for sample, pixels, label in zip(samples, PIXELS, LABELS, strict=True):
        assert np.array_equal(sample["ppm"], pixels)
        assert sample["cls"] == label


def test_the_datasets_library_reads_it(shard: Shard, tmp_path: Path) -> None:
    import datasets

    cache = str(tmp_path / "cache")
    table = datasets.load_dataset("webdataset", data_files=str(shard.path), split="train", cache_dir=cache)
    assert isinstance(table.features[shard.ending], datasets.Image)
    plain = table.cast_column(shard.ending, datasets.Image(decode=False))
    assert [(row["__key__"], row[shard.ending]["bytes"], row["cls"]) for row in plain] == shard.expected
    assert np.array_equal(np.asarray(table[3][shard.ending]), decoded(shard.samples[3].data))


def test_dalis_own_reader_and_decoder_read_it_by_its_index(shard: Shard) -> None:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    root = shard.path.parents[1]
    shard.path.unlink()
    for number, part in enumerate((shard.samples[:2], shard.samples[2:])):
        write_shard(root, "train", number, part, shard.encoding)
    tars = sorted(str(path) for path in root.rglob("*.tar"))

    @pipeline_def(batch_size=5, num_threads=1, device_id=None)
    def read() -> tuple[object, ...]:
        images, labels = fn.readers.webdataset(
            paths=tars,
            index_paths=[path.replace(".tar", ".idx") for path in tars],
            ext=[shard.ending, "cls"],
            missing_component_behavior="error",
        )
        return images, labels, fn.decoders.image(images)

    pipe = read()
    pipe.build()
    images, labels, pixels = pipe.run()
    found = [(np.asarray(images[i]).tobytes(), int(np.asarray(labels[i]).tobytes())) for i in range(len(ROWS))]
    assert found == [(data, label) for _, data, label in shard.expected]
    for i, (_, data, _) in enumerate(shard.expected):
        assert np.array_equal(np.asarray(pixels[i]), decoded(data))


def test_the_dali_index_is_what_nvidias_tool_makes(shard: Shard, tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx")
    with wds2idx.IndexCreator(str(shard.path), str(tmp_path / "theirs.idx"), verbose=False) as creator:
        creator.create_index()
    assert shard.path.with_suffix(".idx").read_bytes() == (tmp_path / "theirs.idx").read_bytes()


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the tar command")
def test_gnu_tar_extracts_it(shard: Shard, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", str(shard.path), "-C", str(tmp_path)], check=True)
    for sample in shard.samples:
        assert (tmp_path / f"{sample.key}.{shard.ending}").read_bytes() == sample.data
