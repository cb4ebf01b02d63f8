"""Every kind of image file of tests/helpers/picture_cases.py, resized, kept, raw or rejected as the manual says."""

import io
import json
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps
from torchvision.transforms.v2 import functional as F

from preprocess.images import jpeg_header as header
from preprocess.images.convert import MAX_ASPECT, Reject, convert, target_size
from shards.format.manifest import Manifest
from shards.format.ppm import ppm_size
from tests import ROOT
from tests.conftest import SHARED, decoded, jpeg, photo
from tests.helpers.picture_cases import CASES, KEPT, UNNOTICED, with_table
from tests.helpers.pictures import PHOTO, picture, rotated, saved

Pixels = npt.NDArray[np.uint8]
USED = {case.name: case for case in CASES if case.kind is not None}
REJECTED = {case.name: case for case in CASES if case.kind is None}
BOMBS = [name for name in REJECTED if "bomb" in name]
MANUAL = ROOT / "docs" / "images.md"


def test_the_manual_has_the_table_of_these_cases() -> None:
    assert MANUAL.read_text() == with_table(MANUAL.read_text()), "regenerate it: python -m tests.helpers.picture_cases"


@pytest.mark.parametrize("name", USED)
def test_every_kind_becomes_an_rgb_jpeg_that_looks_the_same(name: str) -> None:
    case = USED[name]
    converted = convert(case.data, None, 98)
    image = Image.open(io.BytesIO(converted.data))
    assert converted.kind == case.kind
    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (converted.width, converted.height))
    assert image.getexif().get(0x0112, 1) not in range(2, 9)
    assert (converted.data == case.data) == (case.original == KEPT)
    difference = np.abs(decoded(converted.data).astype(int) - case.looks())
    assert difference.mean() < 4, difference.mean()


@pytest.mark.parametrize("name", USED)
def test_every_kind_becomes_the_size_asked_for(name: str) -> None:
    converted = convert(USED[name].data, 32, 90)
    assert Image.open(io.BytesIO(converted.data)).size == (converted.width, converted.height)
    assert min(converted.width, converted.height) == 32
    assert converted.kind == USED[name].kind
    assert "icc_profile" not in Image.open(io.BytesIO(converted.data)).info


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_used_is_rejected_with_the_reason(name: str) -> None:
    with pytest.raises(Reject) as caught:
        convert(REJECTED[name].data, 32, 90)
    assert str(caught.value) == REJECTED[name].reason
    assert "0x" not in str(caught.value)  # a memory address would differ from run to run


@pytest.mark.parametrize("name", REJECTED)
def test_original_rejects_it_too_unless_the_table_says_otherwise(name: str) -> None:
    case = REJECTED[name]
    if case.original == UNNOTICED:
        assert convert(case.data, None, 90).data == case.data
        return
    with pytest.raises(Reject) as caught:
        convert(case.data, None, 90)
    assert str(caught.value) == case.reason


@pytest.mark.parametrize("name", USED)
def test_every_kind_becomes_raw_pixels(name: str) -> None:
    case = USED[name]
    converted = convert(case.data, None, 90, "raw")
    pixels = decoded(converted.data)
    assert (converted.kind, ppm_size(converted.data)) == (case.kind, (converted.width, converted.height))
    assert np.abs(pixels.astype(int) - case.looks()).mean() < 4
    if case.original == KEPT:
        assert np.array_equal(pixels, decoded(case.data))


@pytest.mark.parametrize("name", REJECTED)
def test_what_cannot_be_used_has_no_raw_pixels(name: str) -> None:
    """Damage that --original does not notice in a JPEG included, since everything is decoded."""
    with pytest.raises(Reject) as caught:
        convert(REJECTED[name].data, None, 90, "raw")
    assert str(caught.value) == REJECTED[name].reason


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_without_being_decoded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object, **__: object) -> None:
        pytest.fail("it was decoded")

    monkeypatch.setattr("simplejpeg.decode_jpeg", decode)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decode)
    with pytest.raises(Reject, match="limit of"):
        convert(REJECTED[name].data, None, 90)


def test_every_case_is_accounted_for_by_a_whole_conversion(tmp_path: Path) -> None:
    """All files of the table under JPEG names, whatever they hold: kinds in the manifest, the rest in rejects.jsonl."""
    from preprocess.__main__ import main

    folder = tmp_path / "in" / "train" / "ant"
    folder.mkdir(parents=True)
    for number, case in enumerate(CASES):
        (folder / f"{number}.JPEG").write_bytes(case.data)
    out = tmp_path / "out"
    assert main([str(tmp_path / "in"), str(out), "--short-side", "32", "--max-rejects", "1", "--workers", "1"]) == 0
    split = Manifest.read(out).splits["train"]
    assert split.kinds == Counter(case.kind for case in USED.values())
    lines = [json.loads(line) for line in (out / "train" / "rejects.jsonl").read_text().splitlines()]
    names = {f"train/ant/{number}.JPEG": case for number, case in enumerate(CASES)}
    assert {names[line["path"]].name: line["reason"] for line in lines} == {
        case.name: case.reason for case in REJECTED.values()
    }
    assert all((line["split"], names[line["path"]].kind) == ("train", None) and line["row"] >= 0 for line in lines)


@pytest.mark.parametrize("name", [name for name, case in USED.items() if case.original == KEPT])
def test_dali_reads_what_is_kept_as_pillow_does(name: str) -> None:
    fn = pytest.importorskip("nvidia.dali.fn")
    from nvidia.dali import pipeline_def

    data = USED[name].data

    @pipeline_def(batch_size=1, num_threads=1, device_id=None)
    def decode() -> Any:
        return fn.decoders.image(fn.external_source(name="file", batch=False))

    pipe = decode()
    pipe.build()
    pipe.feed_input("file", [np.frombuffer(data, np.uint8)])
    assert np.array_equal(np.asarray(pipe.run()[0][0]), decoded(data))


@pytest.mark.parametrize("name", USED)
def test_what_was_encoded_anew_is_clean(name: str) -> None:
    converted = convert(USED[name].data, None, 90)
    assert convert(converted.data, None, 90).data == converted.data


def test_bytes_behind_the_end_of_a_jpeg_are_dropped() -> None:
    converted = convert(jpeg(PHOTO) + b"junk", None, 95)
    assert converted.data.endswith(b"\xff\xd9")
    assert np.abs(decoded(converted.data).astype(int) - decoded(jpeg(PHOTO))).mean() < 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_baked_in(orientation: int) -> None:
    data = rotated(orientation)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    converted = convert(data, None, 95)
    assert np.abs(decoded(converted.data).astype(int) - expected).mean() < 4
    assert converted.kind == ("jpeg" if orientation == 1 else "jpeg exif-rotated")
    assert Image.open(io.BytesIO(converted.data)).getexif().get(0x0112, 1) == 1


def test_orientation_of_a_png_is_baked_in() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    converted = convert(saved(picture(), exif=exif), None, 95)
    assert (converted.width, converted.height, converted.kind) == (40, 60, "png exif-rotated")


def test_orientation_that_only_xmp_holds_is_baked_in() -> None:
    body = b'http://ns.adobe.com/xap/1.0/\x00<rdf:Description tiff:Orientation="6"/>'
    data = jpeg(PHOTO)
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert (convert(data, None, 90).width, convert(data, None, 90).height) == (40, 60)


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_resized_image_is_pillows(orientation: int) -> None:
    data = rotated(orientation, jpeg(photo(375, 500)))
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    converted = convert(data, 128, 90)
    small = upright.resize((converted.width, converted.height), Image.Resampling.BILINEAR)

    # Two JPEGs of the same pixels within rounding: as near to them as Pillow's own.
    assert loss(converted.data, small) < 1.01 * loss(saved(small, "JPEG", quality=90), small)


def test_real_images_come_out_as_well_as_pillow_makes_them(real_images: list[bytes]) -> None:
    ours, pillows = [], []
    for data in real_images[:20]:
        converted = convert(data, 256, 90)
        small = Image.open(io.BytesIO(data)).convert("RGB")
        small = small.resize((converted.width, converted.height), Image.Resampling.BILINEAR)
        ours.append(loss(converted.data, small))
        pillows.append(loss(saved(small, "JPEG", quality=90), small))
    assert np.mean(ours) < 1.03 * np.mean(pillows)


def loss(data: bytes, image: Image.Image) -> float:
    """Mean absolute difference of an image file's pixels to those that it was to hold."""
    return float(np.abs(decoded(data).astype(int) - np.asarray(image)).mean())


@given(width=st.integers(1, 5000), height=st.integers(1, 5000), short_side=st.integers(8, 512))
def test_the_size_is_that_of_torchvisions_resize(width: int, height: int, short_side: int) -> None:
    if max(width, height) > MAX_ASPECT * min(width, height):
        with pytest.raises(Reject, match="times the other"):
            target_size(width, height, short_side)
        return
    size = target_size(width, height, short_side)
    expected = F.resize(torch.empty(1, height, width, device="meta", dtype=torch.float32), [short_side], antialias=True)
    assert size == (expected.shape[2], expected.shape[1])


def test_quality_is_heeded() -> None:
    assert len(convert(saved(picture()), None, 40).data) < len(convert(saved(picture()), None, 90).data)


def test_one_pixel_alone_grows() -> None:
    converted = convert(saved(Image.new("RGB", (1, 1), (200, 30, 40))), 32, 95)
    assert (converted.width, converted.height) == (32, 32)
    assert np.abs(decoded(converted.data).astype(int) - [200, 30, 40]).max() < 5


def test_a_result_beyond_what_a_jpeg_can_hold_is_rejected() -> None:
    with pytest.raises(Reject, match="more than a JPEG can hold"):
        target_size(1000, 50, 4096)


@pytest.mark.skipif(not (SHARED / "imagenet-sample").is_dir(), reason="the real images are not here")
def test_real_images_are_classified_as_counted_by_hand() -> None:
    from preprocess.sources import open_source

    source = open_source(str(SHARED / "imagenet-sample"))
    headers = [
        header.read_header(source.row(split, i).data) for split in source.splits for i in range(source.num_rows(split))
    ]
    assert Counter(each.components for each in headers) == {3: 977, 1: 23}
    assert all(each.ended and each.precision == 8 for each in headers)


@settings(max_examples=60, deadline=None)
@given(
    quality=st.integers(30, 95),
    subsampling=st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
    progressive=st.booleans(),
    restart=st.integers(0, 5),
    seed=st.integers(0, 5),
)
def test_sound_files_look_whole(quality: int, subsampling: str, progressive: bool, restart: int, seed: int) -> None:
    image = Image.fromarray(photo(40, 60, seed))
    data = saved(
        image,
        "JPEG",
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
        restart_marker_blocks=0 if progressive else restart,
    )
    assert header.looks_whole(data, header.read_header(data))
    assert convert(data, None, 90).data == data


def test_sound_files_that_are_doubted_are_kept_too() -> None:
    data = saved(picture(), "JPEG", progressive=True, restart_marker_blocks=2)
    assert not header.looks_whole(data, header.read_header(data))
    assert convert(data, None, 90).data == data


def test_a_lost_restart_interval_is_seen() -> None:
    data = saved(picture(), "JPEG", restart_marker_blocks=1)
    start, end = data.index(b"\xff\xd1"), data.index(b"\xff\xd2")
    broken = data[:start] + data[end:]
    assert not header.looks_whole(broken, header.read_header(broken))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_of_any_sort_is_rejected_or_survived(data: st.DataObject) -> None:
    """No decoder's own exception gets through, and what comes out is a picture."""
    files = [case.data for case in CASES if 100 < len(case.data) < 20_000]
    file = bytearray(data.draw(st.sampled_from(files)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(file) - 1))
        file[place : place + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
    try:
        converted = convert(bytes(file), data.draw(st.sampled_from([16, None])), 90)
    except Reject:
        return
    assert Image.open(io.BytesIO(converted.data)).size == (converted.width, converted.height)


def test_a_worker_loads_no_torch() -> None:
    code = (
        "import sys, datasets, preprocess.images.convert, preprocess.job.task, preprocess.sources.tables;"
        "print(sorted({'torch', 'torchvision', 'webdataset', 'nvidia.dali'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=MANUAL.parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
