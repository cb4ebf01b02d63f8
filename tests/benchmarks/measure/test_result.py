"""Results on disk: what is written is read back, and what does not fit the schema is refused by file and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.measure.harness import Interval, Schedule, Spread
from benchmarks.measure.result import Ratio, Result, ResultFile, Series, read, write
from shards.common.errors import ShardfeedError, UsageError


def _result() -> Result:
    slow = Series.of("slow", [Interval(100, 1.0, 2.0), Interval(90, 1.0, 1.8)], {"workers": 2, "note": None})
    fast = Series.of("fast", [Interval(400, 1.0, 0.8), Interval(450, 1.0, 0.9)])
    return Result.now(
        "loaders",
        "one line",
        "python -m benchmarks loaders",
        [slow, fast],
        schedule=Schedule(rounds=2, seconds=1),
        ratios=[Ratio.between(fast, slow)],
        settings={"batch_size": 64, "stored": "original", "warm": True},
        skipped={"other": "is not installed"},
    )


def test_a_result_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    result = _result()
    path = write(result, tmp_path / "a" / "b")
    assert path.name == f"loaders-{result.date[:10]}T{result.date[11:19].replace(':', '')}.json"
    assert read(path) == result


def test_series_and_ratios_are_taken_round_by_round() -> None:
    result = _result()
    assert result["slow"].spread == Spread(median=95.0, least=90.0, most=100.0)
    assert result["slow"].values == (100.0, 90.0)
    assert result["slow"].cpu_ms == (20.0, 20.0)
    assert result.ratios == (Ratio("fast", "slow", 4.5, 4.0, 5.0),)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: value.pop("series"), "required field `series`"),
        (lambda value: value.update(extra=1), "extra"),
        (lambda value: value.update(schema=2), r"enum value 2 - at `\$.schema"),
        (lambda value: value.update(rounds="3"), "Expected `int`, got `str` - at `\\$.rounds`"),
        (lambda value: value.update(rounds=True), "Expected `int`, got `bool` - at `\\$.rounds`"),
        (lambda value: value["series"][1].update(values=[1.0, "2"]), r"series\[1\].values\[1\]"),
        (lambda value: value["series"][0].update(values=[]), r"length >= 1 - at `\$.series\[0\].values"),
        (lambda value: value["settings"].update(batch_size=[64]), "array` - at `\\$.settings"),
        (lambda value: value["skipped"].update(other=None), "null` - at `\\$.skipped"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(spoil: Callable[[Any], object], message: str, tmp_path: Path) -> None:
    path = write(_result(), tmp_path)
    value = json.loads(path.read_text())
    spoil(value)
    path.write_text(json.dumps(value))
    with pytest.raises(ShardfeedError, match=message) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "nonsense"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(ShardfeedError, match=r"a\.json"):
        read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.json is not a file: give a result"):
        read(tmp_path / "nowhere.json")


def test_what_is_measured_so_far_is_in_the_file_of_the_whole_result(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ResultFile(tmp_path) as file:
        file.keep(_result())  # and no more: the block is left early
    [path] = tmp_path.iterdir()
    kept = read(path)
    assert (kept.incomplete, kept.title, kept.rounds) == (True, "one line (incomplete)", 2)
    assert str(path) in capsys.readouterr().err
    with ResultFile(tmp_path / "other") as file:
        file.keep(_result())
        [path] = (tmp_path / "other").iterdir()
        assert write(file.dated(_result()), tmp_path / "other") == path
    assert not read(path).incomplete
    assert capsys.readouterr().err == ""
