"""Training on a GPU: precision, and the search for a micro-batch that fits."""

import dataclasses
from pathlib import Path

import pytest
import torch

from train.config import Config
from train.optim.batch_split import split_batch
from train.optim.gpu_memory import choose_micro_batch
from train.optim.optimizer import allow_tf32
from train.ranks.distributed import World
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
