"""Compiles the loops that most tests run: `make test` does it beside mypy, which leaves a core idle.

python -m tests.helpers.compiled

In a fresh clone each process of the tests would compile them for itself; afterwards numba's cache has them.
"""

import tempfile
from pathlib import Path
from typing import Any

from preprocess.images.convert import convert
from shards import Colour, Loader, View
from shards.dataset import Split
from shards.format.ppm import ppm
from tests.helpers.datasets import jpeg, photo, write_split

COLOUR = Colour(0.4, 0.4, 0.2, 0.1, jitter=1.0, gray=0.5, blur=0.5, solarize=0.5)
USES: list[dict[str, Any]] = [
    {"crop": "rrc", "size": 32},
    {"crop": "rrc", "size": 32, "interpolation": "bicubic", "augment": "three"},
    {"size": 32, "padding": 4, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
    {"size": 32, "dtype": "uint8"},
    {"views": [View(24, interpolation="bicubic", colour=COLOUR), View(12, scale=(0.05, 0.4))]},
]


def use(split: Split) -> None:
    """Goes through an epoch in each way."""
    for options in USES:
        with Loader(split, batch_size=4, train=True, threads=2, **options) as loader:
            for _ in loader:
                pass


def main() -> None:
    pixels = [photo(40, 50 + seed, seed) for seed in range(8)]
    convert(jpeg(photo(60, 80)), 16, 90)
    with tempfile.TemporaryDirectory() as directory:
        use(write_split(Path(directory) / "jpeg", [jpeg(each) for each in pixels], short_side=40))
        raw = [ppm(each) for each in pixels]
        use(write_split(Path(directory) / "raw", raw, short_side=40, encoding="raw"))


if __name__ == "__main__":
    main()
