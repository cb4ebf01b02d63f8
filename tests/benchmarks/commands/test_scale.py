"""`python -m benchmarks scale`: long indices over few shards, the stub decoder, and what the command leaves behind."""

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from benchmarks.commands.scale import Options, grown, run, thread_counts
from benchmarks.ladder.probe import Probe, Start, memory, start
from benchmarks.ladder.stub import STUB_SIDE, instant_decoder
from benchmarks.ladder.wide import make_up, widen
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
    monkeypatch.setattr("benchmarks.ladder.wide.MADE_UP", 8)
    split = make_up(tmp_path / "made-up")
    assert len(split) == 8
    assert len(split.info.shards) == 4


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(("crop", "resizes"), [("random", False), ("rrc", True)])
def test_the_stub_keeps_order_and_labels_and_decodes_nothing(
    dtype: str, crop: str, resizes: bool, small_split: Split
) -> None:
    def labels(side: int) -> list[int]:
        with Loader(
            small_split,
            batch_size=4,
            train=True,
            size=32,
            resize=40,
            dtype=dtype,  # type: ignore[arg-type]
            crop=crop,  # type: ignore[arg-type]
            threads=1,
        ) as loader:
            batches = list(islice(loader, 5))
        assert all(images.shape[-1] == side for images, _ in batches)
        return [int(label) for _, each in batches for label in each]

    real = labels(32)
    with instant_decoder(resizes):
        assert labels(1 if resizes else STUB_SIDE) == real
    assert labels(32) == real


@pytest.mark.slow
def test_a_probe_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    split = write_split(tmp_path, [jpeg(photo(256, 260, i)) for i in range(8)], short_side=256)
    found = start(Probe(split.root, 2, 1, seconds=0.05))
    assert min(found.imports_s, found.first_batch_s, found.batch_ms, found.batch_core_ms) > 0
    assert found.memory_mb > 50
    assert len(memory(Probe(split.root, 2, 1, epochs=3, steps=2))) == 3


@pytest.mark.slow
def test_a_probe_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ShardfeedError, match="failed"):
        start(Probe(tmp_path, 2, 1))


def test_growth_is_that_of_settled_memory() -> None:
    assert grown([10, 50, 90, *[100] * 5, *[101] * 12]) == pytest.approx(0.01)
    assert grown([10, 50, 90, *[100] * 17]) == 0
    assert grown([0, 0, 0, *[100, 900, 100, 100, 100], *[95] * 12]) == pytest.approx(-0.05)


@pytest.mark.parametrize(("cores", "counts"), [(1, [1, 2]), (2, [1, 2, 3]), (6, [1, 2, 4, 6, 7]), (8, [1, 2, 4, 8, 9])])
def test_threads_double_up_to_the_cores_and_one_more(cores: int, counts: list[int]) -> None:
    assert thread_counts(cores) == counts


def test_the_command_ends_with_json_and_leaves_no_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    # In processes of their own they take seconds each; above they are tested as they are.
    monkeypatch.setattr("benchmarks.commands.scale.start", lambda probe: Start(1.0, 0.5, 900.0, 20.0, 30.0))
    monkeypatch.setattr(
        "benchmarks.commands.scale.memory", lambda probe: [900.0 + epoch for epoch in range(probe.epochs)]
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
