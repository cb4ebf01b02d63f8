"""What a failed request's error says: whether it may pass, whether the store refused it, and how long to wait.

Each storage library has errors of its own, so these functions look for what all of them carry: an HTTP status and the
headers of the answer, in the error or in the one that caused it.
"""

import contextlib
import errno
import sys
import threading
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from shards.common.errors import Cancelled, ShardfeedError
from shards.common.redact import without_secrets

# Errors of this machine's disk, which waiting does not mend.
LOCAL_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
# Names of botocore's errors for requests without usable credentials, or that cannot be sent at all.
REFUSALS = frozenset(
    {"ParamValidationError", "NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError"},
)
REFUSING = frozenset({401, 403})

_saying = threading.Lock()
_said_until = 0.0


def may_pass(error: BaseException) -> bool:
    """Whether an error may be gone at the next attempt."""
    lasting = (Cancelled, ShardfeedError, FileNotFoundError, PermissionError, NotImplementedError)
    if not isinstance(error, Exception) or isinstance(error, lasting) or is_refused(error):
        return False
    return not (isinstance(error, OSError) and error.errno in LOCAL_TROUBLE)


def is_refused(error: BaseException) -> bool:
    """Whether the store understood the request and denied it, or the request could not be made."""
    if isinstance(error, PermissionError):
        return error.filename is None  # or this machine's disk has refused
    return type(error).__name__ in REFUSALS or any(status in REFUSING for status, _ in _answers(error))


def retry_after(error: BaseException | None) -> float | None:
    """The seconds that the store asks to wait before the next attempt, by its header Retry-After; None without one."""
    for _, headers in _answers(error):
        for name, value in dict(headers or {}).items():
            if str(name).lower() != "retry-after":
                continue
            with contextlib.suppress(ValueError, TypeError):
                return max(0.0, float(value))
            with contextlib.suppress(ValueError, TypeError):
                return max(0.0, parsedate_to_datetime(str(value)).timestamp() - time.time())
    return None


def say_once(line: str, pause: float) -> None:
    """Prints a line about a pause, unless another thread printed one for a pause that goes on."""
    global _said_until
    with _saying:
        now = time.monotonic()
        if now < _said_until:
            return
        _said_until = now + pause
    print(line, file=sys.stderr, flush=True)


def said(error: BaseException | None) -> str:
    """The error on one line, without credentials."""
    words = " ".join(str(error).split())
    return without_secrets(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def _answers(error: BaseException | None) -> Iterator[tuple[Any, Any]]:
    """The HTTP status and the headers of an error and of its causes, where they have any."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        response = getattr(error, "response", None)
        if isinstance(response, dict):  # botocore
            answer = response.get("ResponseMetadata", {})
            yield answer.get("HTTPStatusCode"), answer.get("HTTPHeaders")
        elif response is not None:  # the Hub's client
            yield getattr(response, "status_code", None), getattr(response, "headers", None)
        else:  # aiohttp
            yield getattr(error, "status", None), getattr(error, "headers", None)
        error = error.__cause__ or error.__context__
