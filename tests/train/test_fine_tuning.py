"""Runs that begin with given weights: what is trained, resumed and exported, on one rank and on two."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model.__main__ import main as model_main
from model.images import open_image, to_tensor
from model.weights import About, load_model, read_saved, save_weights
from shards.common.errors import UsageError
from shards.dataset import open_dataset
from tests.conftest import jpeg, photo
from tests.helpers.ranks import Undisturbed, on_two_ranks
from tests.helpers.resume import Killed, assert_same, pooled, tiny_models, train_until
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.checkpoints.start import as_wanted
from train.config import Config
from train.optim.optimizer import make_optimizer, make_schedule
from train.options import Distributed, Pixels, Sizes, Start, Update

# What the weights that the runs begin with are of: other classes, and pixels of their own.
ABOUT = About("pooled", ("a", "b"), size=16, resize=16, mean=(0.5,) * 3, std=(0.25,) * 3, interpolation="bicubic")
BASE = Config(Path("unused"), model="pooled", size=16, batch=8, micro_batch=4, epochs=2, device="cpu", threads=1)
FROZEN = Start(init=Path("start.pth"), freeze=True)
SLOWER = Start(init=Path("start.pth"), backbone_lr_scale=0.1)
HEAD = ("6.weight", "6.bias")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of three classes, and weights of a network of two, in start.pth."""
    root = tmp_path_factory.mktemp("fine")
    write_dataset(root / "data", {"train": 38, "validation": 7})
    torch.manual_seed(5)
    save_weights(pooled(2), root / "start.pth", ABOUT)
    return root


def config(root: Path, out: str, start: Start, **values: Any) -> Config:
    start = dataclasses.replace(start, init=root / "start.pth")
    return dataclasses.replace(BASE, data=root / "data", out=root / out, start=start, **values)


@pytest.fixture(scope="module")
def frozen(root: Path) -> Path:
    """A run that trained the head alone."""
    train_until(config(root, "frozen", FROZEN))
    return root / "frozen"


def test_a_frozen_run_changes_the_head_alone_and_keeps_statistics(root: Path, frozen: Path) -> None:
    before, after = read_saved(root / "start.pth"), read_saved(frozen / "imagenet_trained_model.pth")
    assert after["6.weight"].shape == (3, 8)
    assert all(torch.equal(before[key], after[key]) for key in after if key not in HEAD)
    assert any(line["event"] == "validation" for line in map(json.loads, (frozen / "metrics.jsonl").open()))


def test_what_the_weights_want_of_images_goes_into_the_new_file(frozen: Path) -> None:
    with tiny_models():
        _, about = load_model(frozen / "imagenet_trained_model.pth")
    assert about == dataclasses.replace(ABOUT, class_names=("class 0", "class 1", "class 2"))


@pytest.mark.parametrize("start", [FROZEN, SLOWER], ids=["frozen", "slower body"])
def test_a_run_cut_short_ends_with_the_same_bits(root: Path, start: Start, request: pytest.FixtureRequest) -> None:
    if start is FROZEN:
        whole = request.getfixturevalue("frozen")
    else:
        whole = root / "slower"
        train_until(config(root, "slower", start))
    again = config(root, f"{whole.name}-again", start)
    with pytest.raises(Killed):
        train_until(again, 7, saves={3})
    train_until(again)
    assert_same(again.out, whole)


def test_another_start_does_not_go_on_with_a_run(root: Path) -> None:
    first = config(root, "identity", FROZEN)
    with pytest.raises(Killed):
        train_until(first, 4, saves={3})
    torch.manual_seed(6)
    save_weights(pooled(2), root / "other.pth", ABOUT)
    others = (
        (Start(init=root / "other.pth", freeze=True), "init is start.pth there and other.pth here"),
        (Start(init=root / "start.pth"), "freeze is True there and False here"),
        (Start(init=root / "start.pth", backbone_lr_scale=0.5), "backbone_lr_scale is 1.0 there and 0.5 here"),
    )
    for start, told in others:
        with pytest.raises(UsageError, match=told):
            train_until(dataclasses.replace(first, start=start))


def test_the_run_and_its_exported_program_agree_on_every_image(frozen: Path, tmp_path: Path) -> None:
    weights = frozen / "imagenet_trained_model.pth"
    with tiny_models():
        assert model_main(["export", str(weights), "--output", str(tmp_path / "model.pt2")]) == 0
        network, about = load_model(weights)
    images = []
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(photo(20, 24, number)))
        images.append(to_tensor(open_image(tmp_path / f"{number}.jpg"), about))
    program = torch.export.load(tmp_path / "model.pt2").module()
    with torch.inference_mode():
        assert torch.equal(program(torch.stack(images)).argmax(1), network(torch.stack(images)).argmax(1))


def test_evaluate_reaches_what_the_run_reached(root: Path, frozen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = list(map(json.loads, (frozen / "metrics.jsonl").open()))
    reached = [line for line in lines if line["event"] == "validation"][-1]
    words = ["--data", root / "data", "--evaluate", frozen / "imagenet_trained_model.pth", "--device", "cpu"]
    with tiny_models():
        assert main(list(map(str, words))) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (found["top1"], found["loss"]) == pytest.approx((reached["top1"], reached["loss"]), rel=1e-5)


def test_two_ranks_train_the_head_as_one_does(root: Path) -> None:
    plain = Update(optimizer="sgd", drop_last=True)
    values = {"update": plain, "micro_batch": 2, "max_lr": 0.05, "epochs": 1}
    fsdp = {**values, "distributed": Distributed(parallel="fsdp")}
    on_two_ranks(
        [
            Undisturbed(config(root, "ddp", FROZEN, **{**values, "micro_batch": 4})),  # a static graph
            Undisturbed(config(root, "fsdp", FROZEN, **fsdp)),
            Undisturbed(config(root, "fsdp-slower", SLOWER, **fsdp)),
        ]
    )
    train_until(config(root, "alone", FROZEN, **values))
    start = read_saved(root / "start.pth")
    alone, ddp, divided, slower = (
        read_saved(root / name / "imagenet_trained_model.pth") for name in ("alone", "ddp", "fsdp", "fsdp-slower")
    )
    for several in (ddp, divided):
        for key in HEAD:  # dropout, of which each rank draws its own, is in the body, so it is off
            torch.testing.assert_close(several[key], alone[key], rtol=1e-4, atol=1e-6)
        assert all(torch.equal(several[key], start[key]) for key in several if key not in HEAD)
    assert not torch.equal(slower["0.weight"], start["0.weight"])


@pytest.mark.parametrize("schedule", ["onecycle", "linear"])
@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_the_body_s_rate_is_the_part_of_the_head_s_at_every_step(schedule: Any, decay: Any) -> None:
    wanted = dataclasses.replace(BASE, start=SLOWER, update=Update(schedule=schedule, decay=decay))
    network = pooled(3)
    optimizer = make_optimizer(network, wanted)
    steps = make_schedule(optimizer, wanted, total_steps=10)
    groups = optimizer.param_groups
    body = groups[len(groups) // 2 :]
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert {id(each) for group in body for each in group["params"]}.isdisjoint(
        map(id, list(network.children())[-1].parameters())
    )
    peak = 0.0
    for _ in range(9):
        assert all(group["lr"] == pytest.approx(0.1 * groups[0]["lr"]) for group in body)
        peak = max(peak, groups[0]["lr"])
        optimizer.step()
        steps.step()
    assert peak == pytest.approx(wanted.max_lr, rel=0.05)


def test_frozen_weights_are_in_no_group() -> None:
    network = pooled(3)
    first = next(network.children()).requires_grad_(False)
    groups = make_optimizer(network, BASE).param_groups
    assert {id(each) for group in groups for each in group["params"]}.isdisjoint(map(id, first.parameters()))


@pytest.mark.parametrize(
    ("stored", "values", "resize"),
    [
        (256, {}, 232),  # the weights' own size: their own shorter side
        (256, {"size": 112}, 116),  # in proportion
        (100, {"size": 112, "sizes": Sizes(val_size=100)}, 100),  # at most what is stored
        (100, {"sizes": Sizes(val_resize=240)}, 240),  # as asked
        (None, {}, 232),
    ],
)
def test_images_are_evaluated_as_the_weights_want_it(
    stored: int | None, values: dict[str, Any], resize: int, root: Path
) -> None:
    about = About("resnet50", (), size=224, resize=232, interpolation="bicubic")
    split = open_dataset(root / "data")["train"]
    settings = dataclasses.replace(split.manifest.settings, short_side=stored)
    split = dataclasses.replace(split, manifest=dataclasses.replace(split.manifest, settings=settings))
    config = dataclasses.replace(BASE, **{"size": 224, **values})
    own = as_wanted(config, about, split)
    assert (own.sizes.val_resize, own.pixels.interpolation) == (resize, "bicubic")
    given = dataclasses.replace(config, pixels=Pixels(interpolation="bilinear"))
    assert as_wanted(given, about, split).pixels.interpolation == "bilinear"


def test_images_stored_too_small_are_told_the_command_that_makes_larger_ones(root: Path) -> None:
    about, split = About("resnet50", (), size=224, resize=232), open_dataset(root / "data")["train"]
    with pytest.raises(UsageError, match=r"stores 16: `python -m preprocess SOURCE OUT --short-side 232` makes larger"):
        as_wanted(dataclasses.replace(BASE, size=224), about, split)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--pretrained --init x.pth", "--pretrained and --init both say what to begin with"),
        ("--freeze", "add --pretrained or --init FILE"),
        ("--init x.pth --freeze --backbone-lr-scale 0.1", "leave --backbone-lr-scale out"),
        ("--backbone-lr-scale 2", "--backbone-lr-scale must be above 0 and at most 1, not 2"),
    ],
)
def test_options_that_contradict_each_other(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--data", "somewhere", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_weights_of_another_model_name_the_option(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--data", root / "data", "--size", 16, "--out", root / "none", "--init", root / "start.pth"]
    assert main(list(map(str, words))) == 2
    assert f"{root / 'start.pth'} is of pooled: give --model pooled" in capsys.readouterr().err


def test_a_frozen_run_refuses_weights_that_lack_a_part_of_the_body(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = pooled(3).state_dict()
    del state["1.bias"]
    torch.save(state, tmp_path / "part.pth")
    words = [
        "--data",
        root / "data",
        "--size",
        16,
        "--out",
        tmp_path / "out",
        "--model",
        "pooled",
        "--freeze",
        "--init",
    ]
    with tiny_models():
        assert main([*map(str, words), str(tmp_path / "part.pth")]) == 2
    assert "would stay random, and `python -m train --freeze` trains none of them: 1.bias" in capsys.readouterr().err
