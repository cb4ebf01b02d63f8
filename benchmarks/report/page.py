"""Makes one HTML page of results: text, tables and SVG in one file that loads nothing and runs no script.

It fits a phone (380 pixels and less) and follows the reader's choice of a light or a dark page. `page.html` is its
template.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from benchmarks.measure.result import Result
from benchmarks.report.charts import charts, number
from benchmarks.report.draw import svg
from benchmarks.report.table import circumstances

# A table with more rows than this is folded away: the chart shows it better.
OPEN_ROWS = 16


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["number"] = number
    return environment.get_template("page.html").render(sections=[_section(result) for result in results])


def _section(result: Result) -> dict[str, object]:
    """What the template needs of a result."""
    plain = {name: value for name, value in result.settings.items() if not name.startswith(("finding ", "advice "))}
    return {
        "result": result,
        "circumstances": circumstances(result),
        "findings": [value for name, value in result.settings.items() if name.startswith("finding ")],
        "advice": [value for name, value in result.settings.items() if name.startswith("advice ")],
        "settings": plain,
        "charts": [{"chart": each, "svg": Markup(svg(each))} for each in charts(result)],
        "folded": len(result.series) > OPEN_ROWS,
    }
