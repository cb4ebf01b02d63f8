"""The file from which torchrun reads why a rank failed. Without torch: mistakes are found before it is loaded."""

import contextlib
import json
import os
import time
from pathlib import Path

from shards.common.redact import without_secrets
from shards.common.terminal import as_started, escaped


def write_error_file(prog: str, error: Exception) -> None:
    """Leaves the message of `error` for torchrun, whose last lines then hold it; without torchrun nothing happens.

    torchrun ends with a traceback of its own whenever a rank fails, which nothing in a rank can prevent (torch 2.14.1).
    The fields are those of torch.distributed.elastic.multiprocessing.errors.ErrorHandler.
    """
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    line = escaped(without_secrets(as_started(f"{prog}: {' '.join(str(error).split())}")))
    extra = {"py_callstack": line, "timestamp": str(int(time.time()))}
    with contextlib.suppress(OSError):
        Path(path).write_text(json.dumps({"message": {"message": line, "extraInfo": extra}}), encoding="utf-8")
