"""What is said of a sample that cannot be used."""

import pytest

from shards.feed.damaged import said_by_dali

ERROR = """Critical error in pipeline:
Error in CPU operator `nvidia.dali.fn.decoders.image_slice`,
which was used in the pipeline definition with the following traceback:

  File "shards/decode/graph.py", line 9, in graph
    return fn.decoders.image_slice(data, device="cpu")

encountered:

{}
Current pipeline object is no longer valid.
Current pipeline object is no longer valid.
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (ERROR.format("nvImageCodec failure: '#4'"), "nvImageCodec failure: '#4'"),
        (ERROR.format("Failed to decode sample #0 : "), "Failed to decode sample #0"),
        ("out of memory", "out of memory"),
    ],
)
def test_of_an_error_of_dali_only_the_reason_is_said(text: str, reason: str) -> None:
    assert said_by_dali(RuntimeError(text)) == reason
