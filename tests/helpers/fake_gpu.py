"""A fake of DALI's pipeline and of the few calls of torch.cuda, on which a feed loop for a GPU runs without one."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from shards import Loader
from shards.dataset import Split

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
        self.output: Callable[[], Output | tuple[Output, ...]] = lambda: Output(
            torch.ones(self.inside.pop(0), SIZE, SIZE, 3)
        )
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
        if name == "anchor":
            self._gpu.inside.append(len(data))

    def schedule_run(self) -> None:
        self._gpu.note("run")

    def outputs(self, stream: Stream | None) -> tuple[Output, ...]:
        self._gpu.note(("outputs", stream and stream.name))
        output = self._gpu.output()
        return output if isinstance(output, tuple) else (output,)

    def __del__(self) -> None:
        self._gpu.note("freed")


def fake_gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    """Puts the fake in the place of a GPU."""
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
    return fake


def load(split: Split, **options: Any) -> Loader:
    """A loader for the fake, whose batches are decoded one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shards.defaults.DECODED_TOGETHER", 1)
        return load_together(split, **options)


def load_together(split: Split, **options: Any) -> Loader:
    """A loader for the fake, which may decode several batches as one."""
    options = {"batch_size": BATCH, "size": SIZE, "device": "gpu", "device_id": DEVICE, "decode": "region", **options}
    return Loader(split, train=True, threads=1, **options)
