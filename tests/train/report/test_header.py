"""The lines with which a run begins."""

import dataclasses

import pytest

from shards.common import terminal
from shards.common.errors import UsageError
from shards.dataset import Split, open_dataset
from shards.dataset.sizes import shorter_side
from tests.helpers.training import setup_of, tiny_network, write_dataset
from tests.train.test_engine import SMALL
from train.options import Feeding, Update
from train.ranks.distributed import World
from train.report.header import data_line, hints, model_line, split_words, step_words
from train.run import begin

CONFIG = dataclasses.replace(SMALL, batch=16, micro_batch=4, epochs=3)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Split]:
    """70 training and 11 validation images of 16 x 16 pixels."""
    return open_dataset(write_dataset(tmp_path_factory.mktemp("data"), {"train": 70, "validation": 11}))


@pytest.mark.parametrize(("drop_last", "images", "unfilled"), [(False, 2, "micro-batch"), (True, 6, "step")])
def test_the_data_and_what_an_epoch_leaves_out(
    drop_last: bool, images: int, unfilled: str, splits: dict[str, Split]
) -> None:
    config = dataclasses.replace(CONFIG, update=Update(drop_last=drop_last))
    run = begin(tiny_network(), setup_of(config), micro_batches=17)
    line = data_line(splits["train"], splits["validation"], run, samples=len(splits["train"]), micro_batches=17)
    left_out = f"an epoch leaves out {images} images for want of a full {unfilled}, others each time"
    assert line == f"data: 70 images in train, 11 in validation, 3 classes; {left_out}"


def test_what_is_held_out_is_said_in_words(splits: dict[str, Split]) -> None:
    assert split_words(*splits["train"].hold_out(0.1)) == "63 images in train and 7 held out of it (10%), 3 classes"
    assert split_words(splits["train"], None) == "70 images in train, no validation, 3 classes"


def test_an_epoch_that_leaves_nothing_out_says_nothing_of_it(splits: dict[str, Split]) -> None:
    run = begin(tiny_network(), setup_of(dataclasses.replace(CONFIG, batch=7, micro_batch=7)), micro_batches=10)
    assert data_line(splits["train"], splits["validation"], run, len(splits["train"]), 10).endswith("3 classes")


def test_the_model_and_its_steps() -> None:
    line = model_line(begin(tiny_network(), setup_of(CONFIG), micro_batches=17))
    assert line.startswith(f"model: {CONFIG.model} of 1,930 parameters on CPU (")
    assert "in float32; 3 epochs, 15 steps of 16 images (4 x 4), learning rate up to " in line


@pytest.mark.parametrize(
    ("world", "micro_batch", "words"),
    [
        (World(), 16, "16 images"),
        (World(), 8, "16 images (2 x 8)"),
        (World(size=2), 4, "16 images (2 x 4 on each of 2 ranks)"),
    ],
)
def test_how_a_step_is_split(world: World, micro_batch: int, words: str) -> None:
    assert step_words(setup_of(dataclasses.replace(CONFIG, micro_batch=micro_batch), world)) == words


def test_a_random_crop_that_cuts_nothing_off_is_said(splits: dict[str, Split], small_split: Split) -> None:
    split = splits["train"]
    [line] = hints(split, dataclasses.replace(CONFIG, size=16))
    assert line.startswith("--crop random cuts nothing off: every image is stored at 16 x 16 pixels")
    assert "--size. --pad 2 puts a black border around it to cut from; --crop rrc cuts too" in line
    assert "--val-size 16 then" in line
    assert hints(split, dataclasses.replace(CONFIG, size=16, feeding=Feeding(pad=2))) == []
    assert hints(split, dataclasses.replace(CONFIG, size=8)) == []
    assert hints(split, dataclasses.replace(CONFIG, size=16, crop="rrc")) == []
    assert hints(small_split, dataclasses.replace(CONFIG, size=40)) == []  # longer sides of 40 to 64 pixels


def test_a_run_of_one_class_is_said(splits: dict[str, Split]) -> None:
    split = splits["train"]
    one = split.map_classes(dict.fromkeys(split.class_names, "thing"))
    [line] = hints(one, dataclasses.replace(CONFIG, size=8))
    assert line == "there is only the class thing, so nothing is learned: every answer is right"


def test_a_part_and_single_things_are_in_the_singular(splits: dict[str, Split]) -> None:
    split = splits["train"]
    assert split_words(split.select([0]), None) == "1 image in a part of train, no validation, 3 classes"


def test_a_size_that_is_the_stored_one_is_suggested_with_the_border_that_a_random_crop_needs(
    splits: dict[str, Split], small_split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_command_runs", True)
    border = "choose --size 16 or less, with `python -m train --pad 2` for 16, or nothing is left to crop"
    with pytest.raises(UsageError, match=border):
        shorter_side(splits["train"], 20, None, "random")
    with pytest.raises(UsageError, match=r"choose --size 16 or less$"):
        shorter_side(splits["train"], 20, None, "center")
    with pytest.raises(UsageError, match=r"choose --size 40 or less$"):
        shorter_side(small_split, 64, None, "random")
