"""The named recipes: the values of their sources, every option overridable, and one that runs in seconds."""

import dataclasses
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from model import MODELS
from shards.common.errors import UsageError
from tests.helpers.training import write_dataset
from train.__main__ import main, parse_config
from train.optim.batch_split import split_batch
from train.optim.optimizer import make_optimizer, make_schedule
from train.recipes import RECIPES, find_recipe


def recipe(name: str, *words: str) -> Any:
    return parse_config(["--data", "unused", "--recipe", name, *words])


@pytest.mark.parametrize("words", [["--recipe", "cnn"], ["--recipe=cnn"], []])
def test_the_recipe_is_found_in_either_spelling_and_by_default(words: list[str]) -> None:
    assert find_recipe([*words, "--data", "somewhere"]) is RECIPES["cnn"]


@pytest.mark.parametrize(
    "words", [["--recipe", "other"], ["--recipe=other"], ["--recipe"], ["--recipe=cnn", "--recipe=x"]]
)
def test_an_unknown_recipe_is_refused_with_the_known_names(words: list[str]) -> None:
    with pytest.raises(UsageError, match="choose one of cnn"):
        find_recipe(words)


def test_every_recipe_says_its_own_name() -> None:
    assert {name: function(Path("unused")).recipe for name, function in RECIPES.items()} == {
        name: name for name in RECIPES
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_where_it_comes_from_and_whether_it_has_been_run(name: str) -> None:
    text = RECIPES[name].__doc__ or ""
    model = RECIPES[name](Path("unused")).model
    assert model in MODELS or model.startswith("timm:")
    if name not in ("demo", "smoke"):
        assert "Source: " in text
        assert "has not been run on ImageNet" in text


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "max_lr", "weight_decay"),
    [
        ("rn18_16", 16, 1024, 0.5, 5e-5),
        ("rn18_88", 88, 1024, 0.5, 5e-5),
        ("rn50_16", 16, 4096, 1.7, 1e-4),
        ("rn50_88", 88, 4096, 1.7, 1e-4),
    ],
)
def test_the_resnet_recipes_have_the_values_of_ffcv_imagenet(
    name: str, epochs: int, batch: int, max_lr: float, weight_decay: float
) -> None:
    config = recipe(name)
    assert (config.epochs, config.batch, config.max_lr, config.weight_decay) == (epochs, batch, max_lr, weight_decay)
    assert config.label_smoothing == 0.1
    assert config.clip is None
    assert config.blur_pool
    assert config.sizes.flip_tta
    assert (config.sizes.val_size, config.sizes.val_resize) == (224, 256)


@pytest.mark.parametrize("name", ["rn18_16", "rn50_88"])
def test_their_learning_rate_peaks_after_two_epochs_and_ends_at_nothing(name: str) -> None:
    config, per_epoch = recipe(name), 10
    optimizer = make_optimizer(torch.nn.Linear(1, 1), config)
    schedule = make_schedule(optimizer, config, config.epochs * per_epoch)
    rates = []
    for _ in range(config.epochs * per_epoch):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[0] == pytest.approx(1e-4 * config.max_lr)
    assert rates[per_epoch] == pytest.approx(config.max_lr / 2, rel=1e-3)
    assert max(rates) == rates[2 * per_epoch] == pytest.approx(config.max_lr)
    assert rates[-1] < 1e-5 * config.max_lr
    after = rates[2 * per_epoch :]
    falls = [earlier - later for earlier, later in pairwise(after)]
    assert max(falls) == pytest.approx(min(falls), rel=1e-3)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_batch_can_be_shared_by_one_two_or_eight_ranks(name: str) -> None:
    config = recipe(name)
    splits = {ranks: split_batch(config.batch, config.micro_batch, ranks) for ranks in (1, 2, 8)}
    assert {split.images * ranks for ranks, split in splits.items()} == {config.batch}


def test_options_of_groups_override_a_recipe_and_leave_the_rest() -> None:
    config = recipe("rn50_16", "--ema", "0.99", "--no-flip-tta", "--mixup", "0.2", "--parallel", "fsdp", "--ema", "0")
    expected = recipe("rn50_16")
    assert config.mixing == dataclasses.replace(expected.mixing, mixup=0.2)
    assert config.sizes == dataclasses.replace(expected.sizes, flip_tta=False)
    assert config.update == expected.update
    assert config.distributed.parallel == "fsdp"


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "max_lr", "weight_decay", "first", "warm_up"),
    [
        ("rn50_a3", 100, 2048, 8e-3, 0.02, 1e-4, 5),
        ("rn50_a2", 300, 2048, 5e-3, 0.02, 1e-4, 5),
        ("deit_s", 300, 1024, 1e-3, 0.05, 1e-6, 5),
        ("convnext_t", 300, 4096, 4e-3, 0.05, 1e-6, 20),
        ("vit_s16_90", 90, 1024, 1e-3, 0.1, 1e-6, 10_000 / 1251),
    ],
)
def test_the_newer_recipes_have_the_values_of_their_papers(
    name: str, epochs: int, batch: int, max_lr: float, weight_decay: float, first: float, warm_up: float
) -> None:
    config = recipe(name)
    assert (config.epochs, config.batch, config.max_lr, config.weight_decay) == (epochs, batch, max_lr, weight_decay)
    assert config.max_lr / config.div_factor == pytest.approx(first)
    assert config.pct_start * config.epochs == pytest.approx(warm_up, rel=1e-3)
    assert config.update.schedule == "cosine"
    assert config.update.decay == "kernels"


def test_the_newer_recipes_resize_and_crop_as_their_sources_do() -> None:
    filters = {name: recipe(name).pixels.interpolation for name in RECIPES}
    assert [name for name in filters if filters[name] == "bicubic"] == ["rn50_a2", "rn50_a3", "convnext_t", "deit_s"]
    timm = pytest.importorskip("timm")
    published = timm.get_pretrained_cfg("resnet50.a2_in1k")
    assert recipe("rn50_a2").sizes.val_resize == int(224 / published.crop_pct)
    inception = recipe("vit_s16_90")
    assert (inception.feeding.scale, inception.feeding.ratio) == ((0.05, 1.0), (0.75, 1.33))
    assert inception.pixels.mean == inception.pixels.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("name", "needs"),
    [("rn50_a3", ["timm"]), ("convnext_t", []), ("rn50_a2", ["timm"]), ("deit_s", ["timm"]), ("vit_s16_90", ["timm"])],
)
def test_a_newer_recipe_takes_a_few_steps(
    name: str, needs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in needs:
        pytest.importorskip(package)
    data = write_dataset(tmp_path / "data", {"train": 8, "validation": 2}, side=32)
    words = ["--data", data, "--out", tmp_path / "out", "--recipe", name, "--device", "cpu", "--threads", "1"]
    small = "--size 32 --val-size 32 --val-resize 32 --epochs 1 --batch-size 4 --micro-batch 2"
    assert main([*map(str, words), *small.split()]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 2


def test_smoke_runs_with_most_options_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_dataset(tmp_path / "data", {"train": 64, "validation": 5}, side=32)
    words = ["--data", data, "--out", tmp_path / "out", "--recipe", "smoke", "--device", "cpu", "--threads", "1"]
    assert main(list(map(str, words))) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["steps"] == 2
