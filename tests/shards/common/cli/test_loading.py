"""A command says at once that libraries load."""

import contextlib
import io

import pytest

from shards.common.cli import loading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def load(module: str = "no.such") -> None:
    with loading("torch", module):
        pass


def test_a_log_has_a_plain_line(capsys: pytest.CaptureFixture[str]) -> None:
    load()
    assert capsys.readouterr() == ("", "loading torch ...\n")


def test_on_a_terminal_the_line_goes_away() -> None:
    terminal = Terminal()
    with contextlib.redirect_stderr(terminal):
        load()
    assert terminal.getvalue() == "loading torch ...\r" + " " * 17 + "\r"


def test_what_is_loaded_already_is_not_announced(capsys: pytest.CaptureFixture[str]) -> None:
    load("pytest")
    assert capsys.readouterr() == ("", "")


def test_of_several_ranks_the_first_says_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RANK", "1")
    load()
    assert capsys.readouterr() == ("", "")
