"""The CSV of each class's accuracy."""

import csv
from pathlib import Path

import pytest

from train.report.per_class import write_per_class


def test_each_class_has_a_line_with_its_shares(tmp_path: Path) -> None:
    path = tmp_path / "per_class_accuracy.csv"
    write_per_class(path, ["tench", 'crane, "bird"', "never seen"], [3, 50, 0], [1, 25, 0], [2, 50, 0])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"class": "0", "name": "tench", "images": "3", "top1": "33.33", "top5": "66.67"},
        {"class": "1", "name": 'crane, "bird"', "images": "50", "top1": "50.00", "top5": "100.00"},
        {"class": "2", "name": "never seen", "images": "0", "top1": "", "top5": ""},
    ]


def test_counts_of_another_number_of_classes_are_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "per_class_accuracy.csv"
    path.write_text("old")
    with pytest.raises(ValueError, match="zip"):
        write_per_class(path, ["a", "b"], [1, 1], [1], [1, 1])
    assert path.read_text() == "old"
