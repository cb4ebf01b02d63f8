"""The feed loop for a GPU, over a fake of DALI's pipeline and of the few calls of torch.cuda: threads, streams, errors.

It shows which calls are made, on which thread and in which order. Whether they do on a GPU what they should is for the
tests marked `gpu`.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from shards import Loader
from shards.common.errors import OutOfMemory, ShardfeedError
from shards.dataset import Split
from shards.feed.loop import Delivered, by_steps

BATCH, SIZE, DEVICE = 4, 8, 3


class Event:
    """Stands for a CUDA event: one that was recorded when so many seconds had passed on the GPU."""

    def __init__(self, on: str = "", seconds: float = 0.0) -> None:
        self.on, self.seconds = on, seconds

    def query(self) -> bool:
        return True

    def elapsed_time(self, later: "Event") -> float:
        return 1000 * (later.seconds - self.seconds)


class Stream:
    """Stands for a CUDA stream. `seconds`: how long it has worked and waited."""

    def __init__(self, name: str, calls: list[Any]) -> None:
        self.name = name
        self.seconds = 0.0
        self._calls = calls

    def record_event(self, event: object = None) -> Event:
        return Event(self.name, self.seconds)

    def wait_event(self, event: Event) -> None:
        self._calls.append(f"{self.name} waits for an event on {event.on}")
        self.seconds += 0.25

    def wait_stream(self, other: "Stream") -> None:
        self._calls.append(f"{self.name} waits for {other.name}")


class Output:
    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def as_tensor(self) -> torch.Tensor:
        return self._images


class Gpu:
    """What the loop did, in order, and what it is to meet."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.threads: set[str] = set()
        self.output: Callable[[], Output] = lambda: Output(torch.ones(self.inside.pop(0), SIZE, SIZE, 3))
        self.inside: list[int] = []
        """Images of each batch inside the pipeline."""
        self.current = Stream("consumer", self.calls)
        self.pipelines = 0

    def build(self, config: Any) -> "Pipeline":
        self.note("build")
        self.pipelines += 1
        self.inside.clear()
        return Pipeline(self)

    def note(self, what: Any) -> None:
        self.calls.append(what)
        self.threads.add(threading.current_thread().name)


class Pipeline:
    """Stands for a pipeline of DALI's; it is freed where its last reference goes."""

    def __init__(self, gpu: Gpu) -> None:
        self._gpu = gpu

    def feed_input(self, name: str, data: Any) -> None:
        self._gpu.note("feed")
        if name == "mirror":
            self._gpu.inside.append(len(data))

    def schedule_run(self) -> None:
        self._gpu.note("run")

    def outputs(self, stream: Stream | None) -> tuple[Output]:
        self._gpu.note(("outputs", stream and stream.name))
        return (self._gpu.output(),)

    def __del__(self) -> None:
        self._gpu.note("freed")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    fake = Gpu()

    @contextmanager
    def stream(chosen: Stream) -> Iterator[None]:
        fake.note(("on", chosen.name))
        yield

    monkeypatch.setattr("shards.decode.graph.build", fake.build)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: DEVICE + 1)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: fake.note(("set_device", number)))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: fake.current)
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(f"loop {device}", fake.calls))
    monkeypatch.setattr(torch.cuda, "Event", lambda enable_timing: None)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda labels: labels)
    return fake


def load(split: Split, **options: Any) -> Loader:
    """A loader whose batches are decoded one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.defaults.DECODED_TOGETHER", 1)
        return load_together(split, **options)


def load_together(split: Split, **options: Any) -> Loader:
    options = {"batch_size": BATCH, "size": SIZE, "device": "gpu", "device_id": DEVICE, "decode": "region", **options}
    return Loader(split, train=True, threads=1, **options)


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
