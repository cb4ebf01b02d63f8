"""JSON of others -> frozen dataclasses: every field has its declared type, or one line says which one has not.

Unknown keys are ignored, missing ones take the field's default, and nothing is converted: "5" is no number.
"""

import re
from typing import Annotated, TypeVar

import msgspec

from shards.common.errors import UsageError

Record = TypeVar("Record")

# Types for fields. A number of things or bytes fits into 64 bits; a SHA-256 is written as 64 hex digits.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Sha256OrNone = Annotated[str, msgspec.Meta(pattern=r"^(?:[0-9a-f]{64})?\Z")]

_AT = re.compile(r"(.*) - at `(?:key in )?\$\.?(.*)`", re.DOTALL)


def read_record(cls: type[Record], data: bytes, where: object, advice: str) -> Record:
    """The `cls` that the JSON `data` holds.

    Raises UsageError, which names the file `where` and the field, and ends with `advice`, for anything else.
    """
    try:
        return msgspec.json.decode(data, type=cls)
    except (msgspec.MsgspecError, ValueError, RecursionError, UsageError) as error:
        raise UsageError(f"{where} is damaged ({_in_words(str(error))}): {advice}") from None


def _in_words(message: str) -> str:
    """ "Expected `int`, got `str` - at `$.shards[3].bytes`" as "shards[3].bytes: expected int, got str"."""
    found = _AT.fullmatch(message)
    words = f"{found[2] or 'it'}: {found[1][:1].lower()}{found[1][1:]}" if found else message
    return words.replace("`", "")
