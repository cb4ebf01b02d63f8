"""Turns the output of the decoder into the tensors of a batch, without unnecessary copies.

On a CPU the rest of the work is done here: resize, padding, augmentation policy, mirror, normalisation. On a GPU the
graph has done it all, unless colours change: then torch changes them, and normalises. The memory of a batch belongs to
its tensors.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.dlpack import from_dlpack

from shards.decode.colour import ColourChanges
from shards.decode.colour_tensors import change_colours, normalised, on_device
from shards.decode.finish import Finisher, WholeImages, scale_and_bias
from shards.decode.graph import GraphConfig
from shards.decode.policy_operators import PolicyGraph
from shards.sampling.batch import PlannedBatch
from shards.sampling.colour import Augment

# Images (n, 3, size, size), or a list of such for several views, and labels (n,) int64.
Batch = tuple[Any, torch.Tensor]


def of_each_view(images: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """The images of a batch changed: one tensor, or each of the list."""
    return [change(view) for view in images] if isinstance(images, list) else change(images)


class CpuTensors:
    """Finishes batches on a CPU, with as many threads as the graph has.

    `resizes`: whether crop windows are of other sizes than the output. `augment`: the policy, if any.
    """

    def __init__(self, config: GraphConfig, resizes: bool, augment: Augment | None) -> None:
        self._pixels_wanted = config.dtype == "uint8"
        self._resizes = resizes
        self._finisher = Finisher(config.threads, config.interpolation, config.mean, config.std)
        self._policy: PolicyGraph | ColourChanges | None = None
        if augment == "three":
            self._policy = ColourChanges(self._finisher)
        elif augment is not None:
            self._policy = PolicyGraph(augment, config.batch_size, config.threads)

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        """The tensors of a batch. `decoded`: what the graph put out, or an array that `StoredPixels` finished."""
        images = self._plain(decoded, batch) if self._policy is None else self._augmented(self._policy, decoded, batch)
        return images, torch.from_numpy(batch.labels)

    def close(self) -> None:
        """Ends the threads."""
        self._finisher.close()

    def _plain(self, decoded: Any, batch: PlannedBatch) -> torch.Tensor:
        """Without a policy; padding comes last."""
        windows = batch.windows
        if isinstance(decoded, np.ndarray):
            images = self._tensor(decoded)
        elif self._resizes:
            resize = self._finisher.resize if self._pixels_wanted else self._finisher.resize_normalise
            cut = (windows.start, windows.end)
            images = self._tensor(resize(regions(decoded), cut, batch.size, windows.mirror))
        elif isinstance(decoded, WholeImages):
            cut_out = self._finisher.cut if self._pixels_wanted else self._finisher.cut_normalise
            images = self._tensor(cut_out(decoded, batch.size, windows.mirror))
        else:
            # The tensor owns DALI's buffer from here on; its numpy view shares the memory.
            images = self._mirrored(from_dlpack(decoded.as_tensor()), windows.mirror)
        if windows.shift.any():
            # In mirror images left is right.
            shift = windows.shift * np.stack([np.ones_like(windows.mirror), 1 - 2 * windows.mirror], axis=-1)
            self._finisher.shift((images.permute(0, 2, 3, 1) if self._pixels_wanted else images).numpy(), shift)
        return images

    def _augmented(self, policy: PolicyGraph | ColourChanges, decoded: Any, batch: PlannedBatch) -> torch.Tensor:
        """With padding and then the policy between the resize and the mirror, as on a GPU."""
        pixels, mirror = decoded, batch.windows.mirror
        if not isinstance(decoded, np.ndarray):
            cut = (batch.windows.start, batch.windows.end)
            # For a crop window that has the size of the output already, the resize is an exact copy.
            pixels = self._finisher.resize(regions(decoded), cut, batch.size, np.zeros_like(mirror))
        if batch.windows.shift.any():
            self._finisher.shift(pixels, batch.windows.shift)
        return self._mirrored(from_dlpack(policy(pixels, batch.draws)), mirror)

    def _mirrored(self, pixels: torch.Tensor, mirror: npt.NDArray[np.int32]) -> torch.Tensor:
        """Pixels (n, height, width, 3), which nobody else uses, mirrored, and normalised for float32."""
        if self._pixels_wanted:
            self._finisher.flip(pixels.numpy(), mirror)
            return pixels.permute(0, 3, 1, 2)
        return torch.from_numpy(self._finisher.normalise(pixels.numpy(), mirror))

    def _tensor(self, images: npt.NDArray[Any]) -> torch.Tensor:
        """A tensor (n, 3, height, width) over finished images, which have channels last if they are uint8."""
        tensor = torch.from_numpy(images)
        return tensor.permute(0, 3, 1, 2) if self._pixels_wanted else tensor


class GpuTensors:
    """Batches in the order of `stream`: whole for what waits for it, and their memory is freed in that order too."""

    def __init__(self, config: GraphConfig, stream: Any) -> None:
        self._config = config
        self._stream = stream
        self._normalise = scale_and_bias(config.mean, config.std)

    def __call__(self, decoded: Any, batch: PlannedBatch) -> Batch:
        """The tensors of a batch, on the GPU, with channels-last strides; several views as a list.

        `decoded`: a TensorList of the graph's, or a list of such.
        """
        with torch.cuda.stream(self._stream):
            outputs = [from_dlpack(each.as_tensor()) for each in (decoded if isinstance(decoded, list) else [decoded])]
            labels = on_device(batch.labels, outputs[0].device)
            if self._config.recoloured:
                outputs = self._recoloured(outputs, *_colours(batch))
            images = [each.permute(0, 3, 1, 2) for each in outputs]
        return images if isinstance(decoded, list) else images[0], labels

    def _recoloured(
        self, outputs: Sequence[torch.Tensor], operation: npt.NDArray[np.int32], strength: npt.NDArray[np.float32]
    ) -> list[torch.Tensor]:
        """Pixels (n, size, size, 3) of each view with other colours, and normalised; for each (n, views, stages)."""
        done = list(outputs)
        scale, bias = (on_device(each, outputs[0].device) for each in self._normalise)
        for size in dict.fromkeys(output.shape[1] for output in outputs):
            # Views of one size are changed together, which takes fewer launches.
            views = [view for view, output in enumerate(outputs) if output.shape[1] == size]
            pixels = torch.cat([outputs[view] for view in views])
            change_colours(pixels, _one_by_one(operation, views), _one_by_one(strength, views))
            if self._config.dtype != "uint8":
                pixels = normalised(pixels, scale, bias, getattr(torch, self._config.dtype))
            for view, images in zip(views, pixels.chunk(len(views)), strict=True):
                done[view] = images
        return done

    def close(self) -> None:
        """Nothing to end."""


def _colours(batch: PlannedBatch) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Operations and strengths of each view, (n, views, stages) both; a single image counts as one view."""
    if batch.views is not None:
        return batch.views.operation, batch.views.strength
    return batch.draws["operation"][:, None], batch.draws["strength"][:, None]


def _one_by_one(drawn: npt.NDArray[Any], views: Sequence[int]) -> npt.NDArray[Any]:
    """What was drawn for `views`, of (n, all views, stages): the first of them of all samples, then the next."""
    return drawn[:, views].swapaxes(0, 1).reshape(-1, drawn.shape[-1])


def regions(decoded: Any) -> list[npt.NDArray[np.uint8]]:
    """Each sample's region (height, width, 3), as it was decoded: views of what the graph put out."""
    if isinstance(decoded, WholeImages):
        return decoded.regions()
    # Views: `decoded.at(i)` would copy, 15 microseconds an image.
    return [np.asarray(decoded[i]) for i in range(len(decoded))]
