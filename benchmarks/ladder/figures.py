"""What was measured on a machine, and what follows from it: the stages of a run, and how many GPUs can be fed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shards.sampling.order import Order

DISK, DECODE, PYTHON, COPY, MODEL = "disk", "decode", "python", "copy", "model"

# Stages closer than this to the slowest are named with it: removing one of them alone would not help.
NEAR = 1.1
# Reading is part of what the other loader stages measure, and the Python thread of decoding: a stage that is not
# faster than the part of it by more than this is held back by the part.
HELD = 1.25
CONTAINED = {PYTHON: (DISK,), DECODE: (DISK, PYTHON)}
# The share of memory that the page cache can count on.
CACHE = 0.8


@dataclass(frozen=True)
class Figures:
    """What was measured on a machine, each part of a run by itself, in images/s; None: not there, or not measured."""

    model: float
    """Training, by one GPU; by all cores for model_runs "cpu"."""
    model_runs: Literal["gpu", "cpu", "given"]
    """Where `model` was measured; given: it is the user's figure, of a GPU that may not be there."""
    gpus: int
    """GPUs to feed."""

    disk: float
    """Reading samples in the order of the recipe, page cache cold."""
    disk_in_sequence: float
    """Reading whole shards, page cache cold."""
    disk_cached: float
    """Reading samples, page cache warm."""
    order: Order
    stored_bytes: int
    """Of all shards."""
    cache_bytes: int
    """Memory that is free for the page cache."""
    image_bytes: float
    """Of an encoded image, in the mean."""
    raw_bytes: float
    """Of a decoded image of the shorter side that the recipe needs, in the mean."""
    encoding: Literal["jpeg", "raw"]
    short_side: int | None
    """That the shards were made with; None: original sizes."""
    resize: int
    """The shorter side that the recipe needs."""

    decode: float
    """All that the CPU does to a batch, page cache warm, with `threads`: decoding, crop and resize, and normalisation
    where no GPU does that."""
    decode_default: float | None
    """The same with the default number of threads, where `threads` is another."""
    per_core: float
    """Images that the loader makes of a second of one core."""
    bare_decode: float | None
    """libjpeg-turbo alone, a process on each core."""
    cores: int
    threads: int
    default_threads: int

    python: float
    """The loader of one process with a decoder that returns at once."""
    batch_size: int

    copy: float | None = None
    """Pixels (uint8) from main memory to one GPU over PCIe, for batches that the CPU decodes."""
    gpu_decode: float | None = None
    """The loader with decoding on one GPU, which is what runs on GPUs do unless told otherwise."""
    together: float | None = None
    """Loader and model at work together, one process."""
    waited: float | None = None
    """The share of that time in which the model waited for data."""

    @property
    def cached(self) -> bool:
        """Whether the page cache can hold the shards, so that the disk counts in the first epoch alone."""
        return self.stored_bytes <= CACHE * self.cache_bytes


def check(figures: Figures) -> None:
    """Raises ValueError for figures that are not above 0."""
    counts = ("gpus", "cores", "threads", "default_threads", "batch_size", "stored_bytes", "resize")
    rates = ("model", "disk", "disk_in_sequence", "disk_cached", "decode", "per_core", "python", "image_bytes")
    optional = ("decode_default", "bare_decode", "copy", "gpu_decode", "together")
    for name in (*counts, *rates, *optional):
        value = getattr(figures, name)
        if value is None and name in optional:
            continue
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True)
class Stage:
    """One part of a run, and the images/s that it could give to all GPUs together."""

    name: str
    images_per_s: float
    words: str


def needed(figures: Figures) -> float:
    """Images/s that all GPUs together can train."""
    return figures.model * figures.gpus


def cores_for(figures: Figures) -> int:
    """Cores that decode as fast as the GPUs train, and one more for the process of each GPU."""
    return math.ceil(needed(figures) / figures.per_core) + figures.gpus


def stages_of(figures: Figures) -> Iterator[Stage]:
    from_disk = "memory (the page cache holds the shards)" if figures.cached else "disk, page cache cold"
    disk = figures.disk_cached if figures.cached else figures.disk
    yield Stage(DISK, disk, f"reading, from {from_disk}")
    if figures.gpu_decode is None:
        work = "decoding on the CPU" if figures.encoding == "jpeg" else "cropping raw pixels on the CPU"
        rate, how = figures.decode, count(figures.threads, "thread")
        if figures.gpus > 1 and figures.python <= HELD * rate:
            # One process was measured, and its Python thread held it back; there will be a process a GPU.
            rate, how = figures.per_core * figures.cores, f"{count(figures.cores, 'core')}, by processor time"
        yield Stage(DECODE, rate, f"{work}, {how}")
    else:
        yield Stage(DECODE, figures.gpu_decode * figures.gpus, f"decoding, {count(figures.gpus, 'GPU')}")
    processes = "" if figures.gpus == 1 else f", {figures.gpus} processes"
    yield Stage(PYTHON, figures.python * figures.gpus, f"the loader's Python{processes}")
    if figures.copy is not None and figures.gpu_decode is None:
        yield Stage(COPY, figures.copy * figures.gpus, "copying batches to the GPU")
    yield Stage(MODEL, needed(figures), f"training, {trainers_of(figures)}")


def decoding(figures: Figures) -> float:
    return next(stage.images_per_s for stage in stages_of(figures) if stage.name == DECODE)


def trainers_of(figures: Figures) -> str:
    if figures.model_runs == "cpu":
        return "the model on the CPU"
    given = " of the speed given" if figures.model_runs == "given" else ""
    return f"{count(figures.gpus, 'GPU')}{given}"


def feedable(figures: Figures) -> int:
    """GPUs of this speed that the machine could feed, by what does not grow with their number: disk and cores.

    Each takes a core for its process; where the CPU decodes, cores for its images too.
    """
    disk = (figures.disk_cached if figures.cached else figures.disk) / figures.model
    if figures.gpu_decode is not None:
        return int(min(disk, figures.cores))
    # A little more than the quotient, which may come out just below a whole number.
    cores = figures.cores / (figures.model / figures.per_core + 1)
    return int(min(disk, cores, decoding(figures) / figures.model) + 1e-9)


def shares_the_gpu(figures: Figures) -> bool:
    """Whether the model is slower with the loader beside it, which decodes on its GPU."""
    if figures.gpu_decode is None or figures.together is None:
        return False
    return NEAR * figures.together < figures.model


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
