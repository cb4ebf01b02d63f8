"""Weights with the names and places of published ones, but random: nothing can be downloaded in a test."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models


def random_resnet18() -> models.ResNet:
    """torchvision's network of 1,000 classes, with running statistics that are not those of a new one."""
    torch.manual_seed(1)
    network: models.ResNet = models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    network.eval()
    return network


def in_hub_cache(network: nn.Module, directory: Path, patch: pytest.MonkeyPatch) -> Path:
    """Puts `network` where torch's hub keeps torchvision's published ResNet-18; returns that file."""
    patch.setenv("TORCH_HOME", str(directory))
    path = directory / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(network.state_dict(), path)
    return path
