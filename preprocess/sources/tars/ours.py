"""Tars beside a manifest of ours, as a source: a data set that was indexed, or one that a conversion made."""

import sys
from pathlib import Path

from shards.common.errors import UsageError
from shards.format.layout import MANIFEST
from shards.format.manifest import Manifest
from shards.indexed.find import beside


def names_beside(name: str, place: str | Path) -> tuple[str, ...] | None:
    """The class names in the manifest beside the tars of `place`, which messages call `name`; None without one.

    Of a conversion it is said that it is one. Raises UsageError for one of decoded pixels, which are no source.
    """
    directory = beside(place)
    if directory is None or not (directory / MANIFEST).is_file():
        return None
    try:
        manifest = Manifest.read(directory)
    except UsageError:  # a file of that name may be of anything
        return None
    if not manifest.indexed:
        if manifest.settings.encoding == "raw":
            raise UsageError(
                f"{name} is a data set of this program that holds decoded pixels (--encoding raw), which are no "
                "source: convert what it was made from"
            )
        print(f"{name} is a data set of this program: its stored images are converted once more", file=sys.stderr)
    return manifest.class_names
