"""The label of a sample in tars of others: the text of its .cls, or a number in its .json."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from preprocess.images.convert import Reject
from shards.common.errors import UsageError

CLS, JSON = "cls", "json"
# Class numbers from here on are taken for something else: each has a name in the manifest.
MOST_CLASSES = 1_000_000
# Bytes that a label, or a JSON with one, may have.
LONGEST = {CLS: 64, JSON: 1 << 20}
_NUMBER = re.compile(rb"-?[0-9]{1,18}")


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
            raise UsageError(f"--label {text}: give an extension such as cls, or json:FIELD such as json:label")
        return cls(member, field or None)

    @property
    def longest(self) -> int:
        """Bytes that the member may have."""
        return LONGEST[CLS if self.field is None else JSON]

    def read(self, data: bytes, classes: int | None) -> int:
        """The label in the member's content. Raises Reject where there is none, or one that is to be passed over."""
        number = self._number(data)
        if number is None:
            raise Reject(f"its label is no whole number: {data[:40]!r}")
        if number < 0:
            raise Reject("its label is negative, which stands for none")
        if number >= (MOST_CLASSES if classes is None else classes):
            raise Reject(f"its label is {number:,}, more than the last class has")
        return number

    def _number(self, data: bytes) -> int | None:
        text = data.strip()
        if self.field is not None:
            try:
                content = msgspec.json.decode(data)
            except (msgspec.MsgspecError, ValueError, RecursionError):
                raise Reject("its json cannot be read") from None
            value = content.get(self.field) if isinstance(content, Mapping) else None
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            if not isinstance(value, str):
                raise Reject(f"its json has no number under {self.field!r}")
            text = value.encode("utf-8", "replace").strip()
        return int(text) if _NUMBER.fullmatch(text) else None


# What is looked for where the command line names nothing.
USUAL: Sequence[Label] = (Label(CLS), Label(JSON, "label"))
