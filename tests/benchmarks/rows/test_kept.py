"""Results that are kept: by date and machine, without paths, the latest of each work alone."""

from pathlib import Path

import msgspec

from benchmarks.measure.harness import Schedule
from benchmarks.measure.result import Result, Series
from benchmarks.rows.kept import keep, kept, without_places


def _result(day: int, cpu: str, skipped: str = "") -> Result:
    result = Result.now(
        "loaders",
        "what was done",
        "python -m benchmarks loaders --data /a/b --source '/else where' --peers all --work w --out /o --rounds 3",
        [Series("shardfeed", (1.0,))],
        schedule=Schedule(3, 1.0),
        skipped={"SPDL": skipped},
    )
    return msgspec.structs.replace(result, date=f"2026-01-{day:02}T03:04:05+00:00", hardware={"cpu": cpu})


def test_what_is_kept_is_what_was_given_last(tmp_path: Path) -> None:
    old, new, other = _result(1, "EPYC (family 25, AVX2)"), _result(2, "EPYC (family 25, AVX2)"), _result(1, "B")
    keep([old, other], tmp_path)
    paths = keep([new, other], tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in paths] == [
        "2026-01-02-epyc-family-25-avx2/loaders-2026-01-02T030405.json",
        "2026-01-01-b/loaders-2026-01-01T030405.json",
    ]
    assert kept(tmp_path) == dict(sorted(zip(paths, (new, other), strict=True)))
    assert len(list(tmp_path.iterdir())) == 2


def test_paths_of_the_machine_are_not_kept() -> None:
    reason = "failed: /home/me/lib/x.so: no such file; see https://example.com/a/b or a/b"
    result = without_places(_result(1, "A", reason))
    assert result.command == "python -m benchmarks loaders --data DIR --source SOURCE --peers all --rounds 3"
    assert result.skipped == {"SPDL": "failed: x.so: no such file; see https://example.com/a/b or a/b"}
    assert without_places(result) == result
