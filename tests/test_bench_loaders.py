"""`python -m benchmarks loaders`, from the command line to the table, the JSON line and the files."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from PIL import Image

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.loaders import Options, command
from shards.dataset import Split
from tests.conftest import jpeg, photo

RESULT: dict[str, Any] = {
    "benchmark": "loaders",
    "images_per_s": {
        "naive HF + PIL": [400.0, 410.0, 390.0],
        "plain DALI": [3000.0, 3100.0, 2900.0],
        "shardfeed": [3200.0, 3280.0, 3510.0],
    },
    "ratio_to_plain_dali": 1.1,
    "ratio_to_plain_dali_min": 1.0,
    "ratio_to_plain_dali_max": 1.2,
    "ratio": 8.0,
    "ratio_min": 8.0,
    "ratio_max": 9.0,
    "rounds": 3,
    "seconds": 5.0,
    "batch_size": 64,
    "threads": 2,
    "workers": 3,
    "dtype": "float32",
    "size": 224,
    "stored": 256,
    "hardware": {"cpu": "A CPU", "cores": 2, "gpu": None},
    "date": "2026-01-02T03:04:05+00:00",
}


def _source(directory: Path, rows: int, classes: int = 10) -> str:
    """A `save_to_disk` directory that fits the shards of `small_split` if it has 29 rows of ten classes."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[f"class {i}" for i in range(classes)])}
    )
    columns = {
        "image": [{"bytes": jpeg(photo(48, 60, i)), "path": None} for i in range(rows)],
        "label": [i % classes for i in range(rows)],
    }
    split = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": split}).save_to_disk(directory)
    return str(directory)


def test_the_command_measures_both_and_ends_with_json(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loaders", "--data", str(small_split.root), "--source", _source(tmp_path / "source", 29)]
    words += ["--batch-size", "4", "--size", "32", "--rounds", "2", "--seconds", "0.05", "--workers", "0"]
    words += ["--threads", "1", "--out", str(tmp_path / "results")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    assert result["naive_images_per_s"] > 0
    assert result["loader_images_per_s"] > 0
    assert result["ratio_min"] <= result["ratio"] <= result["ratio_max"]
    assert (result["rounds"], result["batch_size"], result["threads"], result["workers"]) == (2, 4, 1, 0)
    assert (result["dtype"], result["size"], result["resize"], result["stored"]) == ("float32", 32, 37, 40)
    assert result["versions"]["torch"]
    assert result["hardware"]["cores"] >= 1
    assert result["command"].startswith("python -m benchmarks loaders --data ")
    assert Image.open(result["chart"]).format == "PNG"
    [written] = (tmp_path / "results").glob("loaders-*.json")
    assert json.loads(written.read_text()) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--source": "./nowhere"}, "nowhere"),
        ({"--split": "test"}, "no split test"),
        ({"--batch-size": "30"}, "less than a batch"),
        ({"--batch-size": "0"}, "at least 1"),
        ({"--size": "64"}, "does not fit"),
        ({"--rounds": "0"}, "rounds"),
        ({"--dtype": "int8"}, "dtype"),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_exit_status_2(
    change: dict[str, str], message: str, small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"--data": str(small_split.root), "--source": str(tmp_path), "--size": "32", "--batch-size": "4"}
    words = [word for pair in (options | change).items() for word in pair]
    assert main(["loaders", *words, "--out", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert "\n" not in error
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(("rows", "classes"), [(28, 10), (29, 9)])
def test_shards_of_another_data_set_are_refused(
    rows: int, classes: int, small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loaders", "--data", str(small_split.root), "--source", _source(tmp_path / "source", rows, classes)]
    assert main([*words, "--size", "32", "--batch-size", "4"]) == 2
    assert "another data set" in capsys.readouterr().err


def test_the_table_shows_median_and_range() -> None:
    rows = [line.split() for line in report.table(RESULT).splitlines()]
    assert ["naive", "HF", "+", "PIL", "400", "390", "410"] in rows
    assert ["shardfeed", "3,280", "3,200", "3,510"] in rows
    assert ["times", "the", "naive", "8.00", "8.00", "9.00"] in rows


def test_results_are_published_under_dated_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = report.publish(RESULT, tmp_path / "a" / "b")
    assert path.name == "loaders-2026-01-02T030405.json"
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last == {**RESULT, "chart": str(path.with_suffix(".png"))}
    assert Image.open(last["chart"]).width > 600


def test_the_command_is_repeated_without_defaults() -> None:
    options = Options(data=Path("a b"), source="ILSVRC/imagenet-1k", batch_size=32)
    expected = "python -m benchmarks loaders --data 'a b' --source ILSVRC/imagenet-1k --batch-size 32"
    assert command(options) == expected
