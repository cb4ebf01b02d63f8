"""Which charts show a result. It goes by the settings of the series, so that every benchmark's result is drawn.

    curve, axis, at     a point of a curve: its name, what runs along the horizontal axis, and where the point is
    group               series of one group are drawn together; those of "ladder" as the time that an image takes
    limit               the name of the series that is this one's ceiling

Series without these are bars, one chart a unit.
"""

from collections.abc import Mapping

from benchmarks.measure.harness import Spread
from benchmarks.measure.result import Result, Series
from benchmarks.report.charts import Bar, Bars, Chart, Curves

# From this ratio between its ends on, a horizontal axis is logarithmic.
LOG = 50.0


def charts(result: Result) -> list[Chart]:
    """The charts of a result, in the order in which its series begin."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for series in result.series:
        kind = str(series.settings["axis"] if _on_a_curve(series) else series.settings.get("group", ""))
        groups.setdefault((kind, series.unit), []).append(series)
    drawn = [_chart(result, kind, unit, members) for (kind, unit), members in groups.items()]
    return [chart for chart in drawn if isinstance(chart, Curves) or chart.bars]


def _chart(result: Result, kind: str, unit: str, members: list[Series]) -> Chart:
    if all(map(_on_a_curve, members)):
        return _curves(kind, unit, members)
    if kind == "ladder":
        return _ladder(result, members)
    title = f"{result.benchmark}{f', {kind}' if kind else ''}: {unit}"
    ours = [series for series in members if series.name.startswith("shardfeed")]
    strong = {series.name for series in ours or members}
    return Bars(title, unit, tuple(Bar(series.name, series.spread, strong=series.name in strong) for series in members))


def _on_a_curve(series: Series) -> bool:
    where = series.settings
    return "curve" in where and "axis" in where and isinstance(where.get("at"), (int, float))


def _curves(axis: str, unit: str, members: list[Series]) -> Curves:
    curves: dict[str, list[tuple[float, Spread]]] = {}
    for series in members:
        at = series.settings["at"]
        assert isinstance(at, (int, float))
        curves.setdefault(str(series.settings["curve"]), []).append((float(at), series.spread))
    points = [x for curve in curves.values() for x, _ in curve]
    name = next(iter(curves)) if len(curves) == 1 else unit
    ordered = {name: tuple(sorted(curve, key=lambda point: point[0])) for name, curve in curves.items()}
    return Curves(f"{name} over {axis}", axis, unit, ordered, log=min(points) > 0 and max(points) / min(points) >= LOG)


def _ladder(result: Result, members: list[Series]) -> Bars:
    ceilings: Mapping[str, Series] = {series.name: series for series in result.series}
    bars = []
    for series in members:
        limit = ceilings.get(str(series.settings.get("limit")))
        mark = 1e6 / limit.spread.median if limit is not None and limit.spread.median else None
        times = [1e6 / value for value in series.values if value]  # where nothing was done, no image took any time
        if times:
            bars.append(Bar(series.name, Spread.of(times), mark, strong=True))
    return Bars("The ladder: what an image takes", "microseconds", tuple(bars), mark="the least that its limit allows")
