"""The ranks of a run: which rank this process is, its device, the process group, and exchanges between ranks.

`torchrun` tells a process its place through RANK, LOCAL_RANK and WORLD_SIZE; without them it is the only one. Ranks
exchange gradients over NCCL on GPUs and over gloo on CPUs.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import Store, TCPStore  # torch.distributed has them, but not their types

from shards.common.errors import ShardfeedError, UsageError
from train.config import Device
from train.ranks.rendezvous import rendezvous

T = TypeVar("T")

# How long a rank waits for the others, in an exchange and at a point in the run, before it takes them for lost. Ranks
# differ most where one downloads an index that another has (70 MB of ImageNet: 40 KB/s is enough), behind the one that
# writes, and at the end of an evaluation: 50,000 images at 60 images/s take 14 minutes. NCCL's default, 10 minutes, is
# shorter; gloo's is the same.
PATIENCE = timedelta(minutes=30)
# How gloo, NCCL and the store say that another rank is gone; other errors of theirs are faults of this rank.
LOST = (
    "connection closed", "connection reset", "connection refused", "broken pipe", "socket", "timed out", "timeout",
    "remote process exited", "remote error", "ncclremoteerror", "aborted",
)  # fmt: skip


class LeftAlone(SystemExit):
    """This rank obeys a signal without the others' agreement; the status is 128 + signal, as shells count."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


class OnEveryRank(ShardfeedError):
    """A failure that every rank sees at the same point, so that one of them prints it: see train/__main__.py."""

    on_every_rank = True


@dataclass(frozen=True)
class World:
    """This process among all: rank `rank` of `size`, number `local_rank` on its machine, computing on `device`."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a device is immutable

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise UsageError(f"RANK must be from 0 to WORLD_SIZE - 1, that is {self.size - 1}, not {self.rank}")
        if not 0 <= self.local_rank <= self.rank:
            raise UsageError(f"LOCAL_RANK must be from 0 to RANK, that is {self.rank}, not {self.local_rank}")

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that prints and writes files."""
        return self.rank == 0

    @property
    def on_gpu(self) -> bool:
        """Whether this process computes on a GPU."""
        return self.device.type == "cuda"


def read_world(environment: Mapping[str, str], device: Device, gpus: int) -> World:
    """This process's place by torchrun's variables, on a machine with `gpus` GPUs.

    Raises UsageError where --device asks for a GPU and there is none, or there are more processes than GPUs.
    """
    local_rank = int(environment.get("LOCAL_RANK", "0"))
    if device == "gpu" and gpus == 0:
        raise UsageError("--device gpu: PyTorch finds no GPU here (no device, no driver, or a build without CUDA)")
    use_gpu = device == "gpu" or (device == "auto" and gpus > 0)
    here = int(environment.get("LOCAL_WORLD_SIZE", local_rank + 1))
    if use_gpu and here > gpus:
        raise UsageError(f"{here} processes were started on this machine, for {gpus} GPUs: start at most {gpus} on it")
    return World(
        rank=int(environment.get("RANK", "0")),
        size=int(environment.get("WORLD_SIZE", "1")),
        local_rank=local_rank,
        device=torch.device("cuda", local_rank) if use_gpu else torch.device("cpu"),
    )


@contextmanager
def joined(device: Device, offloads: bool = False) -> Iterator[World]:
    """This process's place among the ranks; with several, also their process group, destroyed at the end.

    offloads: whether tensors that lie on the CPU are exchanged although the ranks compute on GPUs.

    After an error, NCCL's group is not destroyed: that would wait for the other ranks, which wait for this one in an
    exchange (see `leave` in train/__main__.py). Raises ShardfeedError where another rank ended during an exchange.
    """
    world = read_world(os.environ, device, torch.cuda.device_count())
    if world.on_gpu:
        torch.cuda.set_device(world.device)
    if world.size == 1:
        yield world
        return
    _join(world, offloads)
    failed = True
    try:
        yield world
        failed = False
    except SystemExit as stop:  # on a signal that all ranks have agreed to obey, or this one alone
        failed = isinstance(stop, LeftAlone)
        raise
    except RuntimeError as error:
        if not lost_rank(error):
            raise
        raise ShardfeedError(
            f"rank {world.rank} has lost the other ranks, because one of them ended or stopped answering "
            f"({_first_line(error)}): look for the message of the first that failed, then give the same "
            "command again to go on from the last checkpoint"
        ) from error
    finally:
        if not (failed and world.on_gpu):
            dist.destroy_process_group()


def lost_rank(error: RuntimeError) -> bool:
    """Whether an exchange failed because another rank is gone; gloo raises plain RuntimeErrors."""
    words = str(error).lower()
    from_exchange = isinstance(error, dist.DistError) or any(name in words for name in ("gloo", "nccl", "connection"))
    return from_exchange and any(each in words for each in LOST)


def backend(world: World, offloads: bool) -> str:
    """Who exchanges tensors; with --offload, some of them lie on the CPU, where NCCL cannot reach them."""
    if not world.on_gpu:
        return "gloo"
    return "cpu:gloo,cuda:nccl" if offloads else "nccl"


def _join(world: World, offloads: bool) -> None:
    """Makes the process group. Raises ShardfeedError where the ranks do not find each other."""
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if world.is_main and shared and (warning := node_warning(os.environ)):
        print(warning, file=sys.stderr)
    try:
        # Without the agent's store, rank 0 makes one at MASTER_ADDR and MASTER_PORT.
        dist.init_process_group(
            backend(world, offloads),
            store=rendezvous(_store_of_agent(), world.rank, world.size) if shared else None,
            rank=world.rank,
            world_size=world.size,
            timeout=PATIENCE,
            device_id=world.device if world.on_gpu else None,
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise ShardfeedError(
            f"rank {world.rank} of {world.size} did not find the others ({_first_line(error)}): "
            "start the ranks with torchrun, which tells them where they meet"
        ) from error


def node_warning(environment: Mapping[str, str]) -> str | None:
    """A warning for three or more nodes whose agents could not find each other after the loss of the first; or None.

    torchrun's agent on every node but the first keeps the address of the first store that it saw. So after the first
    node is lost, the third looks for the store at the old address (seen with torch 2.14.1 and three agents).
    """
    nodes, restarts = (int(environment.get(name, "0")) for name in ("GROUP_WORLD_SIZE", "TORCHELASTIC_MAX_RESTARTS"))
    if nodes < 3 or not restarts:
        return None
    return (
        "if the node of rank 0 is lost, the others will not find each other: start torchrun with "
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment"
    )


def _store_of_agent() -> Store:
    return TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def wait_for_all(world: World, what: str) -> None:
    """Waits until all ranks have called this; `what` names the point in the run.

    It waits on the store, where a missing rank can be named. If a rank dies meanwhile, torchrun ends the others.
    Raises ShardfeedError where not all have come after PATIENCE.
    """
    if world.size == 1:
        return
    store = dist.distributed_c10d._get_default_store()
    store.set(f"{what}/{world.rank}", "")
    keys = {rank: f"{what}/{rank}" for rank in range(world.size)}
    try:
        store.wait(list(keys.values()), PATIENCE)
    except dist.DistStoreError:
        late = [str(rank) for rank, key in keys.items() if not store.check([key])]
        raise ShardfeedError(
            f"rank {world.rank} waited {PATIENCE} for the others at the point {what!r}, and rank "
            f"{', '.join(late[:8])} did not come: it is stopped or hangs; end it, then give the same command again"
        ) from None


def sum_over_ranks(values: Tensor, world: World) -> Tensor:
    """The elementwise sum over all ranks, in place where there are several; one exchange."""
    if world.size > 1:
        dist.all_reduce(values)
    return values


def max_over_ranks(values: Tensor, world: World) -> Tensor:
    """The elementwise maximum over all ranks; one exchange. `values` lie on the CPU, and so does the result."""
    if world.size == 1:
        return values
    shared = values.to(world.device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return shared.cpu()


def gather_on_main(value: T, world: World) -> list[T]:
    """Every rank's value, in the order of ranks, on the main rank; an empty list on the others."""
    if world.size == 1:
        return [value]
    gathered: list[T] | None = [value] * world.size if world.is_main else None
    dist.gather_object(value, gathered)
    return gathered or []


def from_main(value: T, world: World) -> T:
    """The main rank's value, on every rank."""
    shared = [value]
    if world.size > 1:
        dist.broadcast_object_list(shared)
    return shared[0]


def try_on_main(body: Callable[[], T], failed: type[Exception] | tuple[type[Exception], ...], world: World) -> T:
    """What `body` returns on the main rank, which alone runs it, on every rank.

    An error of the types `failed` is raised on every rank; another one on the main rank alone.
    """
    result: T | Exception | None = None
    if world.is_main:
        try:
            result = body()
        except failed as error:
            result = OnEveryRank(str(error)) if type(error) is ShardfeedError else error
    result = from_main(result, world)
    if isinstance(result, Exception):
        raise result
    return cast(T, result)


def average_statistics(model: nn.Module, world: World) -> None:
    """Replaces the model's floating-point buffers (batch norm's running mean and variance) by their mean over ranks.

    So evaluation and the saved weights are the same on every rank, and their statistics are of all ranks' images.
    """
    buffers = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if world.size == 1 or not buffers:
        return
    flat = sum_over_ranks(torch.cat([buffer.flatten() for buffer in buffers]), world) / world.size
    for buffer, mean in zip(buffers, torch.split(flat, [buffer.numel() for buffer in buffers]), strict=True):
        buffer.copy_(mean.view_as(buffer))
