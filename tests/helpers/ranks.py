"""Training by several processes on this machine, over gloo, each with one thread."""

import os
import socket
from collections.abc import Callable, Sequence

import torch
from torch.multiprocessing.spawn import spawn

from tests.helpers.resume import tiny_models

Job = Callable[[int], None]


def on_two_ranks(jobs: Sequence[Job]) -> None:
    """Calls the jobs one after the other, with the rank, in each of two processes; jobs are module-level callables.

    The processes start once for all jobs, because importing the libraries costs seconds.
    """
    spawn(_rank, args=(free_ports(len(jobs)), list(jobs)), nprocs=2)  # type: ignore[no-untyped-call]


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _rank(rank: int, ports: list[int], jobs: list[Job]) -> None:
    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    with tiny_models() as patch:
        patch.setattr("train.checkpoints.saver.AGREE_S", 0.0)  # so that ranks save after the step a test asks for
        for port, job in zip(ports, jobs, strict=True):
            os.environ["MASTER_PORT"] = str(port)
            job(rank)
