"""A run that is cut short goes on as if nothing had happened, or says why it cannot."""

import dataclasses
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.multiprocessing.spawn import spawn

import train.checkpoints.saver
import train.engine
import train.step
from model.weights import save_whole
from shards import Loader
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import open_dataset
from tests import ROOT
from tests.helpers.ranks import free_ports
from tests.helpers.resume import Killed, assert_same, left_behind, tiny, tiny_models, train_until
from tests.helpers.training import read_lines, setup_of, write_dataset
from train.checkpoints.resume import read_checkpoint
from train.checkpoints.saver import CheckpointSaver
from train.checkpoints.signals import Stopped, StopRequest
from train.checkpoints.snapshot import restore
from train.checkpoints.weights import load_weights
from train.config import Config
from train.evaluation import evaluate
from train.ranks.distributed import World
from train.report.metrics import Recorder
from train.run import begin

# 9 micro-batches of 4 in an epoch of 38 images: 5 steps, the last of them of one micro-batch.
STEPS = 10


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    data = write_dataset(tmp_path_factory.mktemp("dataset"), {"train": 38, "validation": 7})
    return Config(
        data=data, out=data / "out", model="tiny", size=16, batch=8, micro_batch=4, epochs=2, device="cpu",
        threads=1, log_every=3,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(config: Config) -> Path:
    """The output of a run that nothing disturbed."""
    torch.set_num_threads(1)
    train_until(config)
    return config.out


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


def killed(config: Config, out: Path, step: int = 9, saves: tuple[int, ...] = (3, 7)) -> Config:
    """A run in `out` with checkpoints, killed."""
    again = dataclasses.replace(config, out=out)
    with pytest.raises(Killed):
        train_until(again, step, saves)
    return again


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
    spoil(folder / "last.pt")
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
    with pytest.raises(UsageError, match="is not a file: give a checkpoint"):
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


def test_the_best_checkpoint_is_of_the_epoch_with_the_best_top_1(whole: Path, config: Config) -> None:
    validation = [line for line in left_behind(whole)["lines"] if line["event"] == "validation"]
    best = max(validation, key=lambda line: (line["top1"], -line["step"]))
    assert read_checkpoint(whole / "checkpoints" / "best.pt")["step"] == best["step"]


def test_the_weights_in_a_checkpoint_can_be_loaded(whole: Path) -> None:
    network = tiny(3)
    load_weights(network, whole / "checkpoints" / "last.pt")
    saved = torch.load(whole / "imagenet_trained_model.pth", weights_only=True)
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_a_directory_that_holds_something_else_is_not_written_to(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file, not a directory"):
        train_until(dataclasses.replace(config, out=tmp_path / "file"))
    (tmp_path / "imagenet_trained_model.pth").write_text("")
    with pytest.raises(UsageError, match="exists already: choose another --out"):
        train_until(dataclasses.replace(config, out=tmp_path))


@contextmanager
def no_files_above(size: int) -> Iterator[None]:
    """What a full disk does to a file while it is written, here by the kernel's limit for this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("failing", [1, 2], ids=["the first", "the second"])
def test_a_full_disk_stops_the_run_and_keeps_the_checkpoint_before(
    failing: int, config: Config, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = save_whole, []

    def full(content: Any, path: Path) -> None:
        calls.append(1)
        with no_files_above(4000) if len(calls) == failing else nullcontext():
            save(content, path)

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train.checkpoints.saver, "save_whole", full)
        with pytest.raises(ShardfeedError, match=r"File too large.*so training stops") as raised:
            train_until(again, saves={2, 4})
    kept = ["nothing was saved before", f"{tmp_path / 'checkpoints' / 'last.pt'} is kept"]
    assert kept[failing - 1] in str(raised.value)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.pt"][: failing - 1]
    train_until(again)
    assert_same(tmp_path, whole)


@pytest.mark.parametrize("broken", ["loss", "weight"])
def test_a_diverged_run_names_the_last_good_checkpoint_and_keeps_it(
    broken: str, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulate = train.step.accumulate

    def diverging(run: Any, *args: Any) -> Any:
        loss, images = accumulate(run, *args)
        if run.step == 3:
            with torch.no_grad():
                next(run.learner.network.parameters()).fill_(float("nan"))
            if broken == "loss":
                loss = loss * float("nan")
        return loss, images

    monkeypatch.setattr(train.engine, "accumulate", diverging)
    with pytest.raises(ShardfeedError, match=r"optimizer step 4.*diverged.*last good checkpoint is .*last\.pt"):
        train_until(dataclasses.replace(config, out=tmp_path), saves={3, 4})
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("step", [2, 5])
def test_a_signal_ends_the_run_after_the_step(
    number: signal.Signals, step: int, config: Config, whole: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    accumulate, before = train.step.accumulate, signal.getsignal(number)

    def signalled(run: Any, *args: Any) -> Any:
        if run.step == step - 1:
            os.kill(os.getpid(), number)
        return accumulate(run, *args)

    again = dataclasses.replace(config, out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(train.engine, "accumulate", signalled)
        with pytest.raises(Stopped) as stopped:
            train_until(again)
    assert stopped.value.code == 128 + number
    assert f"stopped by {number.name} after optimizer step {step}" in capsys.readouterr().err
    assert read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] == step
    assert signal.getsignal(number) == before
    train_until(again)
    assert_same(tmp_path, whole)


def test_the_random_generators_of_python_and_numpy_go_on_too(config: Config, tmp_path: Path) -> None:
    again = killed(config, tmp_path, step=4, saves=(3,))
    state = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002
    with pytest.raises(Killed):
        train_until(again, 4)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == state  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("step", [3, 5, 7])
def test_the_schedule_ends_at_its_last_step_on_any_number_of_ranks(
    ranks: int, step: int, config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(config, tmp_path, step=step + 1, saves=(step,))
    state = read_checkpoint(tmp_path / "checkpoints" / "last.pt")
    split = open_dataset(config.data)["train"]
    seen = 4 * 9 * (state["epoch"] - 1) + state["loader"]["position"]
    setup = setup_of(config, World(0, ranks))
    size = setup.batch.micro_batch
    monkeypatch.setattr("train.run.parallelize", lambda model, *_, **__: model)
    with Loader(split, batch_size=size, train=True, size=16, world_size=ranks, threads=1) as loader:
        run = begin(tiny(3), setup, len(loader))
        whole_run = run.total_steps
        restore(run, loader, state)
        left = run.total_steps - run.step
        assert run.step == step
        # The part of the steps that is left is the part of the images, up to a step at each epoch's end.
        assert left / whole_run == pytest.approx(1 - seen / (2 * 36), abs=2 / whole_run)
        rates = []
        for _ in range(left):
            rates.append(run.learner.schedule.get_last_lr()[0])
            run.learner.optimizer.step()
            run.step += 1
            if run.step < run.total_steps:
                run.learner.schedule.step()
    assert rates[-1] == pytest.approx(1e-5)
    if ranks == 1:
        assert left == STEPS - step


def test_ranks_look_for_signals_every_other_second(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.checkpoints.saver.max_over_ranks", lambda values, world: values)
    now = [0.0]
    monkeypatch.setattr("train.checkpoints.saver.time.monotonic", lambda: now[0])
    with StopRequest() as stop:
        monkeypatch.setattr("train.run.parallelize", lambda model, *_, **__: model)
        run = begin(tiny(3), setup_of(config, World(0, 2)), 9)
        saver = CheckpointSaver(run, None, Recorder(None, {}), {}, stop)  # type: ignore[arg-type]
        asked: list[float] = []

        def is_due(now: float) -> bool:
            asked.append(now)
            return False

        monkeypatch.setattr(saver, "_is_due", is_due)
        for _ in range(20):
            now[0] += 0.5
            saver.at_step()
    assert asked == [0.5, 2.5, 4.5, 6.5, 8.5]


def words(config: Config) -> list[str]:
    """The command line of `config`, which saves after every step."""
    paths = ["--data", str(config.data), "--out", str(config.out)]
    sizes = "--model cnn --size 16 --batch 8 --micro-batch 4 --epochs 4 --device cpu --threads 1 --log-every 3"
    return [*paths, *sizes.split(), "--checkpoint-minutes", "1e-6"]


@pytest.fixture(scope="module")
def whole_cnn(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cnn")
    torch.set_num_threads(1)
    train.engine.train(dataclasses.replace(config, out=out, model="cnn", epochs=4))
    return out


@pytest.mark.slow
def test_the_program_stopped_at_some_moment_goes_on(config: Config, whole_cnn: Path, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path, model="cnn", epochs=4)
    command = [sys.executable, "-m", "train", *words(again)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and len(metrics.read_text().splitlines()) >= 3):
        time.sleep(0.01)
    time.sleep(random.Random(0).uniform(0, 0.2))
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert "stopped by SIGTERM after optimizer step" in error
    assert "Traceback" not in error
    assert 0 < read_checkpoint(tmp_path / "checkpoints" / "last.pt")["step"] < 2 * STEPS
    train.engine.train(again)
    assert_same(tmp_path, whole_cnn)


def rank_main(rank: int, ports: list[int], config: Config) -> None:
    """One of two ranks: a whole run; one that a signal to the second rank stops; the same, gone on with."""
    torch.set_num_threads(1)
    accumulate = train.step.accumulate

    def signalled(run: Any, *args: Any) -> Any:
        if rank == 1 and run.step == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return accumulate(run, *args)

    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    with tiny_models() as patch:
        patch.setattr("train.checkpoints.saver.AGREE_S", 0.0)
        for port, name in zip(ports, ("whole", "stopped", "stopped"), strict=True):
            os.environ["MASTER_PORT"] = str(port)
            patch.setattr(train.engine, "accumulate", signalled if port == ports[1] else accumulate)
            each = dataclasses.replace(config, out=config.out / name)
            if port != ports[1]:
                train.engine.train(each)
                continue
            with pytest.raises(Stopped) as stopped:
                train.engine.train(each)
            assert stopped.value.code == 128 + signal.SIGUSR1
            if rank == 0:
                torch.save(read_checkpoint(each.out / "checkpoints" / "last.pt"), config.out / "stopped.pt")


@pytest.mark.slow
def test_two_ranks_go_on_as_two_or_as_one(config: Config, tmp_path: Path) -> None:
    again = dataclasses.replace(config, out=tmp_path, micro_batch=2)
    spawn(rank_main, args=(free_ports(3), again), nprocs=2)  # type: ignore[no-untyped-call]
    assert read_checkpoint(tmp_path / "stopped.pt")["step"] == 4
    assert_same(tmp_path / "stopped", tmp_path / "whole")

    alone = train_until(dataclasses.replace(again, out=tmp_path / "alone", resume=tmp_path / "stopped.pt"))
    # 4 steps of 8 images; 6 images of the first epoch are left, which one rank takes in micro-batches of 2; and its
    # second epoch of 19 micro-batches is 5 steps.
    lines = read_lines(tmp_path / "alone" / "metrics.jsonl")
    assert alone.steps == 4 + 1 + 5
    assert lines[-2]["lr"] == pytest.approx(1e-5)
    assert left_behind(tmp_path / "alone")["images"] == str(2 * 38)


def test_a_second_ctrl_c_does_not_wait() -> None:
    with StopRequest() as request:
        signal.raise_signal(signal.SIGINT)
        assert request.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
