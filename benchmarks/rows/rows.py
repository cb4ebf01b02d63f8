"""The rows that `python -m benchmarks peers` measures, by their names, in the order of the table."""

from dataclasses import dataclass
from typing import Literal

from benchmarks.measure.settings import BatchSpec, DType
from benchmarks.processes.task import Reads

Store = Literal["jpeg", "raw", "original", "small-jpeg", "small-raw", "tars"]


@dataclass(frozen=True)
class Row:
    """What is measured.

    store: the data, of stores.py in this folder.
    views: of a method of self-supervised learning; "none" measures single images.
    reads: what a turn finds: see `Reads`.
    """

    store: Store
    crop: Literal["random", "rrc"] = "random"
    dtype: DType = "float32"
    batch_size: int = BatchSpec.batch_size
    size: int = BatchSpec.size
    views: Literal["none", "simclr", "dino"] = "none"
    reads: Reads = "memory"


ROWS = {
    "jpeg": Row("jpeg"),
    "jpeg-uint8": Row("jpeg", dtype="uint8"),
    "jpeg-rrc": Row("jpeg", "rrc"),
    "raw": Row("raw"),
    "raw-uint8": Row("raw", dtype="uint8"),
    "small-raw-uint8": Row("small-raw", dtype="uint8", batch_size=512, size=32),
    "small-raw": Row("small-raw", batch_size=512, size=32),
    "small-jpeg-uint8": Row("small-jpeg", dtype="uint8", batch_size=512, size=32),
    "original-rrc": Row("original", "rrc"),
    "tars-rrc": Row("tars", "rrc"),
    "simclr": Row("jpeg", "rrc", views="simclr"),
    "dino": Row("jpeg", "rrc", views="dino"),
    "cold": Row("jpeg", reads="disk"),
    "http": Row("jpeg", reads="http"),
}
