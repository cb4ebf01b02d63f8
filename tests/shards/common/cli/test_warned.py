"""A warning of ours is one line of a command's stderr."""

import ast
import re
import sys
import warnings

import pytest
from tqdm import tqdm

from shards.common.cli import guarded
from shards.common.errors import ShardfeedWarning
from tests import ROOT

PACKAGES = ("preprocess", "shards", "train", "model", "benchmarks")


def test_the_same_warning_is_one_line_once_wherever_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    def body(_: list[str]) -> None:
        warnings.warn("tars\nhave changed", ShardfeedWarning, stacklevel=1)
        warnings.warn("tars\nhave changed", ShardfeedWarning, stacklevel=2)
        warnings.warn("skipped: one", ShardfeedWarning, stacklevel=1)

    assert guarded("prog", body, []) == 0
    assert capsys.readouterr().err.splitlines() == ["warning: tars have changed", "warning: skipped: one"]


def test_a_warning_stands_above_a_bar_and_not_in_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    def body(_: list[str]) -> None:
        with tqdm(total=2, file=sys.stderr) as bar:
            bar.update(1)
            warnings.warn("skipped: one", ShardfeedWarning, stacklevel=1)

    assert guarded("prog", body, []) == 0
    assert "warning: skipped: one" in re.split("[\r\n]", capsys.readouterr().err)


def test_every_warning_of_ours_says_that_it_is_ours() -> None:
    others = [
        f"{path}:{call.lineno}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func) == "warnings.warn"
        and "ShardfeedWarning" not in map(ast.unparse, call.args)
    ]
    assert not others
