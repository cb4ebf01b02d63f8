"""Results of loaders as documents show them: ratios row by row, images/s of every loader, and a picture."""

import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure.result import Result, Setting
from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.roster import BASES, OURS, ROSTER, VIEWS
from benchmarks.report.charts import Bar, Bars
from benchmarks.report.table import circumstances, grid, ratio
from benchmarks.rows.kept import repeatable

TITLES = [entry.title for entry in (*ROSTER.values(), *VIEWS.values())]
OUR_TITLES = (ROSTER[OURS].title, VIEWS[OURS].title)
# The settings that tell one kind of work from another, and those of the rows of the short table, in the order in which
# rows stand.
WORK = ("encoding", "crop", "dtype", "batch_size", "size", "resize", "stored", "views", "colour", "reads", "tars")
BRIEF: list[tuple[Setting, ...]] = [
    ("jpeg", "random", "float32", 64, 224),
    ("jpeg", "random", "uint8", 64, 224),
    ("jpeg", "rrc", "float32", 64, 224),
    ("raw", "random", "float32", 64, 224),
    ("raw", "random", "uint8", 64, 224),
    ("raw", "random", "uint8", 512, 32),
]
# The libraries whose versions stand below the short table.
NAMED = ("torch", "nvidia-dali", "ffcv", "pillow", "simplejpeg")
# Most columns of a table of images/s.
COLUMNS = 6


def work(result: Result) -> tuple[Setting, ...]:
    """What tells the work of one result from that of another."""
    return tuple(result.settings.get(name) or 0 for name in WORK)


def order(result: Result) -> tuple[int, str]:
    """Sorts results: first those of the short table, then by date, in which `peers` measured them."""
    return (BRIEF.index(work(result)[:5]) if _brief(result) else len(BRIEF)), result.date


def _brief(result: Result) -> bool:
    """Whether the short table has it: plain images from shards that are in memory, of a shorter side."""
    return work(result)[:5] in BRIEF and bool(result.settings.get("stored")) and not any(work(result)[7:])


def title(results: Sequence[Result]) -> str:
    """The machine and the latest date of its results."""
    return f"{results[0].hardware.get('cpu')}, {max(each.date for each in results)[:10]}"


def long_block(results: Sequence[Result], picture: str | None = None) -> str:
    """The picture, the ratios, the images/s of all loaders, and where the figures are from, in Markdown."""
    return "\n\n".join([*_picture(results, picture), _ratios(results), *_speeds(results), *_origin(results)])


def short_block(results: Sequence[Result], picture: str | None = None) -> str:
    """The picture, the ratios of a few rows and the machine, in Markdown."""
    few = [each for each in results if _brief(each)] or results
    told = ", ".join(f"{name} {value}" for name, value in _versions(few).items() if name.startswith(NAMED))
    return "\n\n".join([*_picture(few, picture), _ratios(few), f"{circumstances(few[0])}; {told}."])


def draw(results: Sequence[Result], picture: Path) -> None:
    """Draws one chart for each row of the short table; of all rows, where none of those is there."""
    from benchmarks.report.draw import panels  # brings matplotlib, for which a mistyped option need not wait

    few = [each for each in results if _brief(each)] or results[:COLUMNS]
    panels([_bars(each) for each in few], picture, circumstances(few[0]))


def _bars(result: Result) -> Bars:
    """The loaders of a result, in the order of the roster."""
    bars = (Bar(name, result[name].spread, name in OUR_TITLES) for name in _measured([result]))
    return Bars(f"{_head(result).replace(', ', chr(10), 1)}\nimages/s", tuple(bars))


def _head(result: Result) -> str:
    """What is stored, cropped and delivered; how many at a time, where that is not as usual."""
    size = result.settings["batch_size"]
    row = str(result.settings.get("row"))
    return row if size == BatchSpec.batch_size else f"{row}, batch {size}"


def _measured(results: Sequence[Result]) -> list[str]:
    """The titles of the loaders in any of the results, in the order of the roster."""
    there = {series.name for each in results for series in each.series}
    return [title for title in TITLES if title in there]


def _ours(result: Result) -> str:
    """The images/s of this project's loader."""
    return next((f"{each.spread.median:,.0f}" for each in result.series if each.name in OUR_TITLES), "-")


def _picture(results: Sequence[Result], picture: str | None) -> list[str]:
    if picture is None:
        return []
    figures = ", ".join(f"{_ours(each)} ({_head(each)})" for each in results if _brief(each))
    return [f"![Images a second of each loader: {OUR_TITLES[0]} {figures}]({picture})"]


def _ratios(results: Sequence[Result]) -> str:
    """A row for each result: the images/s of this loader, and how many times as many as those of others that is."""
    there = {each.to for result in results for each in result.ratios}
    first = [ROSTER[name].title for name in BASES]
    bases = [title for title in dict.fromkeys([*first, *TITLES]) if title in there]
    rows = [[_head(each), f"**{_ours(each)}**", *(_ratio(each, base) for base in bases)] for each in results]
    return grid(["", f"{OUR_TITLES[0]}, images/s", *(f"to {base}" for base in bases)], rows)


def _ratio(result: Result, base: str) -> str:
    return next((found for ours in OUR_TITLES if (found := ratio(result, ours, base)) != "-"), "-")


def _speeds(results: Sequence[Result]) -> list[str]:
    """Tables of the images/s of all loaders, each of a few results."""
    tables = []
    for start in range(0, len(results), COLUMNS):
        some = results[start : start + COLUMNS]
        rows = [
            [f"**{name}**" if name in OUR_TITLES else name, threads, *(_speed(each, name) for each in some)]
            for name in _measured(some)
            for threads in [", ".join(sorted(_setting(some, name, "threads")))]
        ]
        tables.append(grid(["images/s", "threads", *map(_head, some)], rows))
    return tables


def _speed(result: Result, name: str) -> str:
    """The median of one loader."""
    return next((f"{each.spread.median:,.0f}" for each in result.series if each.name == name), "-")


def _origin(results: Sequence[Result]) -> list[str]:
    """Paragraphs: the machine and versions, what was done, the commands, and where loaders differ in their work."""
    first, names = results[0], _measured(results)
    versions = ", ".join(f"{name} {value}" for name, value in _versions(results).items())
    machine = first.hardware
    dates = sorted({each.date[:10] for each in results})
    span = f", {dates[0]} to {dates[-1]}" if len(dates) > 1 else ""
    where = f"{circumstances(first)}{span}; {machine.get('memory_gib')} GiB, {machine.get('system')}."
    counts = ", ".join(f"{each:,}" for each in sorted({int(result.settings["images"] or 0) for result in results}))
    sizes = ", ".join(f"{each}" for each in sorted({int(result.settings["size"] or 0) for result in results}))
    what = (
        f"{counts} images, page cache warm unless a row says otherwise; batches of 64, unless a row says otherwise, of "
        f"{sizes} pixels as torch tensors. Medians of the rounds; ratios are taken round by round, least to most in "
        f"brackets. `threads` are threads or worker processes, {_chosen_by(first)}; the naive path reads the originals."
    )
    commands = "; ".join(f"`{command}`" for command in dict.fromkeys(map(_command, results)))
    how = f"Command: {commands}, with the options that a row's name says. All of it: `make bench-peers SOURCE=...`."
    parts = [f"{where} Versions: {versions}.", what, how]
    fast = [name for name in names if _setting(results, name, "dct") == {"fast"}]
    if fast:
        told = ", ".join(fast)
        parts.append(f"Decoded with the fast, less exact transform (DCT): {told}; the others with the exact one.")
    missing: dict[str, str] = {}
    for name, reason in (item for each in results for item in each.skipped.items() if item[0] not in names):
        if name not in missing or reason.startswith("failed"):  # which says more than what it cannot read
            missing[name] = reason
    told = "; ".join(f"{name}: {why}" for name, why in missing.items() if not why.startswith("needs a CUDA GPU"))
    failed = [
        f"{name} ({_head(each)}): {why}"
        for each in results
        for name, why in each.skipped.items()
        if name in names and why.startswith("failed")
    ]
    told = "; ".join([*([told] if told else []), *failed])
    return [*parts, f"Not measured: {told}."] if told else parts


def _versions(results: Sequence[Result]) -> dict[str, str]:
    """Versions of common libraries, and of those that a loader brings itself, which are among its settings."""
    versions = dict(results[0].versions)
    for name, value in (item for each in results for series in each.series for item in series.settings.items()):
        if isinstance(value, str) and value[:1].isdigit() and "." in value:
            versions.setdefault(name, value)
    return versions


def _chosen_by(result: Result) -> str:
    """How the numbers of threads were chosen."""
    tried = result.settings.get("sweep")
    if tried is None:
        return "one a core, one more if DALI decodes, and not tuned for each loader"
    return f"for each loader the number with the most images/s in a turn before, of {tried}"


def _setting(results: Sequence[Result], name: str, setting: str) -> set[str]:
    """The values of a loader's setting over the results; "none ...", as for the DCT of raw pixels, left out."""
    values = (series.settings.get(setting) for each in results for series in each.series if series.name == name)
    return {str(value) for value in values if value is not None and not str(value).startswith("none")}


def _command(result: Result) -> str:
    """The command without paths of the machine, and without the options that a row's name and the text say."""
    command = re.sub(r" --sweep( \d+)+", "", repeatable(result.command))
    return re.sub(r" --(crop|dtype|batch-size|size|views|reads) \S+", "", command)
