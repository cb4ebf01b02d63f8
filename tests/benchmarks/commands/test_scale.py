"""`python -m benchmarks scale`: long indices over few shards, probes, growth, and what the command leaves behind."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.commands.scale import Options, _memory_line, first_and_last, run, thread_counts
from benchmarks.stages.probe import Probed, probe
from benchmarks.stages.wide import make_up, widen
from shards import Loader
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from tests.conftest import jpeg, photo, write_split


def test_a_long_index_points_at_the_same_images(small_split: Split, tmp_path: Path) -> None:
    wide = widen(small_split, 100, tmp_path / "wide")
    assert len(wide) == len(wide.index) == 100
    assert len(set(wide.keys())) == 100
    assert [info.samples for info in wide.info.shards] == [*[7, 7, 7, 7, 1] * 3, 7, 6]
    rows = np.arange(100) % len(small_split)
    assert (wide.index.crc32 == small_split.index.crc32[rows]).all()
    assert (wide.labels == small_split.labels[rows]).all()
    with Loader(wide, batch_size=25, train=False, size=32, threads=1) as loader:
        assert sum(len(labels) for _, labels in loader) == 100


@pytest.mark.slow
def test_made_up_images_are_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.stages.wide.MADE_UP", 8)
    split = make_up(tmp_path / "made-up")
    assert len(split) == 8
    assert len(split.info.shards) == 4


@pytest.mark.slow
def test_a_probe_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(256, 260, i)) for i in range(8)], short_side=256)
    found = probe(split.root, 2, seconds=0.05, epochs=3, steps=2)
    assert min(found.imports_s, found.first_batch_s, found.batch_ms, found.batch_core_ms) > 0
    assert found.memory_mb > 50
    assert len(found.by_epoch_mb) == 3


@pytest.mark.slow
def test_a_probe_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match="failed"):
        probe(tmp_path, 2)


def test_growth_is_that_of_settled_memory() -> None:
    assert first_and_last([10, 50, 90, *[100] * 5, *[101] * 12]) == (100, 101)
    assert first_and_last([10, 50, 90, *[100] * 17]) == (100, 100)
    assert first_and_last([0, 0, 0, *[100, 900, 100, 100, 100], *[95] * 12]) == (100, 95)


def test_the_growth_stands_beside_the_figures_that_it_is_of() -> None:
    memory = [900.0, 950, 980, 1029, 1098, 1098, 1098, 1098, *[1098.0] * 12]
    line = _memory_line("short epochs", memory)
    assert "1,098.0 MB over epochs 4 to 8, 1,098.0 MB over epochs 16 to 20 (medians): grown by 0.00%" in line


@pytest.mark.parametrize(("cores", "counts"), [(1, [1, 2]), (2, [1, 2, 3]), (6, [1, 2, 4, 6, 7]), (8, [1, 2, 4, 8, 9])])
def test_threads_double_up_to_the_cores_and_one_more(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


def test_the_command_ends_with_json_and_leaves_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    # In processes of their own they take seconds each; above they are tested as they are.
    monkeypatch.setattr(
        "benchmarks.commands.scale.probe",
        lambda *_, epochs=0, **__: Probed(1.0, 0.5, 20.0, 30.0, 900.0, tuple([900.0] * epochs)),
    )
    split = write_split(tmp_path / "data", [jpeg(photo(256, 260, i)) for i in range(8)], short_side=256)
    options = Options(
        split.root, rows=(32, 64), epochs=8, batch_size=4, threads=(1, 2), rounds=1, seconds=0.05, out=tmp_path / "out"
    )
    run(options)
    lines = capsys.readouterr().out.splitlines()
    result = json.loads(lines[-1])
    curves = {(each["settings"].get("curve"), each["settings"].get("at")) for each in result["series"]}
    assert {("start to first batch", 32), ("start to first batch", 64), ("the loader", 1), ("the loader", 2)} <= curves
    assert {at for curve, at in curves if curve == "short epochs"} == set(range(1, 9))
    assert "stub decoder" in {each["name"] for each in result["series"]}
    assert any(line.startswith("resident memory, short epochs") for line in lines)
    assert not list((tmp_path / "scratch").iterdir())


@pytest.mark.parametrize("wrong", [{"rows": ()}, {"rows": (10,)}, {"threads": (0,)}, {"epochs": 7}, {"batch_size": 0}])
def test_options_that_measure_nothing_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Options(**wrong)  # type: ignore[arg-type]
