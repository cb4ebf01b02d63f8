"""The command line of `python -m shards index`, which starts the job. Quick to import, because --help waits for it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shards.common.errors import UsageError
from shards.common.machine import check_workers
from shards.indexed.samples import IMAGES


@dataclass(frozen=True)
class Options:
    """Indexes tars that others wrote, so that the loader reads them where they lie, without a conversion.

    Each tar is read once; behind a URL mostly its headers. The same command, started again, goes on.
    """

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """A directory of tars, a pattern such as imagenet1k-train-{0000..1023}.tar, or a URL of either."""
    to: str | Path | None = None
    """Directory for the index; if not given, beside the tars, or where that cannot be written in the cache."""
    image: str = ";".join(IMAGES)
    """Extensions of images, the preferred one first."""
    label: str | None = None
    """Where a label stands: an extension such as cls, or a field of the json such as json:label; if not given, in cls
    and else in json:label."""
    class_names: Path | None = None
    """A file with the name of each class, one a line, for labels that are their numbers, from 0, or these names; if not
    given, the labels are numbers and are the names."""
    max_rejects: float = 0.001
    """Fraction of a split's samples that may be unusable; more end the job without an index."""
    workers: int | None = None
    """Processes that read tars; if not given, one for each core."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_workers("--workers", self.workers)
        if not 0 <= self.max_rejects <= 1:
            raise UsageError(f"--max-rejects must be a fraction from 0 to 1, not {self.max_rejects}")
        if not self.images or not all(re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", each) for each in self.images):
            raise UsageError(f"--image {self.image}: give extensions such as jpg;png, without dots before them")

    @property
    def images(self) -> tuple[str, ...]:
        """The extensions of images."""
        return tuple(each for each in re.split("[;, ]+", self.image.lower()) if each)


def run(options: Options) -> None:
    """Indexes, and prints what was found."""
    # The image libraries take seconds to import, which --help should not wait for.
    from preprocess.index.job import index

    index(options)
