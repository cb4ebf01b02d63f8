"""`python -m benchmarks readme`: which results count, the tables, the command without paths, the picture."""

from pathlib import Path

import msgspec
import pytest
from PIL import Image

from benchmarks.__main__ import main
from benchmarks.commands.readme import END, LONG, SHORT, chosen
from benchmarks.measure.harness import Schedule
from benchmarks.measure.machine import hardware
from benchmarks.measure.result import Ratio, Result, Series, Setting, write
from benchmarks.rows.document import draw, long_block, short_block
from shards.common.errors import UsageError
from tests import ROOT


def _result(encoding: str, dtype: str, speed: float = 4000.0, day: int = 2) -> Result:
    ours = Series("shardfeed", (speed, speed + 100, speed - 100), settings={"threads": 3, "dct": "accurate"})
    others = [Series("naive HF + PIL", (400.0, 410.0, 390.0), settings={"threads": 2, "dct": "accurate"})]
    if encoding == "jpeg":
        own: dict[str, Setting] = {"threads": 2, "dct": "fast", "ffcv": "1.0.2", "resize": "none"}
        others.append(Series("FFCV", (2000.0, 2000.0, 2000.0), settings=own))
    work: dict[str, Setting] = {"encoding": encoding, "crop": "random", "dtype": dtype, "batch_size": 64, "size": 224}
    row = f"256-px {encoding}, random, {dtype}"
    result = Result.now(
        "loaders",
        "what was done",
        "python -m benchmarks loaders --data /some/where --source '/else where' --work w --out o --rounds 3"
        f" --dtype {dtype}",
        [*others, ours],
        schedule=Schedule(3, 1.0),
        ratios=[Ratio.between(ours, other) for other in others],
        settings={**work, "resize": 256, "stored": 256, "images": 900, "row": row},
        skipped={"SPDL": "not installed", "shardfeed, GPU, region": "needs a CUDA GPU, and torch sees none"},
    )
    return msgspec.structs.replace(result, date=f"2026-01-{day:02}T03:04:05+00:00")


def _changed(result: Result, **settings: Setting) -> Result:
    return msgspec.structs.replace(result, settings={**result.settings, **settings})


def test_the_latest_result_of_each_work_counts_in_the_order_of_the_rows() -> None:
    old, new = _result("jpeg", "float32", 3000.0, day=1), _result("jpeg", "float32", 4000.0, day=3)
    raw, pixels = _result("raw", "float32"), _result("jpeg", "uint8")
    cold = _changed(_result("jpeg", "float32", day=1), reads="disk")
    assert chosen([cold, new, raw, old, pixels]) == [[new, pixels, raw, cold]]


def test_results_that_do_not_belong_together_are_refused() -> None:
    hardware = _result("raw", "uint8").hardware
    other = msgspec.structs.replace(_result("raw", "uint8"), hardware={**hardware, "cores": 1000})
    with pytest.raises(UsageError, match="differ in hardware"):
        chosen([_result("jpeg", "uint8"), other])
    with pytest.raises(UsageError, match="differ in seconds: give those of one"):
        chosen([_result("jpeg", "uint8"), msgspec.structs.replace(_result("raw", "uint8"), seconds=0.1)])
    with pytest.raises(UsageError, match="not of stages"):
        chosen([msgspec.structs.replace(other, benchmark="stages")])
    with pytest.raises(UsageError, match="give results"):
        chosen([])


def test_results_of_two_kinds_of_processor_are_apart_the_latest_first() -> None:
    early, late = _result("jpeg", "uint8", day=1), _result("jpeg", "uint8", day=2)
    late = msgspec.structs.replace(late, hardware={"cpu": "another", "cores": 1, "gpu": None})
    assert chosen([early, late]) == [[late], [early]]


def test_each_kind_of_processor_has_a_table_under_its_name_also_of_results_that_name_no_kind(tmp_path: Path) -> None:
    here = _result("jpeg", "float32", day=3)
    old = msgspec.structs.replace(_result("jpeg", "float32"), hardware={**here.hardware, "cpu": "AMD EPYC"})
    paths = [str(write(each, tmp_path / "results")) for each in (here, old)]
    readme, document = tmp_path / "README.md", tmp_path / "long.md"
    document.write_text(f"{LONG}\n{END}\n")
    readme.write_text(f"{SHORT}\n{END}\n")
    words = ["--readme", str(readme), "--document", str(document), "--picture", str(tmp_path / "picture.png")]
    assert main(["readme", *paths, *words, "--kept", str(tmp_path / "kept")]) == 0
    for path in (readme, document):
        heads = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert heads == [f"### {hardware()['cpu']}, 2026-01-03", "### AMD EPYC, 2026-01-02"]


def test_ratios_lead_and_then_come_all_contenders_with_command_versions_and_date() -> None:
    [results] = chosen([_result("jpeg", "float32"), _changed(_result("raw", "float32"), batch_size=512)])
    lines = long_block(results, "a/b.png").splitlines()
    assert [line for line in lines if line.startswith("|")] == [
        "|  | shardfeed, images/s | to FFCV | to naive HF + PIL |",
        "| --- | --- | --- | --- |",
        "| 256-px jpeg, random, float32 | **4,000** | 2.00 (1.95 to 2.05) | 10.00 (10.00 to 10.00) |",
        "| 256-px raw, random, float32, batch 512 | **4,000** | - | 10.00 (10.00 to 10.00) |",
        "| images/s | threads | 256-px jpeg, random, float32 | 256-px raw, random, float32, batch 512 |",
        "| --- | --- | --- | --- |",
        "| naive HF + PIL | 2 | 400 | 400 |",
        "| FFCV | 2 | 2,000 | - |",
        "| **shardfeed** | 3 | 4,000 | 4,000 |",
    ]
    text = "\n".join(lines)
    assert "`python -m benchmarks loaders --data DIR --source SOURCE --rounds 3`, with the options" in text
    assert "where" not in text
    assert "ffcv 1.0.2" in text
    assert "2026-01-02" in text
    assert "(DCT): FFCV; the others" in text
    assert "Not measured: SPDL: not installed." in text
    assert "](a/b.png)" in text


def test_the_reason_of_a_failure_comes_before_others() -> None:
    failed = msgspec.structs.replace(_result("jpeg", "float32"), skipped={"SPDL": "failed: no answer"})
    other = msgspec.structs.replace(_result("raw", "float32"), skipped={"SPDL": "does not read raw images"})
    for results in ([failed, other], [other, failed]):
        assert "Not measured: SPDL: failed: no answer." in long_block(results)


def test_the_short_table_has_the_ratios_of_a_few_rows() -> None:
    small = _changed(_result("raw", "uint8"), batch_size=512, size=32, stored=32, row="32-px raw, random, uint8")
    cold = _changed(_result("jpeg", "float32"), reads="disk", row="cold")
    [results] = chosen([small, cold, _result("jpeg", "float32")])
    lines = short_block(results, "a/b.png").splitlines()
    rows = [line.split(" | ")[0] for line in lines if line.startswith("|")]
    assert rows == ["| ", "| ---", "| 256-px jpeg, random, float32", "| 32-px raw, random, uint8, batch 512"]
    assert "2026-01-02" in lines[-1]
    assert "](a/b.png)" in lines[0]


def test_rows_that_no_short_table_has_are_drawn_too(tmp_path: Path) -> None:
    draw([_changed(_result("jpeg", "float32"), reads="disk")], tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()


def test_only_what_stands_between_the_marks_is_rewritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = [_result("jpeg", "float32"), _result("raw", "uint8", day=1)]
    paths = [str(write(result, tmp_path / "results")) for result in results]
    readme, document, picture = (tmp_path / name for name in ("README.md", "docs/long.md", "docs/picture.png"))
    words = ["--readme", str(readme), "--document", str(document), "--picture", str(picture)]
    words = ["readme", *paths, *words, "--kept", str(tmp_path / "kept")]
    document.parent.mkdir()
    document.write_text(f"before\n{LONG}\nold\n{END}\nafter\n")
    readme.write_text("no marks")
    assert main(words) == 1
    assert SHORT in capsys.readouterr().err
    assert "old" in document.read_text()  # neither is written unless both can be
    assert not (tmp_path / "kept").exists()
    readme.write_text(f"before\n{SHORT}\nold\n{END}\nafter\n")
    assert main(words) == 0
    once = [path.read_text() for path in (document, readme)]
    assert main([word for word in words if word not in paths]) == 0  # of what is kept
    assert [path.read_text() for path in (document, readme)] == once
    heading = f"### {hardware()['cpu']}, 2026-01-02\n\n"
    for text, begin, link in zip(once, (LONG, SHORT), ("](picture.png)", "](docs/picture.png)"), strict=True):
        assert text.startswith(f"before\n{begin}\n\n{heading if begin == LONG else ''}![")
        assert text.endswith(f"\n\n{END}\nafter\n")
        assert "old" not in text
        assert link in text
    assert picture.stat().st_size < 60_000
    assert Image.open(picture).convert("RGB").getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize(("document", "begin"), [("README.md", SHORT), ("docs/benchmarks.md", LONG)])
def test_the_documents_have_the_marks(document: str, begin: str) -> None:
    text = (ROOT / document).read_text()
    assert text.count(begin) == text.count(END) == 1
    assert (ROOT / "docs" / "pictures" / "loaders.png").stat().st_size < 60_000


def test_results_that_are_incomplete_do_not_count() -> None:
    whole = _result("jpeg", "uint8", day=1)
    part = msgspec.structs.replace(_result("jpeg", "uint8", day=3), incomplete=True)
    assert chosen([part, whole]) == [[whole]]
    with pytest.raises(UsageError, match="incomplete"):
        chosen([part])


def test_the_table_says_how_the_threads_were_chosen() -> None:
    plain = _result("jpeg", "uint8")
    swept = msgspec.structs.replace(plain, settings={**plain.settings, "sweep": "1, 2, 3, 4"})
    assert "not tuned for each loader" in long_block([plain], "b.png")
    assert "the number with the most images/s in a turn before, of 1, 2, 3, 4" in long_block([swept], "b.png")
    with pytest.raises(UsageError, match="differ in numbers of threads tried"):
        chosen([swept, _result("raw", "uint8")])
