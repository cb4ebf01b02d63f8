"""The DALI graph: one definition for the CPU and the GPU.

The graph holds no random operator. It reads what the loader feeds it - encoded bytes, and for each
sample the region to decode, the window to resize and whether to mirror - and decodes just the
region. On a GPU it also resizes, mirrors and normalises. On a CPU it ends with uint8 pixels, because DALI's
pixel operators are slow there: shards/decode/finish.py does that part (docs/architecture.md has figures).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from shards.common.errors import MissingDependency, UsageError
from shards.decode import MEAN, STD
from shards.sampling.policies import INPUTS as POLICY_INPUTS
from shards.sampling.policies import Policy

try:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import Pipeline, do_not_convert, pipeline_def
    from nvidia.dali.tensors import TensorListCPU

    from shards.decode.policy_operators import apply
except ImportError as error:
    raise MissingDependency(
        "NVIDIA DALI is not installed: pip install 'shardfeed[cuda13]', or 'shardfeed[cuda12]' where the driver is "
        f"older than CUDA 13 (never both); it runs on machines without a GPU too ({error})"
    ) from error

Device = Literal["cpu", "gpu"]
DType = Literal["float32", "float16", "uint8"]
# Who decodes. cpu: libjpeg-turbo, the region alone. region: the GPU's cores, the region alone. hardware: the GPU's
# JPEG engines, which decode whole images, and its cores beside them. raw: nobody, the samples are stored decoded.
Decode = Literal["cpu", "region", "hardware", "raw"]

# What each device can put out. On a CPU float16 costs more than it saves (under 1,600 images/s a core).
DTYPES: dict[Device, tuple[DType, ...]] = {"cpu": ("float32", "uint8"), "gpu": ("float32", "float16", "uint8")}

# Batches that DALI works on ahead of the one being taken: fewer leave gaps, more only take memory.
PREFETCH = 3


@dataclass(frozen=True)
class Graph:
    """What the graph is made for."""

    device: Device
    """Where the batch lies."""
    decode: Decode
    dtype: DType
    batch_size: int
    resize: bool
    """Whether the graph resizes windows to the size that comes with each sample; else regions come out as they are."""
    threads: int
    """DALI's decoding threads on the CPU; of stored pixels on a CPU, samples finished at a time."""
    augment: Policy | None = None
    """The augmentation policy that the graph applies, after the resize."""
    device_id: int | None = None
    """The CUDA device; None builds a graph that runs on the CPU alone."""
    fast_idct: bool = False
    """On the CPU, decode by libjpeg-turbo's faster and less exact transform."""
    hw_decoder_load: float | None = None
    """For "hardware": the share of a batch's images that goes to the engines; None leaves it to DALI."""

    def __post_init__(self) -> None:
        if self.device not in DTYPES:
            raise UsageError(f"device must be cpu or gpu, not {self.device!r}")
        if self.dtype not in DTYPES[self.device]:
            raise UsageError(
                f"dtype on the {self.device} must be one of {', '.join(DTYPES[self.device])}, not {self.dtype!r}"
            )
        if self.device == "cpu" and self.decode in ("region", "hardware"):
            raise UsageError(f"decode={self.decode!r} needs device='gpu'")
        if self.fast_idct and self.decode != "cpu":
            raise UsageError(f"fast_idct is for decode='cpu', not {self.decode!r}")
        if self.hw_decoder_load is not None and (self.decode != "hardware" or not 0 <= self.hw_decoder_load <= 1):
            raise UsageError("hw_decoder_load is a share from 0 to 1, for decode='hardware'")
        if self.threads < 1:
            raise UsageError(f"threads must be at least 1, not {self.threads}")

    @property
    def inputs(self) -> tuple[str, ...]:
        """What the source gives for each batch, in this order; names as in `shards.sampling.crops.Windows`, and `size`."""
        first = "rows" if self.decode == "raw" else "encoded"
        resize = ("start", "end", "size") if self.resize else ()
        return (first, "anchor", "shape", "mirror", *resize, *(POLICY_INPUTS if self.augment is not None else ()))


def build(graph: Graph, source: Callable[[], Any]) -> Pipeline:
    """The pipeline of `graph`, fed by `source`.

    `source()` returns one batch as a tuple in the order of `graph.inputs`: encoded, a list of uint8 arrays
    (bytes,), or rows, of uint8 arrays (height, width, 3); anchor and shape (n, 2) int32, mirror (n,) int32, start,
    end and size (n, 2) float32, and what `shards.sampling.policies.draws` gives. The arrays must stay alive until the batch
    comes out: they are not copied.

    The output is uint8 (height, width, 3) for each sample on a CPU, not mirrored; on a GPU of `graph.dtype`,
    mirrored, and normalised unless uint8. All have one size where windows are resized, or are all of one size.
    """
    # A policy applies to each sample one of many operations, which DALI writes as `if`.
    definition = pipeline_def(_definition, enable_conditionals=graph.augment is not None)
    return definition(
        graph,
        source,
        batch_size=graph.batch_size,
        num_threads=graph.threads,
        device_id=graph.device_id,
        prefetch_queue_depth=PREFETCH,
        # The graph draws no random numbers; a fixed seed keeps DALI from making one up.
        seed=0,
    )


def _definition(graph: Graph, source: Callable[[], Any]) -> Any:
    images, fed = _windows(graph, source)
    if graph.augment is not None:
        images = apply(graph.augment, images, fed)
    return _outputs(graph, images, fed)


@do_not_convert
def _windows(graph: Graph, source: Callable[[], Any]) -> tuple[Any, dict[str, Any]]:
    """uint8 (height, width, 3): the window of each sample, resized where the graph does that; and all inputs."""
    kinds = {
        "encoded": (types.UINT8, 1),
        "rows": (types.UINT8, 3),
        "mirror": (types.INT32, 0),
        **dict.fromkeys(("anchor", "shape", *POLICY_INPUTS), (types.INT32, 1)),
        **dict.fromkeys(("start", "end", "size"), (types.FLOAT, 1)),
    }
    outputs = fn.external_source(
        source=lambda: tuple(_wrapped(each) for each in source()),
        num_outputs=len(graph.inputs),
        batch=True,
        no_copy=True,
        dtype=[kinds[name][0] for name in graph.inputs],
        ndim=[kinds[name][1] for name in graph.inputs],
        layout=["HWC" if name == "rows" else "" for name in graph.inputs],
    )
    fed = dict(zip(graph.inputs, outputs, strict=True))
    images = _pixels(graph, fed)
    if graph.resize:
        images = fn.resize(
            images,
            size=fed["size"],
            roi_start=fed["start"],
            roi_end=fed["end"],
            interp_type=types.INTERP_LINEAR,
            # A triangular filter as wide as the scale: what torchvision's antialias=True does.
            antialias=True,
        )
    return images, fed


def _wrapped(batch: Any) -> Any:
    """A list of arrays as what DALI would make of it: in one call, which takes a tenth of the time of its own loop."""
    if isinstance(batch, list) and all(each.flags.writeable for each in batch):  # DLPack refuses what is read-only
        return TensorListCPU.from_dlpack_list(batch)  # type: ignore[attr-defined]  # not in its stubs
    return batch


@do_not_convert
def _outputs(graph: Graph, images: Any, fed: dict[str, Any]) -> Any:
    if graph.device == "gpu":
        return _mirror_normalise(images, fed["mirror"], graph.dtype)
    # DALI drops an input that nothing reads, and warns; shards/decode/finish.py mirrors on the CPU.
    return images, fed["mirror"]


def _pixels(graph: Graph, fed: dict[str, Any]) -> Any:
    """uint8 (height, width, 3): each sample's region, on the device of the batch."""
    if graph.decode in ("cpu", "region"):
        images = fn.decoders.image_slice(
            fed["encoded"],
            fed["anchor"],
            fed["shape"],
            axis_names="HW",
            device="cpu" if graph.decode == "cpu" else "mixed",
            output_type=types.RGB,
            # The GPU's decoder then upsamples chroma as the CPU's does.
            jpeg_fancy_upsampling=True,
            use_fast_idct=graph.fast_idct,
        )
        # Decoded pixels cross the bus as they are; the rest is the GPU's work.
        return images.gpu() if graph.device == "gpu" and graph.decode == "cpu" else images
    if graph.decode == "hardware":
        images = fn.decoders.image(
            fed["encoded"],
            device="mixed",
            output_type=types.RGB,
            jpeg_fancy_upsampling=True,
            hw_decoder_load=graph.hw_decoder_load,
        )
    else:
        images = fed["rows"].gpu() if graph.device == "gpu" else fed["rows"]
    # A resize has to see the region alone: what its filter finds beside it belongs to the picture.
    return fn.slice(images, fed["anchor"], fed["shape"], axis_names="HW")


def _mirror_normalise(images: Any, mirror: Any, dtype: DType) -> Any:
    """(pixel / 255 - MEAN) / STD, or the pixels themselves for uint8; channels last in memory."""
    plain = dtype == "uint8"
    return fn.crop_mirror_normalize(
        images,
        mirror=mirror,
        dtype={"float32": types.FLOAT, "float16": types.FLOAT16, "uint8": types.UINT8}[dtype],
        output_layout="HWC",
        mean=[0.0] * 3 if plain else [255 * value for value in MEAN],
        std=[1.0] * 3 if plain else [255 * value for value in STD],
    )
