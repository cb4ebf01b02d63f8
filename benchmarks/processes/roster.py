"""Who is measured: every contender by its name on the command line, where its module is and where it runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.measure.result import Setting
from benchmarks.processes import install
from benchmarks.processes.job import Job
from benchmarks.processes.remote import Remote
from shards.format.layout import Encoding


@dataclass(frozen=True)
class Entry:
    """One contender.

    title: its name in results. module: has a function `peer(job)`. environment: of benchmarks/processes/install.py; None
    runs in this one. processes: its images are prepared by worker processes, not by threads. encodings: of the shards
    that it can do the same work from. options: for our own loader.
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
        if self.options.get("device") == "gpu" and not torch.cuda.is_available():
            return "needs a CUDA GPU, and torch sees none"
        return None if self.environment is None else install.missing(self.environment)

    def start(self, job: Job) -> Remote:
        """Its process, ready. Raises ShardfeedError if it cannot start."""
        return Remote(self.title, self.python, f"benchmarks.peers.{self.module}", job)

    @property
    def python(self) -> Path | None:
        """The interpreter; None is this one."""
        return None if self.environment is None else install.python(self.environment)


ROSTER = {
    "naive": Entry("naive HF + PIL", "hf_pil", processes=True),
    "folder": Entry("image folder + PIL", "folder_pil", processes=True),
    "torchvision": Entry("image folder + decode_jpeg", "folder_torchvision", processes=True, encodings=("jpeg",)),
    "webdataset": Entry("webdataset + PIL", "webdataset_pil", processes=True),
    "streaming": Entry("MosaicML Streaming", "streaming", "streaming", processes=True),
    "litdata": Entry("LitData", "litdata", "litdata", processes=True, encodings=("jpeg",)),
    "spdl": Entry("SPDL", "spdl", "spdl", encodings=("jpeg",)),
    "tfdata": Entry("tf.data", "tfdata", "tensorflow", encodings=("jpeg",)),
    "ffcv": Entry("FFCV", "ffcv", "ffcv"),
    "dali": Entry("plain DALI", "dali"),
    "turbojpeg": Entry("libjpeg-turbo, decode alone", "turbojpeg", processes=True, encodings=("jpeg",)),
    "shardfeed": Entry("shardfeed", "shardfeed"),
    "fast-dct": Entry("shardfeed, fast DCT", "shardfeed", encodings=("jpeg",), options={"fast_idct": True}),
    "gpu": Entry("shardfeed, GPU, CPU decodes", "shardfeed", options={"device": "gpu", "decode": "cpu"}),
    "gpu-region": Entry("shardfeed, GPU, region", "shardfeed", options={"device": "gpu", "decode": "region"}),
    "gpu-hardware": Entry("shardfeed, GPU, JPEG engines", "shardfeed", options={"device": "gpu", "decode": "hardware"}),
    # DALI's own share is 0.65; what is best depends on the GPU and the images.
    **{
        f"gpu-hardware-{load:g}": Entry(
            f"shardfeed, GPU, JPEG engines for {load:.0%}",
            "shardfeed",
            options={"device": "gpu", "decode": "hardware", "hw_decoder_load": load},
        )
        for load in (0.5, 0.8, 0.95)
    },
}
NAIVE, DALI, OURS = "naive", "dali", "shardfeed"
# What the ratios are taken to, where it was measured.
BASES = (NAIVE, "ffcv", DALI, "turbojpeg")
