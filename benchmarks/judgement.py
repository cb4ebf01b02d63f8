"""What holds a training run back: a pure function of measured figures, in plain words.

Every stage of a run - disk, decoding, Python, copy, model - has a rate at which it could work if the others cost
nothing. The run is as fast as the slowest of them. `judge` names it, says by how much, and what to change.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from shards.order import Order

DISK, DECODE, PYTHON, COPY, MODEL = "disk", "decode", "python", "copy", "model"

# Stages closer than this to the slowest are named with it: removing one of them alone would not help.
NEAR = 1.1
# Reading is part of what the other loader stages measure, and the Python thread of decoding: a stage that is not
# faster than the part of it by more than this is held back by the part.
HELD = 1.25
CONTAINED = {PYTHON: (DISK,), DECODE: (DISK, PYTHON)}
# What is expected to help must promise this much.
WORTH = 1.2
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


@dataclass(frozen=True)
class Stage:
    """One part of a run, and the images/s that it could give to all GPUs together."""

    name: str
    images_per_s: float
    words: str


@dataclass(frozen=True)
class Verdict:
    """bottleneck: the name of the slowest stage. factor: how many times as many images the next need could take:
    for the model, how many times its images the slowest stage before it gives; otherwise the model's over the
    bottleneck's. cores: that a machine with so many such GPUs needs. stages: from the slowest.
    """

    bottleneck: str
    factor: float
    cores: int
    stages: tuple[Stage, ...]
    summary: tuple[str, ...]
    advice: tuple[str, ...]


def judge(figures: Figures) -> Verdict:
    """The slowest stage, by how much, and what to change. Raises ValueError for figures that are not above 0."""
    _check(figures)
    stages = _ordered(figures)
    slowest, need = stages[0], _need(figures)
    feeding = min(stage.images_per_s for stage in stages if stage.name != MODEL)
    factor = feeding / need if slowest.name == MODEL else need / slowest.images_per_s
    cores = cores_for(figures)
    return Verdict(
        bottleneck=slowest.name,
        factor=factor,
        cores=cores,
        stages=stages,
        summary=tuple(_summary(figures, stages, feeding, cores)),
        advice=tuple(_ADVICE[slowest.name](figures)),
    )


def _ordered(figures: Figures) -> tuple[Stage, ...]:
    """The stages from the slowest; one that is held back by a part of it comes after the part."""
    stages = sorted(_stages(figures), key=lambda stage: stage.images_per_s)
    rates = {stage.name: stage for stage in stages}

    def origin(stage: Stage) -> Stage:
        for part in (rates[name] for name in CONTAINED.get(stage.name, ())):
            if part.images_per_s <= HELD * stage.images_per_s:
                return origin(part)
        return stage

    first = origin(stages[0])
    return (first, *(stage for stage in stages if stage is not first))


def cores_for(figures: Figures) -> int:
    """Cores that decode as fast as the GPUs train, and one more for the process of each GPU."""
    return math.ceil(_need(figures) / figures.per_core) + figures.gpus


def _check(figures: Figures) -> None:
    counts = ("gpus", "cores", "threads", "default_threads", "batch_size", "stored_bytes", "resize")
    rates = ("model", "disk", "disk_in_sequence", "disk_cached", "decode", "per_core", "python", "image_bytes")
    optional = ("decode_default", "bare_decode", "copy", "gpu_decode", "together")
    for name in (*counts, *rates, *optional):
        value = getattr(figures, name)
        if value is None and name in optional:
            continue
        if not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} must be above 0, not {value}")


def _need(figures: Figures) -> float:
    """Images/s that all GPUs together can train."""
    return figures.model * figures.gpus


def _stages(figures: Figures) -> Iterator[Stage]:
    from_disk = "memory (the page cache holds the shards)" if figures.cached else "disk, page cache cold"
    disk = figures.disk_cached if figures.cached else figures.disk
    yield Stage(DISK, disk, f"reading, from {from_disk}")
    if figures.gpu_decode is None:
        work = "decoding on the CPU" if figures.encoding == "jpeg" else "cropping raw pixels on the CPU"
        rate, how = figures.decode, _count(figures.threads, "thread")
        if figures.gpus > 1 and figures.python <= HELD * rate:
            # One process was measured, and its Python thread held it back; there will be a process a GPU.
            rate, how = figures.per_core * figures.cores, f"{_count(figures.cores, 'core')}, by processor time"
        yield Stage(DECODE, rate, f"{work}, {how}")
    else:
        yield Stage(DECODE, figures.gpu_decode * figures.gpus, f"decoding, {_count(figures.gpus, 'GPU')}")
    processes = "" if figures.gpus == 1 else f", {figures.gpus} processes"
    yield Stage(PYTHON, figures.python * figures.gpus, f"the loader's Python{processes}")
    if figures.copy is not None and figures.gpu_decode is None:
        yield Stage(COPY, figures.copy * figures.gpus, "copying batches to the GPU")
    yield Stage(MODEL, _need(figures), f"training, {_trainers(figures)}")


def _decoding(figures: Figures) -> float:
    return next(stage.images_per_s for stage in _stages(figures) if stage.name == DECODE)


def _trainers(figures: Figures) -> str:
    if figures.model_runs == "cpu":
        return "the model on the CPU"
    given = " of the speed given" if figures.model_runs == "given" else ""
    return f"{_count(figures.gpus, 'GPU')}{given}"


def _summary(figures: Figures, stages: tuple[Stage, ...], feeding: float, cores: int) -> Iterator[str]:
    slowest, need = stages[0], _need(figures)
    trainers = _trainers(figures)
    if slowest.name == MODEL:
        who = "The model on the CPU" if figures.model_runs == "cpu" else "The GPU" if figures.gpus == 1 else "The GPUs"
        yield (
            f"{who} {'is' if who != 'The GPUs' else 'are'} the bottleneck: training takes {need:,.0f} images/s, and "
            f"everything before it could give {feeding:,.0f}, {feeding / need:.1f} times as many."
        )
    else:
        yield (
            f"{_name(figures, slowest)} is the bottleneck: {slowest.images_per_s:,.0f} images/s, where {trainers} "
            f"could train {need:,.0f}, {need / slowest.images_per_s:.1f} times as many. "
            f"At best {slowest.images_per_s / need:.0%} of that speed is reached."
        )
    near = [
        stage
        for stage in stages[1:]
        if stage.images_per_s < NEAR * slowest.images_per_s and slowest.name not in CONTAINED.get(stage.name, ())
    ]
    if near:
        yield (
            f"Within {NEAR - 1:.0%} of it: "
            + ", ".join(f"{_name(figures, stage)[0].lower()}{_name(figures, stage)[1:]}" for stage in near)
            + ". Changing one of them alone helps little."
        )
    if figures.model_runs == "cpu":
        yield "The model computes on the cores that decode: together they are slower than each by itself."
    elif slowest.name == DECODE or figures.gpus > 1 or figures.model_runs == "given":
        yield (
            f"A machine with {_count(figures.gpus, 'such GPU')} needs {cores} cores if the CPU does that work: "
            f"{need:,.0f} images/s at {figures.per_core:,.0f} a core, and a core for the process of each GPU. "
            f"This one has {figures.cores}."
        )
    if figures.cached and figures.disk < WORTH * need and slowest.name != DISK:
        yield (
            f"The first epoch reads from the disk, at {figures.disk:,.0f} images/s in the order {figures.order}; "
            "later ones find the shards in memory."
        )
    if slowest.name == MODEL and _shares_the_gpu(figures):
        yield "Together they are slower than the model alone: the loader decodes on the GPU that trains."
    if figures.together is not None:
        waited = "" if figures.waited is None else f", waiting for data {figures.waited:.0%} of the time"
        yield f"Loader and model together, as a check: {figures.together:,.0f} images/s{waited}."


_NAMES = {
    DISK: "The disk",
    DECODE: "Decoding",
    PYTHON: "The loader's Python thread",
    COPY: "The copy to the GPU",
    MODEL: "The model",
}


def _name(figures: Figures, stage: Stage) -> str:
    """The stage at the beginning of a sentence."""
    if stage.name == DECODE and figures.encoding == "raw":
        return "Cropping raw pixels"
    return _NAMES[stage.name]


def _disk_advice(figures: Figures) -> Iterator[str]:
    need = _need(figures)
    yield f"Training needs {need * figures.image_bytes / 1e6:,.0f} MB/s of these shards."
    if figures.order != "blocks" and figures.disk_in_sequence > WORTH * figures.disk:
        enough = "enough" if figures.disk_in_sequence >= need else "still less than the model takes"
        yield (
            f"--order blocks: shards are read in sequence, which this disk does at {figures.disk_in_sequence:,.0f} "
            f"images/s (measured), {enough}."
        )
    if figures.cached:
        yield (
            "Loader(in_memory=True): the shards fit into memory; they are read once, in sequence, and shared by the "
            "processes of the machine."
        )
    else:
        yield (
            f"More memory, or a faster disk: the shards have {figures.stored_bytes / 1e9:,.0f} GB, and "
            f"{figures.cache_bytes / 1e9:,.0f} GB of memory are free to hold them."
        )
    yield from _smaller_shards(figures)
    if figures.encoding == "raw":
        yield "JPEG shards (preprocess without --encoding raw) are about ten times smaller, for more work of the CPU."


def _decode_advice(figures: Figures) -> Iterator[str]:
    need = _need(figures)
    on_gpu = figures.gpu_decode is not None
    if on_gpu and figures.decode > WORTH * _decoding(figures):
        yield f"Loader(decode='cpu'): the CPU decodes {figures.decode:,.0f} images/s (measured), more than the GPU."
    if not on_gpu and figures.threads < figures.default_threads:
        most = figures.decode_default
        rate = "" if most is None else f", which make {most:,.0f} images/s (measured)"
        yield (
            f"--threads {figures.default_threads}: {_count(figures.threads, 'decoding thread')} "
            f"{'leaves' if figures.threads == 1 else 'leave'} cores idle; the default for these "
            f"{_count(figures.cores, 'core')} is {figures.default_threads}{rate}."
        )
    yield from _smaller_shards(figures)
    if not on_gpu and figures.model_runs == "given" and figures.encoding == "jpeg":
        yield "--device gpu: the GPU decodes too; how fast has to be measured on it."
    if figures.encoding == "jpeg":
        grown = figures.raw_bytes / figures.image_bytes
        yield (
            f"--encoding raw (python -m preprocess): nothing is left to decode; the shards take {grown:.1f} times the "
            f"room, {figures.stored_bytes * grown / 1e9:,.1f} GB, and {need * figures.raw_bytes / 1e6:,.0f} MB/s from "
            "disk or memory."
        )
    if figures.cores < cores_for(figures) and figures.model_runs != "cpu":
        yield f"More cores: {cores_for(figures)} in place of {figures.cores}, as computed above."


def _smaller_shards(figures: Figures) -> Iterator[str]:
    if figures.short_side is None:
        stored = "at their original sizes"
    elif figures.short_side > figures.resize:
        stored = f"with a shorter side of {figures.short_side}"
    else:
        return
    yield (
        f"--short-side {figures.resize} (python -m preprocess): the images are stored {stored}, and the recipe needs "
        f"{figures.resize} pixels: smaller images are read and decoded faster."
    )


def _python_advice(figures: Figures) -> Iterator[str]:
    yield (
        f"--micro-batch: the Python thread's work is by the batch, and batches have {figures.batch_size} images; "
        "larger ones cost less an image."
    )
    if figures.gpus == 1:
        yield "More processes: a rank has a Python thread of its own."


def _copy_advice(figures: Figures) -> Iterator[str]:
    yield "Loader(decode='region') or 'hardware', on the GPU: encoded bytes cross the bus in place of pixels."
    yield "Look at the GPU's slot: a link of fewer lanes, or of an older PCIe, than the GPU has."


def _model_advice(figures: Figures) -> Iterator[str]:
    if _shares_the_gpu(figures):
        yield (
            "Loader(decode='cpu'): decoding takes time of the GPU from the model; the CPU decodes "
            f"{figures.decode:,.0f} images/s (measured)."
        )
    else:
        yield "Nothing in the loader: a faster one would not train faster."
    if figures.model_runs == "cpu":
        yield "A GPU. --gpu-images-per-s X says whether this machine could feed one that trains X images/s."
        return
    if feedable(figures) > figures.gpus:
        yield f"This machine could feed {feedable(figures)} such GPUs."
    yield "In the model: a lower --precision, larger micro-batches, smaller images."


def feedable(figures: Figures) -> int:
    """GPUs of this speed that the machine could feed, by what does not grow with their number: disk and cores.

    Each takes a core for its process; where the CPU decodes, cores for its images too.
    """
    disk = (figures.disk_cached if figures.cached else figures.disk) / figures.model
    if figures.gpu_decode is not None:
        return int(min(disk, figures.cores))
    # A little more than the quotient, which may come out just below a whole number.
    cores = figures.cores / (figures.model / figures.per_core + 1)
    return int(min(disk, cores, _decoding(figures) / figures.model) + 1e-9)


def _shares_the_gpu(figures: Figures) -> bool:
    """Whether the model is slower with the loader beside it, which decodes on its GPU."""
    if figures.gpu_decode is None or figures.together is None:
        return False
    return NEAR * figures.together < figures.model


_ADVICE = {
    DISK: _disk_advice,
    DECODE: _decode_advice,
    PYTHON: _python_advice,
    COPY: _copy_advice,
    MODEL: _model_advice,
}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
