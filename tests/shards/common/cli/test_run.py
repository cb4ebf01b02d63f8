import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import tyro

from shards.common.cli import Command, guarded, parse, run, run_commands
from shards.common.cli.run import PIPE_CLOSED
from shards.common.errors import ShardfeedError, UsageError
from shards.common.terminal import wrapped
from tests import ROOT


@dataclass(frozen=True)
class Options:
    """Does something."""

    place: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="PLACE")]
    """Where to do it: a rather long explanation, which a message about a mistake has no room for, of the place."""
    count: int = 3
    limit: int | None = None
    loud: bool = False


@dataclass(frozen=True)
class Files:
    """Names files."""

    data: Path
    out: Path


def outcome(error: BaseException | None = None, args: tuple[str, ...] = ("here",)) -> int:
    def entry(options: Options) -> None:
        if error is not None:
            raise error

    return run("python -m thing", Options, entry, args)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (ShardfeedError("bad"), 1),
        (UsageError("bad"), 2),
        (OSError(28, "No space left on device"), 1),
        (ZeroDivisionError("bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_status(error: BaseException | None, status: int) -> None:
    assert outcome(error) == status


@pytest.mark.parametrize("error", [ShardfeedError("two\nlines"), ZeroDivisionError("bug"), OSError(2, "gone")])
def test_an_error_is_one_line_without_a_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    outcome(error)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert printed.startswith("python -m thing: ")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(ShardfeedError("bad"), ("--debug", "here")) == 1
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError("bug at s3://u:PASSWORD@host"), OSError(5, "Input/output error")])
def test_the_traceback_of_an_unexpected_error_is_in_a_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert outcome(error) == 1
    [file] = tmp_path.iterdir()
    assert f"(its traceback is in {file}, and --debug shows it)" in capsys.readouterr().err
    assert file.stat().st_mode & 0o777 == 0o600
    written = file.read_text()
    assert "in entry" in written
    assert "PASSWORD" not in written


def test_an_expected_error_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for error in (ShardfeedError("bad"), FileNotFoundError(2, "No such file", "x.png"), KeyboardInterrupt()):
        outcome(error)
    assert not list(tmp_path.iterdir())


def test_without_a_place_for_the_traceback_the_line_says_how_to_see_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert outcome(ZeroDivisionError("bug")) == 1
    assert "unexpected ZeroDivisionError: bug (run again with --debug for the traceback)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "named"),
    [((), "PLACE"), (("here", "--cuont", "3"), "--cuont"), (("here", "--count", "many"), "--count")],
)
def test_words_that_do_not_fit_are_named_on_one_line(
    args: tuple[str, ...], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(args=args) == 2
    printed = capsys.readouterr().err
    assert named.lower() in printed.lower()
    assert printed.count("\n") == 1
    assert "--help" in printed


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (NotADirectoryError(20, "Not a directory", "a.png/x"), "a.png/x: a part of this path is a file"),
        (FileExistsError(17, "File exists", "a.png"), "a.png: a file is in the way"),
        (IsADirectoryError(21, "Is a directory", "b.part", None, "b"), "b: this is a directory"),
    ],
)
def test_a_wrong_path_is_a_mistake_of_use(error: OSError, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(error) == 2
    assert capsys.readouterr().err.startswith(f"python -m thing: {line}")


@pytest.mark.parametrize(
    ("number", "reason", "line"),
    [
        (13, "Permission denied", "this user has no permission there: give another path, or change its permissions"),
        (30, "Read-only file system", "this disk is read-only: give another path"),
        (13, "a reason of ours", "a reason of ours"),
        (5, "Input/output error", "Input/output error"),
    ],
)
def test_a_failure_at_a_path_is_in_words_and_names_no_partial_file(
    number: int, reason: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(OSError(number, reason, "ro/p.png.part")) == 1
    assert capsys.readouterr().err == f"python -m thing: ro/p.png: {line}\n"


def test_messages_of_the_parser_are_in_words_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (("here", "--count", "many"), ("here", "--limit", "many"), ()):
        outcome(args=args)
    assert [line.split(" (see")[0] for line in capsys.readouterr().err.splitlines()] == [
        "python -m thing: --count takes a whole number, not 'many'",
        "python -m thing: --limit takes a whole number, not 'many'",
        "python -m thing: missing: PLACE",
    ]


def test_a_path_with_a_tilde_is_expanded_also_behind_an_equals_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    seen: list[Options] = []
    for words in (["~/x"], ["--count=5", "~/x"]):
        assert run("python -m thing", Options, seen.append, words) == 0
    assert [each.place for each in seen] == ["/home/me/x", "/home/me/x"]


def test_a_path_behind_an_equals_sign_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    seen: list[Files] = []
    assert run("python -m thing", Files, seen.append, ["--data=~/x", "--out", "a=~/y"]) == 0
    assert seen == [Files(Path("/home/me/x"), Path("a=~/y"))]


def test_options_reach_the_entry() -> None:
    seen: list[Options] = []
    assert run("python -m thing", Options, seen.append, ["there", "--count", "5", "--loud"]) == 0
    assert seen == [Options("there", 5, loud=True)]


def test_help_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        outcome(args=("--help",))
    assert not stop.value.code
    assert "Does something." in capsys.readouterr().out


@pytest.mark.parametrize("words", [["--version"], ["do", "--version"]])
def test_version(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_commands("python -m thing", COMMANDS, words) == 0
    assert re.fullmatch(r"shardfeed \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "code", ["print('x\\n' * 100_000)", "import time; time.sleep(1); print('x')", "raise OSError(5, 'bad')"]
)
def test_a_closed_pipe_ends_it_without_a_word(code: str, unbuffered: str) -> None:
    body = f"def body(_):\n    import os; os.close(0); {code}"
    program = f"{body}\nimport sys; from shards.common.cli import guarded; sys.exit(guarded('prog', body, []))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": unbuffered}
    ours, theirs = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    os.close(ours)
    _, said = process.communicate()
    wrong = "raise" in code  # an error of its own is still said
    assert (process.returncode, b"bad" in said, b"Pipe" in said) == (1 if wrong else PIPE_CLOSED, wrong, False)


@pytest.mark.parametrize("code", ["print('x')", "print('x' * 100_000)", "print('x'); raise SystemExit(0)"])
def test_a_full_disk_behind_stdout_is_one_line(code: str) -> None:
    body = f"def body(_):\n    {code}\n"
    program = f"{body}import sys; from shards.common.cli import guarded; sys.exit(guarded('prog', body, []))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, stdout=full, stderr=subprocess.PIPE, text=True,
            check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "prog: stdout cannot be written: No space left on device\n")


def test_a_full_disk_behind_stderr_is_a_status() -> None:
    program = "import sys; from shards.common.cli import guarded; sys.exit(guarded('prog', lambda _: 1 / 0, []))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=full, check=False
        )
    assert done.returncode == 1


LONG = "nowhere/is-not/a-directory: give the directory that `python -m preprocess SOURCE OUT` wrote"


def test_on_a_terminal_a_message_breaks_between_words() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 45, 0, 0))
    with os.fdopen(theirs, "w") as terminal, contextlib.redirect_stderr(terminal):
        assert guarded("prog", fails_long, []) == 2
        terminal.flush()
    said = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert said == [
        "prog: nowhere/is-not/a-directory: give the",
        "directory that",
        "`python -m preprocess SOURCE OUT` wrote",
    ]


def test_a_line_on_a_terminal_breaks_between_words_and_hangs() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 30, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        assert wrapped("ok  data set opens: 64 images in train", terminal, hang=4).splitlines() == [
            "ok  data set opens: 64 images",
            "    in train",
        ]
    os.close(ours)


def test_in_a_log_a_line_stays_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert wrapped(f"{LONG} {LONG}") == f"{LONG} {LONG}"


def test_ctrl_c_says_what_a_command_has_to_say_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("prog", interrupted, []) == 130
    assert capsys.readouterr().err == "prog: interrupted: nothing was written\n"


def test_an_old_name_of_an_option_works_and_stderr_has_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    @dataclass(frozen=True)
    class Renamed:
        """Has an option with an old name."""

        batch: Annotated[int, tyro.conf.arg(name="batch-size", aliases=("--batch",))] = 64
        """Images."""

    assert parse(Renamed, ["--batch", "8"], "prog").batch == 8
    assert capsys.readouterr().err == "--batch is now --batch-size, and still works\n"
    assert parse(Renamed, ["--batch-size", "8"], "prog").batch == 8
    assert capsys.readouterr().err == ""


def interrupted(_: list[str]) -> None:
    raise KeyboardInterrupt("interrupted: nothing was written")


def test_in_a_log_a_message_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded("prog", fails_long, []) == 2
    assert capsys.readouterr().err == f"prog: {LONG}\n"


def fails_long(_: list[str]) -> None:
    raise UsageError(LONG)


COMMANDS = {"do": Command(Options, lambda options: None, "does it")}


@pytest.mark.parametrize(("args", "status"), [(["do", "here"], 0), (["--help"], 0), ([], 2), (["od"], 2), (["do"], 2)])
def test_commands(args: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_commands("python -m thing", COMMANDS, args) == status


def test_an_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    run_commands("python -m thing", COMMANDS, ["od"])
    assert capsys.readouterr().err == "python -m thing: unknown command 'od': choose one of do\n"


def test_neither_a_message_nor_a_traceback_repeats_a_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t/that+must=never/appear")

    def fails(_: list[str]) -> None:
        try:
            raise RuntimeError("signed with s3cr3t/that+must=never/appear")
        except RuntimeError as error:
            raise OSError(f"failed: {error}") from error

    assert guarded("prog", fails, ["--debug"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.count("signed with ***") == 4
    assert "s3cr3t" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "missing: --data DIR"),
        (["--data", "x", "--batch-size", "abc"], "--batch-size takes a whole number, not 'abc'"),
        (["--data", "x", "--crop", "foo"], "--crop takes random or rrc, not 'foo'"),
    ],
)
def test_in_a_terminal_too_a_mistake_is_one_plain_line(words: list[str], said: str) -> None:
    """There tyro draws its boxes in colours."""
    ours, theirs = pty.openpty()
    command, environment = [sys.executable, "-m", "train", *words], {**os.environ, "TERM": "xterm"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=subprocess.PIPE, text=True) as done:
        _, error = done.communicate()
    os.close(theirs)
    os.close(ours)
    assert error == f"python -m train: {said} (see python -m train --help)\n"
