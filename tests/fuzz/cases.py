"""Which files are damaged, and what is read from them afterwards.

Each case makes its files once. `read` gives what the program makes of them, or raises ShardfeedError; any other
exception is a fault, and so is another value than that of the whole file.
"""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from model.weights import About, load_model, save_weights
from preprocess.job.out import read_plan
from preprocess.job.plan import Plan
from preprocess.job.task import ShardJob, index_path, marker_path, plan_path
from preprocess.sources import open_source
from shards import Loader, open_dataset
from shards.common.errors import ShardfeedError
from shards.format.index import DTYPES, Index
from shards.format.layout import INDEX, MANIFEST
from shards.format.manifest import Settings
from shards.format.ppm import ppm
from shards.format.verify import verify
from tests.fuzz.mutate import Mutation, bytes_of, json_of, lines_of, table_of
from tests.helpers.datasets import jpeg, photo, write_split
from tests.helpers.jobs import folder
from tests.helpers.tars import indexed, write_tar
from train.checkpoints.resume import read_checkpoint
from train.curves import METRICS, curves_of, read_lines


@dataclass(frozen=True)
class Case:
    """`make` writes whole files into a directory; `file` is damaged there by `mutate`, then `read`.

    `every`: each changed byte must be an error, also where the result is the same.
    """

    file: str
    make: Callable[[Path], None]
    mutate: Mutation
    read: Callable[[Path], Any]
    every: bool = False


def _epoch(root: Path, **options: Any) -> list[Any]:
    """The images and labels of an epoch."""
    split = open_dataset(root)["train"]
    with Loader(split, batch_size=5, train=False, size=8, resize=8, dtype="uint8", threads=1, **options) as loader:
        return [(images.tolist(), labels.tolist()) for images, labels in loader]


def _images(root: Path) -> list[Any]:
    """Without labels: nothing but the manifest's hash of the index tells one label from another."""
    return [images for images, _ in _epoch(root, check="crc")]


def _verified(root: Path) -> bool:
    """Raises ShardfeedError where `verify` finds a problem."""
    if problems := verify(root, workers=1).problems:
        raise ShardfeedError(str(problems[0]))
    return True


def _split(root: Path, encoding: Any = "raw") -> None:
    encode = ppm if encoding == "raw" else jpeg
    images = [encode(photo(8, 8 + seed % 3, seed)) for seed in range(12)]
    write_split(root, images, short_side=8, encoding=encoding)


def _jpegs(root: Path) -> None:
    _split(root, "jpeg")


def _without_hash(root: Path) -> None:
    """A data set of an earlier version, whose manifest holds no hash of the index."""
    _split(root)
    manifest = json.loads((root / MANIFEST).read_bytes())
    del manifest["splits"]["train"]["index"]
    (root / MANIFEST).write_text(json.dumps(manifest))


def _tars(root: Path) -> None:
    """Tars that webdataset wrote, one of their images cleaned, and their index."""
    for number in range(2):
        images = [jpeg(photo(8, 8 + seed % 3, seed)) for seed in range(6 * number, 6 * number + 6)]
        samples = [{"__key__": f"{row}", "jpg": image, "cls": row} for row, image in enumerate(images)]
        samples[3] = {"__key__": "3", "jpg": ppm(photo(8, 9)), "cls": 3}
        write_tar(root / f"{number}.tar", samples)
    indexed(root)


def _job(root: Path) -> ShardJob:
    source = open_source(str(root / "source"))
    return ShardJob(source, Plan.of_source(source, Settings(short_side=8, shard_size=5)), root / "out")


def _unfinished(root: Path) -> None:
    folder(root / "source", {"train": 9}, {"train/a/none.jpg": b"\xff\xd8\xff\xe0"})
    job = _job(root)
    job.plan.write(plan_path(job.out))
    for task in job.plan.tasks:
        job.run(task, lambda *_: None)


def _resumed_plan(root: Path) -> str:
    job = _job(root)
    return read_plan(job.out, job.plan).digest


def _found(root: Path) -> Any:
    """What goes from the first shard's marker into the data set, but for the words of rejects and kinds."""
    job = _job(root)
    found = job.find(job.plan.tasks[0], lambda *_: None)
    if found is None:
        raise ShardfeedError("is made again")
    index = Index.read(root / PART, keys=True)
    columns = [getattr(index, name).tolist() for name in (*DTYPES, "key")]
    return found.info, sum(found.kinds.values()), [each.row for each in found.rejects], columns


def _snapshot(root: Path) -> None:
    content = {
        "format": 3, "identity": {"model": "cnn", "seed": 0}, "of_ranks": [{"generators": torch.arange(50)}],
        "files": {METRICS: 100}, "network": {"weight": torch.rand(7, 5), "steps": torch.tensor(3)}, "step": 7,
    }  # fmt: skip
    torch.save(content, root / "last.pt")


def _checkpoint(root: Path) -> str:
    return _hashed(read_checkpoint(root / "last.pt"))


def _weights(root: Path) -> None:
    from model import build_model

    torch.manual_seed(0)
    save_weights(build_model("cnn", 3), root / "weights.pth", About("cnn", ("a", "b", "c"), 32, 36))


def _loaded(root: Path) -> str:
    network, about = load_model(root / "weights.pth")
    return _hashed([dict(network.state_dict()), about])


def _hashed(content: Any) -> str:
    """A hash of tensors, dicts, lists and plain values."""
    if isinstance(content, torch.Tensor):
        data = content.contiguous().numpy().tobytes()
        return hashlib.sha256(data + repr((content.dtype, content.shape)).encode()).hexdigest()
    if isinstance(content, dict):
        return repr([(name, _hashed(value)) for name, value in content.items()])
    if isinstance(content, (list, tuple)):
        return repr([_hashed(value) for value in content])
    return repr(content)


def _log(root: Path) -> None:
    lines = [
        {"event": "train", "epoch": 1, "step": step, "lr": 0.1, "gradient_norm": 1.5, "loss": 2.0, "images_per_s": 9.0}
        for step in range(1, 9)
    ]
    lines += [{"event": "validation", "epoch": 1, "step": 8, "top1": 50.0, "top5": 90.0, "loss": None}]
    (root / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))


def _curves(root: Path) -> None:
    """The values have no checksum: they are only read without any other error."""
    curves_of(read_lines(root / METRICS), root / METRICS)


TAR, IDX = "train/train-00000.tar", "train/train-00000.idx"
MARKER = os.path.relpath(marker_path(Path("out"), "train", 0))
PART = os.path.relpath(index_path(Path("out"), "train", 0))

CASES = {
    "manifest, loader": Case(MANIFEST, _split, json_of, _epoch),
    "manifest of tars of others, loader": Case(MANIFEST, _tars, json_of, _epoch),
    "manifest, verify": Case(MANIFEST, _split, json_of, _verified),
    "index, loader": Case(f"train/{INDEX}", _split, table_of, _epoch, every=True),
    "index, verify": Case(f"train/{INDEX}", _split, table_of, _verified, every=True),
    "index without a hash, loader": Case(f"train/{INDEX}", _without_hash, table_of, _images),
    "tar of JPEGs, loader": Case(TAR, _jpegs, bytes_of, _epoch),
    "tar of pixels, loader": Case(TAR, _split, bytes_of, lambda root: _epoch(root, check="crc")),
    "tar, verify": Case(TAR, _split, bytes_of, _verified, every=True),
    "idx, verify": Case(IDX, _split, bytes_of, _verified, every=True),
    "plan.json": Case(os.path.relpath(plan_path(Path("out"))), _unfinished, json_of, _resumed_plan),
    "marker": Case(MARKER, _unfinished, json_of, _found),
    "index of a shard": Case(PART, _unfinished, table_of, _found, every=True),
    "checkpoint": Case("last.pt", _snapshot, bytes_of, _checkpoint),
    "weights": Case("weights.pth", _weights, bytes_of, _loaded),
    "metrics.jsonl": Case(METRICS, _log, lines_of, _curves),
}
