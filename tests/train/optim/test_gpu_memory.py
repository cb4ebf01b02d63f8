"""Out of memory: the largest micro-batch that fits, and what a person is told to change."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

import train.engine
from shards.common.errors import OutOfMemory, ShardfeedError
from tests.helpers.training import write_dataset
from train.__main__ import main
from train.config import Config
from train.optim.gpu_memory import choose_micro_batch, halve_until, memory_advice
from train.options import Memory
from train.ranks.distributed import World

CONFIG = Config(Path("unused"), size=32)


@pytest.mark.parametrize(("first", "most", "fitting"), [(64, 100, 64), (64, 17, 16), (100, 13, 13), (7, 1, 1)])
def test_sizes_are_halved_until_one_fits(first: int, most: int, fitting: int) -> None:
    tried = []

    def attempt(size: int) -> None:
        tried.append(size)
        if size > most:
            raise torch.OutOfMemoryError

    assert halve_until(attempt, first) == fitting
    assert tried == sorted(tried, reverse=True)


@pytest.mark.parametrize(
    "words",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)",
        "Expected canUse32BitIndexMath(input) to be true",
        "Tensors with more than 2**31 elements need 32-bit index math",
    ],
)
def test_errors_that_mean_too_many_images_are_taken_as_such(words: str) -> None:
    def attempt(size: int) -> None:
        if size > 4:
            raise RuntimeError(words)

    assert halve_until(attempt, 16) == 4


def test_another_error_of_the_attempt_comes_out_of_the_search() -> None:
    def attempt(size: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        halve_until(attempt, 16)


def test_memory_that_the_loader_lacks_gets_the_same_advice() -> None:
    with pytest.raises(ShardfeedError, match="give --micro-batch 8"), memory_advice(CONFIG, 16, 1):
        raise OutOfMemory("DALI has no memory left")


def test_if_not_even_one_image_fits_that_is_said() -> None:
    def attempt(size: int) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(ShardfeedError, match="no memory even for a micro-batch of one image"):
        halve_until(attempt, 8)


def test_on_a_cpu_auto_is_a_number() -> None:
    config = dataclasses.replace(CONFIG, micro_batch="auto")
    network = torch.nn.Linear(1, 1)
    assert choose_micro_batch(network, config, World(), torch.float32) == 16


@pytest.mark.parametrize(
    ("config", "micro_batch", "ranks", "advice"),
    [
        (CONFIG, 16, 1, "micro-batches of 16 images of 32 pixels: give --micro-batch 8 or auto .*64.*--recompute$"),
        (dataclasses.replace(CONFIG, memory=Memory(recompute=True)), 16, 1, r"stay 64\)$"),
        (CONFIG, 16, 2, "or add --recompute or --parallel fsdp --offload$"),
        (CONFIG, 1, 1, "give a smaller --size"),
    ],
)
def test_the_message_says_what_to_change(config: Config, micro_batch: int, ranks: int, advice: str) -> None:
    with pytest.raises(ShardfeedError, match=advice), memory_advice(config, micro_batch, ranks):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_a_run_without_memory_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    data = write_dataset(tmp_path / "data", {"train": 64, "validation": 4})
    monkeypatch.setattr(train.engine, "accumulate", full)
    words = ["--data", data, "--out", tmp_path / "out", "--size", "16", "--device", "cpu", "--threads", "1"]
    assert main(list(map(str, words))) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "give --micro-batch 8 or auto" in error
