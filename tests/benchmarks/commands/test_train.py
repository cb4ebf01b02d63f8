"""`python -m benchmarks train`: the trainer's own steps on real, cached and synthetic batches, in turns."""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from benchmarks.commands.train import (
    CACHED,
    REAL,
    SYNTHETIC,
    Options,
    configuration,
    run,
    summary,
)
from benchmarks.measure.harness import Interval, Schedule
from benchmarks.measure.machine import WAIT_POLICY, sleep_while_waiting
from benchmarks.measure.result import read
from benchmarks.report.table import text
from benchmarks.stages.training import Training, TrainingTask
from shards.common.errors import MissingDependency, UsageError
from shards.decode.tensors import Batch
from tests import ROOT
from tests.helpers.training import setup_of, write_dataset
from train.config import Config
from train.data import training_size


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"), {"train": 40, "validation": 4})


def small(data: Path, out: Path, **changes: object) -> Options:
    values = {"size": 16, "batch": 8, "micro_batch": 4, "device": "cpu", "threads": 1, "steps": 2, "rounds": 2}
    return Options(data=data, out=out, seconds=0.01, **{**values, **changes})  # type: ignore[arg-type]


def test_the_command_measures_all_three_and_ends_with_json(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(small(data, tmp_path))
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert [series["name"] for series in result["series"]] == [
        *(REAL, CACHED, SYNTHETIC),
        *(f"{name}, data-wait" for name in (REAL, CACHED, SYNTHETIC)),
    ]
    assert all(len(series["values"]) == 2 for series in result["series"])
    assert all(0 <= value <= 100 for series in result["series"][3:] for value in series["values"])
    assert [(ratio["of"], ratio["to"]) for ratio in result["ratios"]] == [(REAL, CACHED), (REAL, SYNTHETIC)]
    assert result["settings"]["micro_batch"] == 4
    assert result["settings"]["decode"] == "cpu"
    assert result["command"].startswith("python -m benchmarks train --data ")
    [written] = tmp_path.glob("train-*.json")
    assert read(written).title == "cnn at 16 pixels, float32, 8 images a step in micro-batches of 4"


def test_a_turn_trains_whole_passes_and_counts_all_but_the_first() -> None:
    seen: list[int] = []

    @contextmanager
    def batches() -> Iterator[Iterator[Batch]]:
        def stream() -> Iterator[Batch]:
            for number in itertools.count():
                seen.append(number)
                yield torch.zeros(4, 3, 16, 16), torch.zeros(4, dtype=torch.int64)

        yield stream()

    ticks = itertools.count()
    config = Config(Path("unused"), batch=8, micro_batch=4, size=16, device="cpu")
    training = Training("x", TrainingTask(setup_of(config), 3, steps=3), batches)
    # The clock says 0 at the start, then 1 and 2 after a pass each.
    interval = training.turn(Schedule(rounds=1, seconds=2.0), clock=lambda: float(next(ticks)))
    assert interval == Interval(images=2 * 3 * 8, seconds=2.0)
    assert len(seen) == 3 * 3 * 2  # three passes of three steps of two micro-batches
    assert len(training.waited) == 1


def test_the_table_has_the_ratio_with_its_range(data: Path, tmp_path: Path) -> None:
    options = small(data, tmp_path)
    task = TrainingTask(setup_of(configuration(options)), 3, 2)
    intervals = {
        REAL: [Interval(96, 1.0, cpu=1.92), Interval(99, 1.0), Interval(98, 1.0)],
        CACHED: [Interval(100, 1.0)] * 3,
        SYNTHETIC: [Interval(100, 1.0)] * 3,
    }
    waited = {name: [0.5, 1.5, 1.0] for name in intervals}
    result = summary(options, task, Schedule(3, 1.0), intervals, waited)
    rows = [line.split() for line in text(result).splitlines()]
    assert ["real", "epoch", "/", "cached", "batch", "times", "0.980", "0.960", "0.990"] in rows
    assert ["real", "epoch", "images/s", "98.0", "96.0", "99.0", "0"] in rows
    assert ["real", "epoch,", "data-wait", "%", "1.00", "0.500", "1.50"] in rows


def test_options_override_the_recipe() -> None:
    recipe = configuration(Options(Path("unused")))
    assert recipe == Config(Path("unused"))
    config = configuration(Options(Path("unused"), size=64, batch=32, micro_batch=8, threads=3, device="cpu"))
    assert (config.size, config.batch, config.micro_batch, config.threads, config.device) == (64, 32, 8, 3, "cpu")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "none"}, "unknown recipe"),
        ({"rounds": 0}, "rounds"),
        ({"size": 4}, "--size"),
        ({"steps": 0}, "--steps"),
        ({"batch": 64}, "fewer than one global batch"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    changes: dict[str, object], message: str, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        run(small(data, tmp_path / "results", **{"micro_batch": 64, **changes}))
    assert not list(tmp_path.rglob("*.json"))


def test_pytorch_s_threads_sleep_while_training_is_measured() -> None:
    code = (
        "import os, sys; from benchmarks.measure.machine import sleep_while_waiting as sleep; print('begun'); "
        "sys.modules['torch'] = sys; sleep();"
        "print(os.environ['OMP_WAIT_POLICY'], os.getpid(), sys.argv[1:])"
    )
    environment = {name: value for name, value in os.environ.items() if name != WAIT_POLICY}
    with subprocess.Popen(
        [sys.executable, "-c", code, "a b"], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert out.splitlines() == ["begun", "begun", f"PASSIVE {process.pid} ['a b']"]


def test_a_policy_that_is_set_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("begun anew"))
    monkeypatch.setenv(WAIT_POLICY, "ACTIVE")
    sleep_while_waiting()
    assert os.environ[WAIT_POLICY] == "ACTIVE"


def test_figures_keep_enough_digits_for_their_ratios(data: Path, tmp_path: Path) -> None:
    task = TrainingTask(setup_of(configuration(small(data, tmp_path))), 3, 2)
    intervals = {REAL: [Interval(2, 3.3)], CACHED: [Interval(2, 3.2)], SYNTHETIC: [Interval(2, 3.1)]}
    result = summary(small(data, tmp_path), task, Schedule(1, 1.0), intervals, {name: [0.0] for name in intervals})
    assert [ratio.median for ratio in result.ratios] == [0.97, 0.939]
    assert result[REAL].values == (0.606061,)


def test_images_that_would_grow_are_measured_at_their_full_size() -> None:
    for size in (None, 32):  # 32 is less than the recipe's first size
        config = configuration(Options(Path("unused"), recipe="rn18_16", size=size))
        assert training_size(config, epoch=1) == config.size == (size or 192)


@pytest.mark.parametrize(
    ("recipe", "said"), [("deit_s", "^timm:deit_small[^\n]+ needs timm"), ("rn50_a3", "^--optimizer lamb is timm's")]
)
def test_a_recipe_that_needs_timm_is_refused_without_it(
    recipe: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependency, match=said):
        configuration(Options(Path("unused"), recipe=recipe))
