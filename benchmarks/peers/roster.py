"""Who is compared: every peer by its name on the command line, with its module and where it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.measure.result import Setting
from benchmarks.measure.settings import BatchSpec
from benchmarks.processes import environments
from benchmarks.processes.process import PeerProcess
from benchmarks.processes.task import PeerTask, Reads
from shards.format.layout import Encoding


@dataclass(frozen=True)
class Entry:
    """One peer.

    title: its name in results.
    module: the file in this folder.
    environment: of benchmarks/processes/environments.py; None runs in this one.
    processes: its images are prepared by worker processes, not by threads.
    encodings: of the shards from which it can do the same work.
    rrc_only: it has no other crop, and no batches of uint8.
    reads: where it can read the data from.
    tars: it reads tars of others in place.
    options: go to the task; for modules that stand here more than once.
    """

    title: str
    module: str
    environment: str | None = None
    processes: bool = False
    encodings: tuple[Encoding, ...] = ("jpeg", "raw")
    rrc_only: bool = False
    reads: tuple[Reads, ...] = ("memory", "disk")
    tars: bool = False
    options: Mapping[str, Setting] = field(default_factory=dict)

    def absence(
        self, encoding: Encoding, batch: BatchSpec, reads: Reads = "memory", indexed: bool = False
    ) -> str | None:
        """Why it cannot be measured, in one line; None if it can. indexed: the shards are tars of others."""
        if encoding not in self.encodings:
            return f"does not read {encoding} images"
        if self.rrc_only and (batch.crop, batch.dtype) != ("rrc", "float32"):
            return "makes RandomResizedCrop in float32 alone"
        if reads not in self.reads:
            return "does not read what lies behind a web server"
        if indexed and not self.tars:
            return "reads shards that a conversion made, and not tars of others"
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
EVERYWHERE: tuple[Reads, ...] = ("memory", "disk", "http")
# The share of a batch that DALI gives a GPU's JPEG engines by itself; the best one depends on the GPU and the images.
DALI_LOAD = 0.65
ROSTER = {
    "naive": Entry("naive HF + PIL", "naive", processes=True, tars=True),
    "folder": Entry("image folder + PIL", "image_folder", processes=True, options={"decoder": "pil"}),
    "torchvision": Entry(
        "image folder + decode_jpeg", "image_folder", processes=True, encodings=JPEG, options={"decoder": "torchvision"}
    ),
    "torchcodec": Entry(
        "image folder + torchcodec", "image_folder", "torchcodec", True, JPEG, options={"decoder": "torchcodec"}
    ),
    "timm": Entry("timm", "timm", processes=True, rrc_only=True),
    "webdataset": Entry("webdataset + PIL", "webdataset_pil", processes=True, reads=EVERYWHERE, tars=True),
    "streaming": Entry("MosaicML Streaming", "streaming", "streaming", processes=True),
    "litdata": Entry("LitData", "litdata", "litdata", processes=True, encodings=JPEG),
    "spdl": Entry("SPDL", "spdl", "spdl", encodings=JPEG),
    "tfdata": Entry("tf.data", "tfdata", "tensorflow", encodings=JPEG),
    "ffcv": Entry("FFCV", "ffcv", "ffcv"),
    "dali": Entry("plain DALI", "dali", tars=True),
    "turbojpeg": Entry("libjpeg-turbo, decode alone", "turbojpeg", processes=True, encodings=JPEG, tars=True),
    "shardfeed": Entry("shardfeed", "shardfeed", reads=EVERYWHERE, tars=True),
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
# Who makes several views of each image, for `--views`.
VIEWS = {
    "shardfeed": Entry("shardfeed, all views", "views", reads=EVERYWHERE, tars=True, options={"way": "once"}),
    "gpu": Entry("shardfeed, all views, GPU", "views", options={"way": "once", "device": "gpu", "decode": "cpu"}),
    "gpu-region": Entry(
        "shardfeed, all views, GPU, region", "views", options={"way": "once", "device": "gpu", "decode": "region"}
    ),
    "each": Entry("shardfeed, once a view", "views", reads=EVERYWHERE, tars=True, options={"way": "each"}),
    "dataloader": Entry("DataLoader, PIL views", "views", processes=True, options={"way": "torchvision"}),
}
NAIVE, DALI, OURS = "naive", "dali", "shardfeed"
# Our loader's ratios are taken to these, where they were measured, in this order; with `--views` to those below.
BASES = ("ffcv", DALI, "turbojpeg", NAIVE)
VIEW_BASES = ("each", "dataloader")
