"""A run that is cut short goes on as if nothing had happened, or says why it cannot."""

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import train.engine
from shards.common.errors import ShardfeedError, UsageError
from tests.helpers.resume import Killed, assert_same, killed, left_behind, train_until
from tests.helpers.training import write_dataset
from train.checkpoints.resume import read_checkpoint, would_resume
from train.config import Config
from train.report.accuracy import evaluate

# Of the run that `config` describes.
STEPS = 10


def test_the_undisturbed_run_takes_the_steps_that_these_tests_count_on(whole: Path) -> None:
    assert [line["step"] for line in left_behind(whole)["lines"]] == [3, 5, 5, 6, 9, 10, 10]


@settings(max_examples=25, deadline=None)
@given(
    kills=st.lists(st.integers(1, STEPS), min_size=1, max_size=3),
    saves=st.sets(st.integers(1, STEPS)),
)
def test_a_run_killed_at_any_step_ends_with_the_same_bits(
    kills: list[int], saves: set[int], config: Config, whole: Path
) -> None:
    with tempfile.TemporaryDirectory() as out:
        again = dataclasses.replace(config, out=Path(out))
        for kill in kills:
            with pytest.raises(Killed):
                train_until(again, kill, saves)
        train_until(again)
        assert_same(again.out, whole)


@pytest.mark.parametrize("call", range(6))
def test_a_run_killed_between_any_two_renames_goes_on(
    call: int, config: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, replace = [call], Path.replace

    def dying(path: Path, target: Path) -> Path:
        if path.parent.name == "checkpoints":
            if not left[0]:
                raise Killed
            left[0] -= 1
        return replace(path, target)

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", dying)
        with pytest.raises(Killed):
            train_until(again, saves={2, 4, 7})
    train_until(again)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("evaluation", [1, 2])
def test_a_run_killed_while_evaluating_evaluates_again(
    evaluation: int, config: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def dying(*args: Any) -> Any:
        seen.append(args)
        if len(seen) == evaluation:
            raise Killed
        return evaluate(*args)

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train.engine, "evaluate", dying)
        with pytest.raises(Killed):
            train_until(again)
    train_until(again)
    assert_same(tmp_path, whole)


def test_a_line_cut_in_the_middle_and_lines_after_the_checkpoint_come_once(
    config: Config, whole: Path, tmp_path: Path
) -> None:
    again = dataclasses.replace(config, out=tmp_path)
    with pytest.raises(Killed):
        train_until(again, 9, saves={7})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "train", "ste')
    with (tmp_path / "epoch_times.csv").open("a") as file:
        file.write("2,1.0")
    train_until(again)
    assert_same(tmp_path, whole)


def damage(path: Path) -> None:
    """One flipped bit, in the last layer's weights."""
    content = bytearray(path.read_bytes())
    content[content.index(read_checkpoint(path)["network"]["5.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("spoil", [damage, truncate])
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(
    spoil: Any, config: Config, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = killed(config, tmp_path)
    folder = tmp_path / "checkpoints"
    newest, before = (read_checkpoint(folder / name)["step"] for name in ("last.pt", "previous.pt"))
    assert (newest, before) == (7, 5)
    own = read_checkpoint(folder / "last.pt")["identity"]
    spoil(folder / "last.pt")
    assert would_resume(again, own, ranks=1) == folder / "previous.pt"
    assert (folder / "last.pt").exists()  # asking changes nothing
    train_until(again)
    error = capsys.readouterr().err
    assert f"{folder / 'last.pt'} is damaged" in error
    assert "going on after optimizer step 5" in error
    assert (folder / "last.pt.damaged").exists()
    assert_same(tmp_path, whole)


def test_without_a_whole_checkpoint_nothing_is_overwritten(config: Config, tmp_path: Path) -> None:
    again = killed(config, tmp_path)
    for name in ("last.pt", "previous.pt"):
        damage(tmp_path / "checkpoints" / name)
    with pytest.raises(ShardfeedError, match="no whole checkpoint"):
        train_until(again)
    with pytest.raises(UsageError, match="exists already"):
        train_until(again)


def test_a_named_checkpoint_must_be_whole_and_of_a_run(config: Config, whole: Path, tmp_path: Path) -> None:
    weights, damaged, newer = whole / "imagenet_trained_model.pth", tmp_path / "damaged.pt", tmp_path / "newer.pt"
    state = read_checkpoint(whole / "checkpoints" / "last.pt")
    torch.save({**state, "format": 4}, newer)
    torch.save(state, damaged)
    damage(damaged)
    cases = {weights: "is no checkpoint of a run", damaged: "is damaged", newer: "has format 4; this version reads"}
    for path, message in cases.items():
        with pytest.raises(ShardfeedError, match=message):
            train_until(dataclasses.replace(config, out=tmp_path / "out", resume=path))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "cnn"}, "model is tiny there and cnn here"),
        ({"epochs": 3}, "epochs is 2 there and 3 here .the learning rates of all steps"),
        ({"max_lr": 0.02}, "max_lr is 0.01 there and 0.02 here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"batch": 16}, "batch is 8 there and 16 here"),
        ({"precision": "bfloat16"}, "precision is float32 there and bfloat16 here"),
    ],
)
def test_the_checkpoint_of_another_run_is_refused_by_what_differs(
    change: dict[str, Any], message: str, config: Config, tmp_path: Path
) -> None:
    again = killed(config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=message):
        train_until(dataclasses.replace(again, **change))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("images", "classes", "message"),
    [(38, 4, "classes is 3 there and 4 here"), (39, 3, "images is 38 there and 39 here")],
)
def test_the_checkpoint_of_another_data_set_is_refused(
    images: int, classes: int, message: str, config: Config, tmp_path: Path
) -> None:
    again = killed(config, tmp_path / "out")
    data = write_dataset(tmp_path / "data", {"train": images, "validation": 7}, classes=classes)
    with pytest.raises(UsageError, match=message):
        train_until(dataclasses.replace(again, data=data))


def test_the_images_of_a_step_may_be_split_into_other_micro_batches(config: Config, tmp_path: Path) -> None:
    again = killed(config, tmp_path)
    result = train_until(dataclasses.replace(again, micro_batch=2))
    assert result.steps == STEPS


def test_a_run_goes_on_from_the_checkpoint_that_is_named(config: Config, whole: Path, tmp_path: Path) -> None:
    again = killed(dataclasses.replace(config, keep_every=1), tmp_path / "first")
    kept = tmp_path / "first" / "checkpoints" / "epoch-0001.pt"
    assert read_checkpoint(kept)["step"] == 5
    train_until(dataclasses.replace(again, resume=kept))
    assert_same(again.out, whole)
    other = train_until(dataclasses.replace(config, out=tmp_path / "second", resume=kept))
    assert other.steps == STEPS
    with pytest.raises(UsageError, match="is not a file: give --resume a checkpoint"):
        train_until(dataclasses.replace(config, resume=tmp_path / "nowhere.pt"))


# torchrun counts a restart after a failure, and does not where nodes come or go; the name of the job stays.
@pytest.mark.parametrize("restarted", [{"TORCHELASTIC_RESTART_COUNT": "1"}, {"TORCHELASTIC_RESTART_COUNT": "0"}])
@pytest.mark.parametrize("resume", ["never", "path"])
def test_ranks_that_torchrun_starts_again_go_on_whatever_the_run_began_from(
    resume: str,
    restarted: dict[str, str],
    config: Config,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none" if restarted["TORCHELASTIC_RESTART_COUNT"] == "1" else "job 7")
    kept = tmp_path / "kept.pt"
    if resume == "path":
        shutil.copy(killed(config, tmp_path / "first").out / "checkpoints" / "previous.pt", kept)
    again = dataclasses.replace(config, out=tmp_path / "out", resume="never" if resume == "never" else kept)
    with pytest.raises(Killed):
        train_until(again, 9, saves={7})
    for name, value in restarted.items():
        monkeypatch.setenv(name, value)
    train_until(again)
    assert torch.equal(*(left_behind(out)["weights"]["5.weight"] for out in (again.out, whole)))


def test_a_directory_that_holds_something_else_is_not_written_to(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a directory"):
        train_until(dataclasses.replace(config, out=tmp_path / "file"))
    (tmp_path / "imagenet_trained_model.pth").write_text("")
    with pytest.raises(UsageError, match="exists already: choose another --out"):
        train_until(dataclasses.replace(config, out=tmp_path))
