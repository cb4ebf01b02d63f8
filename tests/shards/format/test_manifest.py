import dataclasses
import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shards.common.errors import UsageError
from shards.format.layout import shard_name
from shards.format.manifest import (
    ADVICE,
    FORMAT_VERSION,
    INDEXED_VERSION,
    IndexInfo,
    Manifest,
    Settings,
    ShardInfo,
    SplitInfo,
)


def shards(split: str) -> tuple[ShardInfo, ...]:
    return (ShardInfo(f"{split}-00000.tar", 10240, 3, "ab" * 32), ShardInfo(f"{split}-00001.tar", 10240, 2, "cd" * 32))


MANIFEST = Manifest(
    format_version=FORMAT_VERSION,
    program_version="0.1.0",
    source="somewhere",
    fingerprint="ef" * 32,
    class_names=("Ente", "Känguru"),
    settings=Settings(short_side=None, quality=87, shard_size=3, seed=5),
    splits={
        "train": SplitInfo(5, 1, shards("train"), {"jpeg": 4, "jpeg gray": 1}, index=IndexInfo(4321, "12" * 32)),
        "before": SplitInfo(5, 0, shards("before")),
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


def test_a_pipe_in_place_of_a_manifest_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(UsageError, match=r"holds no manifest\.json"):
        Manifest.read(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    replace(MANIFEST, format_version=INDEXED_VERSION + 1).write(tmp_path)
    with pytest.raises(UsageError, match="newer than"):
        Manifest.read(tmp_path)


def test_a_manifest_of_the_first_format_is_read(tmp_path: Path) -> None:
    content = dataclasses.asdict(MANIFEST)
    content["format_version"] = 1
    del content["settings"]["encoding"]
    for split in content["splits"].values():
        del split["index"]
    assert Manifest.parse(json.dumps(content).encode(), "it").settings == MANIFEST.settings


def test_keys_of_later_versions_are_passed_over_but_no_setting(tmp_path: Path) -> None:
    content = dataclasses.asdict(MANIFEST) | {"added": [1, 2]}
    content["splits"]["train"]["added"] = {"later": None}
    assert Manifest.parse(json.dumps(content).encode(), "it") == MANIFEST
    content["settings"]["sharpen"] = 1
    with pytest.raises(UsageError, match=r"it is damaged \(settings: 'sharpen' is unknown\)"):
        Manifest.parse(json.dumps(content).encode(), "it")


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


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("class_names", 1), 7, "class_names[1]: expected str, got int"),
        (("splits", "train", "samples"), "5", "splits[...].samples: expected int, got str"),
        (("splits", "train", "rejects"), -1, "splits[...].rejects: expected int >= 0"),
        (("splits", "train", "rejects"), 10**30, "splits[...].rejects: expected int <= 9223372036854775807"),
        (("splits", "train", "kinds"), {"jpeg": 4.5}, "splits[...].kinds[...]: expected int, got float"),
        (("splits", "train", "shards", 1, "bytes"), None, "splits[...].shards[1].bytes: expected int, got null"),
        (("splits", "train", "shards", 1, "bytes"), True, "splits[...].shards[1].bytes: expected int, got bool"),
        (
            ("splits", "train", "shards", 0, "sha256"),
            "/any/path",
            "splits[...].shards[0].sha256: expected str matching",
        ),
        (("splits", "train", "shards", 0, "sha256"), "AB" * 32, "splits[...].shards[0].sha256: expected str matching"),
        (("splits", "train", "index", "sha256"), "ab" * 32 + "\n", "splits[...].index.sha256: expected str matching"),
        (
            ("splits", "train", "shards", 0, "name"),
            "../../secret.tar",
            "splits.train.shards[0].name: '../../secret.tar' is not train-00000.tar",
        ),
        (("splits", "train", "shards"), shards("before"), "splits.train.shards[0].name: 'before-00000.tar' is not"),
        (("splits",), {}, "splits: there are none"),
        (("splits",), {"../up": {"samples": 0, "rejects": 0, "shards": []}}, "splits: '../up' cannot be the name"),
        (("settings", "encoding"), "gif", "settings.encoding: invalid enum value 'gif'"),
        (("settings", "quality"), 101, "the JPEG quality must be 1 to 100, not 101"),
    ],
)
def test_a_wrong_value_is_named_with_file_and_field(
    tmp_path: Path, place: tuple[str | int, ...], value: object, said: str
) -> None:
    content: Any = json.loads(json.dumps(dataclasses.asdict(MANIFEST)))
    at = content
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = [dataclasses.asdict(shard) for shard in value] if isinstance(value, tuple) else value
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UsageError) as refused:
        Manifest.read(tmp_path)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path}/manifest.json is damaged ({said}")
    assert message.endswith(f"): {ADVICE}")
    assert "\n" not in message


def places(content: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside some JSON."""
    if isinstance(content, dict):
        inside = [way for key, value in content.items() for way in places(value, (*before, key))]
    elif isinstance(content, list):
        inside = [way for number, value in enumerate(content) for way in places(value, (*before, number))]
    else:
        inside = []
    return [*([before] if before else []), *inside]


STRANGE: list[object] = [
    None,
    True,
    -1,
    0,
    1.5,
    2**31,
    2**63,
    10**30,
    "",
    "x",
    "/etc/passwd",
    "../..",
    "\x1b[31m",
    "\0",
    [],
    [[]],
    {},
]


@pytest.mark.parametrize("seed", range(100))
def test_a_strange_manifest_is_refused_in_one_line_or_harmless(seed: int) -> None:
    rng = random.Random(seed)
    content: Any = json.loads(json.dumps(dataclasses.asdict(MANIFEST)))
    way = rng.choice(places(content))
    at = content
    for key in way[:-1]:
        at = at[key]
    if rng.random() < 0.2:
        del at[way[-1]]
    else:
        at[way[-1]] = rng.choice(STRANGE)
    data = bytearray(json.dumps(content).encode())
    if rng.random() < 0.3:
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.1:
        del data[rng.randrange(len(data)) :]
    refused = None
    try:
        read = Manifest.parse(bytes(data), "manifest.json")
    except UsageError as error:
        refused = str(error)
    if refused is not None:
        assert "\n" not in refused
        assert refused.startswith("manifest.json ")
        return
    for name, split in read.splits.items():
        assert split.samples == sum(shard.samples for shard in split.shards) >= 0
        assert [shard.name for shard in split.shards] == [shard_name(name, n) for n in range(len(split.shards))]
        assert all(re.fullmatch("[0-9a-f]{64}", shard.sha256) and shard.bytes >= 0 for shard in split.shards)
    assert all(isinstance(name, str) for name in read.class_names)


@pytest.mark.parametrize("wrong", [{"short_side": 0}, {"quality": 101}, {"shard_size": 0}, {"seed": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**wrong)


def test_further_columns_are_named_and_absent_where_there_are_none(tmp_path: Path) -> None:
    manifest = replace(MANIFEST, columns={"path": "string", "number": "int64"})
    manifest.write(tmp_path)
    assert Manifest.read(tmp_path) == manifest
    MANIFEST.write(tmp_path)
    assert "columns" not in json.loads((tmp_path / "manifest.json").read_text())
    replace(manifest, columns={"path": "object"}).write(tmp_path)
    with pytest.raises(UsageError, match="columns: 'path' holds 'object', which is none of string and int64"):
        Manifest.read(tmp_path)
