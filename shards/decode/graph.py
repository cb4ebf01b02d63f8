"""The DALI graph that decodes: one definition for the CPU and the GPU, pushed batch by batch.

    decoder = GraphDecoder(config)
    decoder.push(batch, data)          # returns at once; several batches may be inside
    pixels = decoder.pop()             # in the order of push

The graph holds no random operator. It is told of each sample the region to decode, the crop window to resize and
whether to mirror, and it decodes just the region. On a GPU it also resizes, pads, applies the augmentation policy,
mirrors and normalises, or cuts several views of each sample; where colours change, torch does that afterwards, and then
normalises. On a CPU it ends with uint8 pixels, because DALI's pixel operators are slow there (docs/decisions.md has
figures): `shards/decode/finish.py` does that part.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from shards.common.arguments import one_of, share
from shards.common.errors import MissingDependency, UsageError
from shards.decode import MEAN, STD, Channels
from shards.decode.buffers import EncodedSamples
from shards.decode.finish import WholeImages
from shards.sampling.batch import PlannedBatch
from shards.sampling.crops import CropWindows, Interpolation
from shards.sampling.policies import INPUTS as POLICY_INPUTS
from shards.sampling.policies import Policy
from shards.sampling.views import View

try:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline, do_not_convert, pipeline_def
    from nvidia.dali.tensors import TensorListCPU

    from shards.decode.policy_operators import apply
    from shards.decode.view_operators import FILTERS, cut_views
    from shards.decode.view_operators import INPUTS as VIEW_INPUTS
except ImportError as error:
    raise MissingDependency(
        "NVIDIA DALI is not installed: pip install 'shardfeed[cuda13]', or 'shardfeed[cuda12]' where the driver is "
        f"older than CUDA 13 (never both); it runs on machines without a GPU too ({error})"
    ) from error

UInt8Array = npt.NDArray[np.uint8]
Samples = Sequence[UInt8Array] | EncodedSamples
Device = Literal["cpu", "gpu"]
DType = Literal["float32", "float16", "uint8"]
# Who decodes. cpu: libjpeg-turbo, the region alone. region: the GPU's cores, the region alone. hardware: the GPU's
# JPEG engines, which decode whole images, and its cores beside them. hybrid: engines and cores share the regions.
# raw: nobody, the samples are stored decoded.
Decode = Literal["cpu", "region", "hardware", "hybrid", "raw"]
ON_ENGINES = ("hardware", "hybrid")
# The words of CUDA, of DALI's allocators, of the C++ library and of nvJPEG.
_NO_MEMORY = re.compile(r"out of memory|can't allocate|alloc\w* fail|bad_?alloc", re.IGNORECASE)

# What each device can put out. On a CPU float16 costs more than it saves (under 1,600 images/s a core).
DTYPES: dict[Device, tuple[DType, ...]] = {"cpu": ("float32", "uint8"), "gpu": ("float32", "float16", "uint8")}


@dataclass(frozen=True)
class GraphConfig:
    """What the graph is made for."""

    device: Device
    """Where the batch lies."""
    decode: Decode
    dtype: DType
    batch_size: int
    """Most samples of a batch; more than those of a step where several steps are decoded together."""
    resize: bool
    """Whether the graph resizes crop windows to the output's size; without it regions come out as they are."""
    threads: int
    """DALI's decoding threads on the CPU; of stored pixels on a CPU, samples finished at a time."""
    augment: Policy | None = None
    """The augmentation policy that the graph applies, after the resize."""
    pads: bool = False
    """Whether the graph moves each image by its crop window's `shift`, after the resize and before the policy."""
    views: tuple[View, ...] = ()
    """Several views of each sample, which the graph cuts, resizes and mirrors: an output for each."""
    recoloured: bool = False
    """Whether torch changes colours after the graph, and then normalises: the graph puts out pixels."""
    interpolation: Interpolation = "bilinear"
    """The filter of the resize, antialiased: in the graph or, on a CPU, after it."""
    device_id: int | None = None
    """The CUDA device; None builds a graph that runs on the CPU alone."""
    whole: bool = False
    """On a CPU, decode whole images, of which the regions are cut afterwards: quicker where images are small."""
    fast_idct: bool = False
    """On the CPU, decode by libjpeg-turbo's faster and less exact transform."""
    hw_decoder_load: float | None = None
    """For "hardware" and "hybrid": the share of a batch's images that goes to the engines; None leaves it to DALI."""
    fancy_upsampling: bool = True
    """Whether a GPU upsamples chroma as the CPU does."""
    mean: Channels = MEAN
    """Subtracted from each channel of pixels in [0, 1] where they are normalised: in the graph or after it."""
    std: Channels = STD
    """What the differences are divided by."""
    largest: tuple[int, int] = (0, 0)
    """Height and width that no stored image exceeds: the engines' memory is taken at once. 0 lets it grow."""

    def __post_init__(self) -> None:
        one_of("device", self.device, list(DTYPES))
        one_of(f"dtype on the {self.device}", self.dtype, DTYPES[self.device])
        if self.device == "cpu" and self.decode in ("region", *ON_ENGINES):
            raise UsageError(f"decode={self.decode!r} needs device='gpu'")
        if self.whole and (self.device == "gpu" or self.decode != "cpu"):
            raise UsageError("whole is for decode='cpu' with device='cpu'")
        if self.fast_idct and self.decode != "cpu":
            raise UsageError(f"fast_idct is for decode='cpu', not {self.decode!r}")
        if self.hw_decoder_load is not None and self.decode not in ON_ENGINES:
            raise UsageError(f"hw_decoder_load is for decode='hardware' or 'hybrid', not {self.decode!r}")
        if self.hw_decoder_load is not None:
            share("hw_decoder_load", self.hw_decoder_load)
        if self.dtype == "uint8" and (self.mean, self.std) != (MEAN, STD):
            raise UsageError("dtype='uint8' gives pixels as they are: mean and std do not apply")
        if self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """The graph's inputs; names as in `shards.sampling.crops.CropWindows`, and the output's `size`."""
        first = "rows" if self.decode == "raw" else "encoded"
        resize = ("start", "end") if self.resize else ()
        size = ("size",) if self.resize or self.pads else ()
        shift = ("shift",) if self.pads else ()
        policy = POLICY_INPUTS if self.augment is not None else ()
        # shards/decode/finish.py mirrors on the CPU, and DALI refuses to be fed what nothing reads.
        alone = ("mirror",) if self.device == "gpu" else ()
        mirror = VIEW_INPUTS if self.views else alone
        region = () if self.whole else ("anchor", "shape")
        return (first, *region, *mirror, *resize, *size, *shift, *policy)

    @property
    def normalises(self) -> bool:
        """Whether a graph for a GPU normalises what it puts out."""
        return self.dtype != "uint8" and not self.recoloured


class GraphDecoder:
    """The graph at work. One thread uses it, the one that made it.

    `stream`: the CUDA stream on which batches come out, for a GPU.
    """

    def __init__(self, config: GraphConfig, stream: Any = None) -> None:
        self.config = config
        self._stream = stream
        self._pipeline = build(config)
        # DALI reads these arrays in place, so they live until their batch has come out.
        self._inside: deque[tuple[CropWindows, dict[str, Any]]] = deque()

    def push(self, batch: PlannedBatch, data: Samples) -> None:
        """Begins to decode a batch: `data` holds the bytes of each sample, uint8 (bytes,). Raises RuntimeError."""
        arrays = self._arrays(batch, data)
        self._inside.append((batch.windows, arrays))
        for name in self.config.inputs:
            self._pipeline.feed_input(name, _wrapped(arrays[name]))
        self._pipeline.schedule_run()

    def pop(self) -> Any:
        """The oldest batch inside, as a TensorList of DALI's; waits for it. Raises RuntimeError as DALI does.

        uint8 (height, width, 3) for each sample on a CPU, not mirrored; on a GPU mirrored, of the configured dtype if
        the graph normalises and uint8 otherwise. All images have one size if the graph resizes, or if all crop windows
        have. With views a list of TensorLists, one for each, (size, size, 3), mirrored and normalised likewise. Where
        whole images are decoded, `WholeImages`.
        """
        outputs = self._pipeline.outputs(self._stream)
        windows, _ = self._inside.popleft()
        if self.config.whole:
            return WholeImages.of(outputs[0], windows)
        return list(outputs) if self.config.views else outputs[0]

    def restart(self) -> None:
        """Makes the graph anew, empty: after an error it cannot be used any more."""
        self.close()
        self._pipeline = build(self.config)

    def close(self) -> None:
        """Frees the graph, with its threads and memory; waits for the batches inside."""
        del self._pipeline
        self._inside.clear()

    def _arrays(self, batch: PlannedBatch, data: Samples) -> dict[str, Any]:
        windows = batch.windows
        arrays: dict[str, Any] = {
            "anchor": windows.anchor,
            "shape": windows.shape,
            "mirror": windows.mirror,
            "start": windows.start.astype(np.float32, copy=False),
            "end": windows.end.astype(np.float32, copy=False),
            "size": np.full((len(batch), 2), batch.size, np.float32),
            "shift": windows.shift,
            **batch.draws,
        }
        if batch.views is not None:
            planned = (batch.views.anchor, batch.views.shape, batch.views.mirror)
            arrays |= dict(zip(VIEW_INPUTS, planned, strict=True))
        if batch.rows is None:
            jpegs = data.jpeg_rows() if self.config.decode == "cpu" and isinstance(data, EncodedSamples) else None
            return {**arrays, "encoded": list(data) if jpegs is None else jpegs}
        # The input holds only the rows of the crop window, so its row offset is 0.
        first, height, width = batch.rows.first.tolist(), windows.shape[:, 0].tolist(), batch.rows.width.tolist()
        rows = [
            sample[begin : begin + 3 * high * wide].reshape(high, wide, 3)
            for sample, begin, high, wide in zip(data, first, height, width, strict=True)
        ]
        return {**arrays, "rows": rows, "anchor": windows.anchor * np.array([0, 1], np.int32)}


def out_of_memory(error: Exception) -> bool:
    """Whether an error of DALI's means that memory, the GPU's or the machine's, ran out: it has no type of its own."""
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def build(config: GraphConfig) -> Pipeline:
    """The pipeline of `config`, with an input of each name in `config.inputs`."""
    # A policy picks one of many operations for each sample. DALI expresses that as `if`, which must be enabled.
    definition = pipeline_def(_definition, enable_conditionals=config.augment is not None)
    return definition(
        config,
        batch_size=config.batch_size,
        num_threads=config.threads,
        device_id=config.device_id,
        # Every push schedules its own run; with a longer queue DALI would wait for that many pushes before the first.
        prefetch_queue_depth=1,
        # The graph draws no random numbers; a fixed seed keeps DALI from making one up.
        seed=0,
    )


def _definition(config: GraphConfig) -> Any:
    images, fed = _regions(config)
    if config.augment is not None:
        images = apply(config.augment, images, fed)
    return _outputs(config, images, fed)


@do_not_convert
def _regions(config: GraphConfig) -> tuple[Any, dict[str, Any]]:
    """uint8 (height, width, 3): each sample's region, resized and moved where the graph does that; and all inputs."""
    kinds = {
        "encoded": (types.UINT8, 1),
        "rows": (types.UINT8, 3),
        "mirror": (types.INT32, 0),
        **dict.fromkeys(("anchor", "shape", "shift", *POLICY_INPUTS), (types.INT32, 1)),
        **dict.fromkeys(("start", "end", "size"), (types.FLOAT, 1)),
        **{name: (types.INT32, dimensions) for name, dimensions in VIEW_INPUTS.items()},
    }
    fed = {
        name: fn.external_source(
            name=name,
            no_copy=True,
            dtype=kinds[name][0],
            ndim=kinds[name][1],
            layout="HWC" if name == "rows" else "",
        )
        for name in config.inputs
    }
    images = _pixels(config, fed)
    if config.resize:
        images = fn.resize(
            images,
            size=fed["size"],
            roi_start=fed["start"],
            roi_end=fed["end"],
            interp_type=FILTERS[config.interpolation],
            # A filter as wide as the scale: what torchvision's antialias=True does.
            antialias=True,
        )
    if config.pads:
        images = fn.slice(
            images,
            start=-fed["shift"],
            shape=fn.cast(fed["size"], dtype=types.INT32),
            axis_names="HW",
            out_of_bounds_policy="pad",
            fill_values=0,
        )
    return images, fed


def _wrapped(batch: Any) -> Any:
    """Converts a list of arrays to a TensorList in one call, which takes a tenth of the time of DALI's own loop."""
    if isinstance(batch, list) and all(each.flags.writeable for each in batch):  # DLPack refuses what is read-only
        return TensorListCPU.from_dlpack_list(batch)  # type: ignore[attr-defined]  # not in its stubs
    return batch


@do_not_convert
def _outputs(config: GraphConfig, images: Any, fed: dict[str, Any]) -> Any:
    if config.views:
        cut = cut_views(config.views, images, fed)
        return tuple(_mirror_normalise(view, mirror, config) for view, mirror in cut)
    if config.device == "gpu":
        return _mirror_normalise(images, fed["mirror"], config)
    return images


def _pixels(config: GraphConfig, fed: dict[str, Any]) -> Any:
    """uint8 (height, width, 3): each sample's region, on the device of the batch."""
    engines: dict[str, Any] = {
        # DALI gives the engines two thirds of a batch unless it is told otherwise, of regions too.
        "hw_decoder_load": config.hw_decoder_load if config.decode in ON_ENGINES else 0.0,
        "preallocate_height_hint": config.largest[0],
        "preallocate_width_hint": config.largest[1],
    }
    how: dict[str, Any] = {
        "output_type": types.RGB,
        "jpeg_fancy_upsampling": config.fancy_upsampling,
        "use_fast_idct": config.fast_idct,
        **({"device": "cpu"} if config.decode == "cpu" else {"device": "mixed", **engines}),
    }
    if config.whole:
        return fn.decoders.image(fed["encoded"], **how)
    if config.decode in ("cpu", "region", "hybrid"):
        images = fn.decoders.image_slice(fed["encoded"], fed["anchor"], fed["shape"], axis_names="HW", **how)
        # Decoded pixels cross the bus as they are; the rest is the GPU's work.
        return images.gpu() if config.device == "gpu" and config.decode == "cpu" else images
    if config.decode == "hardware":
        images = fn.decoders.image(fed["encoded"], **how)
    else:
        images = fed["rows"].gpu() if config.device == "gpu" else fed["rows"]
    # Cut the region out first: otherwise the resize filter would also read image pixels outside it.
    return fn.slice(images, fed["anchor"], fed["shape"], axis_names="HW")


def _mirror_normalise(images: Any, mirror: Any, config: GraphConfig) -> Any:
    """(pixel / 255 - mean) / std, or the pixels themselves; channels last in memory."""
    dtype, plain = config.dtype if config.normalises else "uint8", not config.normalises
    return fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        dtype={"float32": types.FLOAT, "float16": types.FLOAT16, "uint8": types.UINT8}[dtype],
        output_layout="HWC",
        mean=[0.0] * 3 if plain else [255 * value for value in config.mean],
        std=[1.0] * 3 if plain else [255 * value for value in config.std],
    )
