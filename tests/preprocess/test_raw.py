"""`--encoding raw`: the same job with pixels instead of JPEGs, and the same promises."""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from preprocess.__main__ import main
from shards.dataset import Split, open_dataset
from shards.format.manifest import Manifest
from shards.format.ppm import ppm_size
from shards.format.verify import verify
from tests.conftest import decoded, jpeg, photo
from tests.helpers.jobs import BROKEN, convert, folder, interrupt_at, line, tree
from tests.helpers.pictures import picture, rotated, saved


@pytest.fixture
def source(tmp_path: Path) -> Path:
    odd = {"train/a/x.jpg": saved(picture("L"), "JPEG"), "train/b/y.jpg": rotated(6), "train/b/z.jpg": BROKEN}
    return folder(tmp_path / "source", {"train": 20, "validation": 5}, odd)


def raw(source: Path, out: Path, *options: str) -> int:
    return convert(source, out, "--encoding", "raw", "--max-rejects", "0.5", *options)


def files(split: Split) -> dict[str, bytes]:
    """Each image's file by its key."""
    shards = [path.read_bytes() for path in split.shard_paths]
    index = split.index
    rows = zip(split.keys(), index.shard, index.offset, index.size, strict=True)
    return {key: shards[shard][offset : offset + size] for key, shard, offset, size in rows}


def test_the_pixels_are_those_that_a_jpeg_is_made_of(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is made to store them: then both data sets hold the same pixels under the same keys."""

    def encode(pixels: npt.NDArray[np.uint8], *_: object, **__: object) -> bytes:
        return saved(Image.fromarray(pixels))

    assert raw(source, tmp_path / "raw") == 0
    with monkeypatch.context() as patch:
        patch.setattr("simplejpeg.encode_jpeg", encode)
        assert convert(source, tmp_path / "jpeg", "--max-rejects", "0.5") == 0
    for name, split in open_dataset(tmp_path / "raw").items():
        there = files(open_dataset(tmp_path / "jpeg")[name])
        found = files(split)
        assert found.keys() == there.keys()
        assert all(np.array_equal(decoded(data), decoded(there[key])) for key, data in found.items())
        sizes = list(zip(split.index.width, split.index.height, strict=True))
        assert [ppm_size(data) for data in found.values()] == sizes
    ours, theirs = (Manifest.read(tmp_path / name) for name in ("raw", "jpeg"))
    assert (ours.settings.encoding, theirs.settings.encoding) == ("raw", "jpeg")
    for split_name in ours.splits:
        assert ours.splits[split_name].kinds == theirs.splits[split_name].kinds
        assert ours.splits[split_name].reasons == theirs.splits[split_name].reasons


def test_original_sizes_are_stored_decoded(source: Path, tmp_path: Path) -> None:
    options = ["--original", "--encoding", "raw", "--splits", "validation", "--workers", "1"]
    assert main([str(source), str(tmp_path / "out"), *options]) == 0
    found = {decoded(data).tobytes() for data in files(open_dataset(tmp_path / "out")["validation"]).values()}
    assert found == {decoded(path.read_bytes()).tobytes() for path in (source / "validation").rglob("*.jpg")}


def test_verify_finds_nothing_wrong(source: Path, tmp_path: Path) -> None:
    raw(source, tmp_path / "out")
    for decode in (False, True):
        assert verify(tmp_path / "out", decode).problems == ()


def test_a_source_in_order_gives_the_same_images(source: Path, tmp_path: Path) -> None:
    assert raw(source, tmp_path / "global") == 0
    assert raw(source, tmp_path / "order", "--order", "source") == 0
    one, other = (files(open_dataset(tmp_path / name)["train"]) for name in ("global", "order"))
    assert list(one) != list(other)
    assert one == other


@pytest.mark.parametrize("rows", [5, 23])
def test_an_interrupted_job_goes_on_and_ends_the_same(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    raw(source, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt_at(patch, rows)
        assert raw(source, tmp_path / "out") == 1
    assert raw(source, tmp_path / "out") == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_another_encoding_is_refused_half_done_and_finished(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(patch, 11)
        raw(source, tmp_path / "out")
    capsys.readouterr()
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5") == 2
    assert "unfinished data set made differently (--encoding raw there, jpeg here" in line(capsys)
    raw(source, tmp_path / "out")
    capsys.readouterr()
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5") == 2
    assert "holds a different data set (--encoding raw there, jpeg here" in line(capsys)


def test_a_quality_is_refused(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert raw(source, tmp_path / "out", "--quality", "90") == 2
    assert "--encoding raw stores pixels and --quality is for JPEGs" in line(capsys)
    assert not (tmp_path / "out").exists()


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("harm", [flip_a_bit, Path.unlink])
@pytest.mark.parametrize("name", ["train/train-00003.tar", "train/train-00000.idx", "train/index.parquet"])
def test_a_damaged_or_missing_file_is_repaired(
    source: Path, tmp_path: Path, harm: Callable[[Path], object], name: str
) -> None:
    out = tmp_path / "out"
    raw(source, out, "--seed", "3")
    whole = tree(out)
    harm(out / name)
    assert main([str(source), str(out), "--repair", "--workers", "1"]) == 0
    assert tree(out) == whole


def test_the_estimate_is_of_pixels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    same = {f"train/a/{i}.jpg": jpeg(photo(64, 96, i)) for i in range(20)}
    source = folder(tmp_path / "source", {}, same)
    options = [str(source), str(tmp_path / "out"), "--encoding", "raw", "--short-side", "64"]
    assert main([*options, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "--encoding raw, --quality none" in said
    assert main(options) == 0
    size = sum(path.stat().st_size for path in (tmp_path / "out" / "train").iterdir())
    estimated = float(said.split("estimate: ")[1].split(" kB")[0]) * 1000
    assert abs(estimated - size) < 0.1 * size


def test_other_programs_open_the_members(source: Path, tmp_path: Path) -> None:
    raw(source, tmp_path / "out")
    for key, data in files(open_dataset(tmp_path / "out")["train"]).items():
        image = Image.open(io.BytesIO(data))
        assert (image.format, image.mode, min(image.size)) == ("PPM", "RGB", 16), key


def test_a_data_set_of_format_version_1_is_of_jpegs(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "out", "--max-rejects", "0.5")
    path = tmp_path / "out" / "manifest.json"
    content = json.loads(path.read_text())
    assert content["format_version"] == 2
    content["format_version"] = 1
    del content["settings"]["encoding"]
    path.write_text(json.dumps(content))
    assert Manifest.read(tmp_path / "out").settings.encoding == "jpeg"
    assert verify(tmp_path / "out").problems == ()
    assert convert(source, tmp_path / "out", "--max-rejects", "0.5") == 0
    (tmp_path / "out" / "train" / "train-00000.tar").unlink()
    assert main([str(source), str(tmp_path / "out"), "--repair", "--workers", "1"]) == 0
