"""Loaders of other systems end with their turn."""

import weakref
from collections.abc import Iterator

import torch

from benchmarks.processes.dataloader import batches_of
from benchmarks.processes.task import Batch


class Loader:
    """Refers to itself, as LitData's loader does."""

    def __init__(self) -> None:
        self.own = self

    def __iter__(self) -> Iterator[Batch]:
        while True:
            yield torch.zeros(2, 8, 8, 3), torch.zeros(2)


def test_a_loader_that_refers_to_itself_ends_with_the_block() -> None:
    made: list[weakref.ref[Loader]] = []

    def make() -> Loader:
        loader = Loader()
        made.append(weakref.ref(loader))
        return loader

    with batches_of(make) as batches:
        next(batches)
        assert made[0]() is not None
    assert made[0]() is None
