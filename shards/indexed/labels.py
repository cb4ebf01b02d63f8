"""The label of a sample in tars of others: the text of its .cls, or a number in its .json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from shards.common.errors import UsageError

CLS, JSON = "cls", "json"
# Bytes that a label, or a JSON with one, may have.
LONGEST = {CLS: 64, JSON: 1 << 20}
_NUMBER = re.compile(rb"-?[0-9]{1,18}")


class NoNumber(ValueError):
    """A label is a `text` that is no whole number."""

    def __init__(self, text: bytes) -> None:
        super().__init__(f"its label is no whole number: {text[:40]!r}")
        self.text = text


@dataclass(frozen=True)
class Label:
    """Where a label stands: in the member of the extension `member`; in a JSON, under `field`."""

    member: str
    field: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Label":
        """Reads "cls" (any extension of a member that holds an integer as text) or "json:label".

        Raises UsageError for anything else.
        """
        member, colon, field = text.partition(":")
        known = re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", member) and bool(colon) == (member == JSON) == bool(field)
        if not known:
            raise UsageError(
                f"no label stands in {text!r}: give an extension such as cls, or json:FIELD such as json:label"
            )
        return cls(member, field or None)

    def __str__(self) -> str:
        return self.member if self.field is None else f"{self.member}:{self.field}"

    @property
    def longest(self) -> int:
        """Bytes that the member may have."""
        return LONGEST[CLS if self.field is None else JSON]

    def number(self, data: bytes) -> int | None:
        """The label in the member's content, which may be negative; None where a JSON has none.

        Raises ValueError, which says in words what is wrong; NoNumber for any other text.
        """
        text = data.strip()
        if self.field is not None:
            try:
                content = msgspec.json.decode(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                raise ValueError("its json cannot be read") from None
            if not isinstance(content, Mapping):
                raise ValueError("its json is no object")
            value = content.get(self.field)
            if value is None:
                return None
            if isinstance(value, bool) or not isinstance(value, int | str):
                raise ValueError(f"its json has no number under {self.field!r}")
            text = str(value).encode("utf-8", "replace").strip()
        if not _NUMBER.fullmatch(text):
            raise NoNumber(text)
        return int(text)


# What is looked for where the command line names nothing.
USUAL: Sequence[Label] = (Label(CLS), Label(JSON, "label"))
