"""Version 3 of the manifest: shards with places of their own; versions 1 and 2 stay as they were."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.common.errors import ShardfeedError, UsageError
from shards.format.index import Index
from shards.format.manifest import INDEXED_VERSION, Manifest, ShardInfo, SplitInfo
from tests.shards.format.test_manifest import MANIFEST as OURS

TARS = (ShardInfo("a.tar", 10_240, 3, "", "../a.tar", "17"), ShardInfo("b.tar", 10_240, 2, "", "s3://x/b.tar"))
MANIFEST = replace(OURS, format_version=INDEXED_VERSION, splits={"train": SplitInfo(5, 0, TARS, checksums=False)})


def test_places_are_written_and_read(tmp_path: Path) -> None:
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST


def test_a_conversions_manifest_has_none_of_the_fields(tmp_path: Path) -> None:
    OURS.write(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["format_version"] == 2
    for split in content["splits"].values():
        assert "checksums" not in split
        assert all(shard.keys() == {"name", "bytes", "samples", "sha256"} for shard in split["shards"])


@pytest.mark.parametrize(
    "shard",
    [
        replace(TARS[0], place="../../a.tar"),
        replace(TARS[0], place=""),
        replace(TARS[0], place="a\x1b.tar"),
    ],
)
def test_a_place_that_cannot_be_is_damage(shard: ShardInfo, tmp_path: Path) -> None:
    replace(MANIFEST, splits={"train": SplitInfo(3, 0, (shard,))}).write(tmp_path)
    with pytest.raises(UsageError, match=r"splits\.train\.shards\[0\]\.place: .* is no place of a tar"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize("change", [{"place": "/etc/a.tar"}, {"sha256": ""}])
def test_a_conversions_shards_have_no_place_and_a_hash(change: dict[str, str], tmp_path: Path) -> None:
    OURS.write(tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    content["splits"]["train"]["shards"][0] |= change
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="shards of version 2 have a SHA-256, and no place of their own"):
        Manifest.read(tmp_path)


ROWS = [(0, 512, 700, 0, 5, 5, 1), (0, 3000, 99, 1, 5, 5, 1), (0, 3099, 1, 1, 5, 5, 1), (1, 512, 1, 1, 5, 5, 1)]


def check(rows: list[tuple[int, int, int, int, int, int, int]]) -> None:
    infos = (replace(TARS[0], bytes=4000, samples=3), replace(TARS[1], bytes=4000, samples=1))
    Index.from_rows(rows, ["x"] * len(rows)).check("index.parquet", infos, 2, "jpeg")


def test_samples_may_lie_anywhere_in_the_order_of_a_tar() -> None:
    check(ROWS)


@pytest.mark.parametrize(
    ("row", "offset", "size", "said"),
    [
        (0, 511, 1, "row 0 has offset 511, not behind the sample before"),
        (0, -5, 1, "row 0 has offset -5"),
        (1, 1000, 5, "row 1 has offset 1000, not behind the sample before"),
        (2, 3090, 1, "row 2 has offset 3090"),
        (2, 3990, 11, "row 2 has offset 3990, not inside the shard"),
        (2, np.iinfo(np.int64).max, 11, "not inside the shard"),
        (3, 4000, 1, "row 3 has offset 4000, not inside the shard"),
    ],
)
def test_ranges_outside_or_across_are_damage(row: int, offset: int, size: int, said: str) -> None:
    rows = list(ROWS)
    rows[row] = (rows[row][0], offset, size, *rows[row][3:])
    with pytest.raises(ShardfeedError, match=said):
        check(rows)
