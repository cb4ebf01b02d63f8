"""Who is compared: every peer by its name on the command line, with its module and where it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.measure.result import Setting
from benchmarks.measure.settings import DType
from benchmarks.processes import environments
from benchmarks.processes.process import PeerProcess
from benchmarks.processes.task import PeerTask
from shards.format.layout import Encoding


@dataclass(frozen=True)
class Entry:
    """One peer.

    title: its name in results.
    module: the file in this folder.
    environment: of benchmarks/processes/environments.py; None runs in this one.
    processes: its images are prepared by worker processes, not by threads.
    encodings: of the shards from which it can do the same work.
    options: go to the task; for modules that stand here more than once.
    """

    title: str
    module: str
    environment: str | None = None
    processes: bool = False
    encodings: tuple[Encoding, ...] = ("jpeg", "raw")
    options: Mapping[str, Setting] = field(default_factory=dict)

    def absence(self, encoding: Encoding) -> str | None:
        """Why it cannot be measured, in one line; None if it can."""
        if encoding not in self.encodings:
            return f"does not read {encoding} images"
        if self.options.get("device") == "gpu":
            import torch  # not at the top, so that --help and a mistyped option need not wait for it

            if not torch.cuda.is_available():
                return "needs a CUDA GPU, and torch sees none"
        return None if self.environment is None else environments.missing(self.environment)

    def start(self, task: PeerTask) -> PeerProcess:
        """Its process, ready. Raises ShardfeedError if it cannot start."""
        return PeerProcess(self.title, self.python, f"benchmarks.peers.{self.module}", task)

    @property
    def python(self) -> Path | None:
        """The interpreter; None is this one."""
        return None if self.environment is None else environments.python(self.environment)


JPEG: tuple[Encoding, ...] = ("jpeg",)
# The share of a batch that DALI gives a GPU's JPEG engines by itself; the best one depends on the GPU and the images.
DALI_LOAD = 0.65
ROSTER = {
    "naive": Entry("naive HF + PIL", "naive", processes=True),
    "folder": Entry("image folder + PIL", "image_folder", processes=True, options={"decoder": "pil"}),
    "torchvision": Entry(
        "image folder + decode_jpeg", "image_folder", processes=True, encodings=JPEG, options={"decoder": "torchvision"}
    ),
    "webdataset": Entry("webdataset + PIL", "webdataset_pil", processes=True),
    "streaming": Entry("MosaicML Streaming", "streaming", "streaming", processes=True),
    "litdata": Entry("LitData", "litdata", "litdata", processes=True, encodings=JPEG),
    "spdl": Entry("SPDL", "spdl", "spdl", encodings=JPEG),
    "tfdata": Entry("tf.data", "tfdata", "tensorflow", encodings=JPEG),
    "ffcv": Entry("FFCV", "ffcv", "ffcv"),
    "dali": Entry("plain DALI", "dali"),
    "turbojpeg": Entry("libjpeg-turbo, decode alone", "turbojpeg", processes=True, encodings=JPEG),
    "shardfeed": Entry("shardfeed", "shardfeed"),
    "fast-dct": Entry("shardfeed, fast DCT", "shardfeed", encodings=JPEG, options={"fast_idct": True}),
    "gpu": Entry("shardfeed, GPU, CPU decodes", "shardfeed", options={"device": "gpu", "decode": "cpu"}),
    "gpu-region": Entry("shardfeed, GPU, region", "shardfeed", options={"device": "gpu", "decode": "region"}),
    "gpu-hybrid": Entry("shardfeed, GPU, both", "shardfeed", options={"device": "gpu", "decode": "hybrid"}),
    "gpu-hardware": Entry("shardfeed, GPU, JPEG engines", "shardfeed", options={"device": "gpu", "decode": "hardware"}),
    "gpu-lent": Entry(
        "shardfeed, GPU, CPU decodes, no copy", "shardfeed", options={"device": "gpu", "decode": "cpu", "lends": True}
    ),
    "dali-gpu": Entry("plain DALI, GPU", "dali", encodings=JPEG, options={"device": "gpu"}),
    **{
        f"gpu-hardware-{load:g}": Entry(
            f"shardfeed, GPU, JPEG engines for {load:.0%}",
            "shardfeed",
            options={"device": "gpu", "decode": "hardware", "hw_decoder_load": load},
        )
        for load in (0.5, 0.8, 0.95)
    },
}
# Who makes several views of each image, for `--views`; the first is this loader, and the others are what it is held to.
VIEWS = {
    "once": Entry("shardfeed, all views", "views", options={"way": "once"}),
    "each": Entry("shardfeed, once a view", "views", options={"way": "each"}),
    "torchvision": Entry("DataLoader, PIL views", "views", processes=True, options={"way": "torchvision"}),
}
NAIVE, DALI, OURS = "naive", "dali", "shardfeed"
# What is stored, cropped and delivered: the rows that `python -m benchmarks peers` measures, in this order.
ROWS: tuple[tuple[Encoding, Literal["random", "rrc"], DType], ...] = (
    ("jpeg", "random", "float32"),
    ("jpeg", "random", "uint8"),
    ("jpeg", "rrc", "float32"),
    ("raw", "random", "float32"),
    ("raw", "random", "uint8"),
)
# Our loader's ratios are taken to these, where they were measured.
BASES = (NAIVE, "ffcv", DALI, "turbojpeg")
