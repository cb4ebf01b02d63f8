"""How several ranks train one network: DDP, FSDP2 or local SGD, and the whole weights where a run is saved.

ddp        every rank holds the network; gradients are averaged over the ranks in each step
fsdp       weights, gradients and optimizer state are divided over the ranks (torch's fully_shard)
local-sgd  after a warm-up of ddp, each rank steps by itself, and the ranks average their weights every --period steps
           (Lin et al., arXiv:1808.07217), so they wait for each other only then
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
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
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from train.config import Config
from train.options import Distributed
from train.ranks.distributed import World, average_statistics, sum_over_ranks

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def parallelize(
    model: nn.Module, config: Config, world: World, accumulates: bool, dtype: torch.dtype = torch.float32
) -> nn.Module:
    """The model as several ranks train it, with rank 0's weights on every rank; the model itself if there is one rank.

    accumulates: whether a step has more than one micro-batch. dtype: what autocast computes in. Batch norm's running
    statistics stay each rank's own while training, which saves an exchange a step: call `average_statistics` before
    using them.
    """
    if world.size == 1:
        return model
    if config.distributed.parallel == "fsdp":
        return divide(model, config, world, dtype)
    with warnings.catch_warnings():
        # Newer versions call this option `forward_sync_buffers`; older ones do not know that name.
        warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
        return DistributedDataParallel(
            model,
            device_ids=[world.local_rank] if world.on_gpu else None,
            broadcast_buffers=False,
            gradient_as_bucket_view=True,
            # With no_sync, a static graph is an internal error of torch's reducer (pytorch/pytorch#143580).
            static_graph=config.distributed.parallel == "ddp" and not accumulates,
        )


def divide(model: nn.Module, config: Config, world: World, dtype: torch.dtype) -> nn.Module:
    """Divides the model's weights over the ranks in place, block by block: only one block's are whole at a time.

    A rank keeps its part of the weights, their gradients and the optimizer's state in float32. Ranks exchange weights
    in `dtype`, which autocast would make of them anyway, and add up gradients in float32.
    """
    for parameter in model.parameters():  # FSDP cannot divide a weight whose memory is in channels-last order
        parameter.data = parameter.data.contiguous()
    common: dict[str, Any] = {
        "mesh": init_device_mesh(world.device.type, (world.size,)),
        "offload_policy": CPUOffloadPolicy(pin_memory=world.on_gpu) if config.memory.offload else OffloadPolicy(),
    }
    policy = MixedPrecisionPolicy()
    if dtype != torch.float32:
        policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        # CUDA's batch norm refuses bfloat16 weights beside float32 statistics (pytorch/torchtitan#674). So each is a
        # unit of its own, with float32 weights, which are few enough to stay whole until the backward pass.
        for norm in [module for module in model.modules() if isinstance(module, _BatchNorm)]:
            own = MixedPrecisionPolicy(cast_forward_inputs=False)
            fully_shard(norm, mp_policy=own, reshard_after_forward=False, **common)
    for stage in model.children():
        blocks = stage.children() if isinstance(stage, nn.Sequential) else [stage]
        for block in blocks:
            if not isinstance(block, FSDPModule) and any(True for _ in block.parameters()):
                fully_shard(block, mp_policy=policy, **common)
    fully_shard(model, mp_policy=policy, **common)
    return model


@contextmanager
def gradients_kept(model: nn.Module, keep: bool) -> Iterator[None]:
    """With `keep`, gradients stay on their rank: the ranks exchange them with the step's last micro-batch alone."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(not keep)
        yield
    elif keep and isinstance(model, DistributedDataParallel):
        with model.no_sync():
            yield
    else:
        yield


def make_local_sgd(options: Distributed, world: World) -> PeriodicModelAverager | None:
    """Averages weights over the ranks for local SGD; None where that is not asked for."""
    if world.size == 1 or options.parallel != "local-sgd":
        return None
    return PeriodicModelAverager(period=options.period, warmup_steps=options.warm_up)


def average_weights(local_sgd: PeriodicModelAverager, parameters: list[nn.Parameter]) -> None:
    """Averages the weights over the ranks if this step is due. To be called before the gradients are set to None.

    torch's averager replaces the weights by new tensors with another order of memory, whose elements the fused
    optimizers would pair with the wrong elements of their state. So the averages are copied to where the weights were.
    """
    kept = [parameter.data for parameter in parameters]
    local_sgd.average_parameters(parameters)
    for parameter, before in zip(parameters, kept, strict=True):
        if parameter.data.data_ptr() != before.data_ptr():
            before.copy_(parameter.data)
            parameter.data = before


def steps_alone(local_sgd: PeriodicModelAverager | None) -> bool:
    """Whether each rank takes the present step by itself."""
    return local_sgd is not None and local_sgd.step >= local_sgd.warmup_steps


def settle(networks: list[nn.Module], local_sgd: PeriodicModelAverager | None, world: World) -> None:
    """Makes the networks the same on all ranks, as evaluating and saving them requires."""
    for network in networks:
        average_statistics(network, world)
        if steps_alone(local_sgd):
            for parameter in network.parameters():
                sum_over_ranks(parameter.data, world).div_(world.size)


def local_part(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor that may be divided over the ranks."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be divided over the ranks, on every rank. To be called by all ranks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def network_state(network: nn.Module) -> dict[str, Any]:
    """The whole state dict on the main rank; on the others it may be empty. To be called by all ranks."""
    if isinstance(network, FSDPModule):
        return get_model_state_dict(network, options=_WHOLE)
    return network.state_dict()


def optimizer_state(network: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """The optimizer's whole state on the main rank; on the others it may be empty. To be called by all ranks."""
    if isinstance(network, FSDPModule):
        return get_optimizer_state_dict(network, optimizer, options=_WHOLE)
    return optimizer.state_dict()


def load_states(
    network: nn.Module, optimizer: Optimizer, weights: Mapping[str, Any], moments: Mapping[str, Any]
) -> None:
    """Loads what `network_state` and `optimizer_state` returned; every rank is given the whole of it."""
    if isinstance(network, FSDPModule):
        set_model_state_dict(network, dict(weights), options=_WHOLE)
        set_optimizer_state_dict(network, optimizer, dict(moments), options=_WHOLE)
    else:
        network.load_state_dict(weights)
        optimizer.load_state_dict(dict(moments))
