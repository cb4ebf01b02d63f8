"""Says at once that libraries load, which takes seconds: nothing else shows that the command has begun."""

import contextlib
import os
import sys
from collections.abc import Iterator

from shards.common.signals import interrupts_end
from shards.common.terminal import saying


@contextlib.contextmanager
def loading(what: str, module: str) -> Iterator[None]:
    """Around imports: shows "loading WHAT ..." on stderr; on a terminal the line goes away when the block ends.

    module: the last that the block imports; nothing is said where it is loaded already. Of torchrun's ranks the first
    says it. Ctrl-C ends the command in the block at once, with one line.
    """
    says = module not in sys.modules and os.environ.get("RANK", "0") == "0"
    with saying(f"loading {what} ...", says), interrupts_end():
        yield
