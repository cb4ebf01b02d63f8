"""What a snapshot holds: whatever is switched on, a run that is killed and gone on with ends with the same bits."""

import dataclasses
import os
import random
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import train.engine
import train.step
from shards import Loader
from shards.common.errors import UsageError
from shards.common.signals import StoppedBySignal
from shards.dataset import open_dataset
from tests.helpers.ranks import Undisturbed, on_two_ranks
from tests.helpers.resume import Killed, assert_same, killed, left_behind, tiny, train_until
from tests.helpers.training import read_lines, setup_of, write_dataset
from train.checkpoints.resume import read_checkpoint
from train.checkpoints.snapshot import FORMAT, identity, refuse_other, restore
from train.config import Config
from train.options import Feeding, Mixing, Sizes, Update, Validation
from train.ranks.distributed import World
from train.run import begin

# 9 micro-batches of 4 in an epoch of 38 images: 4 whole steps, and one of one micro-batch.
BASE = Config(Path("unused"), model="pooled", size=16, batch=8, micro_batch=4, epochs=3, device="cpu", threads=1)
EVERYTHING = dataclasses.replace(
    BASE,
    crop="rrc",
    label_smoothing=0.1,
    update=Update(optimizer="sgd", decay="kernels", schedule="linear", drop_last=True, ema=0.8, ema_every=2),
    sizes=Sizes(start_size=8, grow_from=0, grow_until=1, val_size=12, flip_tta=True),
    mixing=Mixing(mixup=0.3, cutmix=1.0, erase=0.4),
)
CASES = {
    "everything": EVERYTHING,
    # Of one size: to build the graph of a policy takes a second, for each size again.
    "augmented": dataclasses.replace(
        EVERYTHING, feeding=Feeding(augment="trivial"), sizes=Sizes(val_size=12, flip_tta=True)
    ),
    "average": dataclasses.replace(BASE, update=Update(ema=0.9)),
    "held out": dataclasses.replace(BASE, validation=Validation(val_fraction=0.1)),
    "bfloat16": dataclasses.replace(BASE, precision="bfloat16", mixing=Mixing(mixup=0.3)),
}
# The step in whose place the run is killed, and the steps after which it is saved.
KILLS = [(3, {2}), (6, {1, 3}), (7, {5, 6}), (12, {9, 10})]
# A loader that augments takes long to build.
FEW = {"augmented": [(7, {5, 6})]}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data, and runs that nothing disturbed, in a directory for each case."""
    root = tmp_path_factory.mktemp("options")
    data = write_dataset(root / "data", {"train": 38, "validation": 7})
    for name, case in CASES.items():
        train_until(dataclasses.replace(case, data=data, out=root / name))
    return root


@pytest.mark.parametrize(("case", "kill", "saves"), [(case, *kill) for case in CASES for kill in FEW.get(case, KILLS)])
def test_a_run_killed_at_a_step_ends_with_the_same_bits(
    case: str, kill: int, saves: set[int], cases: Path, tmp_path: Path
) -> None:
    again = dataclasses.replace(CASES[case], data=cases / "data", out=tmp_path)
    with pytest.raises(Killed):
        train_until(again, kill, saves)
    train_until(again)
    assert_same(tmp_path, cases / case)


def test_a_snapshot_of_before_an_option_existed_is_of_a_run_with_its_default(config: Config) -> None:
    split = open_dataset(config.data)["train"]
    own = identity(config, split, torch.float32)
    snapshot = {
        "format": FORMAT,
        "identity": {name: value for name, value in own.items() if name not in ("flip", "pad")},
        "ranks": 1,
    }
    refuse_other(Path("last.pt"), snapshot, own, 1)
    other = identity(dataclasses.replace(config, feeding=Feeding(flip=False)), split, torch.float32)
    with pytest.raises(UsageError, match="flip is True there and False here"):
        refuse_other(Path("last.pt"), snapshot, other, 1)
    other = identity(dataclasses.replace(config, feeding=Feeding(pad=4)), split, torch.float32)
    with pytest.raises(UsageError, match="pad is 0 there and 4 here"):
        refuse_other(Path("last.pt"), snapshot, other, 1)


def test_a_snapshot_of_another_part_of_the_split_is_refused(config: Config) -> None:
    split = open_dataset(config.data)["train"]
    first, second, whole = (
        identity(config, part, torch.float32) for part in (split.select([0, 1]), split.select([0, 2]), split)
    )
    snapshot: dict[str, Any] = {"format": FORMAT, "identity": dict(first), "ranks": 1}
    refuse_other(Path("last.pt"), snapshot, first, 1)
    for other in (second, {**whole, "images": 2}):
        with pytest.raises(UsageError, match=r"part is [0-9]+ there and [0-9]+ here"):
            refuse_other(Path("last.pt"), snapshot, other, 1)
    del snapshot["identity"]["part"]  # as in those of earlier versions
    refuse_other(Path("last.pt"), snapshot, second, 1)


def test_images_grow_between_epochs_and_incomplete_steps_are_left_out(cases: Path) -> None:
    steps = [line["step"] for line in left_behind(cases / "everything")["lines"] if line["event"] == "validation"]
    assert steps == [4, 8, 12]
    assert left_behind(cases / "everything")["images"] == str(3 * 32)


def test_the_average_is_what_is_saved_and_evaluated(cases: Path) -> None:
    state = read_checkpoint(cases / "average" / "checkpoints" / "last.pt")
    saved = left_behind(cases / "average")["weights"]
    assert all(torch.equal(value, state["average"][f"module.{name}"]) for name, value in saved.items())
    assert not torch.equal(saved["6.weight"], state["network"]["6.weight"])


def test_the_average_follows_the_weights_by_its_decay(cases: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CASES["average"], data=cases / "data", out=tmp_path)
    seen = []
    for step in (2, 3):
        with pytest.raises(Killed):
            train_until(config, step + 1, saves={step})
        seen.append(read_checkpoint(tmp_path / "checkpoints" / "last.pt"))
    before, after = (state["average"]["module.6.weight"] for state in seen)
    torch.testing.assert_close(after, 0.9 * before + 0.1 * seen[1]["network"]["6.weight"])


def test_the_random_generators_of_python_and_numpy_go_on_too(config: Config, tmp_path: Path) -> None:
    again = killed(config, tmp_path, step=4, saves=(3,))
    state = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    with pytest.raises(Killed):
        train_until(again, 4)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("step", [3, 5, 7])
def test_the_schedule_ends_at_its_last_step_on_any_number_of_ranks(
    ranks: int, step: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(config, tmp_path, step=step + 1, saves=(step,))
    state = read_checkpoint(tmp_path / "checkpoints" / "last.pt")
    split = open_dataset(config.data)["train"]
    seen = 4 * 9 * (state["epoch"] - 1) + state["loader"]["position"]
    setup = setup_of(config, World(0, ranks))
    size = setup.batch.micro_batch
    monkeypatch.setattr("train.run.parallelize", lambda model, *_, **__: model)
    with Loader(split, batch_size=size, train=True, size=16, world_size=ranks, threads=1) as loader:
        run = begin(tiny(3), setup, len(loader))
        whole_run = run.total_steps
        restore(run, loader, state)
        left = run.total_steps - run.step
        assert run.step == step
        # The part of the steps that is left is the part of the images, up to a step at each epoch's end.
        assert left / whole_run == pytest.approx(1 - seen / (2 * 36), abs=2 / whole_run)
        rates = []
        for _ in range(left):
            rates.append(run.learner.schedule.get_last_lr()[0])
            run.learner.optimizer.step()
            run.step += 1
            if run.step < run.total_steps:
                run.learner.schedule.step()
    assert rates[-1] == pytest.approx(1e-5)
    if ranks == 1:
        assert left == 10 - step


@dataclasses.dataclass(frozen=True)
class Stopped:
    """A run that a signal to the second rank stops in its fourth step; a copy of its checkpoint is kept beside it."""

    config: Config

    def __call__(self, rank: int) -> None:
        accumulate = train.step.accumulate

        def signalled(run: Any, *args: Any) -> Any:
            if rank == 1 and run.step == 3:
                os.kill(os.getpid(), signal.SIGUSR1)
            return accumulate(run, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(train.engine, "accumulate", signalled)
            with pytest.raises(StoppedBySignal) as stopped:
                train.engine.train(self.config)
        assert stopped.value.code == 128 + signal.SIGUSR1
        if rank == 0:
            out = self.config.out
            torch.save(read_checkpoint(out / "checkpoints" / "last.pt"), out.with_name("stopped.pt"))


@pytest.mark.slow
def test_two_ranks_go_on_as_two_or_as_one(config: Config, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path, micro_batch=2)
    whole, stopped = (dataclasses.replace(again, out=tmp_path / name) for name in ("whole", "stopped"))
    on_two_ranks([Undisturbed(whole), Stopped(stopped), Undisturbed(stopped)])
    assert read_checkpoint(tmp_path / "stopped.pt")["step"] == 4
    assert_same(tmp_path / "stopped", tmp_path / "whole")

    alone = train_until(dataclasses.replace(again, out=tmp_path / "alone", resume=tmp_path / "stopped.pt"))
    # 4 steps of 8 images; 6 images of the first epoch are left, which one rank takes in micro-batches of 2; and its
    # second epoch of 19 micro-batches is 5 steps.
    lines = read_lines(tmp_path / "alone" / "metrics.jsonl")
    assert alone.steps == 4 + 1 + 5
    assert lines[-2]["lr"] == pytest.approx(1e-5)
    assert left_behind(tmp_path / "alone")["images"] == str(2 * 38)
