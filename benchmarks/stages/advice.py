"""What to change where a stage holds a run back, in sentences with the figures behind them."""

from collections.abc import Iterator

from benchmarks.stages.figures import COPY, DECODE, DISK, MODEL, PYTHON, WORTH, Figures, count


def advice(stage: str, figures: Figures) -> Iterator[str]:
    """What helps where the stage of that name is the slowest, the best advice first."""
    return {DISK: _disk, DECODE: _decode, PYTHON: _python, COPY: _copy, MODEL: _model}[stage](figures)


def _disk(figures: Figures) -> Iterator[str]:
    needed = figures.needed
    yield f"Training needs {needed * figures.image_bytes / 1e6:,.0f} MB/s of these shards."
    if figures.order != "blocks" and figures.disk_in_sequence > WORTH * figures.disk:
        enough = "enough" if figures.disk_in_sequence >= needed else "still less than the model takes"
        yield (
            f"--order blocks: shards are read in sequence, which this disk does at {figures.disk_in_sequence:,.0f} "
            f"images/s (measured), {enough}."
        )
    yield (
        f"A faster disk, or more memory: the shards have {figures.stored_bytes / 1e9:,.1f} GB, and "
        f"{figures.cache_bytes / 1e9:,.1f} GB of memory are free to hold them."
    )
    yield from _smaller_shards(figures)
    if figures.encoding == "raw":
        yield "JPEG shards (preprocess without --encoding raw): about ten times smaller, but the CPU must decode them."


def _decode(figures: Figures) -> Iterator[str]:
    on_gpu = figures.gpu_decode is not None
    if on_gpu and figures.decode > WORTH * figures.decode_rate:
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
        yield "--device gpu: the GPU decodes too; measure on that GPU how fast."
    if figures.encoding == "jpeg":
        grown = figures.raw_bytes / figures.image_bytes
        yield (
            f"--encoding raw (python -m preprocess): nothing is left to decode; the shards take {grown:.1f} times the "
            f"room, {figures.stored_bytes * grown / 1e9:,.1f} GB, and training needs "
            f"{figures.needed * figures.raw_bytes / 1e6:,.0f} MB/s from disk or memory."
        )
    if figures.cores < figures.cores_needed and figures.model_runs != "cpu":
        yield f"More cores: {figures.cores_needed} in place of {figures.cores}, as computed above."


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


def _python(figures: Figures) -> Iterator[str]:
    yield (
        "--micro-batch: most of the loader's Python runs once per batch, and batches have "
        f"{figures.batch_size} images; larger batches cost less per image."
    )
    if figures.gpus == 1:
        yield "More processes: each rank has a Python thread of its own."


def _copy(figures: Figures) -> Iterator[str]:
    yield "Loader(decode='region') or 'hardware', on the GPU: encoded bytes cross the bus in place of pixels."
    yield "Check the GPU's slot: it may have fewer lanes, or an older PCIe, than the GPU."


def _model(figures: Figures) -> Iterator[str]:
    if figures.shares_the_gpu:
        yield (
            "Loader(decode='cpu'): decoding takes time of the GPU from the model; the CPU decodes "
            f"{figures.decode:,.0f} images/s (measured)."
        )
    else:
        yield "Nothing in the loader: a faster one would not train faster."
    if figures.model_runs == "cpu":
        yield "A GPU. --gpu-images-per-s X says whether this machine could feed one that trains X images/s."
        return
    if figures.feedable > figures.gpus:
        yield f"This machine could feed {figures.feedable} such GPUs."
    yield "In the model: a lower --precision, larger micro-batches, smaller images."
