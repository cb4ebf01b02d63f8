"""Markers of finished shards: a damaged one counts as none, so that its shard is made again. And progress."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from preprocess.job.plan import Plan
from preprocess.job.task import Rejected, ShardJob, ShardResult, read_marker
from preprocess.sources import open_source
from shards.format.manifest import Settings, ShardInfo

TASK = ("train", 1)
INFO = ShardInfo(name="train-00001.tar", bytes=10240, samples=3, sha256="ab" * 32)
RESULT = ShardResult(*TASK, INFO, {"jpeg": 3}, (Rejected("train", 7, "a.jpg", "empty"),))


def marker(**changed: Any) -> bytes:
    return json.dumps({**dataclasses.asdict(RESULT), **changed}).encode()


def info(**changed: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(INFO), **changed}


def reject(**changed: Any) -> list[dict[str, Any]]:
    return [{**dataclasses.asdict(RESULT.rejects[0]), **changed}]


def test_a_marker_is_read_as_it_was_written() -> None:
    assert read_marker(TASK, marker()) == dataclasses.replace(RESULT, fresh=False)


@pytest.mark.parametrize(
    "changed",
    [
        {"info": None},
        {"info": {"name": "train-00001.tar"}},
        {"info": info(name="../train-00001.tar")},
        {"info": info(samples="3")},
        {"info": info(bytes=-1)},
        {"info": info(sha256=7)},
        {"kinds": 3},
        {"kinds": {"jpeg": "3"}},
        {"enlarged": -1},
        {"rejects": 3},
        {"rejects": [3]},
        {"rejects": reject(row="7")},
        {"rejects": reject(path=None)},
        {"rejects": reject(split="validation")},
    ],
)
def test_a_marker_of_other_types_is_none(changed: dict[str, Any]) -> None:
    assert read_marker(TASK, marker(**changed)) is None


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"{", b"\xff\xfe"])
def test_a_marker_that_is_no_json_object_is_none(data: bytes) -> None:
    assert read_marker(TASK, data) is None


@pytest.mark.parametrize("options", [Settings(shard_size=10), Settings(window=10, shard_size=10), Settings(None)])
def test_the_bytes_that_progress_counts_are_those_of_the_tar(options: Settings, tmp_path: Path) -> None:
    source = open_source("synthetic:train=7")
    counted = [0, 0, 0, 0]

    def progress(*more: int) -> None:
        counted[:] = [old + new for old, new in zip(counted, more, strict=True)]

    plan = Plan(source.name, source.fingerprint, {"train": 7}, options, "0", {})
    result = ShardJob(source, plan, tmp_path).run(("train", 0), progress)
    length = (tmp_path / "train" / "train-00000.tar").stat().st_size
    assert counted == [7, length, 0, 0]
    assert result.info.bytes == length
