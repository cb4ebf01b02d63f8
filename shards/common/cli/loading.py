"""Says at once that libraries load, which takes seconds: nothing else shows that the command has begun."""

import contextlib
import os
import sys
from collections.abc import Iterator

from shards.common.signals import interrupts_end


@contextlib.contextmanager
def loading(what: str, module: str) -> Iterator[None]:
    """Around imports: shows "loading WHAT ..." on stderr; on a terminal the line goes away when the block ends.

    module: the last that the block imports; nothing is said where it is loaded already. Of torchrun's ranks the first
    says it. Ctrl-C ends the command in the block at once, with one line.
    """
    line = f"loading {what} ..."
    says = module not in sys.modules and os.environ.get("RANK", "0") == "0"
    on_terminal = says and sys.stderr.isatty()
    if says:
        print(line, end="" if on_terminal else "\n", file=sys.stderr, flush=True)
    try:
        with interrupts_end():
            yield
    finally:
        if on_terminal:
            for part in ("\r", " " * len(line), "\r"):
                sys.stderr.write(part)
            sys.stderr.flush()
