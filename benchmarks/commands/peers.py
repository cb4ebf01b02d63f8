"""python -m benchmarks peers --source SOURCE: every loader that can be measured here, over every row of one table.

A row is what is stored, how it is cropped, what is delivered and what a turn finds (benchmarks/rows/rows.py):

    jpeg jpeg-uint8 jpeg-rrc raw raw-uint8     256-px JPEGs or pixels, batches of 64 of 224 pixels
    small-raw-uint8 small-raw small-jpeg-uint8     32-px pixels or JPEGs, batches of 512
    original-rrc tars-rrc                      images of their own sizes: in shards; in tars of others, in place
    simclr dino                                two and ten views of each image
    cold http                                  the first epoch from a cold disk; from a web server through the cache

Makes the shards of each row when it comes to it, and each peer's own format of them; install the peers before with
`python -m benchmarks peers-install`. Each row is `python -m benchmarks loaders --sweep ...`: every peer with the number
of threads with which it does best. --images 20000 makes 20,000 different images of SOURCE first, so that no cache of
the processor holds them; 256-px pixels are stored of a quarter of them. With FFCV and libjpeg-turbo alone
(--peers ffcv turbojpeg) a row takes about four minutes on two cores, with all peers a quarter of an hour (estimated
from the turns).

Writes a JSON result per row while it is measured, and after each row all rows as one table, `loaders.md`, to --out.
"""

import contextlib
import sys
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from benchmarks.commands import loaders
from benchmarks.measure.harness import Schedule, in_one_line
from benchmarks.measure.result import Result, write
from benchmarks.report import table
from benchmarks.rows.document import draw, long_block
from benchmarks.rows.rows import ROWS
from benchmarks.rows.start import thread_counts
from benchmarks.rows.stores import Stores
from shards.common.atomic import refuse_unwritable, replacing
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError


@dataclass(frozen=True)
class Options:
    """Compares all loaders that can be measured here, from JPEGs and from raw pixels, in one table."""

    source: str
    """The data set to make shards of: anything that `python -m preprocess` takes, made-up images apart."""
    rows: tuple[str, ...] = tuple(ROWS)
    """What to measure, in this order: jpeg, jpeg-uint8, jpeg-rrc, raw, raw-uint8, small-raw-uint8, small-raw,
    small-jpeg-uint8, original-rrc, tars-rrc, simclr, dino, cold, http; all of it if not given."""
    images: int | None = None
    """Make so many images of SOURCE first, by encoding its images again with small changes; if not given, SOURCE as it
    is."""
    peers: tuple[str, ...] = (loaders.ALL,)
    """The peers, as for `python -m benchmarks loaders`."""
    split: str = "train"
    """The split to read, of the shards and of SOURCE."""
    image_column: str = "image"
    """Column of SOURCE that holds the images."""
    label_column: str = "label"
    """Column of SOURCE that holds the labels."""
    rounds: int = Schedule.rounds
    """Measuring intervals of each, after a warm-up round that is not counted."""
    seconds: float = Schedule.seconds
    """Length of a measuring interval."""
    sweep: tuple[int, ...] = ()
    """Numbers of threads or processes to try for each; the one with the most images/s in one turn is measured. If not
    given: half of the cores, as many, one more, and twice as many."""
    work: Path | None = None
    """Directory for the shards and the peers' own formats, kept for the next time; if not given, one in --out that is
    removed at the end."""
    out: Path = Path("Results/benchmarks")
    """Directory for the results and the table."""

    def __post_init__(self) -> None:
        if unknown := set(self.rows) - ROWS.keys():
            raise UsageError(f"no row {', '.join(sorted(unknown))}: choose from {', '.join(ROWS)}")
        if self.images is not None and self.images < 1:
            raise UsageError(f"--images must be 1 or more, not {self.images}")
        self.row(next(iter(ROWS)), Path(), Path())  # what is wrong is said before the shards are made

    def row(self, name: str, data: Path, work: Path, source: tuple[str, str, str] | None = None) -> loaders.Options:
        """The options of one row. source: what its shards were made of, and the columns of images and labels."""
        row = ROWS[name]
        own: dict[str, Any] = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "store"}
        own |= {name: getattr(self, name) for name in ("split", "rounds", "seconds", "out")}
        if row.views == "none":
            own["source"], own["image_column"], own["label_column"] = source or ("", "image", "label")
            own["peers"] = self.peers
        return loaders.Options(data=data, work=work, sweep=self.sweep or thread_counts(), **own)


def run(options: Options) -> None:
    """Measures row by row, writes each while it is measured, and prints the table.

    A row, or a peer in it, that fails does not stop the others. Raises ShardfeedError, at the end, that names them.
    """
    refuse_unwritable("--out", options.out, directory=True)
    options.out.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    failed: list[str] = []
    document = options.out / "loaders.md"
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="peers-", dir=options.out)))
        columns = (options.image_column, options.label_column)
        stores = Stores(options.source, work, options.split, columns, options.images)
        for number, name in enumerate(options.rows, 1):
            print(f"row {number} of {len(options.rows)}: {name}", file=sys.stderr, flush=True)
            store = ROWS[name].store
            try:
                row = options.row(name, stores.shards(store), work / "formats", stores.source(store))
                result = loaders.compare(row)
            except Exception as error:
                if isinstance(error, UsageError) and not results:
                    raise  # the other rows would most likely fail alike
                failed.append(name)
                print(f"FAILED {name}: {in_one_line(error)}", file=sys.stderr, flush=True)
                continue
            failed += [f"{title} ({name})" for title in loaders.failures(result)]
            results.append(result)
            print(f"{table.text(result)}\nresult {write(result, options.out)}\n", flush=True)
            _write(document, results)
    if not results:
        raise ShardfeedError("no row could be measured: the reasons are above")
    print(f"table  {document}")
    rows = [{"row": each.settings["row"], **loaders.summary(each)} for each in results]
    show_result({"benchmark": "peers", "table": document, "rows": rows, "failed": failed})
    if failed:
        raise ShardfeedError(f"{', '.join(failed)} failed; the others are in {document}")


def _write(document: Path, results: list[Result]) -> None:
    """Writes the table of all rows so far, and its picture."""
    picture = document.with_suffix(".png")
    draw(results, picture)
    with replacing(document) as file:
        file.write(f"# Loaders compared\n\n{long_block(results, picture.name)}\n".encode())
