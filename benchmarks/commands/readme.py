"""python -m benchmarks readme RESULTS...: results of loaders as the README shows them, a table and a picture.

Rewrites what stands between the two marks in the document, and draws the picture that it shows there. Of several
results that did the same work the latest counts, so `results/loaders-*.json` will do. Nothing is measured.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.commands.peers import ROWS
from benchmarks.measure.result import Result, Setting, read
from benchmarks.processes.roster import OURS, ROSTER
from benchmarks.report.charts import Bar, Bars, panels
from benchmarks.report.table import grid, ratio, setting
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError, UsageError

BEGIN, END = "<!-- loaders: written by python -m benchmarks readme -->", "<!-- loaders: end -->"
TITLES = [entry.title for entry in ROSTER.values()]
# Words of a command that differ from machine to machine, with what stands for them; None leaves them out.
PLACES: Mapping[str, str | None] = {"--data": "DIR", "--source": "SOURCE", "--work": None, "--out": None}
# What the heads of the columns say already.
SAID = ("--crop", "--dtype")


@dataclass(frozen=True)
class Options:
    """Writes results of loaders into the README: its table, and its picture."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS...")]
    """Files that `python -m benchmarks loaders` or `peers` wrote, of one machine."""
    document: Path = Path("README.md")
    """The document to rewrite."""
    picture: Path = Path("docs/pictures/loaders.png")
    """The picture to draw."""


def run(options: Options) -> None:
    """Rewrites the document and draws the picture. Raises UsageError for results that do not belong together."""
    results = chosen([read(path) for path in options.results])
    text = options.document.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ShardfeedError(f"{options.document}: the lines {BEGIN} and {END} have to stand there, once each")
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    panels(bars(results), options.picture, setting(results[0]))
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    with replacing(options.document) as file:
        file.write(f"{before}{BEGIN}\n\n{block(results, _path(options))}\n\n{END}{after}".encode())
    print(f"picture  {options.picture}\ntable    {options.document}, from")
    for result in results:
        print(f"  {head(result)}: {result.date}")


def chosen(results: Sequence[Result]) -> list[Result]:
    """The latest result of each kind of work, in the order of benchmarks/commands/peers.py.

    Raises UsageError where there is none, for those of other benchmarks, and for those that cannot stand in one table:
    of several machines or versions, other images, or measured for longer than others.
    """
    odd = sorted({result.benchmark for result in results} - {"loaders"})
    if odd or not results:
        raise UsageError(
            f"give results of `python -m benchmarks loaders` or `peers`{f', not of {odd[0]}' if odd else ''}"
        )
    latest = {_work(result): result for result in sorted(results, key=lambda result: result.date)}
    machines = {tuple(result.hardware.items()) for result in latest.values()}
    if len(machines) > 1:
        raise UsageError("the results are of several machines: give those of one")
    # What the document says once, of all columns.
    alike: dict[str, set[object]] = {
        "rounds": {result.rounds for result in latest.values()},
        "seconds": {result.seconds for result in latest.values()},
        "images": {result.settings.get("images") for result in latest.values()},
        "versions": {tuple(result.versions.items()) for result in latest.values()},
    }
    odd = [name for name, values in alike.items() if len(values) > 1]
    if odd:
        raise UsageError(f"the results differ in {', '.join(odd)}: give those of one `python -m benchmarks peers`")
    order: dict[tuple[Setting, ...], int] = {row: i for i, row in enumerate(ROWS)}
    return sorted(latest.values(), key=lambda each: order.get(_work(each)[:3], len(order)))


def _work(result: Result) -> tuple[Setting, ...]:
    names = ("encoding", "crop", "dtype", "batch_size", "size", "resize", "stored")
    return tuple(result.settings.get(name) or 0 for name in names)


def head(result: Result) -> str:
    """What is stored, cropped and delivered, as the head of a column."""
    kind = "raw" if result.settings["encoding"] == "raw" else "JPEG"
    return f"{kind}, {result.settings['crop']}, {result.settings['dtype']}"


def block(results: Sequence[Result], picture: str) -> str:
    """The picture, the table and where the figures are from, in Markdown."""
    ours = ROSTER[OURS].title
    names = [title for title in TITLES if any(title == series.name for each in results for series in each.series)]
    rows = [
        [name if name != ours else f"**{name}**", _threads(results, name), *_figures(results, name)] for name in names
    ]
    bases = [base for base in names if any((r.of, r.to) == (ours, base) for each in results for r in each.ratios)]
    rows += [[f"{ours} to {base}", "", *(ratio(each, ours, base) for each in results)] for base in bases]
    said = f"{ours} " + ", ".join(f"{_figures([each], ours)[0]} ({head(each)})" for each in results)
    return "\n\n".join(
        [
            f"![Images a second of each loader: {said}]({picture})",
            grid(["images/s", "threads", *map(head, results)], rows),
            *_origin(results, names),
        ]
    )


def _figures(results: Sequence[Result], name: str) -> list[str]:
    """The medians of one contender, a result each."""
    found = [{series.name: series for series in each.series}.get(name) for each in results]
    return ["-" if series is None else f"{series.spread.median:,.0f}" for series in found]


def _threads(results: Sequence[Result], name: str) -> str:
    return ", ".join(sorted(_setting(results, name, "threads")))


def _origin(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Machine, versions, what was done, commands, and what is not alike, a paragraph each."""
    first = results[0]
    machine, settings = first.hardware, first.settings
    stored = f"at shorter side {settings['stored']}" if settings.get("stored") else "at their own sizes"
    raw = ", for raw with `--encoding raw`" if any(each.settings["encoding"] == "raw" for each in results) else ""
    commands = "; ".join(f"`{command}`" for command in dict.fromkeys(map(_command, results)))
    dates = sorted({each.date[:10] for each in results})
    span = f" to {dates[-1]}" if len(dates) > 1 else ""
    versions = ", ".join(f"{name} {value}" for name, value in _versions(results).items())
    parts = [
        f"{setting(first)}{span}; {machine.get('memory_gib')} GiB, {machine.get('system')}. Versions: {versions}.",
        (
            f"{settings['images']} images stored {stored}, page cache warm; batches of {settings['batch_size']} of "
            f"{settings['size']} pixels as torch tensors. Medians of the rounds; ratios are taken round by round, "
            "least to most in brackets. `threads` are threads or worker processes; the naive path reads the originals."
        ),
        (
            f"Command: {commands}, with `--crop` and `--dtype` as the head of a column says; `DIR` is made by "
            f"`python -m preprocess SOURCE DIR`{raw}. All of it: `make bench-peers SOURCE=...`."
        ),
    ]
    fast = [name for name in names if _setting(results, name, "dct") == {"fast"}]
    if fast:
        told = ", ".join(fast)
        parts.append(f"Decoded with the fast, less exact transform (DCT): {told}; the others with the exact one.")
    missing = {name: reason for each in results for name, reason in each.skipped.items() if name not in names}
    missing = {name: reason for name, reason in missing.items() if not reason.startswith("needs a CUDA GPU")}
    if missing:
        parts.append("Not measured: " + "; ".join(f"{name}: {reason}" for name, reason in missing.items()) + ".")
    return parts


def _versions(results: Sequence[Result]) -> dict[str, str]:
    """Of the libraries of all; those that a contender alone brings are among its settings."""
    found = dict(results[0].versions)
    for name, value in (item for each in results for series in each.series for item in series.settings.items()):
        if isinstance(value, str) and value[:1].isdigit() and "." in value:
            found.setdefault(name, value)
    return found


def _setting(results: Sequence[Result], name: str, setting: str) -> set[str]:
    """What a contender's setting is in the results in which it is something, raw pixels without a DCT apart."""
    values = (series.settings.get(setting) for each in results for series in each.series if series.name == name)
    return {str(value) for value in values if value is not None and not str(value).startswith("none")}


def _command(result: Result) -> str:
    """The command without the paths of the machine, and without what differs between the columns."""
    words, kept = shlex.split(result.command), []
    values = iter(words)
    for word in values:
        if word in SAID or word in PLACES:
            next(values, None)
            stands = PLACES.get(word)
            kept += [] if stands is None else [word, stands]
        else:
            kept.append(word)
    return shlex.join(kept)


def bars(results: Sequence[Result]) -> list[Bars]:
    """A chart a result, all with the same contenders in the same places."""
    ours = ROSTER[OURS].title
    names = [title for title in TITLES if any(title == series.name for each in results for series in each.series)]
    charts = []
    for result in results:
        there = {series.name: series for series in result.series}
        found = tuple(Bar(name, there[name].spread, strong=name == ours) for name in names if name in there)
        charts.append(Bars(head(result), "images/s", found))
    return charts


def _path(options: Options) -> str:
    """The picture as the document has to name it."""
    return Path(os.path.relpath(options.picture, options.document.parent)).as_posix()
