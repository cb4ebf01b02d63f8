"""python -m benchmarks readme [RESULTS...]: results of loaders as the documents show them, two tables and a picture.

Copies RESULTS to the results that the repository keeps, benchmarks/results/, without paths of this machine, and makes
the documents of all that is kept; without RESULTS it makes them again. The latest of several results of the same work
on one kind of machine counts, so `Results/benchmarks/loaders-*.json` will do; the file of an older one is removed.

Rewrites what stands between the marks: in docs/benchmarks.md all rows, as ratios and then as images/s of every loader,
and where the figures come from; in README.md the ratios of a few rows; and draws the picture that both show. Several
kinds of machine have a table each, the one measured last first. Nothing is measured.
"""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.measure.result import Result, read
from benchmarks.rows.document import draw, long_block, order, short_block, title, work
from benchmarks.rows.kept import HOME, keep, kept, without_places
from shards.common.atomic import refuse_unwritable, replacing
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError

LONG = "<!-- loaders: written by python -m benchmarks readme -->"
SHORT = "<!-- loaders: short, written by python -m benchmarks readme -->"
END = "<!-- loaders: end -->"


@dataclass(frozen=True)
class Options:
    """Writes results of loaders into the documents: a long table, a short one, and a picture."""

    results: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RESULTS...")] = ()
    """Files to keep that `python -m benchmarks loaders` or `peers` wrote, of one or more kinds of machine."""
    kept: Path = HOME
    """Directory of the results that are kept, a folder for each date and kind of machine."""
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
    given = [without_places(read(path)) for path in options.results]
    machines = chosen([*kept(options.kept).values(), *given])
    documents = {options.document: (LONG, long_block), options.readme: (SHORT, short_block)}
    texts = {path: _around(path, begin) for path, (begin, _) in documents.items()}  # before anything is written
    options.picture.parent.mkdir(parents=True, exist_ok=True)
    draw(machines[0], options.picture)
    keep([result for results in machines for result in results], options.kept)
    for path, (begin, block) in documents.items():
        before, after = texts[path]
        picture: str | None = Path(os.path.relpath(options.picture, path.parent)).as_posix()
        blocks = []
        for results in machines:
            heading = f"### {title(results)}\n\n" if begin == LONG or len(machines) > 1 else ""
            blocks.append(heading + block(results, picture))
            picture = None  # it shows the first machine
        text = "\n\n".join([begin, *blocks, END])
        with replacing(path) as file:
            file.write(f"{before}{text}{after}".encode())
    print(f"picture  {options.picture}\ntables   {options.document} and {options.readme}, from")
    for path, result in kept(options.kept).items():
        print(f"  {result.settings.get('row')}, {result.hardware.get('cpu')}: {path}")
    show_result({"picture": options.picture, "documents": list(documents)})


def _around(document: Path, begin: str) -> tuple[str, str]:
    """What stands before and after the marks. Raises ShardfeedError unless each is there once, in this order."""
    text = document.read_text()
    if text.count(begin) != 1 or text.count(END) != 1 or text.index(begin) > text.index(END):
        raise ShardfeedError(f"{document}: the lines {begin} and {END} must stand there once, in this order")
    return text.partition(begin)[0], text.partition(END)[2]


def chosen(results: Sequence[Result]) -> list[list[Result]]:
    """The latest result of each kind of work, by machine, in the order of the rows; the latest machine first.

    Raises UsageError for no results, for results of other benchmarks, and for results of one machine that cannot stand
    in one table: of several versions, or measured for different times.
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
    machines: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda result: result.date, reverse=True):
        machines.setdefault(str(result.hardware.get("cpu")), []).append(result)
    return [_of_one_machine(each) for each in machines.values()]


def _of_one_machine(results: Sequence[Result]) -> list[Result]:
    latest = {work(result): result for result in reversed(results)}
    # The documents say these once, for all rows.
    said_once: dict[str, Callable[[Result], object]] = {
        "hardware": lambda result: result.hardware,
        "rounds": lambda result: result.rounds,
        "seconds": lambda result: result.seconds,
        "numbers of threads tried": lambda result: result.settings.get("sweep"),
        "versions": lambda result: result.versions,
    }
    first = results[0]
    odd = [name for name, get in said_once.items() if any(get(each) != get(first) for each in latest.values())]
    if odd:
        raise UsageError(
            f"the results differ in {', '.join(odd)}: give those of one `python -m benchmarks peers`, "
            f"and remove older ones of {first.hardware.get('cpu')} from {HOME}"
        )
    return sorted(latest.values(), key=order)
