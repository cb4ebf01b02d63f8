import pytest
from hypothesis import given
from hypothesis import strategies as st

from preprocess.job.lock import SPAN
from preprocess.job.slices import WHOLE, Slice
from shards.common.errors import UsageError

COUNTS = st.integers(1, 40)


@given(length=st.integers(0, 2000), count=st.integers(1, 300))
def test_each_item_is_in_one_slice_and_slices_differ_by_at_most_one(length: int, count: int) -> None:
    parts = [Slice(number, count).of(range(length)) for number in range(count)]
    assert [item for part in parts for item in part] == list(range(length))
    lengths = [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


@given(data=st.data(), length=st.integers(1, 500), counts=st.tuples(COUNTS, COUNTS))
def test_slices_that_share_a_shard_lock_the_same_bytes_whatever_their_counts(
    data: st.DataObject, length: int, counts: tuple[int, int]
) -> None:
    first, second = (Slice(data.draw(st.integers(0, count - 1)), count) for count in counts)
    if set(first.of(range(length))) & set(second.of(range(length))):
        (start, end), (other_start, other_end) = first.span(SPAN), second.span(SPAN)
        assert start < other_end
        assert other_start < end


def test_the_whole_is_all_of_it() -> None:
    assert WHOLE.of("abc") == "abc"


def test_a_slice_is_read_as_it_is_written() -> None:
    assert Slice.parse("3/8") == Slice(3, 8)
    assert str(Slice(3, 8)) == "3/8"


@pytest.mark.parametrize("text", ["", "3", "8/8", "0/0", "-1/4", "1/4/2", "a/b", "1 /4"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"--tasks {text}:"):
        Slice.parse(text)
