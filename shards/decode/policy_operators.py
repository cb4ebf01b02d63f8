"""Augmentation policies as operators of DALI's graph: apply what shards/sampling/policies.py drew, on either device.

The operations are DALI's own (`nvidia.dali.auto_aug.augmentations`) with torchvision's ranges. DALI's ready-made
policies are not used: they draw in the graph, and what they draw depends on how many batches the graph has seen.
Areas that a shear, a shift or a rotation leaves empty become black; the interpolation is bilinear.

`apply` splits a batch by operation with `if`, so the graph around it is made with `enable_conditionals=True`.
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from nvidia.dali import fn, types
from nvidia.dali.auto_aug import augmentations as dali
from nvidia.dali.auto_aug.core import augmentation, select, signed_bin
from nvidia.dali.pipeline import Pipeline, do_not_convert, pipeline_def

from shards.sampling.policies import INPUTS, SPACES, Int32Array, Policy, Space, operations

UInt8Array = npt.NDArray[np.uint8]


def apply(policy: Policy, images: Any, fed: dict[str, Any]) -> Any:
    """The augmented `images`: nodes of uint8 (height, width, 3), on their device.

    `fed`: nodes of `shards.sampling.policies.INPUTS`, int32 (stages,) for each sample, on the CPU.
    """
    space = SPACES[policy]
    known = [_operation(space, name) for name in operations(policy)]
    for stage in range(space.stages):
        # The sign joins the magnitude here, before the batch is split.
        magnitude = signed_bin(fed["magnitude"][stage], random_sign=fed["sign"][stage])
        images = select(
            known,
            fed["operation"][stage],
            data=images,
            magnitude_bin=magnitude,
            num_magnitude_bins=space.steps,
            fill_value=0,
        )
    return images


class PolicyGraph:
    """A graph of one policy alone, for batches that were decoded and resized on a CPU."""

    def __init__(self, policy: Policy, batch_size: int, threads: int) -> None:
        self._pipeline = Pipeline.deserialize(
            serialized_pipeline=_serialized(policy),
            batch_size=batch_size,
            num_threads=threads,
            device_id=None,
            # A batch goes in and comes out again; nothing is computed ahead.
            prefetch_queue_depth=1,
            # The executor of any other pipeline, which a copy does not have by itself: with the simplest one the next
            # batch would overwrite the images of the one before.
            exec_pipelined=True,
            exec_async=True,
            exec_dynamic=True,
            seed=0,
        )

    def __call__(self, images: UInt8Array, drawn: Mapping[str, Int32Array]) -> Any:
        """The augmented `images` uint8 (n, height, width, 3): a tensor of DALI's, for torch's from_dlpack.

        `drawn`: what `shards.sampling.policies.draws` gave for these samples.
        """
        (output,) = self._pipeline.run(images=images, **{name: drawn[name] for name in INPUTS})
        return output.as_tensor()


@functools.lru_cache
def _serialized(policy: Policy) -> bytes:
    """The graph, once a process: DALI takes one to two seconds to rewrite its own functions for `if`.

    Every loop of a loader has its own copy, which takes 20 to 40 ms, for its own batch size and threads.
    """
    made = pipeline_def(_alone, enable_conditionals=True)(policy, batch_size=1, num_threads=1, device_id=None)
    serialized: bytes = made.serialize()
    return serialized


def _alone(policy: Policy) -> Any:
    images, fed = _inputs()
    return apply(policy, images, fed)


@do_not_convert
def _inputs() -> tuple[Any, dict[str, Any]]:
    images = fn.external_source(name="images", no_copy=True, dtype=types.UINT8, ndim=3, layout="HWC")
    return images, {name: fn.external_source(name=name, no_copy=True, dtype=types.INT32, ndim=1) for name in INPUTS}


# DALI's own versions use operator names that it has deprecated, and warn.


@augmentation(mag_to_param=dali.sharpness_kernel, param_device="auto")
def _sharpness(images: Any, kernel: Any) -> Any:
    return fn.filter(images, kernel)


@augmentation
def _equalize(images: Any, _: Any) -> Any:
    return fn.equalize(images)


# DALI's own versions resample, which takes twenty times as long on a CPU; these move by whole pixels, as torchvision's.


@augmentation
def _shift(images: Any, start: Any) -> Any:
    return fn.slice(images, start=start, rel_shape=[1.0, 1.0], axes=[0, 1], out_of_bounds_policy="pad", fill_values=0)


@augmentation
def _shift_share(images: Any, start: Any) -> Any:
    return fn.slice(
        images, rel_start=start, rel_shape=[1.0, 1.0], axes=[0, 1], out_of_bounds_policy="pad", fill_values=0
    )


# How far the visible part moves, (rows, columns), for a shift by 1.
_MOVES = {"translate_x": (0, -1), "translate_y": (-1, 0)}


def _operation(space: Space, name: str) -> Any:
    """The operation `name` with the range that it has in `space`."""
    if name == "equalize":
        return _equalize
    if name not in space.ranges:
        return getattr(dali, name)
    changes: dict[str, Any] = {}
    if name in _MOVES:
        made, kind = (_shift, np.int32) if space.pixels else (_shift_share, np.float32)
        move = np.array(_MOVES[name])
        changes = {"mag_to_param": lambda magnitude: (magnitude * move).astype(kind), "name": name}
    else:
        made = _sharpness if name == "sharpness" else getattr(dali, name)
    return made.augmentation(space.ranges[name], name in space.signed, **changes)
