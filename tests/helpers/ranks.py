"""Training by several processes on this machine, over gloo, each with one thread."""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed.run
from torch.multiprocessing.spawn import start_processes

from tests.helpers.forks import server
from tests.helpers.resume import tiny_models, train_until
from train.config import Config

Job = Callable[[int], None]


@dataclass(frozen=True)
class Undisturbed:
    """A job: a run that nothing cuts short."""

    config: Config

    def __call__(self, rank: int) -> None:
        train_until(self.config)


def on_two_ranks(jobs: Sequence[Job]) -> None:
    """Calls the jobs one after the other, with the rank, in each of two processes; jobs can be pickled.

    Importing the libraries costs seconds, so the ranks are forks of a server that has imported them.
    """
    server()
    arguments = (free_ports(len(jobs)), list(jobs))
    start_processes(_rank, arguments, nprocs=2, start_method="forkserver")  # type: ignore[no-untyped-call]


def torchrun(log: Path, *words: object) -> BaseProcess:
    """Starts torchrun with the words as a fork of the same server; its ranks are forks too. `log`: what they print."""
    process = server().Process(target=_torchrun, args=(log, [*map(str, words)]))
    process.start()
    return process


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _torchrun(log: Path, words: list[str]) -> None:
    os.setsid()  # what dies when a node does
    file = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.distributed.run.main(["--start-method", "fork", "--run-path", *words])


def _rank(rank: int, ports: list[int], jobs: list[Job]) -> None:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ.update(place, MASTER_ADDR="127.0.0.1")
    with tiny_models() as patch:
        patch.setattr("train.checkpoints.saver.AGREE_S", 0.0)  # so that ranks save after the step a test asks for
        for port, job in zip(ports, jobs, strict=True):
            os.environ["MASTER_PORT"] = str(port)
            job(rank)
