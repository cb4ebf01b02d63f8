"""Lists of the classes of images."""

from pathlib import Path

import pytest

from preprocess.sources.listed import Listed
from shards.common.errors import UsageError

CLASSES = ("ant", "bee", "cat")
FILES = ("val/a.JPEG", "val/b.JPEG", "val/c.JPEG")


def numbers(path: Path, text: str, classes: tuple[str, ...] = CLASSES) -> list[int]:
    """The labels of FILES by a list with this text."""
    (path / "list").write_text(text)
    labels: list[int] = Listed.read(path / "list").labels("val", FILES, classes).tolist()
    return labels


@pytest.mark.parametrize(
    "text",
    [
        "cat\nant\nbee\n",
        "2\n0\n1",
        "a.JPEG cat\nb.JPEG ant\nc.JPEG bee\n",
        "c.JPEG 1\nb.JPEG 0\na.JPEG 2\n",
        "val/c 1\nval/b 0\nval/a 2\n",
        "a,cat\r\nb,ant\r\nc,bee\r\n\r\n",
        "\ufefffilename,label\na.JPEG,cat\nb.JPEG,ant\nc.JPEG,bee\n",
        '"filename","label"\n"a.JPEG","cat"\n"b.JPEG","ant"\n"c.JPEG","bee"\n',
        "ImageId,PredictionString\na,cat 1 2 3 4 cat 1 2 3 4 \nb,ant 1 1 1 1 \nc,bee 1 1 1 1 \n",
        "a.JPEG\tcat\t0\t1\t2\t3\nb.JPEG\tant\t0\t1\t2\t3\nc.JPEG\tbee\t0\t1\t2\t3\n",
    ],
)
def test_every_form_gives_the_same_labels(tmp_path: Path, text: str) -> None:
    assert numbers(tmp_path, text) == [2, 0, 1]


def test_numbers_that_are_names_are_names(tmp_path: Path) -> None:
    assert numbers(tmp_path, "10\n2\n1", classes=("1", "10", "2")) == [1, 2, 0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("cat\n\nbee\n", "line 2 is empty"),
        ("cat\nant\n", "has 2 labels, but val has 3 images: it must have a line for each"),
        ("cat\nant\ndog\n", "holds the label 'dog', which is none of the 3 classes"),
        ("0\n1\n7\n", "holds the label '7', which is none of the 3 classes"),
        ("1\n2\n3\n", "counts classes from 1, perhaps in another order .* is read from the devkit"),
        ("a.JPEG cat\nb.JPEG\n", r"line 2 \('b.JPEG'\) is no pair of a file's name and a label"),
        ("a.JPEG cat\nb.JPEG ant\n", "has no label for 1 of 3 images in val, such as c.JPEG"),
        ("a cat\na ant\n", "gives a two labels: cat and ant"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        numbers(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_labels_of_images_that_are_not_there_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert numbers(tmp_path, "a cat\nb ant\nc bee\nd bee\n") == [2, 0, 1]
    assert "names 1 images that are not in val" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_list_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "list").write_bytes(content)
    with pytest.raises(UsageError, match=r"list cannot be read as a list of labels: (No such file|it is no text)"):
        Listed.read(tmp_path / "list")
