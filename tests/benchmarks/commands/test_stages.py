"""`python -m benchmarks stages`: its table, and what it leaves behind."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks.commands.stages import Options, run
from shards.common.errors import UsageError
from shards.dataset import Split


def test_the_command_prints_the_ladder_and_ends_with_json(
    small_split: Split, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(Options(small_split.root, batch_size=4, size=32, threads=1, rounds=2, seconds=0.05, out=tmp_path))
    lines = capsys.readouterr().out.splitlines()
    [loader] = [line for line in lines if line.startswith("loader ")]
    assert "% of libjpeg-turbo alone" in loader
    assert max(map(len, lines[:12])) <= 100
    result = json.loads(lines[-1])
    assert {"read, cold", "read", "+ decode", "loader"} <= {each["name"] for each in result["series"]}
    assert ("copy to the GPU" in result["skipped"]) != torch.cuda.is_available()
    [written] = tmp_path.glob("stages-*.json")
    assert json.loads(written.read_text()) == result


@pytest.mark.parametrize("wrong", [{"batch_size": 30}, {"batch_size": 0}, {"size": 64}, {"threads": 0}, {"rounds": 0}])
def test_work_that_does_not_fit_is_refused_before_measuring(
    wrong: dict[str, int], small_split: Split, tmp_path: Path
) -> None:
    with pytest.raises(UsageError):
        run(Options(small_split.root, out=tmp_path / "out", **{"batch_size": 4, "size": 32, **wrong}))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
