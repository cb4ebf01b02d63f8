"""python -m benchmarks report RESULTS... --output report.html: results as one page, with tables and charts.

The page is one file that loads nothing: text, tables and SVG, no script. It fits a phone (380 pixels and less) and
follows the reader's choice of a light or a dark page. With --png DIR the same charts are written as PNGs too.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.measure.result import Ratio, Result, Series, read
from benchmarks.report.charts import Bars, Chart, number, png, svg
from benchmarks.report.pictures import charts
from shards.common.atomic import replacing
from shards.common.errors import UsageError

# A table with more rows than this is folded away: the chart shows it better.
OPEN_ROWS = 16

# Every pair of text and background here has a contrast of at least 4.5 to 1; a test computes it in a browser.
STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --card: #f6f8fa; --ink: #1f2328; --faint: #57606a;
  --rule: #d0d7de; --mark: #b3261e; --c0: #1f6feb; --c1: #9a6700; --c2: #8250df; --c3: #8c959f; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0d1117; --card: #161b22; --ink: #e6edf3; --faint: #9ea7b3; --rule: #30363d; --mark: #ff8a80;
    --c0: #58a6ff; --c1: #d29922; --c2: #bc8cff; --c3: #6e7681; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 0 0 .25rem; }
h3 { font-size: 1rem; margin: 0 0 .5rem; }
section { margin: 1.5rem 0; padding: 1rem; background: var(--card); border: 1px solid var(--rule); border-radius: 8px; }
p, ul { margin: .25rem 0 .75rem; } ul { padding-left: 1.2rem; }
.meta { color: var(--faint); font-size: .875rem; }
code { font: .875em/1.4 ui-monospace, monospace; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; max-width: 30rem; }
figcaption { color: var(--faint); font-size: .875rem; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .875rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .25rem; border-bottom: 1px solid var(--rule); text-align: right; vertical-align: top; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
th, td { overflow-wrap: normal; } th { color: var(--faint); font-weight: 600; }
details { font-size: .875rem; } summary { cursor: pointer; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .75rem; margin: .5rem 0; }
dt { color: var(--faint); } dd { margin: 0; }
svg { display: block; width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg .ink { fill: var(--ink); } svg .faint { fill: var(--faint); } svg .strong { font-weight: 700; }
svg .grid { stroke: var(--rule); } svg .whisker { stroke: var(--ink); fill: none; stroke-width: 1.2; }
svg .mark { stroke: var(--mark); stroke-width: 2; }
svg .s0 { fill: var(--c0); } svg .s3 { fill: var(--c3); }
svg .line { fill: none; stroke-width: 2; } svg .thin { stroke-width: 1; }
svg .c0 { stroke: var(--c0); } svg .c1 { stroke: var(--c1); }
svg .c2 { stroke: var(--c2); } svg .c3 { stroke: var(--c3); }
svg .dot { fill: var(--card); stroke-width: 2; }
@media (max-width: 30rem) { body { padding: .5rem; } section { padding: .75rem; } }
"""


@dataclass(frozen=True)
class Options:
    """Shows what benchmarks measured as one page with tables and charts."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS...")]
    """Files of results (JSON), in the order of the page."""
    output: Path = Path("report.html")
    """The page to write."""
    png: Path | None = None
    """Directory for the charts as PNGs; none if not given."""


def run(options: Options) -> None:
    """Writes the page and says where it is. Raises UsageError without results, ShardfeedError for other files."""
    if not options.results:
        raise UsageError("give at least one file of results, as the other commands of `python -m benchmarks` write")
    results = [read(path) for path in options.results]
    with replacing(options.output) as file:
        file.write(page(results).encode())
    print(f"page   {options.output}")
    if options.png is not None:
        options.png.mkdir(parents=True, exist_ok=True)
        for result in results:
            for i, chart in enumerate(charts(result), start=1):
                path = options.png / f"{result.stem}-{i}.png"
                png(chart, path, circumstances(result))
                print(f"chart  {path}")


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    sections = "\n".join(_section(result) for result in results)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>shardfeed: what was measured</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        "<h1>shardfeed: what was measured</h1>\n"
        "<p>Figures are medians over the rounds; lines in the charts reach from the least to the most.</p>\n"
        f"{sections}\n</body>\n</html>\n"
    )


def circumstances(result: Result) -> str:
    """One line: on what it was measured, how often, when."""
    machine = result.hardware
    gpu = machine.get("gpu") or "no GPU"
    return (
        f"{machine.get('cpu')}, {machine.get('cores')} cores, {gpu}; {result.rounds} "
        f"{'round' if result.rounds == 1 else 'rounds'} of {result.seconds:g} s; {result.date[:10]}"
    )


def _section(result: Result) -> str:
    parts = [
        f"<section>\n<h2>{escape(result.title)}</h2>",
        f'<p class="meta"><code>{escape(result.command)}</code><br>{escape(circumstances(result))}</p>',
        *_words(result.settings),
        '<div class="charts">',
        *(_figure(chart) for chart in charts(result)),
        "</div>",
        _table(result.series),
        *([_ratios(result.ratios)] if result.ratios else []),
    ]
    if result.skipped:
        rows = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in result.skipped.items())
        parts.append(f"<p>Not measured:</p><ul>{rows}</ul>")
    plain = {name: value for name, value in result.settings.items() if not _spoken(name)}
    parts.append(f"<details><summary>Settings and versions</summary>{_list(plain)}{_list(result.versions)}</details>")
    return "\n".join([*parts, "</section>"])


def _spoken(name: str) -> bool:
    return name.startswith(("finding ", "advice "))


def _words(settings: Mapping[str, object]) -> Iterator[str]:
    """What a result says in sentences: its findings, and what it advises."""
    for start, tag in (("finding ", "p"), ("advice ", "li")):
        said = [f"<{tag}>{escape(str(value))}</{tag}>" for name, value in settings.items() if name.startswith(start)]
        if said:
            yield "".join(said) if tag == "p" else f"<p>What to change:</p><ul>{''.join(said)}</ul>"


def _figure(chart: Chart) -> str:
    told = ""
    if isinstance(chart, Bars):  # curves have their unit on the axis
        mark = f"; red tick: {escape(chart.mark)}" if chart.mark else ""
        told = f"<figcaption>{escape(chart.unit)}{mark}</figcaption>"
    return f"<figure><h3>{escape(chart.title)}</h3>{svg(chart)}{told}</figure>"


def _table(series: Sequence[Series]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each.name)}</td><td>{number(each.spread.median)}</td>"
        f"<td>{_range(each)}</td><td>{escape(each.unit)}</td></tr>"
        for each in series
    )
    table = f"<table><tr><th></th><th>median</th><th>least to most</th><th>unit</th></tr>{rows}</table>"
    if len(series) <= OPEN_ROWS:
        return table
    return f"<details><summary>All {len(series)} figures</summary>{table}</details>"


def _range(series: Series) -> str:
    return "" if len(series.values) == 1 else f"{number(series.spread.least)} to {number(series.spread.most)}"


def _ratios(ratios: Sequence[Ratio]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each.of)} to {escape(each.to)}</td><td>{each.median:.2f}</td>"
        f"<td>{each.least:.2f} to {each.most:.2f}</td></tr>"
        for each in ratios
    )
    return f"<table><tr><th>times as much</th><th>median</th><th>round by round</th></tr>{rows}</table>"


def _list(values: Mapping[str, object]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in values.items())
    return f"<dl>{rows}</dl>" if rows else ""
