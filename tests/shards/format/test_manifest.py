import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.common.errors import UsageError
from shards.format.manifest import FORMAT_VERSION, IndexInfo, Manifest, Settings, ShardInfo, SplitInfo

SHARDS = (ShardInfo("train-00000.tar", 10240, 3, "ab" * 32), ShardInfo("train-00001.tar", 10240, 2, "cd" * 32))
MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    program_version="0.1.0",
    source="somewhere",
    fingerprint="ef" * 32,
    class_names=("Ente", "Känguru"),
    settings=Settings(short_side=None, quality=87, shard_size=3, seed=5),
    splits={
        "train": SplitInfo(5, 1, SHARDS, {"jpeg": 4, "jpeg gray": 1}, index=IndexInfo(4321, "12" * 32)),
        "before": SplitInfo(5, 0, SHARDS),
    },
    libraries={"pillow": "12.0"},
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST


def test_writing_leaves_nothing_but_the_manifest(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_no_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere is not a directory"):
        Manifest.read(tmp_path / "nowhere")


def test_a_directory_without_a_manifest_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no manifest.json, so it is not a finished data set"):
        Manifest.read(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    replace(MANIFEST, format_version=FORMAT_VERSION + 1).write(tmp_path)
    with pytest.raises(UsageError, match="newer than"):
        Manifest.read(tmp_path)


def without_shards(content: dict[str, Any]) -> dict[str, Any]:
    content["splits"]["train"]["shards"] = []
    return content


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: [],
        lambda content: {},
        lambda content: {**content, "splits": {"train": 3}},
        lambda content: {**content, "settings": {"speed": 1}},
        without_shards,
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, damage: Any) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(UsageError, match=r"manifest.json is damaged"):
        Manifest.read(tmp_path)


def test_half_a_manifest_is_damaged(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UsageError, match=r"manifest.json is damaged"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("wrong", [{"short_side": 0}, {"quality": 101}, {"shard_size": 0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)
