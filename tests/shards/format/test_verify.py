"""`python -m shards verify`: whole data sets pass, and each sort of damage is named, with the sample."""

import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from shards.__main__ import COMMANDS
from shards.common.cli import run_commands
from shards.dataset import Split, open_dataset
from shards.format.index import Index
from shards.format.layout import INDEX
from shards.format.manifest import Manifest, index_info
from shards.format.ppm import ppm
from shards.format.tar import dali_index
from shards.format.verify import verify
from shards.format.verify_image import jpeg_size
from shards.format.verify_shard import ShardCheck
from tests.conftest import jpeg, photo, write_split
from tests.helpers.pictures import damaged

TAR = "train/train-00001.tar"


@pytest.fixture
def root(small_split: Split, tmp_path: Path) -> Path:
    """A copy to damage: 29 samples in 5 shards of up to 7."""
    return Path(shutil.copytree(small_split.root, tmp_path / "data"))


def sample(root: Path, row: int) -> tuple[str, int, int]:
    """Key, offset and length of a sample."""
    split = open_dataset(root)["train"]
    return str(split.keys()[row]), int(split.index.offset[row]), int(split.index.size[row])


def overwrite(path: Path, place: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[place : place + len(data)] = data
    path.write_bytes(content)


def change_index(root: Path, change: Callable[[Index], Index]) -> None:
    """As if it had been written so: the manifest knows it."""
    path = root / "train" / INDEX
    change(Index.read(path, keys=True)).write(path)
    manifest = Manifest.read(root)
    info = replace(manifest.splits["train"], index=index_info(path))
    replace(manifest, splits={"train": info}).write(root)


def said(root: Path, decode: bool = False) -> list[str]:
    return [str(problem) for problem in verify(root, decode, workers=2).problems]


@pytest.mark.parametrize("decode", [False, True])
def test_a_whole_data_set_has_no_problems(small_split: Split, decode: bool) -> None:
    found = verify(small_split.root, decode)
    assert (found.shards, found.samples, found.bytes) == (5, 29, small_split.info.bytes)
    assert found.problems == ()


def test_a_changed_byte_names_the_shard_and_the_sample(root: Path) -> None:
    key, offset, size = sample(root, 9)
    overwrite(root / TAR, offset + size // 2, b"\x55\x55\x55")
    assert said(root) == [
        f"{TAR}: its SHA-256 is not the manifest's: its bytes have changed",
        f"{TAR}: sample {key} at offset {offset}: its image is damaged: the CRC-32 is not that of the index",
    ]


def test_damage_elsewhere_in_a_sample_is_named_too(root: Path) -> None:
    key, offset, size = sample(root, 9)
    label_at = offset + -(-size // 512) * 512
    for place, data, message in [
        (offset - 512, b"elsewhere.jpg", "the tar's header of its image is damaged"),
        (offset + size, b"x", "there is something between its image and its label"),
        (label_at + 512, b"3", "its label in the tar is not the 9 of index.parquet"),
        (label_at, b"9", "its label in the tar is not the 9 of index.parquet"),
        (offset + 2, b"x", "its image is damaged: it has no frame header before its first scan"),
    ]:
        before = (root / TAR).read_bytes()
        overwrite(root / TAR, place, data)
        assert f"{TAR}: sample {key} at offset {offset}: {message}" in said(root)
        (root / TAR).write_bytes(before)
    assert said(root) == []


@pytest.mark.parametrize("name", [TAR, "train/train-00004.idx", "train/index.parquet"])
def test_missing_files_are_named(root: Path, name: str) -> None:
    (root / name).unlink()
    assert said(root) == [f"{name}: is missing"]


@pytest.mark.parametrize("lost", [1, 600, 12_000])
def test_a_shard_that_was_cut_off_is_named(root: Path, lost: int) -> None:
    content = (root / TAR).read_bytes()
    (root / TAR).write_bytes(content[:-lost])
    problems = said(root)
    assert problems[0] == f"{TAR}: has {len(content) - lost:,} bytes, the manifest says {len(content):,}"
    assert len(problems) > 1


def test_bytes_behind_the_end_are_named(root: Path) -> None:
    with (root / TAR).open("ab") as file:
        file.write(bytes(512))
    assert len(said(root)) == 1
    assert f"{TAR}: has " in said(root)[0]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("offset", 512_000, "index.parquet says offset 512000"),
        ("size", 7, ".jpg of 7 bytes, the tar has 00000009.jpg of "),
        ("label", 4, "its label in the tar is not the 4 of index.parquet"),
        ("width", 3, "index.parquet says 3 x "),
        ("height", 3, " x 3 pixels, its image has "),
        ("crc32", 5, "the CRC-32 is not that of the index"),
        ("key", "elsewhere", "index.parquet says elsewhere.jpg of "),
    ],
)
def test_an_index_that_contradicts_the_tar_names_the_sample_alone(
    root: Path, column: str, value: int | str, message: str
) -> None:
    def change(index: Index) -> Index:
        values = getattr(index, column).copy()
        values[9] = value
        return replace(index, **{column: values})

    change_index(root, change)
    problems = [problem for problem in verify(root).problems if problem.file == TAR]
    assert message in " ".join(map(str, problems))
    assert len({problem.offset for problem in problems}) == 1


def test_an_index_of_too_few_rows_is_named(root: Path) -> None:
    change_index(root, lambda index: index.rows(slice(0, 28)))
    problems = said(root)
    assert "train/index.parquet: has 28 rows, the manifest says 29 samples" in problems
    assert "train/train-00004.tar: does not end behind its last sample by index.parquet" in problems


def test_an_index_that_makes_no_sense_leaves_the_hashes(root: Path) -> None:
    _, offset, _ = sample(root, 9)
    overwrite(root / TAR, offset, b"\x55")
    change_index(root, lambda index: replace(index, shard=index.shard[::-1].copy()))
    assert said(root) == [
        "train/index.parquet: is damaged: its rows are not in the order of the shards",
        f"{TAR}: its SHA-256 is not the manifest's: its bytes have changed",
    ]


def test_damaged_parquet_and_repeated_keys_are_named(root: Path) -> None:
    def repeat(index: Index) -> Index:
        assert index.key is not None
        return replace(index, key=np.array([*index.key[:-1], index.key[0]], object))

    change_index(root, repeat)
    assert "train/index.parquet: has the same key twice" in said(root)
    overwrite(root / "train" / INDEX, 0, b"nonsense")
    assert "train/index.parquet: is damaged: it cannot be read" in said(root)


def test_an_index_with_other_bytes_than_the_manifest_says_is_named(root: Path) -> None:
    """The same rows, in a file that is not the one that was written."""
    table = pq.read_table(root / "train" / INDEX)
    pq.write_table(table, root / "train" / INDEX, compression="none")
    assert said(root) == ["train/index.parquet: its SHA-256 is not the manifest's: its bytes have changed"]


def test_a_data_set_whose_manifest_says_nothing_of_the_index_is_whole(root: Path) -> None:
    manifest = Manifest.read(root)
    replace(manifest, splits={"train": replace(manifest.splits["train"], index=None)}).write(root)
    assert '"index"' not in (root / "manifest.json").read_text()
    assert said(root) == []


def test_a_changed_dali_index_names_the_line(root: Path) -> None:
    path = root / "train" / "train-00002.idx"
    path.write_bytes(path.read_bytes().replace(b"jpg", b"png", 1))
    assert said(root) == ["train/train-00002.idx: line 2 is not what index.parquet says"]


def test_files_that_should_not_be_there_are_named(root: Path) -> None:
    for name in ("train/train-00005.tar", "train/train-00001.tar.part", "notes.txt"):
        (root / name).write_bytes(b"")
    assert said(root) == [
        "notes.txt: should not be there",
        "train/train-00001.tar.part: should not be there",
        "train/train-00005.tar: should not be there",
    ]


def test_counts_are_compared_with_the_manifest(root: Path) -> None:
    manifest = Manifest.read(root)
    info = manifest.splits["train"]
    replace(manifest, splits={"train": replace(info, rejects=3, kinds={"jpeg": 28})}).write(root)
    assert said(root) == [
        "train/rejects.jsonl: is missing",
        "manifest.json: the kinds of train do not add up to its 29 samples",
    ]
    (root / "train" / "rejects.jsonl").write_text("{}\n{}\n")
    assert "train/rejects.jsonl: lists 2 rows, the manifest says 3 rejects" in said(root)


def test_a_label_beyond_the_classes_is_named(tmp_path: Path) -> None:
    write_split(tmp_path, [jpeg(photo(20, 20))], labels=[7], short_side=20, classes=5)
    assert said(tmp_path) == [
        "train/train-00000.tar: sample 00000000 at offset 512: its label 7 is not among the 5 classes"
    ]


def test_images_of_another_shorter_side_than_the_settings_say_are_named(tmp_path: Path, raw_root: Path) -> None:
    write_split(tmp_path / "jpeg", [jpeg(photo(20, 20 + i)) for i in range(5)] + [jpeg(photo(30, 21))], short_side=20)
    where = "train/train-00000.tar: the manifest says that the shorter side is"
    assert said(tmp_path / "jpeg") == [
        f"{where} 20 pixels (short_side): 1 of 6 images have another one, first sample 00000005 of 21 x 30 pixels"
    ]
    manifest = Manifest.read(raw_root)
    replace(manifest, settings=replace(manifest.settings, short_side=24)).write(raw_root)
    problems = said(raw_root)
    assert problems[0] == (
        f"{where} 24 pixels (short_side): 7 of 7 images have another one, first sample 00000000 of 24 x 20 pixels"
    )
    assert len(problems) == 2  # one for each shard


def test_decoding_finds_what_was_corrupt_before_it_was_stored(tmp_path: Path) -> None:
    data = damaged(jpeg(photo(200, 300)), b"\xa5" * 40)
    write_split(tmp_path, [jpeg(photo(20, 20)), data], short_side=None)
    assert said(tmp_path) == []
    (problem,) = said(tmp_path, decode=True)
    assert problem.startswith("train/train-00000.tar: sample 00000001 at offset ")
    assert "its image cannot be decoded: Corrupt JPEG data" in problem


def test_decoding_knows_every_way_of_subsampling(tmp_path: Path) -> None:
    """One that simplejpeg has no name for: chroma as fine as luma across, a third as fine down."""
    data = bytearray(jpeg(photo(48, 48)))
    data[data.index(b"\xff\xc0") + 11] = 0x13
    write_split(tmp_path, [bytes(data)], short_side=None)
    assert not any("subsampling" in problem for problem in said(tmp_path, decode=True))


@pytest.fixture
def raw_root(tmp_path: Path) -> Path:
    """Nine samples of raw pixels in two shards."""
    images = [ppm(photo(20, 24 + i, seed=i)) for i in range(9)]
    write_split(tmp_path / "raw", images, short_side=20, encoding="raw")
    return tmp_path / "raw"


@pytest.mark.parametrize("decode", [False, True])
def test_raw_pixels_have_no_problems(raw_root: Path, decode: bool) -> None:
    found = verify(raw_root, decode)
    assert (found.samples, found.problems) == (9, ())


def test_damaged_raw_pixels_are_named(raw_root: Path) -> None:
    key, offset, size = sample(raw_root, 8)
    where = f"{TAR}: sample {key} at offset {offset}: "
    checksum = "its image is damaged: the CRC-32 is not that of the index"
    for place, data, messages in [
        (offset + size - 5, b"\x55\x66", [checksum]),
        (offset, b"P5", [checksum, "its image is damaged: it does not start like a binary PPM of 8 bits"]),
        (offset + 3, b"99", [checksum, f"its image is damaged: a PPM of 99 x 20 pixels has 5953 bytes, not {size}"]),
    ]:
        before = (raw_root / TAR).read_bytes()
        overwrite(raw_root / TAR, place, data)
        assert said(raw_root)[1:] == [where + message for message in messages]
        (raw_root / TAR).write_bytes(before)

    def widen(index: Index) -> Index:
        width = index.width.copy()
        width[8] = 30
        return replace(index, width=width)

    change_index(raw_root, widen)
    assert said(raw_root) == [where + "index.parquet says 30 x 20 pixels, its image has 32 x 20"]


def test_a_raw_data_set_whose_manifest_says_jpeg_is_not_whole(raw_root: Path) -> None:
    manifest = Manifest.read(raw_root)
    replace(manifest, settings=replace(manifest.settings, encoding="jpeg")).write(raw_root)
    assert any(".jpg of " in problem for problem in said(raw_root))


def test_one_shard_can_be_checked_alone(root: Path) -> None:
    split = open_dataset(root)["train"]
    check = ShardCheck(root, split.manifest)
    index = Index.read(root / "train" / INDEX, keys=True).rows(slice(7, 14))
    counted: list[int] = []
    assert check.problems("train", split.info.shards[1], index, counted.append) == []
    assert sum(counted) == 7
    (root / "train" / "train-00001.idx").write_bytes(dali_index(index) + b"x")
    assert len(check.problems("train", split.info.shards[1], index)) == 1


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"icc_profile": b"x" * 100_000}])
def test_the_size_of_a_jpeg_is_read_from_its_header(options: dict[str, object]) -> None:
    file = io.BytesIO()
    Image.fromarray(photo(30, 50)).save(file, "JPEG", **options)
    assert jpeg_size(file.getvalue()) == (50, 30)


def test_exit_statuses(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def status(*words: str) -> int:
        return run_commands("python -m shards", COMMANDS, ["verify", *words])

    assert status(str(root), "--decode", "--workers", "2") == 0
    assert "is whole: 29 samples in 5 shards" in capsys.readouterr().out
    (root / TAR).unlink()
    assert status(str(root)) == 1
    printed = capsys.readouterr()
    first, last = printed.out.splitlines()
    assert first == f"{TAR}: is missing"
    assert json.loads(last)["problems"] == [{"file": TAR, "message": "is missing", "key": None, "offset": None}]
    assert f"is damaged: 1 file ({TAR}); `python -m preprocess SOURCE {root} --repair`" in printed.err
    assert status(str(tmp_path / "nowhere")) == 2
    assert status(str(tmp_path)) == 2
    assert status(str(root), "--workers", "0") == 2


def test_a_file_of_something_else_is_no_damage(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "train" / "notes.txt").touch()
    assert run_commands("python -m shards", COMMANDS, ["verify", str(root)]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out.splitlines()[-1])["whole"]
    assert printed.err.endswith(
        "data is whole, but holds 1 file (train/notes.txt) that does not belong to it: remove it\n"
    )
    cut = root / "train" / "train-00001.idx"
    cut.write_bytes(b"")
    assert run_commands("python -m shards", COMMANDS, ["verify", str(root)]) == 1
    error = capsys.readouterr().err
    assert "is damaged: 1 file (train/train-00001.idx); " in error
    assert "--repair` makes damaged files again from their source. It also holds 1 file (train/notes.txt)" in error
