"""The accuracy of each class, in a CSV: which classes the mean over all of them hides."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from shards.common.atomic import replacing


def write_per_class(
    path: Path, class_names: Sequence[str], images: Sequence[int], top1: Sequence[int], top5: Sequence[int]
) -> None:
    """Writes a line per class, by its label: class, name, images, top1, top5; the last two in percent of its images.

    images: how many of each class were evaluated; top1, top5: how many of them had their class as the best guess, and
    among the five best; sums over all ranks. A class without images has no percentages. Whole or not at all.
    """
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("class", "name", "images", "top1", "top5"))
    for label, (name, seen, first, among) in enumerate(zip(class_names, images, top1, top5, strict=True)):
        shares = [f"{100 * correct / seen:.2f}" if seen else "" for correct in (first, among)]
        rows.writerow((label, name, seen, *shares))
    with replacing(path) as file:
        file.write(text.getvalue().encode())
