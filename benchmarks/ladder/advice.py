"""What to change where a stage holds a run back, in sentences with the figures behind them."""

from collections.abc import Iterator

from benchmarks.ladder.figures import (
    COPY,
    DECODE,
    DISK,
    MODEL,
    PYTHON,
    Figures,
    cores_for,
    count,
    decoding,
    feedable,
    needed,
    shares_the_gpu,
)

# What is expected to help must promise this much.
WORTH = 1.2


def advice(stage: str, figures: Figures) -> tuple[str, ...]:
    """What helps where the stage of that name is the slowest, the best first."""
    return tuple(_ADVICE[stage](figures))


def _disk_advice(figures: Figures) -> Iterator[str]:
    need = needed(figures)
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
    need = needed(figures)
    on_gpu = figures.gpu_decode is not None
    if on_gpu and figures.decode > WORTH * decoding(figures):
        yield f"Loader(decode='cpu'): the CPU decodes {figures.decode:,.0f} images/s (measured), more than the GPU."
    if not on_gpu and figures.threads < figures.default_threads:
        most = figures.decode_default
        rate = "" if most is None else f", which make {most:,.0f} images/s (measured)"
        yield (
            f"--threads {figures.default_threads}: {count(figures.threads, 'decoding thread')} "
            f"{'leaves' if figures.threads == 1 else 'leave'} cores idle; the default for these "
            f"{count(figures.cores, 'core')} is {figures.default_threads}{rate}."
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
    if shares_the_gpu(figures):
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


_ADVICE = {
    DISK: _disk_advice,
    DECODE: _decode_advice,
    PYTHON: _python_advice,
    COPY: _copy_advice,
    MODEL: _model_advice,
}
