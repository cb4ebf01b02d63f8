"""python -m model predict MODEL.pth IMAGE...: the five best classes of each image, with their probabilities.

Runs on the CPU. With --json, or without a terminal, the last line is JSON.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from PIL import Image
from torch import nn

from model.images import open_image, to_tensor
from model.weights import About, load_model
from shards.common.cli import show_result
from shards.common.errors import UsageError

BEST = 5


@dataclass(frozen=True)
class Options:
    """Prints the five best classes of each image by a trained model, with their probabilities."""

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL.pth")]
    """The .pth file that `python -m train` wrote."""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE...")]
    """Image files: JPEG, PNG or any other format that Pillow reads."""

    def __post_init__(self) -> None:
        if not self.images:
            raise UsageError("no images to predict: give one or more image files after the model")


@dataclass(frozen=True)
class Guess:
    """A class and its probability, from 0 to 1."""

    name: str
    probability: float


def run(options: Options) -> None:
    """Prints the best classes of each image. Raises as `load_model`, and at the first bad image as `open_image`."""
    network, about = load_model(options.model)
    results = []
    for path in options.images:
        guesses = predict(network, about, open_image(path))
        print(path)
        for guess in guesses:
            print(f"  {guess.probability:>6.1%}  {guess.name}")
        results.append({"image": str(path), "classes": [vars(guess) for guess in guesses]})
    show_result(results)


@torch.inference_mode()
def predict(network: nn.Module, about: About, image: Image.Image) -> list[Guess]:
    """The five most likely classes of an RGB image, the likeliest first; all of them where there are fewer."""
    probabilities = network(to_tensor(image, about).unsqueeze(0))[0].softmax(0)
    best = probabilities.topk(min(BEST, len(about.class_names)))
    return [
        Guess(about.class_names[label], probability)
        for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
