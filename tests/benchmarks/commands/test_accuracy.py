"""`python -m benchmarks accuracy`: the same training with two loaders."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

from benchmarks.commands.accuracy import (
    OURS,
    USUAL,
    Options,
    run,
    summary,
)
from benchmarks.measure.result import read
from benchmarks.stages.both_loaders import ours, trained, usual
from preprocess.sources import hf_dataset
from shards.common.errors import UsageError
from shards.dataset import TRAINING, VALIDATION, choose_split
from tests import ROOT
from tests.helpers.training import coloured_jpeg, setup_of, write_dataset
from train.config import Config
from train.engine import train
from train.ranks.distributed import World
from train.report.accuracy import Accuracy
from train.run import make_network

SIZES = {"train": 24, "validation": 10}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of 24 and 10 images, which show their label by their brightness."""
    return write_dataset(tmp_path_factory.mktemp("data"), SIZES)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The data set that the shards are of, as `save_to_disk` writes one."""
    return write_source(tmp_path_factory.mktemp("source"), SIZES)


def write_source(directory: Path, sizes: dict[str, int]) -> str:
    features = datasets.Features(
        {"picture": datasets.Image(), "label": datasets.ClassLabel(names=[f"class {i}" for i in range(3)])}
    )
    splits = {}
    for name, size in sizes.items():
        images = [{"bytes": coloured_jpeg(i % 3, 16, seed=i), "path": None} for i in range(size)]
        columns = {"picture": images, "label": [i % 3 for i in range(size)]}
        splits[name] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(splits).save_to_disk(directory)
    return str(directory)


def small(data: Path) -> Config:
    return Config(data, size=16, batch=8, micro_batch=4, epochs=2, device="cpu", threads=1)


def test_the_command_trains_with_both_and_ends_with_json(
    data: Path, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = Options(
        data, source, image_column="picture", recipe="smoke", size=16, epochs=1, seeds=2, workers=0, out=tmp_path
    )
    run(options)
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert [series["name"] for series in result["series"]] == [OURS, USUAL, f"{OURS}, top-5", f"{USUAL}, top-5"]
    assert all(len(series["values"]) == 2 for series in result["series"])
    means = [sum(series["values"]) / 2 for series in result["series"][:2]]
    assert result["settings"]["difference in points"] == pytest.approx(means[0] - means[1], abs=1e-3)
    [written] = tmp_path.glob("accuracy-*.json")
    assert read(written).command.startswith("python -m benchmarks accuracy --data ")


def test_training_with_our_loader_here_is_what_the_trainer_does(data: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(small(data), out=tmp_path / "run")
    held_out = choose_split(data, VALIDATION)
    with ours(choose_split(data, [TRAINING]), held_out, setup_of(config)) as (batches, validation):
        network = make_network(config, len(held_out.class_names), World())
        accuracy = trained(network, setup_of(config), held_out, batches, validation)
    result = train(config)
    assert (accuracy.top1, accuracy.top5) == (result.top1, result.top5)
    assert accuracy.loss == pytest.approx(result.loss, rel=1e-6)


def test_both_loaders_give_the_same_pictures_in_evaluation(data: Path, source: str) -> None:
    config, held_out = small(data), choose_split(data, VALIDATION)
    rows = [hf_dataset(source, name, "picture") for name in SIZES]
    _, others = usual(rows[0], rows[1], held_out, setup_of(config), workers=0)
    with ours(choose_split(data, [TRAINING]), held_out, setup_of(config)) as (_, batches):
        for (images, labels), (same, same_labels) in zip(batches, others, strict=True):
            assert torch.equal(labels, same_labels)
            torch.testing.assert_close(images, same, atol=1e-5, rtol=0)


def test_both_loaders_give_the_same_number_of_training_pictures(data: Path, source: str) -> None:
    config, held_out = small(data), choose_split(data, VALIDATION)
    rows = [hf_dataset(source, name, "picture") for name in SIZES]
    others, _ = usual(rows[0], rows[1], held_out, setup_of(config), workers=0)
    with ours(choose_split(data, [TRAINING]), held_out, setup_of(config)) as (batches, _):
        assert [images.shape for images, _ in batches] == [images.shape for images, _ in others]
        assert len(batches) == len(others)
    first, second = (np.concatenate([images.numpy() for images, _ in others]) for _ in range(2))
    assert not np.array_equal(first, second)  # shuffled anew


def test_the_result_has_means_and_their_difference() -> None:
    reached = {
        OURS: [Accuracy(54.0, 95.0, 1.3, 100), Accuracy(55.0, 95.5, 1.3, 100)],
        USUAL: [Accuracy(53.0, 94.0, 1.3, 100), Accuracy(54.5, 95.0, 1.3, 100)],
    }
    options = Options(Path("data"), "source", seeds=2)
    result = summary(options, Config(Path("data")), reached, 60.0)
    assert result.findings == ("Mean top-1 54.50% (shardfeed) and 53.75% (PIL and torchvision), +0.75 points.",)
    assert result[OURS].values == (54.0, 55.0)
    assert result.settings["difference in points"] == 0.75


def test_a_source_of_other_images_is_refused(data: Path, tmp_path: Path) -> None:
    other = write_source(tmp_path / "other", {"train": 23, "validation": 10})
    with pytest.raises(UsageError, match="made from another data set"):
        run(Options(data, other, image_column="picture", size=16, out=tmp_path / "results"))
    assert not (tmp_path / "results").exists()


def test_options_are_checked_before_torch_is_loaded() -> None:
    code = (
        "import sys\nfrom benchmarks.__main__ import main\n"
        "assert main(['accuracy', '--data', 'nowhere', '--source', 'x', '--recipe', 'none']) == 2\n"
        "assert main(['accuracy', '--data', 'nowhere', '--source', 'x']) == 2\n"
        "print(sorted({'nvidia.dali', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("name", "value"), [("seeds", 0), ("workers", -1), ("recipe", "none"), ("size", 4)])
def test_options_that_make_no_sense_are_refused(name: str, value: object, data: Path) -> None:
    with pytest.raises(UsageError, match=name):
        run(Options(data, "source", **{name: value}))  # type: ignore[arg-type]
