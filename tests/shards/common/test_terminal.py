"""What a command prints does nothing to a terminal and holds no passwords, whoever wrote it."""

import ast
import contextlib
import io
import json
import re
import sys
from pathlib import Path

import pytest

from preprocess.__main__ import main
from shards.__main__ import COMMANDS
from shards.common import terminal
from shards.common.cli import guarded, run_commands
from shards.common.errors import UsageError
from shards.common.terminal import advice, cleaned, duration, escaped, progress_bar
from tests import ROOT
from tests.helpers.jobs import folder

NASTY = "a\x1b[31mred\x9b2K\r\u202egnp"
HARMLESS = r"a\x1b[31mred\x9b2K\r\u202egnp"


def test_control_characters_become_escapes_and_letters_stay() -> None:
    assert escaped(NASTY) == HARMLESS
    assert escaped("Käse\t犬\n\udce9") == "Käse\t犬\n\\udce9"


def test_all_that_a_command_prints_is_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    def body(_: list[str]) -> None:
        print(NASTY)
        print(json.dumps({"Cookie": "u:PASSWORD@host", "b": 1}))
        print(NASTY, "Authorization: PASSWORD", file=sys.stderr)
        raise UsageError(f"there is no {NASTY} in http:/u:PASSWORD@host")

    assert guarded("prog", body, []) == 2
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == HARMLESS
    assert json.loads(out.splitlines()[1]) == {"Cookie": "***@host", "b": 1}
    assert HARMLESS in err
    assert not set("\x1b\x9b\r\u202e") & set(out + err)
    assert "PASSWORD" not in out + err


def test_progress_bars_keep_their_moves(capsys: pytest.CaptureFixture[str]) -> None:
    def body(_: list[str]) -> None:
        sys.stderr.write(f"\r{NASTY}")
        sys.stderr.write("\n\x1b[A")

    assert guarded("prog", body, []) == 0
    assert capsys.readouterr().err == f"\r{HARMLESS}\n\x1b[A"


def test_a_bar_has_a_blank_before_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr(shown, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", shown)
    with progress_bar(unit="images") as bar:
        bar.update(3)
    assert re.search(r"3 images \[.* images/s", shown.getvalue())


def test_class_names_of_a_source_reach_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = folder(tmp_path / "source", {"train": 4})
    (source / "train" / "a").rename(source / "train" / NASTY)
    assert main([str(source), str(tmp_path / "out"), "--short-side", "16", "--workers", "1"]) == 0
    assert run_commands("python -m shards", COMMANDS, ["info", str(tmp_path / "out")]) == 0
    said = "".join(capsys.readouterr())
    assert HARMLESS in said
    assert not set("\x1b\x9b\r\u202e") & set(said)


def test_a_command_is_told_its_option_and_a_program_the_argument() -> None:
    assert advice("batch_size", "--batch-size") == "batch_size"
    with cleaned():
        assert advice("batch_size", "--batch-size") == "--batch-size"
    assert advice("batch_size", "--batch-size") == "batch_size"


def test_messages_of_the_library_name_options_only_where_a_command_runs() -> None:
    """Commands that are a remedy by themselves, such as `python -m preprocess ... --repair`, stay."""
    for path in (ROOT / "shards").rglob("*.py"):
        tree = ast.parse(path.read_text())
        allowed: set[ast.AST] = set()
        for node in ast.walk(tree):
            call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "advice"
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if call or docstring:
                allowed |= set(ast.walk(node))
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in allowed:
                assert "python -m train --" not in node.value, f"{path}: {node.value}"


def test_times_for_people() -> None:
    assert [duration(seconds) for seconds in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_gets_lines_of_long_work(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    with terminal.cleaned():
        log = terminal.ProgressLog(10_000, clock)
        for clock.now in range(0, 400, 10):
            log.advance(100, found=int(clock.now == 0) * 1000)
    # After a minute 700 were converted; the 1,000 that were found done are no speed.
    assert capsys.readouterr().err.splitlines() == [
        "1,700 of 10,000 images: 12 images/s, about 12 min left",
        "4,700 of 10,000 images: 10 images/s, about 9 min left",
    ]


def test_a_program_of_the_users_own_gets_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    log = terminal.ProgressLog(10, clock)
    clock.now = 1000
    with terminal.doing("reading"):
        log.advance(5)
    assert capsys.readouterr().err == ""


def test_what_is_printed_takes_the_place_of_the_line_that_says_what_goes_on() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    shown = Terminal()
    with contextlib.redirect_stderr(shown), contextlib.redirect_stdout(shown), terminal.cleaned():
        with terminal.doing("reading"):
            print("a note")
        print("the end")
    assert shown.getvalue() == "reading ...\r           \ra note\nthe end\n"
