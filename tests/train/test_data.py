"""What training reads: the splits, the batches of evaluation, and progressive resizing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shards import Loader
from shards.common.errors import UsageError
from shards.dataset import open_dataset
from tests.conftest import jpeg, photo, write_split
from tests.helpers.training import setup_of, write_dataset
from train.__main__ import parse_config
from train.config import Config
from train.data import held_out_loader, held_out_split, open_splits, training_loader, training_size
from train.options import Feeding, Samples, Sizes, Validation
from train.ranks.distributed import World
from train.recipes import RECIPES


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["test", "dev", "valid", "val", "validation"], "validation"),
        (["test", "dev", "valid", "val"], "val"),
        (["test", "dev", "valid"], "valid"),
        (["test", "dev"], "dev"),
        (["test"], "test"),
    ],
)
def test_the_first_split_with_a_usual_name_validates(present: list[str], chosen: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path, dict.fromkeys(["train", *present], 2))
    split = held_out_split(Config(data))
    assert split is not None
    assert split.name == chosen


def test_a_split_is_chosen_by_name_or_not_at_all(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 4, "validation": 2, "other": 3})
    split = held_out_split(Config(data, validation=Validation(val_split="other")))
    assert split is not None
    assert split.name == "other"
    assert held_out_split(Config(data, validation=Validation(val_split="none"))) is None
    with pytest.raises(UsageError, match="no split vall: it has train, validation, other"):
        held_out_split(Config(data, validation=Validation(val_split="vall")))


@pytest.mark.parametrize(
    ("validation", "told"),
    [
        ({"val_fraction": 0.0}, "--val-fraction must lie between 0 and 1, not 0.0"),
        ({"val_fraction": 1.0}, "--val-fraction must lie between 0 and 1"),
        ({"val_fraction": 0.1, "val_split": "test"}, "give one"),
    ],
)
def test_what_cannot_be_held_out_is_refused(validation: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Validation(**validation)


def test_training_never_sees_what_is_held_out_and_each_other_image_once(tmp_path: Path) -> None:
    count = 40  # each image is a class of its own
    write_split(tmp_path, [jpeg(photo(16, 16, i)) for i in range(count)], range(count), short_side=16, classes=count)

    def seen(seed: int, rank: int) -> tuple[list[int], list[int]]:
        validation = Validation(val_fraction=0.1)
        config = Config(tmp_path, size=16, batch=8, micro_batch=4, threads=1, seed=seed, validation=validation)
        split, held_out = open_splits(config)
        assert held_out is not None
        setup = setup_of(config, World(rank, 2))
        with training_loader(split, setup) as training, held_out_loader(held_out, setup) as validating:
            return [int(n) for _, labels in training for n in labels], [int(n) for _, v in validating for n in v]

    train_0, held_0 = seen(seed=0, rank=0)
    train_1, held_1 = seen(seed=0, rank=1)
    held = sorted(held_0 + held_1)
    assert len(held) == len(set(held)) == 4
    assert len(set(train_0 + train_1)) == len(train_0 + train_1) == 32  # 36, of which 8 are a step of both ranks
    assert not set(held) & set(train_0 + train_1)
    assert sorted(seen(seed=5, rank=0)[1] + seen(seed=5, rank=1)[1]) == held


def test_a_fraction_is_trained_on_and_the_whole_of_another_split_validates(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 40, "validation": 9}, classes=4)
    split, held_out = open_splits(Config(data, samples=Samples(subset=0.25)))
    assert held_out is not None
    assert np.bincount(split.labels).tolist() == [2, 2, 2, 2]  # a quarter of 10, rounded to even
    assert (len(split), len(held_out)) == (8, 9)


def test_classes_that_a_file_names_are_the_only_ones_of_both_splits(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 40, "validation": 9}, classes=4)
    names = tmp_path / "classes.txt"
    names.write_text("class 3\nclass 1\n")
    split, held_out = open_splits(Config(data, samples=Samples(subset=names)))
    assert held_out is not None
    assert split.class_names == held_out.class_names == ("class 1", "class 3")
    assert np.bincount(split.labels).tolist() == [10, 10]
    assert held_out.labels.tolist() == [0, 1, 0, 1]


def test_a_class_map_holds_for_both_splits_and_for_what_is_held_out(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 40, "validation": 9}, classes=4)
    new = tmp_path / "map.tsv"
    new.write_text("class 3\todd\nclass 1\todd\nclass 0\teven\n")
    for validation in (Validation(), Validation(val_fraction=0.5)):
        split, held_out = open_splits(Config(data, samples=Samples(class_map=new), validation=validation))
        assert held_out is not None
        assert split.class_names == held_out.class_names == ("even", "odd")
        assert set(held_out.labels) == {0, 1}


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_subset_is_a_fraction_or_a_file(fraction: float) -> None:
    with pytest.raises(UsageError, match="--subset must lie between 0 and 1, or be a file"):
        Samples(subset=fraction)


@pytest.mark.parametrize(("recipe", "small"), [("rn50_16", 12), ("rn18_88", 66)])
def test_the_resnet_recipes_grow_from_160_to_192(recipe: str, small: int) -> None:
    config = RECIPES[recipe](Path("unused"))
    sizes = [training_size(config, epoch) for epoch in range(1, config.epochs + 1)]
    assert sizes[:small] == [160] * small
    assert sizes == sorted(sizes)
    assert set(sizes) == {160, 192}
    assert sizes[config.sizes.grow_until :] == [192] * (config.epochs - config.sizes.grow_until)


def test_sizes_in_between_are_multiples_of_32_inside_the_bounds() -> None:
    config = Config(Path("unused"), size=232, sizes=Sizes(start_size=104, grow_from=2, grow_until=8))
    sizes = [training_size(config, epoch) for epoch in range(1, 11)]
    assert sizes == [104, 104, 104, 128, 160, 160, 192, 224, 232, 232]


def test_without_a_start_size_every_epoch_has_the_same() -> None:
    assert {training_size(Config(Path("unused")), epoch) for epoch in range(1, 17)} == {224}


@pytest.mark.parametrize("flip", [True, False])
def test_no_flip_mirrors_nothing(tmp_path: Path, flip: bool) -> None:
    data = write_dataset(tmp_path, {"train": 32})
    words = [
        "--data",
        str(data),
        "--size",
        "16",
        "--batch",
        "32",
        "--micro-batch",
        "32",
        "--device",
        "cpu",
        "--threads",
        "1",
    ]
    setup = setup_of(parse_config([*words, *([] if flip else ["--no-flip"])]))
    split = open_dataset(data)["train"]
    with training_loader(split, setup) as loader, Loader(split, batch_size=32, train=False, size=16) as upright:
        [(images, _)], [(stored, _)] = loader, upright
    as_stored = [any(torch.equal(image, each) for each in stored) for image in images]
    assert all(as_stored) != flip


def test_padding_moves_training_images_and_none_of_evaluation(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 32})
    config = Config(data, size=16, batch=32, micro_batch=32, threads=1, device="cpu", feeding=Feeding(pad=3))
    split, setup = open_dataset(data)["train"], setup_of(config)
    same: dict[str, Any] = {"batch_size": 32, "size": 16, "threads": 1}
    with training_loader(split, setup) as loader, Loader(split, train=True, padding=3, **same) as padded:
        assert torch.equal(next(iter(loader))[0], next(iter(padded))[0])
    with held_out_loader(split, setup) as loader, Loader(split, train=False, **same) as upright:
        assert torch.equal(next(iter(loader))[0], next(iter(upright))[0])


def test_area_filter_and_policy_reach_training_and_the_filter_evaluation(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 8}, side=24)
    words = "--size 12 --batch-size 8 --micro-batch 8 --device cpu --threads 1 --crop rrc --scale 0.3 0.4 --ratio 1 1.5"
    config = parse_config(["--data", str(data), *words.split(), "--interpolation", "bicubic", "--augment", "three"])
    split, setup = open_dataset(data)["train"], setup_of(config)
    same: dict[str, Any] = {"batch_size": 8, "size": 12, "threads": 1, "interpolation": "bicubic"}
    area: dict[str, Any] = {"crop": "rrc", "scale": (0.3, 0.4), "ratio": (1.0, 1.5), "augment": "three"}
    with training_loader(split, setup) as loader, Loader(split, train=True, **same, **area) as expected:
        assert torch.equal(next(iter(loader))[0], next(iter(expected))[0])
    with held_out_loader(split, setup) as loader, Loader(split, train=False, **same) as expected:
        assert torch.equal(next(iter(loader))[0], next(iter(expected))[0])


def test_what_a_recipe_leaves_behind_for_another_crop_or_order_reaches_no_loader(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 4})
    idle = Feeding(scale=(0.3, 0.4), window=4)
    config = Config(data, size=16, batch=4, micro_batch=4, threads=1, device="cpu", feeding=idle)
    with training_loader(open_dataset(data)["train"], setup_of(config)) as loader:
        assert len(loader) == 1


def test_evaluation_takes_batches_that_training_computes_at_a_time(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 8, "validation": 11})
    setup = setup_of(Config(data, size=16, batch=64, micro_batch=4, threads=1, device="cpu"))
    with held_out_loader(open_dataset(data)["validation"], setup) as loader:
        assert [len(labels) for _, labels in loader] == [4, 4, 3]


@pytest.mark.parametrize(
    ("device", "computed", "delivered"),
    [
        ("cuda", torch.float16, "float16"),
        ("cuda", torch.bfloat16, "float16"),
        ("cuda", torch.float32, "float32"),
        ("cpu", torch.bfloat16, "float32"),
    ],
)
def test_batches_have_half_the_bytes_where_a_gpu_computes_in_half_precision(
    device: str, computed: torch.dtype, delivered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("shards.Loader", lambda split, **given: asked.update(given))
    config = Config(Path("unused"))
    training_loader(object(), setup_of(config, World(device=torch.device(device)), computed))  # type: ignore[arg-type]
    assert asked["dtype"] == delivered
