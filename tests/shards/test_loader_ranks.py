"""The loader in two real processes (gloo): what each rank reads, and what they read together."""

import dataclasses
import functools
import zlib
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from shards import Loader, open_dataset
from shards.dataset import Split
from tests.helpers.ranks import on_two_ranks

# For each step, the samples of a global batch: label and a checksum of the pixels.
Steps = list[set[tuple[int, int]]]


@dataclasses.dataclass(frozen=True)
class Case:
    """What both ranks do: read an epoch from `position` on, and gather it."""

    root: Path
    batch_size: int
    train: bool
    position: int
    result: Path


def read(split: Split, batch_size: int, rank: int, world_size: int, case: Case) -> list[list[tuple[int, int]]]:
    with Loader(
        split,
        batch_size=batch_size,
        train=case.train,
        size=32,
        resize=40,
        dtype="uint8",
        seed=5,
        rank=rank,
        world_size=world_size,
        threads=1,
    ) as loader:
        loader.load_state_dict({**loader.state_dict(), "epoch": 1, "position": case.position})
        return [
            [
                (int(label), zlib.crc32(image.permute(1, 2, 0).contiguous().numpy()))
                for image, label in zip(images, labels, strict=True)
            ]
            for images, labels in loader
        ]


def one_rank(rank: int, case: Case) -> None:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        mine = read(open_dataset(case.root)["train"], case.batch_size, rank, 2, case)
        gathered: list[list[list[tuple[int, int]]]] = [[], []]
        dist.all_gather_object(gathered, mine)
        if rank == 0:
            torch.save(gathered, case.result)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize(("train", "position"), [(True, 8), (False, 0)])
def test_two_ranks_read_what_one_reads(small_split: Split, tmp_path: Path, train: bool, position: int) -> None:
    """29 samples in global batches of 4: entered at the start and in the middle."""
    case = Case(small_split.root, 2, train, position, tmp_path / "seen")
    on_two_ranks([functools.partial(one_rank, case=case)])
    ranks = torch.load(case.result)
    single = read(small_split, 4, 0, 1, case)

    assert len(ranks[0]) == (29 - position) // 4 + (0 if train else 1)
    together = [
        {sample for rank in ranks for sample in (rank[step] if step < len(rank) else [])}
        for step in range(max(map(len, ranks)))
    ]
    assert together == [set(batch) for batch in single]
    every = [sample for rank in ranks for batch in rank for sample in batch]
    assert len(every) == len(set(every))
