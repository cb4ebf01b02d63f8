"""`python -m benchmarks scale`: long indices over few shards, probes, and what the command leaves behind."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.commands.scale import Options, growth, run, thread_counts, widen
from benchmarks.measure.result import Series
from benchmarks.stages import probe, real_rows
from preprocess.__main__ import main as preprocess
from shards import Loader, open_dataset
from shards.common.errors import UsageError
from shards.dataset import Split
from tests.conftest import jpeg, photo, write_split
from tests.helpers.forks import fork_workers


def test_a_long_index_points_at_the_same_images(small_split: Split, tmp_path: Path) -> None:
    widen(small_split, 100, tmp_path / "wide")
    wide = open_dataset(tmp_path / "wide")[small_split.name]
    assert len(wide) == len(wide.index) == 100
    assert len(set(wide.keys())) == 100
    assert [info.samples for info in wide.info.shards] == [*[7, 7, 7, 7, 1] * 3, 7, 6]
    rows = np.arange(100) % len(small_split)
    assert (wide.index.crc32 == small_split.index.crc32[rows]).all()
    assert (wide.labels == small_split.labels[rows]).all()
    with Loader(wide, batch_size=25, train=False, size=32, threads=1) as loader:
        assert sum(len(labels) for _, labels in loader) == 100


def test_a_probe_runs_in_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_workers(monkeypatch)
    split = write_split(tmp_path, [jpeg(photo(256, 260, i)) for i in range(8)], short_side=256)
    found = probe.apart(probe.start, split.root, 2, 0.05)
    assert min(value for value, _ in found.values()) > 0
    assert found["resident memory"][0] > 50
    assert len(probe.apart(probe.memory, split.root, 2, 3)) == 3


def test_a_probe_that_fails_raises_what_it_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fork_workers(monkeypatch)
    with pytest.raises(UsageError, match="manifest"):
        probe.apart(probe.start, tmp_path, 2, 0.05)


def test_growth_is_that_of_the_two_figures_beside_it() -> None:
    early, late = Series("resident memory, epochs 4 to 8", (1000.0, 1029.0, 1098.0)), Series("late", (1098.0,))
    assert growth(early, late) == "Resident memory: 1,029 MB in epochs 4 to 8, 1,098 MB in late: +6.7%."


@pytest.mark.parametrize(("cores", "counts"), [(1, (1, 2)), (2, (1, 2, 3)), (6, (1, 2, 4, 6, 7)), (8, (1, 2, 4, 8, 9))])
def test_threads_double_up_to_the_cores_and_one_more(cores: int, counts: tuple[int, ...]) -> None:
    assert thread_counts(cores) == counts


def test_the_command_ends_with_json_and_leaves_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    # In processes of their own they take seconds each; above they are tested as they are.
    monkeypatch.setattr(
        "benchmarks.commands.scale.apart",
        lambda function, data, size, *more: (
            [900.0] * 20
            if function is probe.memory
            else {"speed": (20.0, "images/s"), "start to first batch": (0.5, "s")}
        ),
    )
    split = write_split(tmp_path / "data", [jpeg(photo(256, 260, i)) for i in range(8)], short_side=256)
    run(Options(split.root, rows=(32, 64), batch_size=4, threads=(1, 2), seconds=0.05, out=tmp_path / "out"))
    lines = capsys.readouterr().out.splitlines()
    points = {(each["settings"].get("group"), each["name"]) for each in json.loads(lines[-1])["series"]}
    assert {("start to first batch", "start to first batch, rows 32"), ("speed", "speed, threads 2")} <= points
    assert "Resident memory: 900 MB in epochs 4 to 8, 900 MB in epochs 16 to 20: +0.0%." in lines
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize(
    "wrong", [{"rows": ()}, {"rows": (10,)}, {"threads": (0,)}, {"epochs": 12}, {"batch_size": 0}, {"seconds": 0.0}]
)
def test_options_that_measure_nothing_are_refused_by_their_names(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"^--{next(iter(wrong)).replace('_', '-')} must be"):
        Options(**wrong)


def test_real_rows_are_made_converted_and_read(tmp_path: Path) -> None:
    assert real_rows.make_rows(tmp_path / "source", 600)["speed"][0] > 0
    words = [tmp_path / "source", tmp_path / "out", "--short-side", 32, "--workers", 1, "--shard-size", 200]
    assert preprocess(list(map(str, words))) == 0
    split = open_dataset(tmp_path / "out")["train"]
    assert (len(split), len(split.class_names)) == (600, 1000)
    assert real_rows.whole_epoch(tmp_path / "out")["memory"][0] > 50
    assert real_rows.jump(tmp_path / "out")["time"][0] > 0


def test_each_step_of_real_rows_is_written_and_nothing_else_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def two(rows: int, work: Path) -> Any:
        (work / "large").touch()
        return iter([(name, lambda: {"speed": (float(rows), "rows/s")}) for name in ("conversion", "verify")])

    monkeypatch.setattr("benchmarks.commands.scale.steps", two)
    run(Options(real=2000, work=tmp_path, out=tmp_path / "out"))
    [path] = (tmp_path / "out").glob("*.json")
    result = json.loads(path.read_text())
    assert not result["incomplete"]
    assert [(each["name"], each["values"]) for each in result["series"]] == [
        ("conversion, speed", [2000.0]), ("verify, speed", [2000.0]),
    ]  # fmt: skip
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "told"), [({"real": 5}, "512 or more"), ({"real": 600, "work": Path("no")}, "--work no")]
)
def test_real_rows_that_cannot_be_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Options(**options)
