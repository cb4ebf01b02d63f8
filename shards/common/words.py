"""Counts in words for people."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 shard", "2,000 shards"; `plural` where an s does not make it."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
