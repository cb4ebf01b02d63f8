"""DALI as its documentation has it: its webdataset reader, its random operators, its shuffle buffer.

The decoder and the crop are our loader's. What differs is how bytes get to the graph, and that it flips and normalises
with DALI's operators also on a CPU. Its shuffle is a buffer over archives read in order, not a permutation of the whole
split, and it cannot be resumed. With the option `device` "gpu" its "mixed" decoders decode, on engines and cores, and a
GPU does the rest (not run on one yet).
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import Pipeline
from torch.utils.dlpack import from_dlpack

from benchmarks.measure.harness import nothing
from benchmarks.measure.result import Setting
from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.roster import DALI_LOAD
from benchmarks.processes.task import Batch, Peer, PeerTask
from shards import Split
from shards.decode import MEAN, STD
from shards.format.layout import extension

SHUFFLE_BUFFER = 1024  # samples; DALI's own default
RRC_AREA, RRC_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # torchvision's defaults
PREFETCH = 3  # batches; one more than by default, as our loader has


def peer(task: PeerTask) -> Peer:
    raw = task.open_split().manifest.settings.encoding == "raw"
    on_gpu = task.options.get("device") == "gpu"
    return Peer(
        lambda: batches(task.open_split(), task.batch, task.threads, on_gpu),
        {
            "prefetch_queue_depth": PREFETCH,
            "initial_fill": SHUFFLE_BUFFER,
            "dct": "none (its decoder reads PPM files)" if raw else "nvJPEG's" if on_gpu else "accurate",
            "resize": "triangular, antialiased",
            **decoding(task.open_split(), task.batch, on_gpu),
        },
        depth=PREFETCH,
        sync=torch.cuda.synchronize if on_gpu else nothing,
    )


def decoding(split: Split, batch: BatchSpec, on_gpu: bool) -> dict[str, Setting]:
    """What decodes, and for a GPU how: by DALI's defaults."""
    window = batch.crop == "rrc" or _stored_size(split, batch)
    which = "the window alone" if window else "whole images"
    gpu: dict[str, Setting] = {"hw_decoder_load": DALI_LOAD, "fancy_upsampling": False} if on_gpu else {}
    return {"decode": f"{'mixed' if on_gpu else 'cpu'}, {which}", **gpu}


def _stored_size(split: Split, batch: BatchSpec) -> bool:
    """Whether images need no resize before they are cropped."""
    return split.manifest.settings.short_side == batch.resize


@contextlib.contextmanager
def batches(split: Split, batch: BatchSpec, threads: int, on_gpu: bool = False) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches (B, 3, size, size) and labels (B,) int64, on the CPU or on the first GPU."""
    yield _stream(pipeline(split, batch, threads, on_gpu, device_id=0 if on_gpu else None), batch)


def _stream(pipeline: Any, batch: BatchSpec) -> Iterator[Batch]:
    while True:
        images, labels = pipeline.run()
        tensor = from_dlpack(images.as_tensor())
        if batch.dtype == "uint8":
            tensor = tensor.permute(0, 3, 1, 2)
        classes = [int(bytes(np.asarray(labels.at(i)))) for i in range(len(labels))]
        yield tensor, torch.tensor(classes).to(tensor.device)


def pipeline(split: Split, batch: BatchSpec, threads: int, on_gpu: bool, device_id: int | None) -> Any:
    """The pipeline, not yet built."""
    paths = [str(path) for path in split.shard_paths]
    stored_size, device = _stored_size(split, batch), "mixed" if on_gpu else "cpu"
    uint8 = batch.dtype == "uint8"
    made = Pipeline(
        batch_size=batch.batch_size,
        num_threads=threads,
        device_id=device_id,
        seed=batch.seed,
        prefetch_queue_depth=PREFETCH,
    )
    reader: Any = fn.readers.webdataset  # its stub says that it may return nothing
    # Without an index, as of tars of others, it reads each tar once to make one.
    index = [] if split.manifest.indexed else [f"{path.removesuffix('.tar')}.idx" for path in paths]
    with made:
        encoded, label = reader(
            paths=paths,
            index_paths=index,
            ext=[extension(split.manifest.settings.encoding), "cls"],
            missing_component_behavior="error",
            random_shuffle=True,
            initial_fill=SHUFFLE_BUFFER,
            name="reader",
        )
        place = {"crop_pos_x": fn.random.uniform(range=(0.0, 1.0)), "crop_pos_y": fn.random.uniform(range=(0.0, 1.0))}
        if batch.crop == "rrc":
            images = fn.decoders.image_random_crop(
                encoded, device=device, random_area=RRC_AREA, random_aspect_ratio=RRC_RATIO
            )
            images = fn.resize(images, size=(batch.size, batch.size), interp_type=types.INTERP_LINEAR, antialias=True)
            place = {}
        elif stored_size:
            images = fn.decoders.image_crop(encoded, device=device, crop=(batch.size, batch.size), **place)
            place = {}
        else:
            images = fn.decoders.image(encoded, device=device)
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
        made.set_outputs(images, label)
    return made
