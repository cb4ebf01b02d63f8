"""Gradient checkpointing: same result, same gradients, same running statistics, fewer activations kept."""

import copy

import pytest
import torch
from torch import Tensor, nn

from model import build_model
from model.recompute import recompute_blocks


def networks(name: str, *, blur_pool: bool = False) -> tuple[nn.Module, nn.Module]:
    """The plain network and the forgetful one, with the same weights, in training mode."""
    torch.manual_seed(0)
    plain = build_model(name, 5, blur_pool=blur_pool)
    forgetful = build_model(name, 5, blur_pool=blur_pool, checkpoint=True)
    forgetful.load_state_dict(plain.state_dict())
    return plain.train(), forgetful.train()


def backward(network: nn.Module, images: Tensor) -> Tensor:
    """The logits, after a backward pass; dropout draws the same in each call."""
    torch.manual_seed(1)
    logits: Tensor = network(images)
    logits.square().mean().backward()  # type: ignore[no-untyped-call]
    return logits.detach()


@pytest.mark.parametrize(
    ("name", "blur_pool"),
    [("cnn", False), ("resnet18", True), ("resnet50", False), ("efficientnet_b0", False), ("convnext_tiny", True)],
)
def test_gradients_and_statistics_are_those_of_the_plain_network(name: str, blur_pool: bool) -> None:
    plain, forgetful = networks(name, blur_pool=blur_pool)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(backward(plain, images), backward(forgetful, images))
    for one, other in zip(plain.parameters(), forgetful.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)
    expected, found = plain.state_dict(), forgetful.state_dict()  # with batch norm's running statistics and counts
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def kept_bytes(network: nn.Module, images: Tensor) -> int:
    """Bytes of activations that a forward pass keeps for the backward pass."""
    kept: dict[int, int] = {}
    parameters = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        alive = network(images)
    del alive
    return sum(kept.values())


@pytest.mark.parametrize("name", ["cnn", "resnet50", "convnext_tiny"])
def test_less_is_kept_for_the_backward_pass(name: str) -> None:
    plain, forgetful = networks(name)
    images = torch.randn(2, 3, 64, 64)
    assert kept_bytes(forgetful, images) < kept_bytes(plain, images) / 2


def test_a_copy_computes_with_weights_of_its_own() -> None:
    _, network = networks("resnet18")
    other = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    backward(other, torch.randn(2, 3, 32, 32))
    assert all(parameter.grad is not None for parameter in other.parameters())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_statistics_come_back_where_the_backward_pass_fails() -> None:
    _, network = networks("resnet18")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    logits = network(torch.randn(2, 3, 32, 32))
    before = [norm.running_mean for norm in norms]
    handle = norms[-1].register_forward_hook(fail)
    with pytest.raises(ZeroDivisionError):
        logits.sum().backward()
    handle.remove()
    assert all(norm.running_mean is mean for norm, mean in zip(norms, before, strict=True))


def fail(*_: object) -> None:
    raise ZeroDivisionError


def test_it_compiles_with_the_same_gradients() -> None:
    plain, forgetful = networks("resnet18")
    images = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(forgetful, backend="aot_eager", fullgraph=True)
    for network in (plain, compiled):
        network(images).square().mean().backward()
    for one, other in zip(plain.parameters(), forgetful.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    expected, found = plain.state_dict(), forgetful.state_dict()
    for key in expected:
        torch.testing.assert_close(found[key], expected[key])


def test_a_network_without_known_blocks_has_nothing_to_forget() -> None:
    assert recompute_blocks(nn.Sequential(nn.Linear(2, 2))) == 0
