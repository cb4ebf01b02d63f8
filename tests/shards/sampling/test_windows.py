"""The compiled windows are those of the formula, sample by sample, from the numbers of hashing.py."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.sampling.crops import RRC_ATTEMPTS, RRC_RATIO, RRC_SCALE, random_resized
from shards.sampling.hashing import integers, uniform
from shards.sampling.order import AREA, LEFT, RATIO, TOP

Range = tuple[float, float]


def formula(sample: int, height: int, width: int, seed: int, epoch: int, scale: Range, ratio: Range) -> list[int]:
    """The window that one sample gets: top, left, height and width."""
    low, high = (math.log(each) for each in ratio)
    for attempt in range(RRC_ATTEMPTS):
        share = scale[0] + (scale[1] - scale[0]) * float(uniform(sample, seed, epoch, AREA, attempt))
        drawn = math.exp(low + (high - low) * float(uniform(sample, seed, epoch, RATIO, attempt)))
        rows = round(math.sqrt(height * width * share / drawn))
        columns = round(math.sqrt(height * width * share * drawn))
        if 0 < rows <= height and 0 < columns <= width:
            top = int(integers(sample, height - rows + 1, seed, epoch, TOP))
            return [top, int(integers(sample, width - columns + 1, seed, epoch, LEFT)), rows, columns]
    rows, columns = height, width
    if width / height < ratio[0]:
        rows = max(1, round(width / ratio[0]))
    elif width / height > ratio[1]:
        columns = max(1, round(height * ratio[1]))
    return [(height - rows) // 2, (width - columns) // 2, rows, columns]


@given(
    sizes=st.lists(st.tuples(st.integers(1, 600), st.integers(1, 600)), min_size=1, max_size=8),
    first=st.integers(0, 2**50),
    seed=st.integers(-(2**40), 2**40),
    epoch=st.integers(0, 1000),
)
@pytest.mark.parametrize(("scale", "ratio"), [(RRC_SCALE, RRC_RATIO), ((0.02, 0.3), (0.2, 4.0))])
def test_windows_are_those_of_the_formula(
    sizes: list[tuple[int, int]], first: int, seed: int, epoch: int, scale: Range, ratio: Range
) -> None:
    height, width = np.array(sizes, np.int32).T
    found = random_resized(np.arange(first, first + len(sizes)), height, width, seed, epoch, scale=scale, ratio=ratio)
    assert found.tolist() == [formula(first + i, *size, seed, epoch, scale, ratio) for i, size in enumerate(sizes)]


def test_each_sample_has_a_range_of_its_own() -> None:
    ids, sides = np.arange(40), np.full(40, 200, np.int32)
    scale = np.where(ids[:, None] % 2, (0.5, 1.0), (0.05, 0.1))
    windows = random_resized(ids, sides, sides, 0, 0, scale=scale)
    area = windows[:, 2] * windows[:, 3] / 200**2
    assert (area[ids % 2 == 1] > 0.45).all()
    assert (area[ids % 2 == 0] < 0.11).all()
