"""Keeps credentials out of what is printed or stored: URLs may not hold any, and messages of libraries are cleaned.

Credentials come from where the storage libraries look for them: the environment (`AWS_ACCESS_KEY_ID`, ...), their own
files (`~/.aws/credentials`), or fsspec's configuration (`~/.config/fsspec/*.json`, `FSSPEC_S3_KEY`).
"""

import os
import re
import sys
from urllib.parse import urlsplit

from shards.common.errors import UsageError

HIDDEN = "***"
# Shorter values are words like "true" or "us", which no message could do without.
SHORTEST = 8
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@\s'\"]+@")
_QUERY = re.compile(r"(?<=[?&])([\w-]+)=[^&\s'\"<>]+")
_HEADER = re.compile(r"(Authorization|X-Amz-Security-Token|Cookie)(['\"]?\s*[:=]\s*).*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` without the users and queries of URLs, headers of authorization, and values of secret variables.

    Secret are variables of the environment whose name holds KEY, SECRET, TOKEN, PASSW or CREDENTIAL, and the same
    entries of fsspec's configuration.
    """
    for value in sorted(_secret_values(), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _QUERY.sub(rf"\1={HIDDEN}", _USER.sub(f"{HIDDEN}@", text))
    return _HEADER.sub(rf"\1\2{HIDDEN}", text)


def check_no_secrets(url: str) -> None:
    """Raises UsageError, which does not repeat them, for a URL that holds a user, a password or a query."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    # Some stores write a container where web addresses have a user; that is no secret.
    named = user if parts.scheme in ("http", "https") else user.partition(":")[2]
    if named or parts.query:
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise UsageError(
            f"the URL of {place} holds a user, a password or a query, which would end up in logs: leave it out and "
            "give credentials through the environment (AWS_ACCESS_KEY_ID, ...) or fsspec's configuration files"
        )


def _secret_values() -> set[str]:
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    # Where nothing has loaded fsspec, nothing has used its configuration, and an error should not wait for it.
    config = sys.modules.get("fsspec.config")
    for options in getattr(config, "conf", {}).values():
        if isinstance(options, dict):
            values |= {str(value) for name, value in options.items() if _SECRET_NAME.search(str(name))}
    return {value for value in values if len(value) >= SHORTEST}
