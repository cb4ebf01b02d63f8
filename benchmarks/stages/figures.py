"""The figures of one machine, data set and recipe, and the stages of a run that follow from them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shards.sampling.order import Order

DISK, DECODE, PYTHON, COPY, MODEL = "disk", "decode", "python", "copy", "model"

# Stages closer than this to the slowest are named with it: removing one of them alone would not help.
NEAR = 1.1
# A stage that is not faster than one of its parts by this factor is held back by the part.
HELD = 1.25
# A change is advised if it promises this much.
WORTH = 1.2
# The share of memory that the page cache can count on.
CACHE = 0.8


@dataclass(frozen=True)
class Figures:
    """What was measured on a machine, each part of a run by itself, in images/s; None: not there, or not measured."""

    model: float
    """Training, by one GPU; by all cores for model_runs "cpu"."""
    model_runs: Literal["gpu", "cpu", "given"]
    """Where `model` was measured; given: it is the user's figure for a GPU that may not be there."""
    gpus: int
    """GPUs to feed."""

    disk: float
    """Reading samples in the order of the recipe, page cache cold."""
    disk_in_sequence: float
    """Reading whole shards, page cache cold."""
    order: Order
    stored_bytes: int
    """Of all shards."""
    cache_bytes: int
    """Memory that is free for the page cache."""
    image_bytes: float
    """Mean size of an encoded image."""
    raw_bytes: float
    """Mean size of a decoded image with the shorter side that the recipe needs."""
    encoding: Literal["jpeg", "raw"]
    short_side: int | None
    """The shards' shorter side; None: original sizes."""
    resize: int
    """The shorter side that the recipe needs."""

    decode: float
    """The loader on the CPU with `threads`, page cache warm: decoding, crop and resize, and normalisation where no GPU
    does that."""
    decode_default: float | None
    """The same with the default number of threads, where `threads` is another."""
    per_core: float
    """Images that the loader makes per second of one core."""
    cores: int
    threads: int
    default_threads: int

    python: float
    """The loader of one process with a decoder that returns at once, page cache warm."""
    batch_size: int

    copy: float | None = None
    """Pixels (uint8) from main memory to one GPU over PCIe, for batches that the CPU decodes."""
    gpu_decode: float | None = None
    """The loader with decoding on one GPU, the default where there is a GPU."""
    together: float | None = None
    """Loader and model at work together, one process."""
    waited: float | None = None
    """The share of that time in which the model waited for data."""

    @property
    def needed(self) -> float:
        """Images/s that all GPUs together can train."""
        return self.model * self.gpus

    @property
    def cached(self) -> bool:
        """Whether later epochs find the shards in the page cache: they fit, and reading them again is faster."""
        return self.stored_bytes <= CACHE * self.cache_bytes and self.python > HELD * self.disk

    @property
    def cores_needed(self) -> int:
        """Cores that decode as fast as the GPUs train, and one more for the process of each GPU."""
        return math.ceil(self.needed / self.per_core) + self.gpus

    @property
    def shares_the_gpu(self) -> bool:
        """Whether the model is slower beside the loader, which decodes on the model's GPU."""
        return self.gpu_decode is not None and self.together is not None and NEAR * self.together < self.model

    @property
    def feedable(self) -> int:
        """GPUs of this speed that the machine could feed, by what they share: disk and cores.

        Each takes a core for its process; where the CPU decodes, cores for its images too.
        """
        disk = math.inf if self.cached else self.disk / self.model
        if self.gpu_decode is not None:
            return int(min(disk, self.cores))
        # Rounding must not take a quotient just below a whole number.
        cores = self.cores / (self.model / self.per_core + 1)
        return int(min(disk, cores, self.decode_rate / self.model) + 1e-9)

    @property
    def decode_rate(self) -> float:
        """Images/s of the decoding stage for all GPUs."""
        return next(stage.images_per_s for stage in stages_of(self) if stage.name == DECODE)


@dataclass(frozen=True)
class Stage:
    """One part of a run, and the images/s that it could give to all GPUs together."""

    name: str
    images_per_s: float
    words: str


def stages_of(figures: Figures) -> Iterator[Stage]:
    """The stages of a run, each with the rate at which it would work if the others cost nothing."""
    gpus = figures.gpus
    if not figures.cached:
        yield Stage(DISK, figures.disk, "reading from disk, page cache cold")
    if figures.gpu_decode is not None:
        yield Stage(DECODE, figures.gpu_decode * gpus, f"decoding, {count(gpus, 'GPU')}")
    else:
        work = "decoding on the CPU" if figures.encoding == "jpeg" else "cropping raw pixels on the CPU"
        rate, by = figures.decode, count(figures.threads, "thread")
        if gpus > 1:
            # One process was measured, whose Python may have held it back; there will be a process per GPU.
            rate, by = figures.per_core * figures.cores, f"{count(figures.cores, 'core')}, by processor time"
        yield Stage(DECODE, rate, f"{work}, {by}")
    processes = "" if gpus == 1 else f", {gpus} processes"
    yield Stage(PYTHON, figures.python * gpus, f"the loader's Python, reading from memory{processes}")
    if figures.copy is not None and figures.gpu_decode is None:
        yield Stage(COPY, figures.copy * gpus, "copying batches to the GPU")
    yield Stage(MODEL, figures.needed, f"training, {trainers(figures)}")


def trainers(figures: Figures) -> str:
    """Who trains, in words."""
    if figures.model_runs == "cpu":
        return "the model on the CPU"
    return f"{count(figures.gpus, 'GPU')}{' of the speed given' if figures.model_runs == 'given' else ''}"


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where that is right."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
