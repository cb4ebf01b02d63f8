"""The training loop: equal to a plain PyTorch loop, right at an epoch's tail, and what a run leaves behind."""

import csv
import dataclasses
import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import open_dataset
from tests.helpers.training import SILENT, FixedBatches, read_lines, setup_of, tiny_network, write_dataset
from train.__main__ import main
from train.checkpoints.earlier import _differing
from train.config import Config
from train.engine import train, train_epoch
from train.options import Distributed, Feeding, Memory, Mixing, Pixels, Samples, Sizes, Start, Update, Validation
from train.ranks.distributed import World
from train.report.metrics import Recorder
from train.run import Run, begin, make_network, read_losses

SMALL = Config(Path("unused"), batch=8, micro_batch=4, epochs=2, device="cpu", log_every=3)
GROUPS = {
    "feeding": Feeding, "update": Update, "sizes": Sizes, "mixing": Mixing, "memory": Memory,
    "distributed": Distributed, "validation": Validation, "samples": Samples, "start": Start, "pixels": Pixels,
}  # fmt: skip


def run_epochs(network: nn.Module, batches: FixedBatches, config: Config) -> Run:
    run = begin(network, setup_of(config), micro_batches=len(batches))
    for epoch in range(1, config.epochs + 1):
        train_epoch(run, batches, SILENT, epoch)
    return run


def plain_loop(network: nn.Module, batches: FixedBatches, config: Config) -> int:
    """The recipe as a person writes it down with PyTorch alone; returns its optimizer steps."""
    count = config.batch // int(config.micro_batch)
    groups = [batches.batches[i : i + count] for i in range(0, len(batches), count)]
    total = config.epochs * len(groups)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2, foreach=False)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.01, total_steps=total, pct_start=0.3, div_factor=10, final_div_factor=100
    )
    network.train()
    for step in range(total):
        group = groups[step % len(groups)]
        count = sum(len(labels) for _, labels in group)
        optimizer.zero_grad()
        for images, labels in group:
            loss = nn.functional.cross_entropy(network(images), labels, reduction="sum") / count
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step + 1 < total:
            schedule.step()
    return total


@pytest.mark.parametrize("sizes", [[4] * 6, [4] * 7, [4] * 5 + [3]], ids=["whole", "tail", "short last batch"])
def test_the_loop_equals_a_plain_pytorch_loop(sizes: list[int]) -> None:
    # float64 and a smooth network, so that rounding cannot grow into a difference.
    def network() -> nn.Module:
        torch.manual_seed(3)
        convolution = nn.Conv2d(3, 8, 3, bias=False)  # a bias under batch norm has noise for a gradient
        layers = [convolution, nn.BatchNorm2d(8), nn.Tanh(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(288, 10)]
        built = nn.Sequential(*layers).double()
        torch.manual_seed(4)
        return built

    batches = FixedBatches(sizes, side=8)
    batches.batches = [(images.double(), labels) for images, labels in batches.batches]
    ours, plain = network(), network()
    config = dataclasses.replace(SMALL, epochs=5)
    run = run_epochs(ours, batches, config)
    torch.manual_seed(4)
    assert plain_loop(plain, batches, config) == run.step == run.total_steps
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_the_cnn_equals_a_plain_pytorch_loop_to_float_tolerance() -> None:
    batches, config = FixedBatches([4] * 7, side=16), dataclasses.replace(SMALL, epochs=1)
    ours = make_network(config, 10, World())
    run_epochs(ours, batches, config)
    plain = make_network(config, 10, World())
    plain_loop(plain, batches, config)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=2e-3, msg=name)


@pytest.mark.parametrize(
    ("micro_batches", "accumulate", "epochs"), [(8, 4, 2), (9, 4, 3), (3, 4, 1), (5, 1, 2), (1, 1, 1)]
)
def test_the_learning_rate_ends_exactly_at_the_last_optimizer_step(
    micro_batches: int, accumulate: int, epochs: int, tmp_path: Path
) -> None:
    config = dataclasses.replace(SMALL, batch=4 * accumulate, epochs=epochs, log_every=1)
    batches = FixedBatches([4] * micro_batches, side=8)
    run = begin(tiny_network(), setup_of(config), micro_batches)
    with Recorder(tmp_path, {}) as recorder:
        for epoch in range(1, epochs + 1):
            train_epoch(run, batches, recorder, epoch)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, epochs * math.ceil(micro_batches / accumulate) + 1))
    assert lines[-1]["lr"] == min(line["lr"] for line in lines) == pytest.approx(1e-5)


def test_the_mean_loss_of_an_epoch_is_over_images() -> None:
    batches = FixedBatches([4, 4, 4, 4, 1], side=8)
    network = tiny_network()
    config = dataclasses.replace(SMALL, max_lr=1e-12, epochs=1)  # the weights stay where they are
    expected = sum(
        nn.functional.cross_entropy(network(images), labels, reduction="sum").item() for images, labels in batches
    )
    run = begin(network, setup_of(config), len(batches))
    assert train_epoch(run, batches, SILENT, 1) == pytest.approx(expected / 17, rel=1e-4)


@pytest.mark.parametrize(("allowed", "step"), [(1, 2), (2, 5), (3, 6)])
def test_losses_that_are_not_finite_stop_the_run_when_so_many_come_in_a_row(allowed: int, step: int) -> None:
    batches = FixedBatches([4] * 16, side=8)
    for number in (3, 7, 9, 10):  # of two micro-batches a step: the steps 2, 4, 5 and 6
        batches.batches[number][0][0, 0, 0, 0] = float("nan")
    config = dataclasses.replace(SMALL, log_every=100, update=Update(bad_losses=allowed))
    run = begin(tiny_network(), setup_of(config), len(batches))
    with pytest.raises(ShardfeedError, match=f"the loss is nan at optimizer step {step}, in epoch 1"):
        train_epoch(run, batches, SILENT, 1)


def test_the_loss_of_an_epoch_whose_rest_has_no_step_is_that_of_the_steps_before() -> None:
    class Cut(Exception):
        pass

    def save_and_go() -> None:
        losses.append(float(run.losses.on_device[0]) / 8)
        read_losses(run)
        raise Cut

    config, losses = dataclasses.replace(SMALL, log_every=100), list[float]()
    run = begin(tiny_network(), setup_of(config), 4)
    with pytest.raises(Cut):
        train_epoch(run, FixedBatches([4] * 4, side=8), SILENT, 1, save_and_go)
    run.clock.stop()
    assert train_epoch(run, FixedBatches([]), SILENT, 1) == pytest.approx(losses[0])
    run.enter(2)
    assert run.losses.unlogged == []  # or the next line of the log would count them again


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 training and 11 validation images of 16 pixels in 3 classes."""
    return write_dataset(tmp_path_factory.mktemp("dataset"), {"train": 70, "validation": 11})


@pytest.fixture(scope="module")
def finished(dataset: Path) -> tuple[Path, Config]:
    """The output directory and configuration of a finished run of two epochs, which drew its curves."""
    config = dataclasses.replace(SMALL, data=dataset, out=dataset / "out", size=16, batch=16, micro_batch=8, epochs=2)
    train(config)
    return config.out, config


def test_a_run_leaves_its_files(finished: tuple[Path, Config]) -> None:
    out, _ = finished
    names = {path.name for path in out.iterdir()} - {"tensorboard"}
    assert names == {
        "imagenet_trained_model.pth",
        "epoch_times.csv",
        "total_training_time.csv",
        "metrics.jsonl",
        "config.json",
        "per_class.csv",
        "curves.png",
        "checkpoints",
    }
    assert {path.name for path in (out / "checkpoints").iterdir()} == {"last.pt", "previous.pt", "best.pt"}


def test_a_run_logs_training_and_validation(finished: tuple[Path, Config]) -> None:
    lines = read_lines(finished[0] / "metrics.jsonl")
    training = [line for line in lines if "lr" in line]
    validation = [line for line in lines if "top1" in line]
    assert [line["step"] for line in validation] == [4, 8]  # 8 micro-batches in an epoch, 2 to a step
    assert training[-1]["lr"] == pytest.approx(1e-5)
    assert {"loss", "images_per_s", "data_wait_percent", "gradient_norm"} <= training[0].keys()


def test_epoch_times_add_up_to_the_total(finished: tuple[Path, Config]) -> None:
    with (finished[0] / "epoch_times.csv").open() as file:
        epochs = list(csv.DictReader(file))
    with (finished[0] / "total_training_time.csv").open() as file:
        (total,) = csv.DictReader(file)
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert sum(float(row["train_seconds"]) for row in epochs) == pytest.approx(float(total["train_seconds"]), abs=0.01)
    assert float(total["wall_seconds"]) > float(total["train_seconds"])
    # 70 images an epoch are 8 micro-batches of 8 and 6 left over.
    assert (total["images"], total["images_left_out"]) == ("128", "12")


def test_the_resolved_configuration_can_be_read_back(finished: tuple[Path, Config]) -> None:
    out, config = finished
    kept = json.loads((out / "config.json").read_text())
    assert kept["resolved_precision"] == "float32"
    assert kept["classes"] == 3
    assert kept["versions"]["torch"] == torch.__version__.partition("+")[0]
    fields = {field.name: kept[field.name] for field in dataclasses.fields(Config)}
    paths = {name: Path(fields[name]) for name in ("data", "out")}
    groups = {name: kind(**fields[name]) for name, kind in GROUPS.items()}
    resolved = dataclasses.replace(config, pixels=Pixels(interpolation="bilinear"))
    assert Config(**{**fields, **paths, **groups, "evaluate": (), "eval_set": ()}) == resolved


def test_a_complete_run_is_a_success_and_changes_nothing(
    finished: tuple[Path, Config], capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = finished
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    again = train(dataclasses.replace(config, threads=2, log_every=7, evaluate=()))
    last = read_lines(out / "metrics.jsonl")[-1]
    assert (again.top1, again.loss, again.steps) == (last["top1"], last["loss"], last["step"])
    assert again.weights == out / "imagenet_trained_model.pth"
    assert capsys.readouterr().out == (
        f"{out} holds this run, complete (top-1 {again.top1:.2f}%): nothing is left to train\n"
    )
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_run_of_other_options_is_refused_where_one_is_complete(finished: tuple[Path, Config]) -> None:
    out, config = finished
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    others: list[tuple[dict[str, Any], str]] = [
        ({"epochs": 9}, "epochs is 2 there and 9 here"),
        ({"precision": "bfloat16"}, "precision is"),
        ({"pixels": Pixels(interpolation="bicubic")}, "interpolation is bilinear there and bicubic here"),
    ]
    for other, named in others:
        with pytest.raises(UsageError, match=f"holds a complete run of other options .{named}"):
            train(dataclasses.replace(config, **other))
    with pytest.raises(UsageError, match="exists already"):
        train(dataclasses.replace(config, resume="never"))
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_complete_run_of_before_an_option_stands_for_its_default(finished: tuple[Path, Config]) -> None:
    out, config = finished
    written = json.loads((out / "config.json").read_text())
    del written["feeding"]["scale"], written["feeding"]["ratio"], written["pixels"]
    assert _differing(config, written) == []


def test_the_saved_weights_evaluate_to_what_the_run_reported(
    finished: tuple[Path, Config], capsys: pytest.CaptureFixture[str]
) -> None:
    out, config = finished
    words = ["--data", str(config.data), "--size", "16", "--device", "cpu"]
    assert main([*words, "--evaluate", str(out / "imagenet_trained_model.pth")]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    last = read_lines(out / "metrics.jsonl")[-1]
    assert printed["images"] == 11
    assert (printed["top1"], printed["top5"]) == pytest.approx((last["top1"], last["top5"]), abs=1e-3)
    assert printed["loss"] == pytest.approx(last["loss"], rel=1e-3)


def test_the_same_seed_gives_the_same_weights(finished: tuple[Path, Config], tmp_path: Path) -> None:
    out, config = finished
    again = train(dataclasses.replace(config, out=tmp_path))
    first, second = (torch.load(path, weights_only=True) for path in (out / again.weights.name, again.weights))
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_the_test_split_stands_in_for_a_missing_validation_split(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 8, "test": 3})
    result = train(dataclasses.replace(SMALL, data=data, out=tmp_path / "out", size=16, epochs=1))
    assert result.steps == 1
    assert result.top1 is not None


def test_without_validation_a_run_ends_with_its_weights_and_no_accuracy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_dataset(tmp_path / "data", {"train": 8}), tmp_path / "out"
    words = ["--data", data, "--out", out, "--size", "16", "--batch", "8", "--micro-batch", "4", "--epochs", "2",
             "--device", "cpu", "--threads", "1", "--val-split", "none"]  # fmt: skip
    assert main(list(map(str, words))) == 0
    line, last = capsys.readouterr().out.splitlines()[-2:]
    assert line.startswith("trained for ")
    assert json.loads(last)["top1"] is None
    assert (out / "imagenet_trained_model.pth").exists()
    assert not (out / "checkpoints" / "best.pt").exists()
    assert {each["event"] for each in read_lines(out / "metrics.jsonl")} == {"train"}


@pytest.mark.parametrize(
    ("present", "told"),
    [("train", "only train: --val-fraction 0.05 holds out a part of train"), ("validation", "it has validation")],
)
def test_a_missing_split_is_told_with_those_present(present: str, told: str, tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {present: 8})
    with pytest.raises(UsageError, match=told):
        train(dataclasses.replace(SMALL, data=data, out=tmp_path / "out", size=16))
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_refused_before_anything_is_written(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown model 'alexnet': choose one of cnn"):
        train(dataclasses.replace(SMALL, data=dataset, out=tmp_path / "out", size=16, model="alexnet"))
    assert not (tmp_path / "out").exists()


def test_a_split_too_small_for_a_batch_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="70 samples, fewer than one global batch of 71"):
        train(dataclasses.replace(SMALL, data=dataset, out=tmp_path / "out", size=16, batch=71, micro_batch=71))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("more", [[], ["--check"]])
def test_a_split_too_small_for_a_step_is_refused(
    more: list[str], dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", dataset, "--out", tmp_path / "out", "--recipe", "rn18_16", "--size", "192", "--device", "cpu"]
    sizes = ["--batch-size", "80", "--micro-batch", "20", "--threads", "1", "--precision", "float32"]
    assert main([*map(str, words), *sizes, *more]) == 2
    said = (
        "an epoch has 60 images in whole micro-batches, and an optimizer step needs 80: choose a smaller --batch-size"
    )
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_diverged_run_ends_in_one_line_and_leaves_no_weights(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(dataset), "--size", "16", "--device", "cpu", "--batch-size", "16", "--max-lr", "1e30"]
    assert main([*words, "--out", str(tmp_path)]) == 1
    assert "optimizer step 4, in epoch 1: training has diverged" in capsys.readouterr().err
    assert not (tmp_path / "imagenet_trained_model.pth").exists()


def test_a_full_disk_elsewhere_is_not_blamed_on_the_output_directory(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/cache/shards/1.tar")

    monkeypatch.setattr("train.engine.accumulate", full)
    words = ["--data", str(dataset), "--size", "16", "--device", "cpu", "--batch-size", "16", "--threads", "1"]
    assert main([*words, "--out", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "/cache/shards/1.tar" in error
    assert str(tmp_path) not in error


def test_a_damaged_sample_stops_a_run_with_its_name_or_is_skipped_and_counted(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, {"train": 32, "validation": 3})
    index = open_dataset(data)["train"].index
    with (data / "train" / "train-00000.tar").open("r+b") as file:
        file.seek(int(index.offset[9]))
        file.write(b"\0" * 100)
    config = dataclasses.replace(SMALL, data=data, size=16, batch=16, micro_batch=8, epochs=1)
    with pytest.raises(ShardfeedError, match=r"sample 00000009 in .*train-00000\.tar.*on_error=.skip"):
        train(dataclasses.replace(config, out=tmp_path / "stopped"))
    train(dataclasses.replace(config, out=tmp_path / "skipped", on_error="skip"))
    [damaged] = [line for line in read_lines(tmp_path / "skipped" / "metrics.jsonl") if line["event"] == "damaged"]
    assert damaged["skipped"] >= 1


def test_a_damaged_sample_of_the_held_out_split_is_left_out_and_never_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_dataset(tmp_path, {"train": 32, "validation": 9})
    index = open_dataset(data)["validation"].index
    with (data / "validation" / "validation-00000.tar").open("r+b") as file:
        file.seek(int(index.offset[2]))
        file.write(b"\0" * 100)
    config = dataclasses.replace(SMALL, data=data, size=16, batch=16, micro_batch=8, epochs=1)
    with pytest.raises(ShardfeedError, match=r"sample 00000002 in .*validation-00000\.tar"):
        train(dataclasses.replace(config, out=tmp_path / "stopped"))
    train(dataclasses.replace(config, out=tmp_path / "skipped", on_error="skip"))
    lines = read_lines(tmp_path / "skipped" / "metrics.jsonl")
    assert [line["left_out"] for line in lines if line["event"] == "validation"] == [1]
    assert not [line for line in lines if line["event"] == "damaged"]
    assert " of 8 images, without 1 damaged, " in capsys.readouterr().out
    with (tmp_path / "skipped" / "per_class.csv").open() as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 8


def test_a_run_in_blocks_of_resized_crops_takes_as_many_steps(dataset: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, data=dataset, out=tmp_path, size=16, batch=16, micro_batch=8, epochs=1)
    assert train(dataclasses.replace(config, order="blocks", crop="rrc")).steps > 0
