"""Batches from tars that webdataset wrote are, to the bit, what Pillow makes of the bytes that were written."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from preprocess.images.convert import convert
from shards import Loader
from shards.dataset import Split
from shards.format.verify import verify
from shards.sampling.crops import crop_windows
from shards.sampling.order import epoch_order
from tests.conftest import decoded, jpeg, photo
from tests.helpers.pictures import exif, picture, saved, ycck
from tests.helpers.tars import indexed, write_tar

SIZES = [(40, 40 + i % 25) if i % 2 else (40 + i % 13, 40) for i in range(23)]
PHOTOS = [photo(height, width, seed) for seed, (height, width) in enumerate(SIZES)]
JPEGS = [jpeg(each) for each in PHOTOS]
LABELS = [i * 7 % 10 for i in range(23)]
Sample = dict[str, Any]


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def webp(pixels: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=80)
    return file.getvalue()


STYLES: dict[str, list[Sample]] = {
    "jpg and cls": [{"__key__": f"{i:04d}", "jpg": JPEGS[i], "cls": LABELS[i]} for i in range(23)],
    "jpg and json": [
        {"__key__": f"{i:04d}", "jpg": JPEGS[i], "json": {"label": LABELS[i], "filename": f"{i}.jpg"}}
        for i in range(23)
    ],
    "png": [{"__key__": f"{i:04d}", "png": png(PHOTOS[i]), "cls": LABELS[i]} for i in range(23)],
    "webp": [{"__key__": f"{i:04d}", "webp": webp(PHOTOS[i]), "cls": LABELS[i]} for i in range(23)],
    "keys with dots and directories": [
        {"__key__": f"train/n{i % 3:02d}/ILSVRC2012_val_{i:08d}.n01440764", "jpg": JPEGS[i], "cls": LABELS[i]}
        for i in range(23)
    ],
}


def write(root: Path, samples: list[Sample]) -> str:
    for number, start in enumerate(range(0, len(samples), 9)):
        write_tar(root / f"set-train-{number:03d}.tar", samples[start : start + 9])
    return f"{root}/set-train-{{000..{(len(samples) - 1) // 9:03d}}}.tar"


def image_of(sample: Sample) -> bytes:
    data: bytes = next(sample[name] for name in ("jpg", "png", "webp", "jpeg") if name in sample)
    return data


def expected(samples: list[Sample], ids: list[int], *, train: bool, epoch: int = 0) -> torch.Tensor:
    """uint8 (n, 3, 32, 32) of these samples, by Pillow; images of shorter side 40 need no resizing."""
    images = []
    for each in ids:
        pixels = decoded(image_of(samples[each]))
        shape = (np.array([side]) for side in pixels.shape[:2])
        window = crop_windows(
            "random" if train else "center",
            np.array([each]),
            *shape,
            resize=40,
            size=32,
            flip=train,
            seed=0,
            epoch=epoch,
        )
        top, left = (window.anchor[0] + window.start[0]).astype(int).tolist()
        cut = pixels[top : top + 32, left : left + 32]
        images.append(torch.from_numpy(cut[:, ::-1].copy() if window.mirror[0] else cut.copy()).permute(2, 0, 1))
    return torch.stack(images)


def batches(split: Split, *, state: dict[str, int] | None = None, **options: Any) -> list[tuple[torch.Tensor, Any]]:
    named = {"batch_size": 6, "train": True, "size": 32, "resize": 40, "threads": 2, "dtype": "uint8", **options}
    with Loader(split, **named) as loader:
        if state is not None:
            loader.load_state_dict(state)
        return [(images.clone(), labels.clone()) for images, labels in loader]


@pytest.mark.parametrize(
    ("style", "train"), [*((style, True) for style in STYLES), ("jpg and cls", False), ("png", False)]
)
def test_batches_are_pillows_to_the_bit(tmp_path: Path, style: str, train: bool) -> None:
    samples = STYLES[style]
    split = indexed(write(tmp_path, samples))["train"]
    order = epoch_order(split.index.shard, "global" if train else "index", 0, 0, 8).tolist()
    got = batches(split, train=train)
    ids = order[: sum(len(labels) for _, labels in got)]
    assert len(ids) == (18 if train else 23)
    assert torch.equal(torch.cat([images for images, _ in got]), expected(samples, ids, train=train))
    assert torch.cat([labels for _, labels in got]).tolist() == [LABELS[each] for each in ids]
    assert not list(tmp_path.rglob("*cleaned*"))  # all of these are read in place


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    return indexed(write(tmp_path_factory.mktemp("tars"), STYLES["jpg and cls"]))["train"]


@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_sees_the_same_epoch_also_resumed_in_its_middle(split: Split, ranks: int) -> None:
    whole = batches(split)
    for rank in range(ranks):
        mine = batches(split, batch_size=6 // ranks, rank=rank, world_size=ranks)
        assert len(mine) == len(whole)
        for (images, labels), (all_images, all_labels) in zip(mine, whole, strict=True):
            assert torch.equal(images, all_images[rank::ranks])
            assert torch.equal(labels, all_labels[rank::ranks])
    with Loader(split, batch_size=6, train=True, size=32, resize=40, threads=2, dtype="uint8") as loader:
        next(iter(loader))
        state = loader.state_dict()
    rest = batches(split, batch_size=6 // ranks, rank=0, world_size=ranks, state=state)
    assert all(torch.equal(a, b[::ranks]) for (a, _), (b, _) in zip(rest, whole[1:], strict=True))


def test_every_sample_is_evaluated_once_over_three_ranks(split: Split) -> None:
    shares = [batches(split, train=False, batch_size=4, rank=rank, world_size=3) for rank in range(3)]
    labels = [label for share in shares for _, labels in share for label in labels.tolist()]
    assert sorted(labels) == sorted(LABELS)


def test_odd_images_look_as_a_conversion_makes_them(tmp_path: Path) -> None:
    upright = picture().resize((60, 44))
    odd = {
        "cmyk": saved(upright.convert("CMYK"), "JPEG"),
        "ycck": ycck(),
        "turned": saved(upright, "JPEG", exif=exif(6)),
        "palette": saved(upright.quantize(8), "PNG"),
        "deep": saved(Image.fromarray(np.asarray(upright.convert("L")).astype(np.uint16) * 257)),
        "alpha": saved(upright.convert("RGBA")),
    }
    samples = [
        {"__key__": name, "png" if data.startswith(b"\x89PNG") else "jpg": data, "cls": number}
        for number, (name, data) in enumerate(odd.items())
    ]
    samples.insert(2, {"__key__": "plain", "jpg": JPEGS[0], "cls": 9})
    split = indexed(write(tmp_path, samples))["train"]
    assert split.keys().tolist() == ["plain", *odd]  # cleaned ones come last, whole tars as they are
    assert split.labels.tolist() == [9, 0, 1, 2, 3, 4, 5]
    raw = [convert(image, None, 90, "raw").data for image in odd.values()]
    index = split.index
    for row, data in enumerate(raw, 1):
        stored = split.shard_paths[index.shard[row]].read_bytes()[index.offset[row] :][: index.size[row]]
        assert stored == data
    assert not verify(split.root, decode=True).problems
