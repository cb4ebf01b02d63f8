"""`python -m benchmarks loaders`, from the command line to the table, the JSON line and the files."""

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import msgspec
import pytest
from PIL import Image

from benchmarks.__main__ import COMMANDS, main
from benchmarks.commands import loaders
from benchmarks.measure.harness import Interval, Schedule
from benchmarks.measure.result import Ratio, Result, Series, Setting, read
from benchmarks.measure.settings import command_line
from benchmarks.peers.naive import open_rows
from benchmarks.peers.roster import VIEWS, Entry
from benchmarks.processes import process
from benchmarks.processes.process import Ended, Hangs
from benchmarks.processes.task import PeerTask
from benchmarks.report import table
from benchmarks.rows import start, stores
from benchmarks.rows.rows import ROWS
from shards.common.cli import parse
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import Split
from tests.conftest import jpeg, photo
from tests.helpers import forks


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


def _result(row: str = "256-px JPEG, random, float32", skipped: dict[str, str] | None = None) -> Result:
    figures = {"naive HF + PIL": (400, 410, 390), "plain DALI": (3000, 3100, 2900), "shardfeed": (3200, 3280, 3510)}
    series = {
        name: Series.of(name, [Interval(images, 1.0, 2.0) for images in rounds], {"threads": 2, "dct": "accurate"})
        for name, rounds in figures.items()
    }
    return Result.now(
        "loaders",
        "what was done",
        "python -m benchmarks loaders --data D --source S",
        list(series.values()),
        schedule=Schedule(rounds=3, seconds=1),
        ratios=[Ratio.between(series["shardfeed"], series["naive HF + PIL"])],
        settings={"row": row},
        skipped=skipped,
    )


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of the peers are forks: processes/test_process.py starts them as they are."""
    monkeypatch.setattr(process, "subprocess", forks)


@pytest.mark.slow
def test_the_command_measures_and_ends_with_json(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loaders", "--data", str(small_split.root), "--source", _source(tmp_path / "source", 29)]
    words += ["--batch-size", "4", "--size", "32", "--rounds", "2", "--seconds", "0.05", "--workers", "0"]
    words += ["--peers", "turbojpeg", "--threads", "1", "--out", str(tmp_path / "results")]
    assert main(words) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["ratio_min"] <= last["ratio"] <= last["ratio_max"]
    assert Image.open(last["chart"]).format == "PNG"
    result = read(Path(last["result"]))
    assert result["naive HF + PIL"].spread.median == last["naive_images_per_s"]
    assert result["shardfeed"].spread.median == last["loader_images_per_s"]
    assert {len(series.values) for series in result.series} == {2}
    assert result["shardfeed"].settings["threads"] == 1
    assert result.settings["row"] == "40-px JPEG, random, float32"
    assert result["libjpeg-turbo, decode alone"].spread.least > 0
    assert result.command.startswith("python -m benchmarks loaders --data ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--data": "nowhere"}, "nowhere"),
        ({"--split": "test"}, "no split test"),
        ({"--batch-size": "30"}, "less than a batch"),
        ({"--batch-size": "0"}, "--batch-size must be 1 or more"),
        ({"--threads": "0"}, "--threads and --sweep must be 1 or more"),
        ({"--workers": "-1"}, "0 or more"),
        ({"--size": "64"}, "does not fit"),
        ({"--rounds": "0"}, "rounds"),
        ({"--dtype": "int8"}, "dtype"),
        ({"--crop": "center"}, "crop"),
        ({"--peers": "nonsense"}, "no peer nonsense"),
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
def test_shards_of_another_data_set_are_refused(rows: int, classes: int, small_split: Split, tmp_path: Path) -> None:
    source = _source(tmp_path / "source", rows, classes)
    with pytest.raises(UsageError, match="another data set"):
        open_rows(small_split, source, "image", "label")


def test_a_source_that_is_not_there_is_a_usage_error_from_the_other_process(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loaders", "--data", str(small_split.root), "--source", str(tmp_path / "nowhere")]
    assert main([*words, "--size", "32", "--batch-size", "4", "--out", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.slow
def test_without_a_source_the_naive_path_is_left_out(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loaders", "--data", str(small_split.root), "--batch-size", "4", "--size", "32", "--threads", "1"]
    assert main([*words, "--rounds", "1", "--seconds", "0.05", "--out", str(tmp_path)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["loader_images_per_s"] > 0
    assert not last.keys() & {"naive_images_per_s", "ratio"}
    assert "--source" in read(Path(last["result"])).skipped["naive HF + PIL"]


def test_the_command_of_a_result_is_one_that_the_program_takes() -> None:
    options = loaders.Options(Path("D"), views="dino", colour=False, dtype="uint8", sweep=(2, 3))
    words = shlex.split(command_line("loaders", options))[4:]
    assert parse(COMMANDS["loaders"].config, words, "loaders") == options


@pytest.mark.slow
def test_views_are_measured_beside_one_at_a_time_and_torchvision(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["loaders", "--data", str(small_split.root), "--views", "mae", "--batch-size", "2", "--size", "32"]
    words += ["--sweep", "1", "--rounds", "1", "--seconds", "0.05", "--dtype", "uint8"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    result = read(Path(last["result"]))
    on_gpu = [entry.title for entry in VIEWS.values() if "device" in entry.options]
    measured = [entry.title for entry in VIEWS.values() if entry.title not in result.skipped]
    assert [series.name for series in result.series] == measured
    assert result.skipped.keys() <= set(on_gpu)
    assert all(last[series.name] == series.spread.median > 0 for series in result.series)
    assert [ratio.to for ratio in result.ratios] == ["shardfeed, once a view", "DataLoader, PIL views"]


def test_views_are_measured_without_other_peers(small_split: Split, tmp_path: Path, capsys: Any) -> None:
    words = ["loaders", "--data", str(small_split.root), "--views", "dino", "--batch-size", "2", "--size", "32"]
    assert main([*words, "--peers", "dali", "--out", str(tmp_path)]) == 2
    assert "--views measures peers of its own" in capsys.readouterr().err


def test_the_table_shows_median_and_range() -> None:
    lines = table.text(_result(skipped={"FFCV": "not installed"})).splitlines()
    cells = [line.split() for line in lines]
    assert ["naive", "HF", "+", "PIL", "images/s", "400", "390", "410", "5.00"] in cells
    assert ["shardfeed", "/", "naive", "HF", "+", "PIL", "times", "8.00", "8.00", "9.00"] in cells
    assert "not measured: FFCV: not installed" in lines


def _work(options: loaders.Options) -> dict[str, Setting]:
    """The settings of a result of these options."""
    work = {"encoding": "raw" if "raw" in options.data.name else "jpeg", "stored": 256, "images": 9, "resize": 256}
    names = ("crop", "dtype", "batch_size", "size")
    return {**work, **{name: getattr(options, name) for name in names}, "row": f"{options.data.name}, {options.crop}"}


def test_all_rows_are_measured_and_each_is_written_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[loaders.Options] = []
    tables: list[bool] = []

    def compare(options: loaders.Options) -> Result:
        tables.append((tmp_path / "loaders.md").exists())
        asked.append(options)
        return msgspec.structs.replace(_result(), settings=_work(options))

    made: list[tuple[str, ...]] = []
    monkeypatch.setattr(loaders, "compare", compare)
    monkeypatch.setattr(stores, "run_command", lambda *words, **_: made.append(words))
    # Fourteen charts take seconds; test_readme.py draws one.
    monkeypatch.setattr("benchmarks.commands.peers.draw", lambda results, path: path.write_text(str(len(results))))
    monkeypatch.setattr(stores.Stores, "_index_tars", lambda self, path: None)
    assert main(["peers", "--source", "S", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]) == 0
    kinds = {Path(words[2]).name: words[5:-4] for words in made}
    assert kinds["shards-small-raw"] == ("--short-side", "32", "--encoding", "raw")
    assert kinds["shards-original"] == ("--original",)
    assert [each.data.name for each in asked] == [f"shards-{row.store}" for row in ROWS.values()]
    assert [each.reads for each in asked[-2:]] == ["disk", "http"]
    assert {each.peers for each in asked if each.views == "none"} == {("all",)}
    assert {each.sweep for each in asked} == {start.thread_counts()}
    assert tables == [False] + [True] * (len(ROWS) - 1)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(last["rows"]) == len(ROWS)
    assert list(tmp_path.glob("loaders-*.json"))
    assert (tmp_path / "loaders.png").read_text() == str(len(ROWS))


def test_a_row_that_there_is_not_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["peers", "--source", "S", "--rows", "jpeg", "png", "--out", str(tmp_path)]) == 2
    assert "no row png: choose from jpeg, " in capsys.readouterr().err


class Peer:
    """Stands for the process of a peer; `turns`: what each turn gives, or does."""

    def __init__(self, name: str, turns: Callable[[int], Interval]) -> None:
        self.name, self.settings, self.open, self.taken = name, {"threads": 2}, False, 0
        self._turns = turns

    def turn(self, schedule: Schedule, clock: object = None) -> Interval:
        assert self.open
        self.taken += 1
        return self._turns(self.taken)

    def __enter__(self) -> "Peer":
        self.open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.open = False


def _peers(monkeypatch: pytest.MonkeyPatch, **turns: Callable[[int], Interval]) -> list[Peer]:
    """Peers in place of processes; `turns`: of peers by their module, where they are not as usual."""
    made: list[Peer] = []

    def start(self: Entry, task: object) -> Peer:
        made.append(Peer(self.title, turns.get(self.module, lambda _: Interval(100, 1.0, 1.0))))
        return made[-1]

    monkeypatch.setattr(Entry, "start", start)
    return made


def _words(small_split: Split, out: Path) -> list[str]:
    return ["loaders", "--data", str(small_split.root), "--batch-size", "4", "--size", "32", "--out", str(out)]


def test_a_signal_leaves_what_was_measured_and_no_process(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop_in_the_fourth(turn: int) -> Interval:
        if turn == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return Interval(300, 1.0, 1.0)

    made = _peers(monkeypatch, shardfeed=stop_in_the_fourth)
    with pytest.raises(SystemExit) as stopped:
        main(_words(small_split, tmp_path))
    assert stopped.value.code == 128 + signal.SIGTERM
    assert [peer.open for peer in made] == [False, False]
    [path] = tmp_path.glob("*.json")
    kept = read(path)
    assert kept.incomplete
    assert {series.name: series.values for series in kept.series} == {
        "plain DALI": (100.0, 100.0),
        "shardfeed": (300.0, 300.0),
    }


def test_a_peer_that_fails_is_named_and_the_others_are_measured(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(turn: int) -> Interval:
        raise ShardfeedError("plain DALI: no memory")

    _peers(monkeypatch, dali=fail)
    assert main(_words(small_split, tmp_path)) == 1
    printed = capsys.readouterr()
    assert "plain DALI failed, as the table says" in printed.err
    assert "not measured: plain DALI: failed: no memory" in printed.out
    [path] = tmp_path.glob("*.json")
    result = read(path)
    assert not result.incomplete
    assert len(result["shardfeed"].values) == 5


def test_the_number_of_threads_that_does_best_is_taken(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, int]] = []
    made: list[Peer] = []

    def start(self: Entry, task: PeerTask) -> Peer:
        tried.append((self.title, task.threads))
        made.append(Peer(self.title, lambda _: Interval({1: 10, 2: 30, 3: 20}[task.threads], 1.0, 1.0)))
        made[-1].settings = {"threads": task.threads}
        made[-1].open = True
        return made[-1]

    monkeypatch.setattr(Entry, "start", start)
    assert main([*_words(small_split, tmp_path), "--sweep", "1", "2", "3", "--rounds", "1"]) == 0
    assert [threads for title, threads in tried if title == "shardfeed"] == [1, 2, 3]
    assert not any(peer.open for peer in made)
    [path] = tmp_path.glob("*.json")
    assert read(path).settings["sweep"] == "1, 2, 3"
    assert read(path)["shardfeed"].settings["threads"] == 2


def test_a_row_that_fails_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(options: loaders.Options) -> Result:
        if options.crop == "rrc":
            raise ShardfeedError("all have failed")
        result = _result(skipped={"FFCV": "failed: no memory"} if options.dtype == "uint8" else None)
        return msgspec.structs.replace(result, settings=_work(options))

    monkeypatch.setattr(loaders, "compare", compare)
    monkeypatch.setattr(stores, "run_command", lambda *words, **_: None)
    words = ["peers", "--source", "S", "--rows", "jpeg", "jpeg-uint8", "jpeg-rrc", "--out", str(tmp_path)]
    assert main(words) == 1
    printed = capsys.readouterr()
    last = json.loads(printed.out.splitlines()[-1])
    assert last["failed"] == ["FFCV (jpeg-uint8)", "jpeg-rrc"]
    assert len(last["rows"]) == 2
    assert "FAILED jpeg-rrc: all have failed" in printed.err
    assert not list(tmp_path.glob("peers-*"))  # the data that was made


def test_a_peer_that_hangs_is_tried_once(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tried: list[str] = []

    def start(self: Entry, task: PeerTask) -> Peer:
        tried.append(self.title)
        if self.module == "turbojpeg":
            raise Hangs(f"{self.title} gave no answer for 1 s")
        peer = Peer(self.title, lambda _: Interval(100, 1.0, 1.0))
        peer.open = True
        return peer

    monkeypatch.setattr(Entry, "start", start)
    words = [*_words(small_split, tmp_path), "--peers", "turbojpeg", "--sweep", "1", "2", "--rounds", "1"]
    assert main(words) == 1
    assert tried.count("libjpeg-turbo, decode alone") == 1
    printed = capsys.readouterr()
    assert "decode alone: failed: libjpeg-turbo, decode alone gave no answer" in printed.out
    told = "libjpeg-turbo, decode alone failed: libjpeg-turbo, decode alone gave no answer for 1 s; the others go on"
    assert told in printed.err.partition("measuring in turns")[0]  # at once, not minutes later


def test_a_peer_whose_process_ends_as_it_starts_has_failed(
    small_split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(self: Entry, task: PeerTask) -> Peer:
        if self.module == "turbojpeg":
            raise Ended(f"{self.title} ended: exit status -11")
        return Peer(self.title, lambda _: Interval(100, 1.0, 1.0))

    monkeypatch.setattr(Entry, "start", start)
    assert main([*_words(small_split, tmp_path), "--peers", "turbojpeg", "--rounds", "1"]) == 1
    assert "decode alone: failed: libjpeg-turbo, decode alone ended: exit status -11" in capsys.readouterr().out
