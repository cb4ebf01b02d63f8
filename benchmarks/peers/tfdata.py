"""tf.data, as its documentation recommends: TFRecords, a shuffle buffer, a parallel map, prefetch.

The TFRecords hold the same bytes as the shards. Only the crop window is decoded (`decode_and_crop_jpeg`), with
libjpeg-turbo's fast DCT, as in its own ResNet example. Batches become torch tensors without a copy, and torch
normalises them: in the map, TensorFlow takes twice as long for that.
"""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Before TensorFlow: it loads triton, whose library crashes beside TensorFlow's if it comes second.
import torchvision  # noqa: F401

# isort: split

import tensorflow as tf
import torch

from benchmarks.measure.settings import BatchSpec
from benchmarks.processes.dataloader import normalised
from benchmarks.processes.task import Batch, Peer, PeerTask, own_format, stored_bytes
from shards.common.versions import version

SHUFFLE_BUFFER = 10_000  # samples
DCT = "INTEGER_FAST"
FEATURES = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}


def peer(task: PeerTask) -> Peer:
    """Writes the TFRecords unless they exist."""
    records = own_format(task, "tfdata", lambda path: write(task, path))
    return Peer(
        lambda: batches(task, records),
        {
            "tensorflow": version("tensorflow-cpu"),
            "shuffle_buffer": SHUFFLE_BUFFER,
            "dct": "fast",
            "resize": "bilinear, antialiased",
        },
        depth=4,
    )


def write(task: PeerTask, path: Path) -> None:
    """Writes the split as one file of TFRecords."""
    split = task.open_split()
    with tf.io.TFRecordWriter(str(path)) as out:
        for data, label in zip(stored_bytes(split), split.labels.tolist(), strict=True):
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[data.tobytes()])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            out.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


@contextlib.contextmanager
def batches(task: PeerTask, records: Path) -> Iterator[Iterator[Batch]]:
    """Endless shuffled batches."""
    zoom = task.open_split().manifest.settings.short_side != task.batch.resize
    options = tf.data.Options()
    options.threading.private_threadpool_size = task.threads
    options.deterministic = False
    dataset = (
        tf.data.TFRecordDataset(str(records))
        .with_options(options)
        .shuffle(SHUFFLE_BUFFER, seed=task.batch.seed)
        .repeat()
        .map(lambda record: _prepared(record, task.batch, zoom), num_parallel_calls=tf.data.AUTOTUNE)
        .batch(task.batch.batch_size, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )
    yield _torch(dataset, task.batch)


def _prepared(record: Any, batch: BatchSpec, zoom: bool) -> Any:
    sample = tf.io.parse_single_example(record, FEATURES)
    data, size = sample["image"], batch.size
    shape = tf.image.extract_jpeg_shape(data)
    if batch.crop == "rrc":
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            shape,
            tf.constant([0.0, 0.0, 1.0, 1.0], shape=[1, 1, 4]),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], extent[0], extent[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3, dct_method=DCT)
        image = tf.image.resize(image, (size, size), antialias=True)
    elif zoom:
        image = tf.image.decode_jpeg(data, channels=3, dct_method=DCT)
        short = tf.cast(tf.reduce_min(shape[:2]), tf.float32)
        wanted = tf.cast(tf.round(tf.cast(shape[:2], tf.float32) * batch.resize / short), tf.int32)
        image = tf.image.random_crop(tf.image.resize(image, wanted, antialias=True), (size, size, 3))
    else:
        top = tf.random.uniform([], 0, shape[0] - size + 1, tf.int32)
        left = tf.random.uniform([], 0, shape[1] - size + 1, tf.int32)
        image = tf.image.decode_and_crop_jpeg(data, [top, left, size, size], channels=3, dct_method=DCT)
    image = tf.image.random_flip_left_right(image)
    image = tf.cast(image, tf.uint8)
    image.set_shape((size, size, 3))
    return image, sample["label"]


def _torch(dataset: Any, batch: BatchSpec) -> Iterator[Batch]:
    with warnings.catch_warnings():
        # torch warns that numpy's view of a TensorFlow tensor is read-only; nobody writes to it.
        warnings.simplefilter("ignore", UserWarning)
        for images, labels in dataset.as_numpy_iterator():
            pixels = torch.from_numpy(images).permute(0, 3, 1, 2)
            if batch.dtype == "float32":
                pixels = normalised(pixels)
            yield pixels, torch.from_numpy(labels)
