"""DALI as its documentation has it: its webdataset reader, its random operators, its shuffle buffer.

The decoder and the crop are our loader's. What differs is how bytes get to the graph, and that it flips and normalises
with DALI's operators also on a CPU. Its shuffle is a buffer over archives read in order, not a permutation of the whole
split, and it cannot be resumed.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from torch.utils.dlpack import from_dlpack

from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards import Split
from shards.decode import MEAN, STD
from shards.format.layout import extension

SHUFFLE_BUFFER = 1024  # samples; DALI's own default
RRC_AREA, RRC_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # torchvision's defaults
PREFETCH = 3  # batches; one more than by default, as our loader has


def peer(task: PeerTask) -> Peer:
    raw = task.open_split().manifest.settings.encoding == "raw"
    return Peer(
        lambda: batches(task.open_split(), task.batch, task.threads),
        {
            "prefetch_queue_depth": PREFETCH,
            "initial_fill": SHUFFLE_BUFFER,
            "dct": "none (its decoder reads PPM files)" if raw else "accurate",
            "resize": "triangular, antialiased",
        },
        depth=PREFETCH,
    )


@contextlib.contextmanager
def batches(split: Split, batch: BatchSpec, threads: int) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches (B, 3, size, size) and labels (B,) int64, on the CPU."""
    pipeline = _pipeline(split, batch, threads)
    yield _stream(pipeline, batch)


def _stream(pipeline: Any, batch: BatchSpec) -> Iterator[Batch]:
    while True:
        images, labels = pipeline.run()
        tensor = from_dlpack(images.as_tensor())
        if batch.dtype == "uint8":
            tensor = tensor.permute(0, 3, 1, 2)
        classes = [int(bytes(np.asarray(labels.at(i)))) for i in range(len(labels))]
        yield tensor, torch.tensor(classes)


def _pipeline(split: Split, batch: BatchSpec, threads: int) -> Any:
    paths = [str(path) for path in split.shard_paths]
    stored_size = split.manifest.settings.short_side == batch.resize
    uint8 = batch.dtype == "uint8"
    pipeline = Pipeline(
        batch_size=batch.batch_size,
        num_threads=threads,
        device_id=None,
        seed=batch.seed,
        prefetch_queue_depth=PREFETCH,
    )
    reader: Any = fn.readers.webdataset  # its stub says that it may return nothing
    with pipeline:
        encoded, label = reader(
            paths=paths,
            index_paths=[f"{path.removesuffix('.tar')}.idx" for path in paths],
            ext=[extension(split.manifest.settings.encoding), "cls"],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=SHUFFLE_BUFFER,
            name="reader",
        )
        place = {"crop_pos_x": fn.random.uniform(range=(0.0, 1.0)), "crop_pos_y": fn.random.uniform(range=(0.0, 1.0))}
        if batch.crop == "rrc":
            images = fn.decoders.image_random_crop(encoded, random_area=RRC_AREA, random_aspect_ratio=RRC_RATIO)
            images = fn.resize(images, size=(batch.size, batch.size), interp_type=types.INTERP_LINEAR, antialias=True)
            place = {}
        elif stored_size:
            images = fn.decoders.image_crop(encoded, crop=(batch.size, batch.size), **place)
            place = {}
        else:
            images = fn.decoders.image(encoded)
            images = fn.resize(images, resize_shorter=batch.resize, interp_type=types.INTERP_LINEAR, antialias=True)
        images = fn.crop_mirror_normalize(
            images,
            crop=(batch.size, batch.size),
            mirror=fn.random.coin_flip(),
            dtype=types.UINT8 if uint8 else types.FLOAT,
            output_layout="HWC" if uint8 else "CHW",
            mean=[0.0] * 3 if uint8 else [255 * value for value in MEAN],
            std=[1.0] * 3 if uint8 else [255 * value for value in STD],
            **place,
        )
        pipeline.set_outputs(images, label)
    return pipeline
