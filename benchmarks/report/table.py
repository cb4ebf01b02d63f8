"""Results as text for people: sentences, columns for a terminal, Markdown for a document."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Ratio, Result, write
from shards.common.cli import show_result


def show(result: Result, out: Path) -> None:
    """Writes `result` to the directory `out`; prints its table and its path, and gives it to programs."""
    path = write(result, out)
    print(f"{text(result)}\n\nresult {path}")
    show_result(result)


def text(result: Result) -> str:
    """All figures of one result: median, least and most over the rounds, processor time, limits, ratios by round."""
    rows = [["", "unit", "median", "least", "most", "core ms", "share of the limit"]]
    limits = {series.name: series for series in result.series}
    for series in result.series:
        core = number(Spread.of(series.cpu_ms).median) if series.cpu_ms else ""
        limit = limits.get(str(series.settings.get("limit")))
        share = "" if limit is None else f"{Ratio.between(series, limit).median:.0%} of {limit.name}"
        rows.append([series.name, series.unit, *_cells(series.spread, len(series.values)), core, share])
    rows += [[f"{each.of} / {each.to}", "times", *_cells(each, result.rounds), "", ""] for each in result.ratios]
    lines = [result.title, circumstances(result), "", *columns(rows)]
    if result.findings:
        lines += ["", *result.findings]
    return "\n".join([*lines, *(f"not measured: {name}: {reason}" for name, reason in result.skipped.items())])


def _cells(spread: Spread | Ratio, rounds: int) -> list[str]:
    """Median, least and most; one round has no spread."""
    figures = [number(each) for each in (spread.median, spread.least, spread.most)]
    return figures if rounds > 1 else [figures[0], "", ""]


def in_words(result: Result) -> Sequence[str]:
    """What a result says: its findings and its ratios in sentences; its title, where it has neither."""
    ratios = [f"{each.of} to {each.to}: {_times(each)} times as much." for each in result.ratios]
    return [*result.findings, *ratios] or [result.title]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows, a head first, as lines in columns as wide as their cells; words stand left, figures right.

    Columns that are empty below their head are left out.
    """
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    set_ = []
    for column in kept:
        width, words = max(map(len, column)), any(char.isalpha() for cell in column[1:] for char in cell)
        set_.append([cell.ljust(width) if words else cell.rjust(width) for cell in column])
    return ["  ".join(line).rstrip() for line in zip(*set_, strict=True)]


def circumstances(result: Result) -> str:
    """One line: on what it was measured, how often, when."""
    machine, seconds = result.hardware, f"{result.seconds:g} s"
    rounds = f"{result.rounds} rounds in turns of {seconds}"
    if result.rounds == 1:
        rounds = f"1 round of {seconds}, which has no spread"
    gpu = machine.get("gpu") or "no GPU"
    return f"{machine.get('cpu')}, {machine.get('cores')} cores, {gpu}; {rounds}; {result.date[:10]}"


def number(value: float) -> str:
    """A figure with at least three digits, thousands separated."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def ratio(result: Result, of: str, to: str) -> str:
    """A ratio with its range, or a dash where there is none."""
    return next((_times(each) for each in result.ratios if (each.of, each.to) == (of, to)), "-")


def _times(ratio: Ratio) -> str:
    return f"{ratio.median:.2f} ({ratio.least:.2f} to {ratio.most:.2f})"


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
