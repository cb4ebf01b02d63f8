"""Two ranks by DDP, FSDP and local SGD: what one rank learns, saved and gone on with (processes on gloo)."""

import dataclasses
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

from shards.common.errors import UsageError
from shards.dataset import open_dataset
from tests.helpers.ranks import Undisturbed, on_two_ranks
from tests.helpers.resume import Killed, assert_same, left_behind, train_until
from tests.helpers.training import read_lines, setup_of, write_dataset
from train.checkpoints.resume import read_checkpoint
from train.checkpoints.snapshot import FORMAT, refuse_other
from train.config import Config
from train.options import Distributed, Memory, Mixing, Sizes, Update
from train.ranks.distributed import World

# 36 images: 4 whole steps of 8, and half of one. Evaluation of 9 images: one rank has 5, in three batches, the other 4.
BASE = Config(
    Path("unused"), model="smooth", size=16, batch=8, micro_batch=2, epochs=2, device="cpu", threads=1, log_every=1,
    update=Update(optimizer="sgd", drop_last=True), max_lr=0.05, sizes=Sizes(flip_tta=True),
)  # fmt: skip
APART = Distributed(parallel="local-sgd", period=2, warm_up=2)
MODES = {
    "ddp": BASE,
    "static": dataclasses.replace(BASE, micro_batch=4),
    "erased": dataclasses.replace(BASE, mixing=Mixing(erase=0.5), label_smoothing=0.1),
    "fsdp": dataclasses.replace(BASE, distributed=Distributed(parallel="fsdp")),
    "fsdp-adamw": dataclasses.replace(BASE, distributed=Distributed(parallel="fsdp"), update=Update(drop_last=True)),
    "offloaded": dataclasses.replace(BASE, distributed=Distributed(parallel="fsdp"), memory=Memory(offload=True)),
    # With batch norm, which stays float32.
    "fsdp-bfloat16": dataclasses.replace(
        BASE, distributed=Distributed(parallel="fsdp"), precision="bfloat16", model="tiny"
    ),
    "local-sgd": dataclasses.replace(BASE, distributed=APART, update=Update(drop_last=True, ema=0.5), model="tiny"),
}


# Rows whose image cannot be decoded, of another data set.
DAMAGED = range(3, 36, 5)


@dataclass(frozen=True)
class CutShort:
    """A run that is saved after steps 3 and 6 and killed in step 8."""

    config: Config

    def __call__(self, rank: int) -> None:
        with pytest.raises(Killed):
            train_until(self.config, 8, saves={3, 6})
        if rank == 0:
            out = self.config.out
            shutil.copy(out / "checkpoints" / "last.pt", out.with_name(out.name.replace("again", "cut.pt")))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of each kind by two ranks, whole and gone on with, in OUT/<kind> and OUT/<kind>-again."""
    root = tmp_path_factory.mktemp("parallel")
    data = write_dataset(root / "data", {"train": 36, "validation": 9})
    jobs: list[Any] = []
    for name, mode in MODES.items():
        config = dataclasses.replace(mode, data=data, out=root / name)
        again = dataclasses.replace(config, out=root / f"{name}-again")
        jobs += [Undisturbed(config), CutShort(again), Undisturbed(again)]
    damaged = write_dataset(root / "damaged", {"train": 36, "validation": 7})
    offsets = open_dataset(damaged)["train"].index.offset
    with (damaged / "train" / "train-00000.tar").open("r+b") as file:
        for row in DAMAGED:
            file.seek(int(offsets[row]))
            file.write(b"\0" * 100)
    autocast = dataclasses.replace(MODES["fsdp-bfloat16"], distributed=Distributed())
    jobs.append(Undisturbed(dataclasses.replace(autocast, data=data, out=root / "autocast")))
    jobs.append(Undisturbed(dataclasses.replace(BASE, data=damaged, out=root / "skipped", batch=4, on_error="skip")))
    on_two_ranks(jobs)
    return root


def alone(mode: str, out: Path) -> Path:
    """The same recipe on one rank."""
    kept = out / f"{mode}-alone"
    groups: dict[str, Any] = {"distributed": Distributed(), "memory": Memory()}
    config = dataclasses.replace(MODES[mode], data=out / "data", out=kept, **groups)
    train_until(config)
    return kept


def losses(out: Path) -> list[float]:
    return [line["loss"] for line in read_lines(out / "metrics.jsonl")]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["ddp", "static", "erased", "fsdp", "fsdp-adamw", "offloaded"])
def test_two_ranks_follow_the_loss_curve_of_one(mode: str, out: Path) -> None:
    single = alone(mode, out)
    assert losses(out / mode) == pytest.approx(losses(single), rel=1e-4)
    assert len(losses(single)) == 2 * (4 + 1)
    ours, theirs = left_behind(out / mode)["weights"], left_behind(single)["weights"]
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_two_ranks_go_on_with_the_same_bits(mode: str, out: Path) -> None:
    assert_same(out / f"{mode}-again", out / mode)


@pytest.mark.slow
def test_weights_exchanged_in_bfloat16_train_as_those_that_autocast_rounds(out: Path) -> None:
    assert losses(out / "fsdp-bfloat16") == pytest.approx(losses(out / "autocast"), rel=2e-3)
    kept = read_checkpoint(out / "fsdp-bfloat16" / "checkpoints" / "last.pt")
    tensors = [*kept["network"].values(), *kept["optimizer"]["state"].values()]
    assert torch.bfloat16 not in {each.dtype for each in tree_leaves(tensors) if isinstance(each, torch.Tensor)}
    ours, theirs = left_behind(out / "fsdp-bfloat16")["weights"], left_behind(out / "autocast")["weights"]
    assert {name: each.dtype for name, each in ours.items()} == {name: each.dtype for name, each in theirs.items()}


@pytest.mark.slow
def test_damaged_samples_of_all_ranks_are_counted(out: Path) -> None:
    lines = read_lines(out / "skipped" / "metrics.jsonl")
    counts = [line["skipped"] for line in lines if line["event"] == "damaged"]
    # Each is met once an epoch; what is read ahead counts too.
    assert len(counts) == 2
    assert counts[0] >= len(DAMAGED)
    assert counts[1] >= 2 * len(DAMAGED)


@pytest.mark.slow
def test_static_graph_is_used_where_nothing_is_accumulated() -> None:
    assert setup_of(MODES["static"], World(0, 2)).batch.accumulate == 1
    assert setup_of(MODES["ddp"], World(0, 2)).batch.accumulate == 2


@pytest.mark.slow
def test_ranks_train_apart_and_end_as_one(out: Path) -> None:
    cut = read_checkpoint(out / "local-sgd-cut.pt")
    ranks = [rank["local_sgd"]["network"]["5.weight"] for rank in cut["of_ranks"]]
    assert cut["step"] == 6  # one step after weights were averaged
    assert not torch.equal(*ranks)
    last = read_checkpoint(out / "local-sgd" / "checkpoints" / "last.pt")
    assert torch.equal(*(rank["local_sgd"]["network"]["5.weight"] for rank in last["of_ranks"]))


def test_ranks_that_train_apart_go_on_in_the_same_number() -> None:
    own = {"parallel": "local-sgd"}
    with pytest.raises(UsageError, match=r"is of 2 ranks with weights of their own .* not with 4"):
        refuse_other(Path("last.pt"), {"format": FORMAT, "identity": own, "ranks": 2}, own, 4)
