"""Shards are plain WebDataset tars: every reader that claims the format gets the same bytes and labels."""

import hashlib
import io
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.writer import MODE, OWNER, Sample, tar_header, write_shard
from tests.conftest import jpeg, photo

ROWS = [7, 3, 12_345_678, 0, 20]
SAMPLES = [
    Sample(f"{row:08d}", jpeg(photo(16 + i, 20, seed=i)), label, 20, 16 + i)
    for i, (row, label) in enumerate(zip(ROWS, [1, 0, 999, 1, 12], strict=True))
]
EXPECTED = [(sample.key, sample.data, sample.label) for sample in SAMPLES]


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    write_shard(tmp_path, "train", 4, SAMPLES)
    return tmp_path / "train" / "train-00004.tar"


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


def test_what_a_tar_header_cannot_hold_is_refused() -> None:
    for name, size in (("x" * 101, 1), ("ok.jpg", 8**11)):
        with pytest.raises(ValueError, match="does not fit"):
            tar_header(name, size)


def test_the_info_describes_the_file(tmp_path: Path) -> None:
    info, _ = write_shard(tmp_path, "train", 4, SAMPLES)
    data = (tmp_path / "train" / info.name).read_bytes()
    assert (info.samples, info.bytes, info.sha256) == (5, len(data), hashlib.sha256(data).hexdigest())


def test_the_index_points_at_every_jpeg(tmp_path: Path) -> None:
    info, index = write_shard(tmp_path, "train", 4, SAMPLES)
    data = (tmp_path / "train" / info.name).read_bytes()
    slices = [data[start : start + size] for start, size in zip(index.offset, index.size, strict=True)]
    assert slices == [sample.data for sample in SAMPLES]
    assert index.crc32.tolist() == [zlib.crc32(sample.data) for sample in SAMPLES]
    assert index.label.tolist() == [1, 0, 999, 1, 12]
    assert index.shard.tolist() == [4] * 5
    assert list(zip(index.width, index.height, strict=True)) == [(20, 16 + i) for i in range(5)]


def test_an_error_in_the_middle_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Iterator[Sample]:
        yield SAMPLES[0]
        raise KeyError

    with pytest.raises(KeyError):
        write_shard(tmp_path, "train", 0, failing())
    assert not list(tmp_path.rglob("*.*"))


def test_tarfile_reads_it(tar: Path) -> None:
    with tarfile.open(tar) as archive:
        members = archive.getmembers()
        files = {}
        for member in members:
            stream = archive.extractfile(member)
            assert stream is not None
            files[member.name] = stream.read()
    assert [member.name for member in members[:2]] == ["00000007.jpg", "00000007.cls"]
    assert [(key, files[f"{key}.jpg"], int(files[f"{key}.cls"])) for key, _, _ in EXPECTED] == EXPECTED
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "shardfeed")}
    assert tar.read_bytes()[257:263] == b"ustar\x00"  # POSIX; GNU's own format has "ustar " there


def test_webdataset_reads_it(tar: Path) -> None:
    import webdataset

    samples = webdataset.WebDataset(str(tar), shardshuffle=False)
    assert [(sample["__key__"], sample["jpg"], int(sample["cls"])) for sample in samples] == EXPECTED


def test_the_datasets_library_reads_it(tar: Path, tmp_path: Path) -> None:
    import datasets

    table = datasets.load_dataset("webdataset", data_files=str(tar), split="train", cache_dir=str(tmp_path / "cache"))
    table = table.cast_column("jpg", datasets.Image(decode=False))
    assert [(row["__key__"], row["jpg"]["bytes"], row["cls"]) for row in table] == EXPECTED


def test_dalis_own_reader_reads_it_by_its_index(tmp_path: Path) -> None:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    write_shard(tmp_path, "train", 0, SAMPLES[:2])
    write_shard(tmp_path, "train", 1, SAMPLES[2:])
    tars = sorted(str(path) for path in tmp_path.rglob("*.tar"))

    @pipeline_def(batch_size=5, num_threads=1, device_id=None)
    def read() -> tuple[object, ...]:
        components = fn.readers.webdataset(
            paths=tars,
            index_paths=[path.replace(".tar", ".idx") for path in tars],
            ext=["jpg", "cls"],
            missing_component_behavior="error",
        )
        return tuple(components)

    pipe = read()
    pipe.build()
    images, labels = pipe.run()
    found = [(np.asarray(images[i]).tobytes(), int(np.asarray(labels[i]).tobytes())) for i in range(len(SAMPLES))]
    assert found == [(data, label) for _, data, label in EXPECTED]


def test_the_dali_index_is_what_nvidias_tool_makes(tar: Path, tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx")
    with wds2idx.IndexCreator(str(tar), str(tmp_path / "theirs.idx"), verbose=False) as creator:
        creator.create_index()
    assert tar.with_suffix(".idx").read_bytes() == (tmp_path / "theirs.idx").read_bytes()


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs the tar command")
def test_gnu_tar_extracts_it(tar: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-xf", str(tar), "-C", str(tmp_path)], check=True)
    assert [((tmp_path / f"{key}.jpg").read_bytes()) for key, _, _ in EXPECTED] == [data for _, data, _ in EXPECTED]
