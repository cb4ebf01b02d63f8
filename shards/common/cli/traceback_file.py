"""The traceback of an error that nobody expected, in a file: the command line prints one line."""

import os
import tempfile
import traceback

from shards.common.redact import without_secrets


def traceback_place() -> str:
    """Writes the traceback of the error being handled to a new file; returns where it is, or how to see it, in words.

    The file lies in the directory for temporary files (TMPDIR), and only its owner may read it.
    """
    try:
        file, path = tempfile.mkstemp(prefix="shardfeed-", suffix=".traceback")
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as text:
            text.write(without_secrets(traceback.format_exc()))
    except OSError:  # no directory for temporary files can be written
        return "run again with --debug for the traceback"
    return f"its traceback is in {path}, and --debug shows it"
