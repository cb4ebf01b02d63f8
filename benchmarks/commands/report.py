"""python -m benchmarks report RESULTS... --output report.html: results as one page, with tables and charts.

The page is one file that loads nothing; it fits a phone, and a dark screen.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.measure.result import read
from benchmarks.report.page import page
from shards.common.atomic import refuse_unwritable, replacing
from shards.common.cli import show_result
from shards.common.errors import UsageError


@dataclass(frozen=True)
class Options:
    """Shows what benchmarks measured as one page with tables and charts."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS...")]
    """Files of results (JSON), in the order of the page."""
    output: Path = Path("report.html")
    """The page to write."""


def run(options: Options) -> None:
    """Writes the page and prints its path. Raises UsageError without results, ShardfeedError for other files."""
    if not options.results:
        raise UsageError("give at least one file of results, as the other commands of `python -m benchmarks` write")
    refuse_unwritable("--output", options.output)
    results = [read(path) for path in options.results]
    with replacing(options.output) as file:
        file.write(page(results).encode())
    print(f"page   {options.output}")
    show_result({"page": options.output})
