"""SPDL, as its documentation recommends: a pipeline of threads; FFmpeg decodes, crops and flips.

It reads the bytes from our shards (memory-mapped), since it has no format of its own. A task decodes the frames of a
batch and converts them to one buffer, which torch then normalises.
"""

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy.typing as npt
import spdl.io
import torch
from spdl.pipeline import PipelineBuilder
from torchvision.transforms import RandomResizedCrop

from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.dataloader import normalised
from benchmarks.processes.task import Batch, Peer, PeerTask, stored_bytes
from shards.common.versions import version

SINK = 3  # batches kept ready; its default


def peer(task: PeerTask) -> Peer:
    return Peer(
        lambda: batches(task),
        {"spdl-io": version("spdl-io"), "buffer_size": SINK, "decoder": "FFmpeg", "resize": "swscale bilinear"},
        depth=SINK + 2 + task.threads,
        stride=max(1, task.threads),
    )


@contextlib.contextmanager
def batches(task: PeerTask) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches."""
    split, batch = task.open_split(), task.batch
    data, index = stored_bytes(split), split.index
    spdl.io.utils.set_ffmpeg_log_level(16)  # only errors: each JPEG would warn about its colour range
    zoom = split.manifest.settings.short_side != batch.resize

    def rows() -> Iterator[int]:
        order = list(range(len(data)))
        shuffle = random.Random(batch.seed).shuffle
        while True:
            shuffle(order)
            yield from order

    def load(chosen: list[int]) -> Batch:
        frames = []
        for row in chosen:
            filters = _filters(batch, int(index.width[row]), int(index.height[row]), zoom)
            frames.append(spdl.io.decode_packets(spdl.io.demux_image(data[row].tobytes()), filter_desc=filters))
        images = spdl.io.to_torch(spdl.io.convert_frames(frames)).permute(0, 3, 1, 2)
        if batch.dtype == "float32":
            images = normalised(images)
        return images, torch.from_numpy(index.label[chosen]).long()

    # A task makes a whole batch: a task per image loses a quarter of the speed to handing over.
    pipeline = (
        PipelineBuilder()
        .add_source(rows())
        .aggregate(batch.batch_size, drop_last=True)
        .pipe(load, concurrency=task.threads)
        .add_sink(SINK)
        .build(num_threads=task.threads)
    )
    with pipeline.auto_stop():
        yield iter(pipeline)


def _filters(batch: BatchSpec, width: int, height: int, zoom: bool) -> str:
    """FFmpeg's description of a random window, a random flip and RGB."""
    size, steps = batch.size, []
    if batch.crop == "rrc":
        template: npt.NDArray[Any] | torch.Tensor = torch.empty((1, height, width), device="meta")
        top, left, rows, columns = RandomResizedCrop.get_params(template, [0.08, 1.0], [3 / 4, 4 / 3])
        steps += [f"crop={columns}:{rows}:{left}:{top}:exact=1", f"scale={size}:{size}:flags=bilinear"]
    else:
        if zoom:
            ratio = batch.resize / min(width, height)
            width, height = round(width * ratio), round(height * ratio)
            steps.append(f"scale={width}:{height}:flags=bilinear")
        left, top = random.randint(0, width - size), random.randint(0, height - size)
        steps.append(f"crop={size}:{size}:{left}:{top}:exact=1")
    if random.random() < 0.5:
        steps.append("hflip")
    return ",".join([*steps, "format=pix_fmts=rgb24"])
