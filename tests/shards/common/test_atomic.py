from pathlib import Path

import pytest

from shards.common.atomic import refuse_unwritable, replacing
from shards.common.errors import UsageError


def test_nothing_is_there_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replacing(path) as file:
        file.write(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new"


def write_and_fail(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"new")
        raise KeyError


def test_an_error_leaves_the_old_file_and_no_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        write_and_fail(path)
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def refusal(option: str, path: Path, *, directory: bool = False) -> str:
    with pytest.raises(UsageError) as refused:
        refuse_unwritable(option, path, directory=directory)
    return str(refused.value)


def test_a_place_that_can_be_written_is_not_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    refuse_unwritable("--output", tmp_path / "deep" / "file")
    refuse_unwritable("--out", tmp_path / "deep" / "down", directory=True)
    refuse_unwritable("--out", tmp_path, directory=True)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_named_with_its_option_and_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = refusal("OUT", Path("/proc/foo/bar"), directory=True)
    assert said.startswith("OUT /proc/foo/bar cannot be written, because no file can be made in /proc (")
    assert f"no file can be made in {tmp_path / 'file'} (it is a file)" in refusal(
        "--out", tmp_path / "file" / "x" / "y"
    )
    assert "is a directory: give the path of a file" in refusal("--output", tmp_path)


def test_a_place_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied", "/a/hidden/name")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    said = refusal("--out", tmp_path / "x", directory=True)
    assert f"in {tmp_path} (this user has no permission): give another place, or change its permissions" in said
    assert "hidden" not in said
