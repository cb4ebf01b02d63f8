"""What holds a training run back: a pure function of measured figures, in plain words.

Every stage of a run - disk, decoding, the loader's Python, copy, model - has a rate at which it would work if the
others cost nothing. The run is as fast as the slowest of them. `judge` names it, says by how much, and what to change.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.stages.advice import advice
from benchmarks.stages.figures import (
    COPY,
    DECODE,
    DISK,
    HELD,
    MODEL,
    NEAR,
    PYTHON,
    WORTH,
    Figures,
    Stage,
    count,
    stages_of,
    trainers,
)

# Decoding is measured by the whole loader, which includes its Python, and both include reading, which comes from the
# disk. A stage that is not faster than such a part by the factor HELD is held back by the part.
PARTS = {PYTHON: (DISK,), DECODE: (DISK, PYTHON)}


@dataclass(frozen=True)
class Verdict:
    """Which stage holds the run back.

    bottleneck: the name of the slowest stage.
    factor: if the model is the slowest, the images/s of the slowest stage before it, divided by the model's; otherwise
        the model's divided by the bottleneck's.
    cores: that a machine with so many such GPUs needs.
    stages: from the slowest.
    """

    bottleneck: str
    factor: float
    cores: int
    stages: tuple[Stage, ...]
    summary: tuple[str, ...]
    advice: tuple[str, ...]


def judge(figures: Figures) -> Verdict:
    """The slowest stage, by how much, and what to change. Raises ValueError for figures that are not above 0."""
    for name, value in vars(figures).items():
        if isinstance(value, (int, float)) and name != "waited" and not 0 < value < float("inf"):
            raise ValueError(f"{name} must be above 0, not {value}")
    stages = _from_the_slowest(figures)
    slowest, needed = stages[0], figures.needed
    feeding = min(stage.images_per_s for stage in stages if stage.name != MODEL)
    return Verdict(
        bottleneck=slowest.name,
        factor=feeding / needed if slowest.name == MODEL else needed / slowest.images_per_s,
        cores=figures.cores_needed,
        stages=stages,
        summary=tuple(_summary(figures, stages, feeding)),
        advice=tuple(advice(slowest.name, figures)),
    )


def _from_the_slowest(figures: Figures) -> tuple[Stage, ...]:
    """The stages from the slowest; in place of the slowest, the part of it that holds it back comes first."""
    stages = sorted(stages_of(figures), key=lambda stage: stage.images_per_s)
    by_name = {stage.name: stage for stage in stages}

    def cause(stage: Stage) -> Stage:
        for part in (by_name[name] for name in PARTS.get(stage.name, ()) if name in by_name):
            if part.images_per_s <= HELD * stage.images_per_s:
                return cause(part)
        return stage

    first = cause(stages[0])
    return (first, *(stage for stage in stages if stage is not first))


def _summary(figures: Figures, stages: tuple[Stage, ...], feeding: float) -> Iterator[str]:
    slowest, needed = stages[0], figures.needed
    if slowest.name == MODEL:
        models = {"cpu": "The model on the CPU is"}.get(
            figures.model_runs, "The GPU is" if figures.gpus == 1 else "The GPUs are"
        )
        yield (
            f"{models} the bottleneck: training takes {needed:,.0f} images/s, and everything before it could give "
            f"{feeding:,.0f}, {feeding / needed:.1f} times as many."
        )
    else:
        yield (
            f"{_subject(figures, slowest)} is the bottleneck: {slowest.images_per_s:,.0f} images/s, where "
            f"{trainers(figures)} could train {needed:,.0f}, {needed / slowest.images_per_s:.1f} times as many. "
            f"At best {slowest.images_per_s / needed:.0%} of that speed is reached."
        )
    near = [
        _subject(figures, stage)
        for stage in stages[1:]
        if stage.images_per_s < NEAR * slowest.images_per_s and slowest.name not in PARTS.get(stage.name, ())
    ]
    if near:
        names = ", ".join(f"{name[0].lower()}{name[1:]}" for name in near)
        yield f"Within {NEAR - 1:.0%} of it: {names}. Changing one of them alone helps little."
    if figures.model_runs == "cpu":
        yield "The model computes on the cores that decode: together they are slower than each by itself."
    elif slowest.name == DECODE or figures.gpus > 1 or figures.model_runs == "given":
        yield (
            f"A machine with {count(figures.gpus, 'such GPU')} needs {figures.cores_needed} cores if the CPU decodes: "
            f"{needed:,.0f} images/s at {figures.per_core:,.0f} a core, and a core for the process of each GPU. "
            f"This one has {figures.cores}."
        )
    if figures.cached and figures.disk < WORTH * needed:
        yield (
            f"The first epoch reads from the disk, at {figures.disk:,.0f} images/s in the order {figures.order}; "
            "later epochs find the shards in memory."
        )
    if slowest.name == MODEL and figures.shares_the_gpu:
        yield "Together they are slower than the model alone: the loader decodes on the GPU that trains."
    if figures.together is not None:
        waited = "" if figures.waited is None else f", waiting for data {figures.waited:.0%} of the time"
        yield f"Loader and model together, as a check: {figures.together:,.0f} images/s{waited}."


def _subject(figures: Figures, stage: Stage) -> str:
    """The stage at the beginning of a sentence."""
    if stage.name == DECODE and figures.encoding == "raw":
        return "Cropping raw pixels"
    return {
        DISK: "The disk",
        DECODE: "Decoding",
        PYTHON: "The loader's Python thread",
        COPY: "The copy to the GPU",
        MODEL: "The model",
    }[stage.name]
