"""Makes one HTML page of results: text, tables and bars in one file that loads nothing and runs no script.

It fits a phone (380 pixels and less) and follows the reader's choice of a light or a dark page. `page.html` is its
template.
"""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.measure.result import Result
from benchmarks.report.charts import charts
from benchmarks.report.table import circumstances, in_words, number


def page(results: Sequence[Result]) -> str:
    """The whole page."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"number": number, "charts": charts, "in_words": in_words, "circumstances": circumstances}
    return environment.get_template("page.html").render(results=results)
