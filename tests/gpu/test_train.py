"""Training on a GPU: precision, and the search for a micro-batch that fits."""

import dataclasses
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch._C._distributed_c10d import HashStore

from train.config import Config
from train.optim.batch_split import split_batch
from train.optim.gpu_memory import choose_micro_batch
from train.optim.optimizer import allow_tf32
from train.options import Distributed
from train.ranks.distributed import World
from train.ranks.parallel import divide
from train.run import make_network

pytestmark = pytest.mark.gpu

CONFIG = Config(Path("unused"), size=32)


@pytest.mark.usefixtures("tf32_as_before")
def test_tf32_is_less_exact_than_float32_on_a_gpu() -> None:
    left, right = torch.randn(2, 256, 256, dtype=torch.float64, device="cuda")
    errors = {}
    for allow in (True, False):
        allow_tf32(allow)
        errors[allow] = (left.float() @ right.float() - left @ right).abs().max().item()
    assert errors[False] < errors[True] / 10


def test_the_trial_leaves_the_network_as_it_is_and_finds_what_fits() -> None:
    world = World(device=torch.device("cuda", 0))
    config = dataclasses.replace(CONFIG, model="resnet18", size=224, batch=1 << 16, micro_batch="auto")
    network = make_network(config, 10, world)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    generator = torch.cuda.get_rng_state()
    chosen = choose_micro_batch(network, config, world, torch.float16)
    assert 1 <= chosen < config.batch
    assert split_batch(config.batch, chosen, 1).images == config.batch
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.cuda.get_rng_state(), generator)


@pytest.mark.parametrize("model", ["cnn", "resnet18", "convnext_tiny"])
def test_a_network_divided_by_fsdp_steps_in_bfloat16_with_its_norms_in_float32(model: str) -> None:
    """One rank alone: NCCL's exchanges and CUDA's batch norm are there, other ranks are not."""
    device = torch.device("cuda", 0)
    dist.init_process_group("nccl", store=HashStore(), rank=0, world_size=1, device_id=device)
    try:
        config = dataclasses.replace(CONFIG, model=model, distributed=Distributed(parallel="fsdp"))
        network = divide(make_network(config, 10, World(device=device)), config, World(device=device), torch.bfloat16)
        images = torch.randn(8, 3, 64, 64, device=device, dtype=torch.float16)
        for _ in range(2):
            with torch.autocast("cuda", torch.bfloat16):
                loss = F.cross_entropy(network(images), torch.zeros(8, dtype=torch.int64, device=device))
            loss.backward()  # type: ignore[no-untyped-call]
        assert torch.isfinite(loss)
        assert {each.grad.dtype for each in network.parameters() if each.grad is not None} == {torch.float32}
    finally:
        dist.destroy_process_group()
