"""What holds a training run back: a pure function of measured figures, in plain words.

Every stage of a run - disk, decoding, Python, copy, model - has a rate at which it could work if the others cost
nothing. The run is as fast as the slowest of them. `judge` names it, says by how much, and what to change.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.ladder.advice import WORTH, advice
from benchmarks.ladder.figures import (
    CONTAINED,
    COPY,
    DECODE,
    DISK,
    HELD,
    MODEL,
    NEAR,
    PYTHON,
    Figures,
    Stage,
    check,
    cores_for,
    count,
    needed,
    shares_the_gpu,
    stages_of,
    trainers_of,
)


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
    check(figures)
    stages = _ordered(figures)
    slowest, need = stages[0], needed(figures)
    feeding = min(stage.images_per_s for stage in stages if stage.name != MODEL)
    factor = feeding / need if slowest.name == MODEL else need / slowest.images_per_s
    cores = cores_for(figures)
    return Verdict(
        bottleneck=slowest.name,
        factor=factor,
        cores=cores,
        stages=stages,
        summary=tuple(_summary(figures, stages, feeding, cores)),
        advice=advice(slowest.name, figures),
    )


def _ordered(figures: Figures) -> tuple[Stage, ...]:
    """The stages from the slowest; one that is held back by a part of it comes after the part."""
    stages = sorted(stages_of(figures), key=lambda stage: stage.images_per_s)
    rates = {stage.name: stage for stage in stages}

    def origin(stage: Stage) -> Stage:
        for part in (rates[name] for name in CONTAINED.get(stage.name, ())):
            if part.images_per_s <= HELD * stage.images_per_s:
                return origin(part)
        return stage

    first = origin(stages[0])
    return (first, *(stage for stage in stages if stage is not first))


def _summary(figures: Figures, stages: tuple[Stage, ...], feeding: float, cores: int) -> Iterator[str]:
    slowest, need = stages[0], needed(figures)
    trainers = trainers_of(figures)
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
            f"A machine with {count(figures.gpus, 'such GPU')} needs {cores} cores if the CPU does that work: "
            f"{need:,.0f} images/s at {figures.per_core:,.0f} a core, and a core for the process of each GPU. "
            f"This one has {figures.cores}."
        )
    if figures.cached and figures.disk < WORTH * need and slowest.name != DISK:
        yield (
            f"The first epoch reads from the disk, at {figures.disk:,.0f} images/s in the order {figures.order}; "
            "later ones find the shards in memory."
        )
    if slowest.name == MODEL and shares_the_gpu(figures):
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
