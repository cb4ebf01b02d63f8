"""A run that the tests of checkpoints cut short and compare with."""

from pathlib import Path

import pytest

from tests.helpers.resume import train_until
from tests.helpers.training import write_dataset
from train.config import Config


@pytest.fixture(scope="package")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two epochs of 9 micro-batches of 4, two to a step: 5 steps in an epoch, the last of one micro-batch."""
    data = write_dataset(tmp_path_factory.mktemp("dataset"), {"train": 38, "validation": 7})
    return Config(
        data=data, out=data / "out", model="tiny", size=16, batch=8, micro_batch=4, epochs=2, device="cpu",
        threads=1, log_every=3,
    )  # fmt: skip


@pytest.fixture(scope="package")
def whole(config: Config) -> Path:
    """The output of a run of `config` that nothing disturbed."""
    train_until(config)
    return config.out
