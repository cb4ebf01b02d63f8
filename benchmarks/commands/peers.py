"""python -m benchmarks peers --source SOURCE: every loader that can be measured here, over every row of one table.

A row is what is stored (256-px JPEGs, or raw pixels), how it is cropped and what is delivered. Makes the shards in
--work first, once, and each peer's own format of them; install the peers before with `python -m benchmarks
peers-install`. Each row is `python -m benchmarks loaders --peers all --sweep ...`: every peer with the number of
threads with which it does best. About a quarter of an hour a row on two cores with the defaults (estimated from the
turns). Writes a JSON result per row while it is measured, and all rows as one table, `loaders.md`, to --out.
"""

import itertools
import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.commands import loaders
from benchmarks.commands.readme import bars, long_block
from benchmarks.measure.harness import Schedule
from benchmarks.measure.result import Result, write
from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.roster import ROWS
from benchmarks.processes.command import run_command
from benchmarks.report import table
from shards.common.atomic import replacing
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError
from shards.format.layout import MANIFEST, Encoding


@dataclass(frozen=True)
class Options:
    """Compares all loaders that can be measured here, from JPEGs and from raw pixels, in one table."""

    source: str
    """The data set to make shards of: anything that `python -m preprocess` takes, made-up images apart."""
    peers: tuple[str, ...] = (loaders.ALL,)
    """The peers, as for `python -m benchmarks loaders`."""
    split: str = "train"
    """The split to read, of the shards and of SOURCE."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    batch_sizes: tuple[int, ...] = (BatchSpec.batch_size,)
    """Images a batch; the whole table for each."""
    rounds: int = Schedule.rounds
    """Measuring intervals of each, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Length of a measuring interval."""
    sweep: tuple[int, ...] = ()
    """Numbers of threads or processes to try for each; the one with the most images/s in one turn is measured. If not
    given: half of the cores, as many, one more, and twice as many."""
    work: Path = Path("Results/benchmarks/peers")
    """Directory for the shards and the peers' own formats, kept for the next time."""
    out: Path = Path("Results/benchmarks")
    """Directory for the results and the table."""

    def __post_init__(self) -> None:
        self.row(self.work)  # what is wrong is said before the shards are made

    def row(self, data: Path, **work: Any) -> loaders.Options:
        """The options of one row; `work`: its batch size, crop and type."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "batch_sizes"}
        return loaders.Options(**{**own, "data": data, "sweep": self.sweep or loaders.thread_counts(), **work})


def run(options: Options) -> None:
    """Measures row by row, writes each while it is measured, and prints the table.

    A row, or a peer in it, that fails does not stop the others. Raises ShardfeedError, at the end, that names them.
    """
    results: list[Result] = []
    failed: list[str] = []
    data: dict[Encoding, Path] = {}
    for batch_size, (encoding, crop, dtype) in itertools.product(options.batch_sizes, ROWS):
        name = f"{encoding}, {crop}, {dtype}, batch {batch_size}"
        try:
            if encoding not in data:
                data[encoding] = _shards(options, encoding)
            result = loaders.compare(options.row(data[encoding], batch_size=batch_size, crop=crop, dtype=dtype))
        except UsageError:
            raise  # all rows would fail alike
        except ShardfeedError as error:
            failed.append(name)
            print(f"FAILED {name}: {error}", file=sys.stderr, flush=True)
            continue
        failed += [f"{title} ({name})" for title in loaders.failures(result)]
        if len(options.batch_sizes) > 1:
            named = {**result.settings, "row": f"{result.settings['row']}, batch {batch_size}"}
            result = msgspec.structs.replace(result, settings=named)
        results.append(result)
        print(f"{table.text(result)}\nresult {write(result, options.out)}\n", flush=True)
    if not results:
        raise ShardfeedError("no row could be measured: the reasons are above")
    document, picture = options.out / "loaders.md", options.out / "loaders.png"
    from benchmarks.report.draw import panels  # brings matplotlib, for which a mistyped option need not wait

    panels(bars(results), picture, table.circumstances(results[0]))
    with replacing(document) as file:
        file.write(f"# Loaders compared\n\n{long_block(results, picture.name)}\n".encode())
    print(f"table  {document}")
    rows = [{"row": each.settings["row"], **loaders.summary(each)} for each in results]
    show_result({"benchmark": "peers", "table": document, "rows": rows, "failed": failed})
    if failed:
        raise ShardfeedError(f"{', '.join(failed)} failed; the others are in {document}")


def _shards(options: Options, encoding: Encoding) -> Path:
    """Shards of the source, made unless they exist. Raises ShardfeedError if that fails."""
    path = options.work / f"shards-{encoding}"
    if not (path / MANIFEST).exists():
        words = [options.source, str(path), "--splits", options.split, "--encoding", encoding]
        words += ["--image-column", options.image_column, "--label-column", options.label_column]
        run_command("preprocess", *words)
    return path
