"""The feed loop for a GPU, over a fake of DALI's pipeline and of the few calls of torch.cuda: threads, streams, errors.

It shows which calls are made, on which thread and in which order. Whether they do on a GPU what they should is for the
tests marked `gpu`.
"""

import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shards import Loader
from shards.common.errors import OutOfMemory, ShardfeedError
from shards.dataset import Split
from shards.feed.loop import Delivered, by_steps
from tests.helpers.fake_gpu import BATCH, DEVICE, SIZE, Gpu, Output, Stream, load, load_together


def test_one_thread_does_all_that_touches_the_gpu_and_chooses_its_device_first(small_split: Split, gpu: Gpu) -> None:
    with load(small_split) as loader:
        next(iter(loader))
    assert gpu.threads == {"shardfeed-loop"}
    assert gpu.calls[:2] == [("set_device", DEVICE), "build"]
    assert gpu.calls[-1] == "freed"
    assert gpu.calls.count("freed") == gpu.pipelines == 1


def test_the_loop_works_on_a_stream_of_its_own(small_split: Split, gpu: Gpu) -> None:
    """On the consumer's, the wait for a batch to come would hold up the kernels of the step before."""
    with load(small_split) as loader:
        images, labels = next(iter(loader))
    assert {call for call in gpu.calls if isinstance(call, tuple)} == {
        ("set_device", DEVICE), ("outputs", f"loop {DEVICE}"), ("on", f"loop {DEVICE}")
    }  # fmt: skip
    assert images.shape == (BATCH, 3, SIZE, SIZE)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert len(labels) == BATCH


def test_a_batch_is_copied_on_the_stream_that_is_current_and_its_memory_waits_for_that(
    small_split: Split, gpu: Gpu
) -> None:
    kept: list[torch.Tensor] = []

    def output() -> Output:
        kept.append(torch.ones(gpu.inside.pop(0), SIZE, SIZE, 3))
        return Output(kept[-1])

    gpu.output = output
    with load(small_split) as loader:
        batches = iter(loader)
        next(batches)
        gpu.current = Stream("other", gpu.calls)
        second, _ = next(batches)
    assert second.data_ptr() not in {each.data_ptr() for each in kept}
    assert [call for call in gpu.calls if isinstance(call, str) and "waits" in call] == [
        f"consumer waits for an event on loop {DEVICE}",
        f"loop {DEVICE} waits for consumer",
        f"other waits for an event on loop {DEVICE}",
        f"loop {DEVICE} waits for other",
    ]


def test_a_batch_that_is_lent_is_dalis_own_until_the_next_and_is_freed_after_the_consumers_work(
    small_split: Split, gpu: Gpu
) -> None:
    freed: list[int] = []

    def free(number: int) -> None:
        freed.append(number)
        gpu.note(f"freed {number}")

    def output() -> Output:
        images = torch.ones(gpu.inside.pop(0), SIZE, SIZE, 3)
        number = len(made)
        made.append(images.data_ptr())
        weakref.finalize(images.untyped_storage(), free, number)
        return Output(images)

    made: list[int] = []
    gpu.output = output
    with load(small_split) as loader:
        loader._feed.config = replace(loader._feed.config, lends=True)
        batches = iter(loader)
        first, _ = next(batches)
        assert first.data_ptr() == made[0]
        del first
        assert not freed  # the consumer's kernels may still read it
        gpu.calls.clear()
        next(batches)
        assert freed == [0]
        waits = [call for call in gpu.calls if call == f"loop {DEVICE} waits for consumer" or call == "freed 0"]
        assert waits == [f"loop {DEVICE} waits for consumer", "freed 0"]


def test_the_time_that_the_gpu_waits_is_counted_once(small_split: Split, gpu: Gpu) -> None:
    with load(small_split) as loader:
        batches = iter(loader)
        next(batches)
        next(batches)
        assert loader.gpu_wait() == 0.5
        next(batches)
        assert loader.gpu_wait() == 0.25
        assert loader.gpu_wait() == 0


def test_waits_do_not_pile_up_in_a_loop_that_never_asks_for_them(small_split: Split, gpu: Gpu) -> None:
    with load(small_split) as loader:
        for _ in loader:
            pass
        assert loader._feed._loop is not None
        assert not loader._feed._loop._waits
        assert loader.gpu_wait() == 0.25 * len(loader)


@pytest.mark.parametrize("error", [RuntimeError("Can't allocate 9 bytes on device 3."), MemoryError("std::bad_alloc")])
def test_memory_that_runs_out_is_said_with_what_takes_less(small_split: Split, gpu: Gpu, error: Exception) -> None:
    def output() -> Output:
        raise error

    gpu.output = output
    with load(small_split, on_error="skip") as loader, pytest.raises(OutOfMemory, match="smaller batch_size"):
        next(iter(loader))
    assert gpu.pipelines == 1  # no sample is tried alone: none of them is at fault


def test_every_graph_is_freed_also_those_that_tried_the_samples_of_a_failed_batch_alone(
    small_split: Split, gpu: Gpu
) -> None:
    def output() -> Output:
        if gpu.calls.count("run") <= 3:  # what was inside the first graph
            raise RuntimeError("something failed")
        return Output(torch.ones(1, SIZE, SIZE, 3))

    gpu.output = output
    with load(small_split, on_error="skip") as loader:
        try:
            next(iter(loader))
        except ShardfeedError as error:  # its traceback refers to the graph
            said = str(error)
    assert "DALI failed on a batch" in said
    assert gpu.pipelines > 1
    assert gpu.calls.count("freed") == gpu.pipelines


def epochs(loader: Loader, count: int = 2) -> list[list[int]]:
    """The labels of each batch of some epochs."""
    return [labels.tolist() for _ in range(count) for _, labels in loader]


@pytest.mark.parametrize("options", [{}, {"drop_last": False}, {"rank": 1, "world_size": 3, "drop_last": False}])
def test_batches_that_are_decoded_together_come_one_by_one_in_the_order_of_single_ones(
    small_split: Split, gpu: Gpu, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr("shards.defaults.DECODED_TOGETHER", 3 * BATCH + 1)
    with load(small_split, **options) as loader:
        expected = epochs(loader)
    with load_together(small_split, **options) as loader:
        assert loader._feed.config.graph.batch_size == min(3, len(loader)) * BATCH
        assert epochs(loader) == expected
        assert gpu.pipelines == 2
    for left in range(len(expected)):  # in the middle of a group, at its ends, and in the second epoch
        with load_together(small_split, **options) as loader:
            batches = (batch for _ in range(2) for batch in loader)
            seen = [next(batches)[1].tolist() for _ in range(left)]
            state = loader.state_dict()
        with load_together(small_split, **options) as loader:
            loader.load_state_dict(state)
            rest = epochs(loader, 2 - state["epoch"])
        assert seen + rest == expected


def test_batches_that_are_decoded_together_are_views_that_are_copied(small_split: Split, gpu: Gpu) -> None:
    gpu.output = lambda: Output(torch.arange(gpu.inside.pop(0)).view(-1, 1, 1, 1).expand(-1, SIZE, SIZE, 3).float())
    with load_together(small_split) as loader:
        numbers = [images[:, 0, 0, 0].tolist() for images, _ in loader]
    assert numbers == np.arange(7 * BATCH).reshape(7, BATCH).tolist()


def test_of_batches_that_are_decoded_together_each_knows_its_own_replaced_samples() -> None:
    labels = torch.arange(10)
    parts = by_steps(Delivered((labels.view(10, 1), labels), labels.numpy(), frozenset({1, 4, 7, 9})), 4)
    assert [part.tensors[1].tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [part.ids.tolist() for part in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert [sorted(part.replaced) for part in parts] == [[1], [0, 3], [1]]
    single = Delivered((labels, labels), labels.numpy())
    assert by_steps(single, 10).pop() is single  # on a CPU no view is made
