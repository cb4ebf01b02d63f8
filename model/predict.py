"""python -m model predict MODEL.pth IMAGE...: the five best classes of each image, with their probabilities.

Runs on the CPU. With --json, or without a terminal, the last line is JSON.
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn

from model.images import open_image, to_tensor
from model.options import Predict
from model.weights import About, load_model
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError
from shards.common.terminal import wrapped

BEST = 5


@dataclass(frozen=True)
class Guess:
    """A class and its probability, from 0 to 1."""

    name: str
    probability: float


def run(options: Predict) -> None:
    """Prints the best classes of each image, and on stderr what the file says of the model and its images.

    A bad image among several is a line on stderr, and the others are predicted. Raises as `load_model` and, after the
    last image, ShardfeedError where one was bad.
    """
    network, about = load_model(options.model)
    print(wrapped(f"{options.model}: {about}", sys.stderr), file=sys.stderr)
    results: list[dict[str, Any]] = []
    bad = 0
    for path in options.images:
        try:
            image = open_image(path)
        except ShardfeedError as error:
            if len(options.images) == 1:
                raise
            print(wrapped(str(error), sys.stderr), file=sys.stderr)
            results.append({"image": str(path), "error": str(error)})
            bad += 1
            continue
        guesses = predict(network, about, image)
        print(path)
        for guess in guesses:
            print(f"  {_percent(guess.probability):>6}  {guess.name}")
        results.append({"image": str(path), "classes": [vars(guess) for guess in guesses]})
    show_result(results)
    if bad:
        raise ShardfeedError(f"{bad} of {len(options.images)} images could not be read; they are named above")


def _percent(probability: float) -> str:
    """A probability for people: what is almost none is not 0.0%."""
    return "<0.1%" if probability < 0.001 else f"{probability:.1%}"


@torch.inference_mode()
def predict(network: nn.Module, about: About, image: Image.Image) -> list[Guess]:
    """The five most likely classes of an RGB image, the likeliest first; all of them where there are fewer."""
    batch = to_tensor(image, about).unsqueeze(0)
    logits = (network(batch) + network(batch.flip(3))) / 2 if about.flip_tta else network(batch)
    probabilities = logits[0].softmax(0)
    best = probabilities.topk(min(BEST, len(about.class_names)))
    return [
        Guess(about.class_names[label], probability)
        for probability, label in zip(best.values.tolist(), best.indices.tolist(), strict=True)
    ]
