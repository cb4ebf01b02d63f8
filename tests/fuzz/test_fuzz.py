"""A hundred mutations of each file: the same result, or one clear error."""

import pytest

from tests.fuzz.cases import CASES
from tests.fuzz.run import CAUGHT, faults

MUTATIONS = 100


@pytest.mark.parametrize("name", CASES)
def test_a_damaged_file_gives_the_same_result_or_one_clear_error(name: str) -> None:
    counts, found = faults(name, MUTATIONS)
    assert not found, found[0]
    assert counts[CAUGHT]  # a case in which nothing is caught reads nothing
