"""Results as tables for people: columns of text for a terminal, Markdown for a document."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Ratio, Result, write
from benchmarks.report.charts import number
from shards.common.cli import show_result
from shards.common.terminal import counted


def text(result: Result) -> str:
    """All figures of one result: median, least and most over the rounds, processor time, limits, ratios by round."""
    rows = [["", "unit", "median", "least", "most", "ms of core", "share of the limit"]]
    limits = {series.name: series for series in result.series}
    for series in result.series:
        core = number(Spread.of(series.cpu_ms).median) if series.cpu_ms else ""
        limit = limits.get(str(series.settings.get("limit")))
        share = "" if limit is None else f"{Ratio.between(series, limit).median:.0%} of {limit.name}"
        rows.append([series.name, series.unit, *_cells(series.spread), core, share])
    rows += [[f"{each.of} / {each.to}", "times", *_cells(each), "", ""] for each in result.ratios]
    if not any(row[-1] for row in rows[1:]):
        rows = [row[:-1] for row in rows]
    lines = [result.title, circumstances(result), "", *columns(rows, left=(0, 1, 6))]
    return "\n".join([*lines, *(f"not measured: {name}: {reason}" for name, reason in result.skipped.items())])


def _cells(spread: Spread | Ratio) -> list[str]:
    return [number(each) for each in (spread.median, spread.least, spread.most)]


def show(result: Result, out: Path) -> None:
    """Writes `result` to the directory `out`; prints its table and its path, and gives it to programs."""
    path = write(result, out)
    print(f"{text(result)}\n\nresult {path}")
    show_result(result)


def columns(rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> list[str]:
    """Rows as lines of text in columns as wide as their cells, right-aligned but for the columns in `left`."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def circumstances(result: Result) -> str:
    """One line: on what it was measured, how often, when."""
    machine = result.hardware
    return (
        f"{machine.get('cpu')}, {machine.get('cores')} cores, {machine.get('gpu') or 'no GPU'}; "
        f"{counted(result.rounds, 'round')} in turns of {result.seconds:g} s; {result.date[:10]}"
    )


def ratio(result: Result, of: str, to: str) -> str:
    """A ratio with its range, or a dash where there is none."""
    for each in result.ratios:
        if (each.of, each.to) == (of, to):
            return _times(each)
    return "-"


def _times(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
