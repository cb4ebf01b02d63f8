"""What the loader does where its caller leaves it open, and which arguments make no sense for a split."""

import os
import warnings
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from shards.common.arguments import flag, one_of, shown, whole_number
from shards.common.errors import ShardfeedWarning, UsageError
from shards.common.machine import check_workers, usable_cores
from shards.common.terminal import advice, counted
from shards.dataset import JoinedSplit, Split
from shards.decode import DECODED_TOGETHER, nvjpeg
from shards.decode.graph import ON_ENGINES, Decode, Device
from shards.sampling.draw import Draw, balanced_weights
from shards.sampling.order import Share

# Compute capabilities of GPUs with JPEG engines, by NVIDIA's nvJPEG documentation: A100 and A30, H100 and H200, B200.
# Only where nvJPEG cannot be asked.
JPEG_ENGINES = frozenset({(8, 0), (9, 0), (10, 0)})

# Arguments of torch's DataLoader, and what to give a Loader in their place.
OF_DATALOADER = {
    "batch_sampler": "order and weights choose the samples",
    "collate_fn": "batches are tensors already; keys names their parts, and ids adds the numbers of the samples",
    "dataset": "the split is the first argument",
    "generator": "seed and order_seed fix what is drawn",
    "multiprocessing_context": "it works on threads, in this process",
    "num_workers": "threads decode, in this process",
    "persistent_workers": "its threads live until close()",
    "pin_memory": 'device="gpu" gives batches that lie on the GPU',
    "prefetch_factor": "it reads a few batches ahead by itself",
    "sampler": "order and weights choose the samples; rank and world_size divide them",
    "shuffle": "train=True shuffles; order alone chooses another order",
    "timeout": "an error ends the iteration by itself",
    "transform": "crop, flip, augment and size say how images are prepared",
    "worker_init_fn": "threads decode, in this process, and seed fixes what is drawn",
    "workers": "threads decode, in this process",
}

# Positions of an epoch, which take 8 bytes each, and copies of a sample in one.
MOST_DRAWS = 2**30
MOST_REPEATS = 1000
# What decode="auto" weighs: two estimates, to be replaced by measurements on a GPU. Pixels/s that a logical core
# decodes: a third of what a core of an AMD EPYC did (0.325 ms for 256 x 341 pixels), since logical cores share a real
# one and have other work. Images/s that the fastest recipe here trains at most on one H100: ResNet-18 at 160 pixels.
PIXELS_PER_S_A_CORE = 90e6
FASTEST_TRAINING = 12_000
# Pixels of the mean image up to which a CPU decodes images whole: 64 x 86 and some (docs/decisions.md has the figures).
SMALL = 6_000


def default_threads(raw: bool = False) -> int:
    """Threads of a rank: its part of the cores this process may use, and one more, except for `raw` (see `Loader`)."""
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, usable_cores() // ranks_here) + (0 if raw else 1)


def one_split(split: Any) -> Split:
    """`split` itself. Raises UsageError for anything but a split, a whole data set above all."""
    if isinstance(split, Split):
        return split
    if isinstance(split, dict) and all(isinstance(each, Split) for each in split.values()) and split:
        raise UsageError(f"split must be one split and not the whole data set: choose one of {', '.join(split)}")
    raise UsageError(f'split must be a split, as open_dataset("DIR")["train"] is, not {shown(split)}')


def choose_threads(threads: int | None, raw: bool) -> int:
    """The threads that the caller asks for, or the default. Raises UsageError for more than a machine can use."""
    if threads is None:
        return default_threads(raw)
    return check_workers(advice("threads", "--threads"), whole_number("threads", threads))


def choose_device(wanted: str, device_id: int) -> Device:
    """Where batches are to lie; "auto" is a GPU if there is one. Raises UsageError for a device that is not here."""
    if not isinstance(wanted, str) or wanted not in ("auto", "cpu", "gpu"):
        raise UsageError(
            f'device must be auto, cpu or gpu, not {shown(wanted)}; a GPU is "gpu", and device_id its number'
        )
    gpus = torch.cuda.device_count() if wanted != "cpu" else 0
    if wanted == "gpu" and not gpus:
        raise UsageError('device="gpu": PyTorch finds no GPU here (no device, no driver, or a build without CUDA)')
    if gpus and not 0 <= device_id < gpus:
        raise UsageError(f"device_id must be from 0 to {gpus - 1}, the number of the last GPU here, not {device_id}")
    return "gpu" if gpus else "cpu"


def cpu_suffices(cores: int, pixels_an_image: float) -> bool:
    """Whether so many cores of one rank should decode images as fast as any recipe trains on them: by estimates."""
    return cores * PIXELS_PER_S_A_CORE >= FASTEST_TRAINING * pixels_an_image


def choose_together(share: Share, device: Device, samples: int) -> int:
    """How many batches in a row are decoded as one: several small ones for a GPU, within an epoch."""
    if device == "cpu":
        return 1
    return max(1, min(DECODED_TOGETHER // share.batch_size, share.steps(samples)))


def choose_decoder(split: Split, wanted: str, device: Device, device_id: int, threads: int | None = None) -> Decode:
    """What decodes the split's samples, in the terms of the graph. `threads`: as the caller asks for them, if at all.

    "auto" leaves a GPU to the network where the CPU decodes fast enough: its pixels are then also those of a run
    without a GPU. Raises UsageError for a decoder that cannot.
    """
    one_of("decode", wanted, ("auto", "cpu", "region", *ON_ENGINES))
    if split.manifest.settings.encoding == "raw":
        if wanted not in ("auto", "cpu"):
            raise UsageError(f"the samples of {split.root} are stored decoded: decode={wanted!r} does not apply")
        return "raw"
    if device == "cpu" or wanted in ("cpu", "region"):
        return "cpu" if wanted == "auto" else cast(Decode, wanted)
    if wanted == "auto" and cpu_suffices(choose_threads(threads, raw=True), _mean_pixels(split)):
        return "cpu"
    engines = nvjpeg.engines(device_id)
    if wanted == "auto":
        known = torch.cuda.get_device_capability(device_id) in JPEG_ENGINES if engines is None else engines > 0
        return "hardware" if known else "region"
    if engines == 0:
        raise UsageError(
            f"decode={wanted!r}: nvJPEG finds no JPEG engines on GPU {device_id}. In a container they need the "
            "driver's capability `video` (NVIDIA_DRIVER_CAPABILITIES=compute,utility,video). decode='region' needs none"
        )
    return cast(Decode, wanted)


def choose_whole(split: Split) -> bool:
    """Whether a CPU decodes the split's JPEGs whole: of small ones a region takes DALI longer than the image."""
    return _mean_pixels(split) <= SMALL


def _mean_pixels(split: Split) -> float:
    """Pixels of the split's mean image."""
    index = split.index
    return float((index.height.astype(np.int64) * index.width).mean()) if len(split) else 0.0


def choose_upsampling(decoder: Decode) -> bool:
    """Whether a GPU upsamples chroma as the CPU does. Warns where its nvJPEG is too old to do so for regions."""
    found = nvjpeg.version() if decoder in ("region", "hybrid") else None
    if found is None or found >= nvjpeg.REGIONS_WITH_FANCY_UPSAMPLING:
        return True
    warnings.warn(
        f"nvJPEG {found[0]}.{found[1]} cannot decode regions with fancy upsampling: colours at edges differ a little "
        "from the CPU's. nvJPEG 13.2 can (pip install 'nvidia-nvjpeg>=13.2')",
        ShardfeedWarning,
        stacklevel=2,
    )
    return False


def _chances(split: Split, weights: Any) -> npt.NDArray[np.float64]:
    """`weights` as an array with a weight for each sample. Raises UsageError, which says what is wrong with them."""
    try:
        chances = np.array(weights, np.float64)
    except (TypeError, ValueError):
        chances = np.empty(())
    if chances.ndim != 1:
        wrong = f"not {shown(weights)}"
    elif len(chances) == len(split.class_names) != len(split):
        wrong = "not one for each class: of these take weights[split.labels]"
    elif len(chances) != len(split):
        wrong = f"not {len(chances):,}"
    elif (bad := np.flatnonzero(~(np.isfinite(chances) & (chances >= 0)))).size:
        wrong = f"and number {bad[0]} is {chances[bad[0]]:g}"
    elif not chances.any():
        wrong = "and all are 0"
    else:
        return chances
    raise UsageError(
        f'weights must be "balanced" or {counted(len(split), "number")} from 0 up, one for each sample, of which '
        f"one is above 0, {wrong}"
    )


def draw_of(split: Split, weights: Any, num_samples: Any, replacement: Any, num_repeats: Any) -> Draw:
    """How epochs draw their samples. Raises UsageError for weights that are none, and for what does not go together."""
    chances = None
    if isinstance(weights, str) and weights == "balanced":
        chances = balanced_weights(split.labels)
    elif weights is not None:
        chances = _chances(split, weights)
    count = None if num_samples is None else whole_number("num_samples", num_samples, 1, MOST_DRAWS)
    repeats = whole_number("num_repeats", num_repeats, 1, MOST_REPEATS)
    mixture: tuple[tuple[int, int], ...] = ()
    if isinstance(split, JoinedSplit) and split.takes is not None:
        mixture = tuple(zip(map(len, split.parts), split.takes, strict=True))
    return Draw(chances, count, flag("replacement", replacement), repeats, mixture)
