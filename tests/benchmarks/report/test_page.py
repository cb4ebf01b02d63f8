"""The report: which charts show a result, and what a browser makes of the page - on a phone, and in the dark."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from benchmarks.commands.report import Options, run
from benchmarks.measure.harness import Schedule, Spread
from benchmarks.measure.result import Ratio, Result, Series, write
from benchmarks.report.charts import Bar, Bars, charts
from benchmarks.report.draw import panels
from benchmarks.report.page import page
from benchmarks.report.table import number, text
from shards.common.errors import ShardfeedError, UsageError
from tests.helpers.browser import Look, look


def result(benchmark: str, series: list[Series], **more: Any) -> Result:
    made = Result.now(benchmark, f"{benchmark} & <others>", f"python -m benchmarks {benchmark}", series, **more)
    return msgspec.structs.replace(made, date="2026-01-02T03:04:05+00:00")


def loaders() -> Result:
    naive = Series("a peer whose name is much longer than a line of a telephone", (400.0, 410.0, 390.0))
    ours = Series("shardfeed, CPU", (4100.0, 4200.0, 4000.0), cpu_ms=(0.5, 0.5, 0.5))
    return result(
        "loaders",
        [naive, ours],
        schedule=Schedule(3),
        ratios=[Ratio.between(ours, naive)],
        skipped={"FFCV": "it is not installed"},
        findings=["The disk is <b>slow</b>.", "Another disk."],
    )


def stages() -> Result:
    rungs = [
        Series("read", (50_000.0,), settings={"group": "stages", "limit": "page cache"}),
        Series("+ decode", (4_000.0, 5_000.0), settings={"group": "stages", "limit": "libjpeg-turbo"}),
    ]
    limits = [
        Series(name, (rate,), settings={"group": "limits"})
        for name, rate in (("page cache", 200_000.0), ("libjpeg-turbo", 5_000.0))
    ]
    return result("stages", [*rungs, *limits], schedule=Schedule(2))


def scale() -> Result:
    rows = [(10_000, 1.2), (100_000, 1.3), (1_281_167, 2.1)]
    series = [Series(f"start, rows {n:,}", (v,), "s", settings={"group": "start"}) for n, v in rows]
    series += [Series(f"memory, epoch {epoch}", (800.0 + epoch % 3,), "MB") for epoch in range(1, 21)]
    return result("scale", series, schedule=Schedule(1))


def test_series_of_one_unit_are_bars_with_ours_marked() -> None:
    [chart] = charts(loaders())
    assert [bar.strong for bar in chart.bars] == [False, True]
    assert chart.bars[1].spread == Spread(4100.0, 4000.0, 4200.0)


def test_a_group_is_a_chart_of_its_own_with_its_unit_in_the_title() -> None:
    ladder, limits = charts(stages())
    assert [bar.label for bar in ladder.bars] == ["read", "+ decode"]
    assert [bar.label for bar in limits.bars] == ["page cache", "libjpeg-turbo"]
    assert [(chart.title, len(chart.bars)) for chart in charts(scale())] == [("start, s", 3), ("scale, MB", 20)]


def _bars(*medians: float) -> Bars:
    return Bars("speed, images/s", tuple(Bar("x", Spread(median, median, median)) for median in medians))


def test_bars_that_differ_a_hundredfold_have_a_logarithmic_axis() -> None:
    assert _bars(50.0, 4000.0).axis is None
    assert _bars(50.0, 4000.0).lengths() == [0.0125, 1.0]
    wide = _bars(40.0, 5000.0)
    assert wide.axis == (10.0, 10_000.0)
    assert wide.lengths() == pytest.approx([0.2007, 0.8997], abs=1e-3)
    assert "The bars are logarithmic, from 10.0 to 10,000." in page(
        [result("x", [Series("a", (40.0,)), Series("b", (5000.0,))], schedule=Schedule(1))]
    )


def test_bars_of_zeros_have_no_length() -> None:
    assert _bars(0.0, 0.0).lengths() == [0.0, 0.0]
    assert _bars(0.0, 5.0).axis is None


def test_the_page_begins_with_what_was_found() -> None:
    summary = page([loaders(), stages(), scale()]).partition("<section>")[0]
    assert "<b>loaders</b>: The disk is &lt;b&gt;slow&lt;/b&gt;." in summary
    assert "<b>stages</b>: stages &amp; &lt;others&gt;" in summary


def test_one_round_is_said_to_have_no_spread() -> None:
    lines = text(result("x", [Series("a", (40.0,))], schedule=Schedule(1, 2.0))).splitlines()
    assert "1 round of 2 s, which has no spread" in lines[1]
    assert lines[3].split() == ["unit", "median"]
    assert lines[4].split() == ["a", "images/s", "40.0"]


@pytest.mark.parametrize(
    ("value", "written"),
    [(0, "0"), (1e-300, "1e-300"), (0.0123, "0.0123"), (1.234, "1.23"), (99.9, "99.9"), (1234.5, "1,234")],
)
def test_figures_have_three_digits(value: float, written: str) -> None:
    assert number(value) == written


def test_the_page_is_whole_and_loads_nothing() -> None:
    drawn = page([loaders(), stages(), scale()])
    assert drawn.count("<section>") == drawn.count("</section>") == 3
    assert drawn.count('<div class="bar') == 2 + 4 + 23
    assert "<script" not in drawn
    assert not re.search(r'(src|href)="(?!data:,"|#)', drawn)
    assert "loaders &amp; &lt;others&gt;" in drawn
    assert "<p>Another disk.</p>" in drawn
    assert "<li>FFCV: it is not installed</li>" in drawn


@pytest.mark.parametrize(
    "series",
    [
        [Series("read", (0.0,), settings={"group": "stages", "limit": "disk"})],
        [
            Series("read", (5.0,), settings={"group": "stages", "limit": "disk"}),
            Series("disk", (0.0,), settings={"group": "limits"}),
        ],
        [Series("tiny", (1e-300,))],
        [],
    ],
)
def test_odd_results_are_shown_all_the_same(series: list[Series]) -> None:
    drawn = page([msgspec.structs.replace(result("stages", series, schedule=Schedule(1)), hardware={})])
    assert drawn.count("</section>") == 1
    assert all(f"<td>{each.name}<div" in drawn for each in series)


@pytest.mark.parametrize(
    ("value", "message"), [("NaN", "malformed"), ("Infinity", "malformed"), ("-1.0", r"series\[0\]\.values\[0\]")]
)
def test_figures_that_no_measurement_gives_are_refused(value: str, message: str, tmp_path: Path) -> None:
    path = write(result("stages", [Series("read", (12.5,))], schedule=Schedule(1)), tmp_path)
    path.write_text(path.read_text().replace("12.5", value))
    with pytest.raises(ShardfeedError, match=message):
        run(Options((path,), tmp_path / "report.html"))


@pytest.fixture(scope="module")
def drawn() -> str:
    return page([loaders(), stages(), scale()])


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(380, False), (380, True)])
def test_a_browser_shows_all_of_it(drawn: str, width: int, dark: bool, tmp_path: Path) -> None:
    seen: Look = look(drawn, tmp_path, width=width, dark=dark)
    found = seen.measured
    assert seen.console == []
    assert found["dark"] is dark
    assert found["page"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert found["width"] <= width
    assert len(found["bars"]) == 29
    assert 1 <= min(found["bars"]) < max(found["bars"]) < width
    assert found["outside"] == []
    assert len(found["texts"]) > 100
    assert min(each["contrast"] for each in found["texts"]) >= 4.5
    assert min(each["size"] for each in found["texts"]) >= 10


@pytest.mark.slow
def test_the_browser_test_sees_what_is_wrong(tmp_path: Path) -> None:
    bad = (
        '<!doctype html><body style="background:#fff;margin:0"><p style="color:#bbb;width:900px">pale</p>'
        '<div class="bar" style="width:5px"></div><script>console.error("broken")</script>'
    )
    seen = look(bad, tmp_path, width=380, dark=False)
    assert len(seen.console) == 1
    assert seen.measured["width"] > 380
    assert seen.measured["outside"] == ["pale"]
    assert seen.measured["bars"] == [5]
    assert min(each["contrast"] for each in seen.measured["texts"]) < 2


def test_the_command_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = tuple(write(each, tmp_path / "results") for each in (loaders(), scale()))
    run(Options(paths, tmp_path / "report.html"))
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert "report.html" in capsys.readouterr().out


def test_charts_stand_side_by_side_in_a_picture(tmp_path: Path) -> None:
    panels([*charts(loaders()), *charts(stages())], tmp_path / "a.png", "a note " * 30)
    assert Image.open(tmp_path / "a.png").width > 600


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    odd = tmp_path / "odd.json"
    odd.write_text(json.dumps({"schema": 0}))
    with pytest.raises(ShardfeedError, match=r"odd\.json"):
        run(Options((odd,), tmp_path / "report.html"))
    with pytest.raises(UsageError, match="at least one"):
        run(Options((), tmp_path / "report.html"))
    assert not (tmp_path / "report.html").exists()
