"""A finished data set, opened for reading: its manifest and, when first used, each split's index."""

from shards.dataset.joined import JoinedSplit, concatenate, mix
from shards.dataset.open import TRAINING, VALIDATION, Dataset, choose_split, open_dataset
from shards.dataset.split import Origin, Split

__all__ = [
    "TRAINING",
    "VALIDATION",
    "Dataset",
    "JoinedSplit",
    "Origin",
    "Split",
    "choose_split",
    "concatenate",
    "mix",
    "open_dataset",
]
