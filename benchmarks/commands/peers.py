"""python -m benchmarks peers --source SOURCE: every loader that can be measured here, over every row of one table.

A row is what is stored (256-px JPEGs, or raw pixels), how it is cropped and what is delivered. Makes the shards in
--work first, once, and each peer's own format of them; install the peers before with `python -m benchmarks
peers-install`. Each row is `python -m benchmarks loaders --peers all`, about ten minutes on two cores with the
defaults. Writes a JSON result per row, and all rows as one table, `loaders.md`, to --out.
"""

import dataclasses
import itertools
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.commands import loaders
from benchmarks.commands.readme import bars, long_block
from benchmarks.measure.harness import Schedule
from benchmarks.measure.result import write
from benchmarks.measure.settings import BatchSpec
from benchmarks.peers.roster import ROWS
from benchmarks.processes.command import run_command
from benchmarks.report import table
from benchmarks.report.draw import panels
from shards.common.atomic import replacing
from shards.common.cli import show_result
from shards.format.layout import MANIFEST, Encoding


@dataclass(frozen=True)
class Options:
    """Compares all loaders that can be measured here, from JPEGs and from raw pixels, in one table."""

    source: str
    """The data set to make shards of: anything that `python -m preprocess` takes, made-up images apart."""
    peers: tuple[str, ...] = (loaders.ALL,)
    """The peers, as for `python -m benchmarks loaders`."""
    split: str = "train"
    """The split to read."""
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
    """Numbers of threads or processes to try for each; the one with the most images/s in one turn is measured."""
    work: Path = Path("Results/benchmarks/peers")
    """Directory for the shards and the peers' own formats, kept for the next time."""
    out: Path = Path("Results/benchmarks")
    """Directory for the results and the table."""


def run(options: Options) -> None:
    """Measures row by row and writes each when it is done; prints the table."""
    results = []
    for encoding in dict.fromkeys(row[0] for row in ROWS):
        _make(options, encoding)
    for batch_size, (encoding, crop, dtype) in itertools.product(options.batch_sizes, ROWS):
        start = time.monotonic()
        result = loaders.compare(
            loaders.Options(
                data=_shards(options, encoding),
                source=options.source,
                peers=options.peers,
                split=options.split,
                image_column=options.image_column,
                label_column=options.label_column,
                batch_size=batch_size,
                crop=crop,
                dtype=dtype,
                rounds=options.rounds,
                seconds=options.seconds,
                sweep=options.sweep,
                work=options.work,
                out=options.out,
            )
        )
        seconds = time.monotonic() - start
        row = f"{result.settings['row']}, batch {batch_size}"
        results.append(dataclasses.replace(result, settings={**result.settings, "row": row, "wall_s": seconds}))
        path = write(results[-1], options.out)
        print(f"{table.text(results[-1])}\nresult {path}, {seconds:.0f} s\n", flush=True)
    document, picture = options.out / "loaders.md", options.out / "loaders.png"
    panels(bars(results), picture, table.circumstances(results[0]))
    with replacing(document) as file:
        file.write(f"# Loaders compared\n\n{long_block(results, picture.name)}\n".encode())
    print(f"table  {document}")
    rows = [{"row": each.settings["row"], **loaders.summary(each)} for each in results]
    show_result({"benchmark": "peers", "table": document, "rows": rows})


def _shards(options: Options, encoding: Encoding) -> Path:
    return options.work / f"shards-{encoding}"


def _make(options: Options, encoding: Encoding) -> None:
    """Converts the source unless the shards exist. Raises ShardfeedError if that fails."""
    path = _shards(options, encoding)
    if (path / MANIFEST).exists():
        return
    words = [options.source, str(path), "--splits", options.split, "--encoding", encoding]
    words += ["--image-column", options.image_column, "--label-column", options.label_column]
    run_command("preprocess", *words)
