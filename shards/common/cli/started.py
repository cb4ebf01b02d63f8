"""How the program was started, `python -m train` or `shardfeed train`: it names commands in the same way."""

import re

PROGRAMS = ("preprocess", "shards", "train", "model", "benchmarks")
# The command `shardfeed` (shards/common/command.py) sets its own name.
started_as = "python -m"

# Modules inside them, such as `python -m train.curves`, have no command of their own.
_NAMED = re.compile(rf"python -m (?=(?:{'|'.join(PROGRAMS)})(?![\w.]*\w))")


def as_started(text: str) -> str:
    """`text`, in which `python -m train` and the like are named as the user named them."""
    return _NAMED.sub(f"{started_as} ", text)
