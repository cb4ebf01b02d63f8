"""Tars beside an index or a manifest of ours are a source as any tars are."""

from pathlib import Path

import pytest

from preprocess.sources import open_source
from shards.common.errors import UsageError
from tests.conftest import jpeg, photo, write_split
from tests.helpers.tars import indexed, write_tar

IMAGE = jpeg(photo(40, 44))


def two_splits(root: Path) -> Path:
    for split in ("train", "val"):
        write_tar(root / f"x-{split}-0.tar", [{"__key__": f"{i}", "jpg": IMAGE, "cls": i} for i in range(2)])
    return root


@pytest.mark.parametrize("given", ["", "x-train-{0..0}.tar"])
def test_an_index_beside_the_tars_is_no_source_and_gives_the_names(given: str, tmp_path: Path) -> None:
    names = tmp_path / "names"
    names.write_text("cat\ndog\nbird\n")
    root = two_splits(tmp_path / "tars")
    before = open_source(str(root))
    indexed(root / given, class_names=names)
    after = open_source(str(root))
    assert (after.splits, after.fingerprint) == (before.splits, before.fingerprint)
    assert open_source(str(root / given)).class_names == ("cat", "dog", "bird")


def test_a_data_set_of_ours_is_converted_once_more_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = write_split(tmp_path, [IMAGE, IMAGE], short_side=None)
    assert open_source(str(tmp_path)).class_names == split.class_names
    assert "is a data set of this program: its stored images are converted once more" in capsys.readouterr().err


def test_decoded_pixels_of_ours_are_refused_in_a_line(tmp_path: Path) -> None:
    write_split(tmp_path, [IMAGE], short_side=None, encoding="raw")
    with pytest.raises(UsageError, match=r"holds decoded pixels \(--encoding raw\)"):
        open_source(str(tmp_path))
