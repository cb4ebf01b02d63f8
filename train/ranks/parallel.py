"""How several ranks train one network: DDP, FSDP2 or local SGD, and what is whole again where a run is saved.

ddp        every rank holds the network; gradients are averaged over ranks in each step
fsdp       weights, gradients and optimizer state are divided over the ranks (torch's fully_shard)
local-sgd  after a warm-up of ddp, ranks step by themselves and average their weights every so many steps
           (Lin et al., arXiv:1808.07217): they wait for each other only then
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from train.config import Config
from train.optim.batch_split import portions
from train.ranks.distributed import World, average_statistics, sum_over_ranks

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def spread(model: nn.Module, config: Config, world: World) -> nn.Module:
    """The model with rank 0's weights on every rank, trained as `config.sharing` says; itself if there is one rank.

    Batch norm's running statistics stay each rank's own while training (no traffic each step): call
    `average_statistics` before using them.
    """
    if world.size == 1:
        return model
    if config.sharing.parallel == "fsdp":
        return _divide(model, config, world)
    with warnings.catch_warnings():
        # Newer versions call this option `forward_sync_buffers`, which older ones do not know.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        return DistributedDataParallel(
            model,
            device_ids=[world.local_rank] if world.on_gpu else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            # With no_sync, a static graph is an internal error of torch's reducer (pytorch/pytorch#143580).
            static_graph=config.sharing.parallel == "ddp" and portions(config, world).accumulate == 1,
        )


def _divide(model: nn.Module, config: Config, world: World) -> nn.Module:
    """Divides the model in place, block by block, so that only one block is whole at a time."""
    for parameter in model.parameters():  # a weight's memory cannot be divided in channels-last order
        parameter.data = parameter.data.contiguous()
    mesh = init_device_mesh(world.device.type, (world.size,))
    policy = CPUOffloadPolicy(pin_memory=world.on_gpu) if config.memory.offload else OffloadPolicy()
    for stage in model.children():
        blocks = stage.children() if isinstance(stage, nn.Sequential) else [stage]
        for block in blocks:
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh, offload_policy=policy)
    fully_shard(model, mesh=mesh, offload_policy=policy)
    return model


@contextmanager
def gradients_kept(model: nn.Module, keep: bool) -> Iterator[None]:
    """While entered with `keep`, gradients stay on their rank: the exchange waits for the step's last micro-batch."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not keep)
        yield
    elif keep and isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def make_averager(config: Config, world: World) -> PeriodicModelAverager | None:
    """What averages the weights of local SGD; None for everything else."""
    if world.size == 1 or config.sharing.parallel != "local-sgd":
        return None
    return PeriodicModelAverager(period=config.sharing.period, warmup_steps=config.sharing.warm_up)


def average_weights(averager: PeriodicModelAverager, parameters: list[nn.Parameter]) -> None:
    """After a step, while gradients are still there: averages the weights over ranks, if it is time.

    torch's averager puts new tensors in place of the weights, in another order of memory; the fused optimizers would
    then pair them with the wrong elements of their state. So the averages are copied back to where the weights were.
    """
    kept = [parameter.data for parameter in parameters]
    averager.average_parameters(parameters)
    for parameter, before in zip(parameters, kept, strict=True):
        if parameter.data.data_ptr() != before.data_ptr():
            before.copy_(parameter.data)
            parameter.data = before


def is_apart(averager: PeriodicModelAverager | None) -> bool:
    """Whether ranks step by themselves at this step."""
    return averager is not None and averager.step >= averager.warmup_steps


def settle(networks: list[nn.Module], averager: PeriodicModelAverager | None, world: World) -> None:
    """Makes the networks the same on all ranks, as evaluation and the saved file need them."""
    for network in networks:
        average_statistics(network, world)
        if is_apart(averager):
            for parameter in network.parameters():
                sum_over_ranks(parameter.data, world).div_(world.size)


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor that may be divided over ranks."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be divided over ranks, on each of them. To be called by all."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def network_state(network: nn.Module) -> dict[str, Any]:
    """The whole state dict on the main rank; on the others it may be empty. To be called by all."""
    if isinstance(network, FSDPModule):
        return get_model_state_dict(network, options=_WHOLE)
    return network.state_dict()


def optimizer_state(network: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's whole state on the main rank; on the others it may be empty. To be called by all."""
    if isinstance(network, FSDPModule):
        return get_optimizer_state_dict(network, optimizer, options=_WHOLE)
    return optimizer.state_dict()


def load_states(
    network: nn.Module, optimizer: Optimizer, weights: Mapping[str, Any], moments: Mapping[str, Any]
) -> None:
    """Puts back what `network_state` and `optimizer_state` gave; every rank has the whole of it."""
    if isinstance(network, FSDPModule):
        set_model_state_dict(network, dict(weights), options=_WHOLE)
        set_optimizer_state_dict(network, optimizer, dict(moments), options=_WHOLE)
    else:
        network.load_state_dict(weights)
        optimizer.load_state_dict(dict(moments))
