"""The report: which charts show a result, and what a browser makes of the page - on a phone, and in the dark."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.commands.report import Options, run
from benchmarks.measure.harness import Schedule, Spread
from benchmarks.measure.result import Ratio, Result, Series, write
from benchmarks.report.charts import Bar, Bars, charts, number
from benchmarks.report.draw import panels, svg
from benchmarks.report.page import page
from shards.common.errors import ShardfeedError, UsageError
from tests.helpers.browser import Look, look


def result(benchmark: str, series: list[Series], **more: Any) -> Result:
    made = Result.now(benchmark, f"{benchmark} & <others>", f"python -m benchmarks {benchmark}", series, **more)
    return dataclasses.replace(made, date="2026-01-02T03:04:05+00:00")


def loaders() -> Result:
    naive = Series("a peer whose name is much longer than a line of a telephone", (400.0, 410.0, 390.0))
    ours = Series("shardfeed, CPU", (4100.0, 4200.0, 4000.0), cpu_ms=(0.5, 0.5, 0.5))
    return result(
        "loaders",
        [naive, ours],
        schedule=Schedule(3),
        ratios=[Ratio.between(ours, naive)],
        skipped={"FFCV": "it is not installed"},
        settings={"finding 1": "The disk is <b>slow</b>.", "advice 1": "Another disk."},
    )


def stages() -> Result:
    rungs = [
        Series("read", (50_000.0,), settings={"group": "ladder", "limit": "page cache"}),
        Series("+ decode", (4_000.0, 5_000.0), settings={"group": "ladder", "limit": "libjpeg-turbo"}),
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


def test_the_colours_of_a_chart_are_the_page_s() -> None:
    drawn = svg(charts(loaders())[0])
    assert {"var(--ink)", "var(--c0)", "var(--c3)"} <= set(re.findall(r"var\(--\w+\)", drawn))
    assert not re.search(r"#(?!000000|ffffff)[0-9a-f]{6}\b", drawn.split("</defs>", 1)[1])


def test_a_group_is_a_chart_of_its_own() -> None:
    ladder, limits = charts(stages())
    assert [bar.label for bar in ladder.bars] == ["read", "+ decode"]
    assert [bar.label for bar in limits.bars] == ["page cache", "libjpeg-turbo"]
    assert [(chart.title, len(chart.bars)) for chart in charts(scale())] == [("scale, start: s", 3), ("scale: MB", 20)]


def test_the_charts_say_in_words_what_they_show() -> None:
    bars = svg(Bars("A <chart>", "images/s", (Bar("x & y", Spread(10.0, 9.0, 11.0)),)))
    assert 'aria-label="A &lt;chart&gt;: x &amp; y 10.0 images/s"' in bars


def test_a_chart_of_zeros_is_drawn() -> None:
    assert "<path" in svg(Bars("zero", "s", (Bar("x", Spread(0.0, 0.0, 0.0)),)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1e-300, "1e-300"), (0.0123, "0.0123"), (1.234, "1.23"), (99.9, "99.9"), (1234.5, "1,234")],
)
def test_figures_have_three_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_the_page_is_whole_and_loads_nothing() -> None:
    text = page([loaders(), stages(), scale()])
    assert text.count("<section>") == text.count("</section>") == 3
    assert text.count("<svg") == 5
    assert "<script" not in text
    assert not re.search(r'(src|href)="(?!data:,"|#)', text)
    assert "loaders &amp; &lt;others&gt;" in text
    assert "The disk is &lt;b&gt;slow&lt;/b&gt;." in text
    assert "<li>Another disk.</li>" in text
    assert "<li>FFCV: it is not installed</li>" in text
    assert "<td>10.25</td>" in text or "<td>10.24</td>" in text


@pytest.mark.parametrize(
    "series",
    [
        [Series("read", (0.0,), settings={"group": "ladder", "limit": "disk"})],
        [
            Series("read", (5.0,), settings={"group": "ladder", "limit": "disk"}),
            Series("disk", (0.0,), settings={"group": "limits"}),
        ],
        [Series("tiny", (1e-300,))],
        [],
    ],
)
def test_odd_results_are_shown_all_the_same(series: list[Series]) -> None:
    text = page([dataclasses.replace(result("stages", series, schedule=Schedule(1)), hardware={})])
    assert text.count("</section>") == 1
    assert all(f"<td>{each.name}</td>" in text for each in series)


@pytest.mark.parametrize(
    ("value", "message"), [("NaN", "malformed"), ("Infinity", "malformed"), ("-1.0", r"series\[0\]\.values\[0\]")]
)
def test_figures_that_no_measurement_gives_are_refused(value: str, message: str, tmp_path: Path) -> None:
    path = write(result("stages", [Series("read", (12.5,))], schedule=Schedule(1)), tmp_path)
    path.write_text(path.read_text().replace("12.5", value))
    with pytest.raises(ShardfeedError, match=message):
        run(Options((path,), tmp_path / "report.html"))


@pytest.fixture(scope="module")
def text() -> str:
    return page([loaders(), stages(), scale()])


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(380, False), (380, True)])
def test_a_browser_shows_all_of_it(text: str, width: int, dark: bool, tmp_path: Path) -> None:
    seen: Look = look(text, tmp_path, width=width, dark=dark)
    found = seen.measured
    assert seen.console == []
    assert found["dark"] is dark
    assert found["page"] == ("rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)")
    assert found["width"] <= width
    assert len(found["charts"]) == 5
    assert all(chart["shapes"] and chart["width"] > 0.7 * min(width, 400) for chart in found["charts"])
    assert found["outside"] == []
    assert found["touching"] == []
    assert len(found["texts"]) > 100
    assert min(each["contrast"] for each in found["texts"]) >= 4.5
    assert min(each["size"] for each in found["texts"]) >= 10


@pytest.mark.slow
def test_the_browser_test_sees_what_is_wrong(tmp_path: Path) -> None:
    bad = (
        '<!doctype html><body style="background:#fff;margin:0"><p style="color:#bbb;width:900px">pale</p>'
        '<svg viewBox="0 0 100 100" width="100"><text x="5" y="20">one</text><text x="8" y="20">two</text></svg>'
        "<script>console.error('broken')</script>"
    )
    seen = look(bad, tmp_path, width=380, dark=False)
    assert len(seen.console) == 1
    assert seen.measured["width"] > 380
    assert seen.measured["outside"] == ["pale"]
    assert seen.measured["touching"] == [["one", "two"]]
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
