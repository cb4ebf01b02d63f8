from pathlib import Path

import pytest

from benchmarks.__main__ import main


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--recipe", "nope"], "unknown recipe 'nope'"),
        (["--train", "-1"], "train=-1"),
        (["--validation", "0"], "=0"),
        (["--seconds", "0"], "--seconds must be a number above 0, not 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_made(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", "--out", str(tmp_path / "demo"), *words]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()
