"""python -m benchmarks readme RESULTS...: results of loaders as the documents show them, two tables and a picture.

Rewrites what stands between the marks: in docs/benchmarks.md the long table with all loaders and where its figures come
from, in README.md a short one; and draws the picture that both show. The latest of several results of the same work
counts, so `Results/benchmarks/loaders-*.json` will do. Nothing is measured.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.measure.result import Result, Setting, read
from benchmarks.peers.roster import DALI, NAIVE, OURS, ROSTER, ROWS
from benchmarks.report.charts import Bar, Bars
from benchmarks.report.table import circumstances, grid, ratio
from shards.common.atomic import refuse_unwritable, replacing
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError

LONG = "<!-- loaders: written by python -m benchmarks readme -->"
SHORT = "<!-- loaders: short, written by python -m benchmarks readme -->"
END = "<!-- loaders: end -->"
TITLES = [entry.title for entry in ROSTER.values()]
OUR_TITLE = ROSTER[OURS].title
# The rows of the short table.
BRIEF = [ROSTER[name].title for name in (NAIVE, DALI, "ffcv", OURS)]


@dataclass(frozen=True)
class Options:
    """Writes results of loaders into the documents: a long table, a short one, and a picture."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS...")]
    """Files that `python -m benchmarks loaders` or `peers` wrote, of one machine."""
    document: Path = Path("docs/benchmarks.md")
    """The document with the long table."""
    readme: Path = Path("README.md")
    """The document with the short table."""
    picture: Path = Path("docs/pictures/loaders.png")
    """The picture to draw."""


def run(options: Options) -> None:
    """Rewrites both documents and draws the picture. Raises UsageError for results that do not belong together."""
    for option in ("document", "readme", "picture"):
        refuse_unwritable(f"--{option}", getattr(options, option))
    results = chosen([read(path) for path in options.results])
    documents = {options.document: (LONG, long_block), options.readme: (SHORT, short_block)}
    texts = {path: _around(path, begin) for path, (begin, _) in documents.items()}  # before anything is written
    from benchmarks.report.draw import panels  # brings matplotlib, for which --help need not wait

    options.picture.parent.mkdir(parents=True, exist_ok=True)
    panels(bars(results), options.picture, circumstances(results[0]))
    for path, (begin, block) in documents.items():
        before, after = texts[path]
        picture = Path(os.path.relpath(options.picture, path.parent)).as_posix()
        with replacing(path) as file:
            file.write(f"{before}{begin}\n\n{block(results, picture)}\n\n{END}{after}".encode())
    print(f"picture  {options.picture}\ntables   {options.document} and {options.readme}, from")
    for result in results:
        print(f"  {head(result)}: {result.date}")
    show_result({"picture": options.picture, "documents": list(documents)})


def _around(document: Path, begin: str) -> tuple[str, str]:
    """What stands before and after the marks. Raises ShardfeedError unless each is there once, in this order."""
    text = document.read_text()
    if text.count(begin) != 1 or text.count(END) != 1 or text.index(begin) > text.index(END):
        raise ShardfeedError(f"{document}: the lines {begin} and {END} must stand there once, in this order")
    return text.partition(begin)[0], text.partition(END)[2]


def chosen(results: Sequence[Result]) -> list[Result]:
    """The latest result of each kind of work, in the order of ROWS.

    Raises UsageError for no results, for results of other benchmarks, and for results that cannot stand in one table:
    of several machines, versions or sets of images, or measured for different times.
    """
    odd = sorted({result.benchmark for result in results} - {"loaders"})
    if odd or not results:
        raise UsageError(
            f"give results of `python -m benchmarks loaders` or `peers`{f', not of {odd[0]}' if odd else ''}"
        )
    if any(result.incomplete for result in results):
        results = [result for result in results if not result.incomplete]
        if not results:
            raise UsageError("these results are incomplete: give those of a command that ran to its end")
        print("results that are incomplete are left out", file=sys.stderr)
    latest = {_work(result): result for result in sorted(results, key=lambda result: result.date)}
    # The documents say these once, for all columns.
    said_once: dict[str, Callable[[Result], object]] = {
        "machine": lambda result: result.hardware,
        "rounds": lambda result: result.rounds,
        "seconds": lambda result: result.seconds,
        "images": lambda result: result.settings.get("images"),
        "numbers of threads tried": lambda result: result.settings.get("sweep"),
        "versions": lambda result: result.versions,
    }
    odd = [name for name, get in said_once.items() if any(get(each) != get(results[0]) for each in latest.values())]
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


def long_block(results: Sequence[Result], picture: str) -> str:
    """The picture, the table of all loaders and where the figures are from, in Markdown."""
    names = _measured(results)
    return "\n\n".join([_picture(results, picture), _table(results, names), *_origin(results, names)])


def short_block(results: Sequence[Result], picture: str) -> str:
    """The picture, the table of a few loaders and the machine, in Markdown."""
    names = [name for name in _measured(results) if name in BRIEF]
    return "\n\n".join([_picture(results, picture), _table(results, names), f"{circumstances(results[0])}."])


def bars(results: Sequence[Result]) -> list[Bars]:
    """One chart per result, with the loaders in the order of the roster."""
    return [
        Bars(
            f"{head(each)}\nimages/s",
            tuple(Bar(name, each[name].spread, name == OUR_TITLE) for name in _measured([each])),
        )
        for each in results
    ]


def _measured(results: Sequence[Result]) -> list[str]:
    """The titles of the loaders in any of the results, in the order of the roster."""
    there = {series.name for each in results for series in each.series}
    return [title for title in TITLES if title in there]


def _picture(results: Sequence[Result], picture: str) -> str:
    figures = ", ".join(f"{_figures([each], OUR_TITLE)[0]} ({head(each)})" for each in results)
    return f"![Images a second of each loader: {OUR_TITLE} {figures}]({picture})"


def _table(results: Sequence[Result], names: Sequence[str]) -> str:
    """A row for each of the loaders, then the ratios of ours to those that have one."""
    rows = [
        [f"**{name}**" if name == OUR_TITLE else name, threads, *_figures(results, name)]
        for name in names
        for threads in [", ".join(sorted(_setting(results, name, "threads")))]
    ]
    ratios = {base: [ratio(each, OUR_TITLE, base) for each in results] for base in names}
    rows += [[f"{OUR_TITLE} to {base}", "", *cells] for base, cells in ratios.items() if set(cells) != {"-"}]
    return grid(["images/s", "threads", *map(head, results)], rows)


def _figures(results: Sequence[Result], name: str) -> list[str]:
    """The medians of one loader, one per result."""
    found = [{series.name: series for series in each.series}.get(name) for each in results]
    return ["-" if series is None else f"{series.spread.median:,.0f}" for series in found]


def _origin(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Paragraphs: the machine and versions, what was done, the commands, and where loaders differ in their work."""
    first = results[0]
    machine, settings = first.hardware, first.settings
    stored = f"at shorter side {settings['stored']}" if settings.get("stored") else "at their own sizes"
    raw = ", for raw with `--encoding raw`" if any(each.settings["encoding"] == "raw" for each in results) else ""
    commands = "; ".join(f"`{command}`" for command in dict.fromkeys(map(_command, results)))
    dates = sorted({each.date[:10] for each in results})
    span = f" to {dates[-1]}" if len(dates) > 1 else ""
    # Of common libraries, and those that a loader brings itself, which are among its settings.
    versions = dict(first.versions)
    for name, value in (item for each in results for series in each.series for item in series.settings.items()):
        if isinstance(value, str) and value[:1].isdigit() and "." in value:
            versions.setdefault(name, value)
    where = f"{circumstances(first)}{span}; {machine.get('memory_gib')} GiB, {machine.get('system')}."
    what = (
        f"{settings['images']} images stored {stored}, page cache warm; batches of {settings['batch_size']} of "
        f"{settings['size']} pixels as torch tensors. Medians of the rounds; ratios are taken round by round, "
        f"least to most in brackets. `threads` are threads or worker processes, {_chosen_by(first)}; the naive path "
        "reads the originals."
    )
    how = (
        f"Command: {commands}, with `--crop` and `--dtype` as the head of a column says; `DIR` is made by "
        f"`python -m preprocess SOURCE DIR`{raw}. All of it: `make bench-peers SOURCE=...`."
    )
    parts = [f"{where} Versions: {', '.join(f'{name} {value}' for name, value in versions.items())}.", what, how]
    fast = [name for name in names if _setting(results, name, "dct") == {"fast"}]
    if fast:
        told = ", ".join(fast)
        parts.append(f"Decoded with the fast, less exact transform (DCT): {told}; the others with the exact one.")
    missing = {name: reason for each in results for name, reason in each.skipped.items() if name not in names}
    told = "; ".join(f"{name}: {why}" for name, why in missing.items() if not why.startswith("needs a CUDA GPU"))
    return [*parts, f"Not measured: {told}."] if told else parts


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
    """The command without paths of the machine, and without the options that differ between the columns."""
    word = r"('[^']*'|\S+)"
    command = re.sub(rf" --(work|out|crop|dtype) {word}", "", result.command)
    return re.sub(rf"--source {word}", "--source SOURCE", re.sub(rf"--data {word}", "--data DIR", command))
