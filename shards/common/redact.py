"""Keeps credentials out of logs and files: URLs may not hold any, and libraries' messages are cleaned.

The storage libraries read credentials from the environment (`AWS_ACCESS_KEY_ID`, ...), from their own files
(`~/.aws/credentials`), or from fsspec's configuration (`~/.config/fsspec/*.json`, `FSSPEC_S3_KEY`).
"""

import os
import re
import sys
from urllib.parse import urlsplit

from shards.common.errors import UsageError

HIDDEN = "***"
# Shorter values are words like "true" or "us", which messages need.
SHORTEST = 8
_SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL", re.IGNORECASE)
# Of a URL, also where "//" became "/" in a path, where the URL follows another one ("simplecache::"), or where a colon
# or an "@" is percent-encoded. After "://" a password may hold a slash; without a colon it is taken for a token.
_USERS = (
    re.compile(r"(?<=://)[^/@:\s'\"]{0,500}:[^@\s'\"]{0,500}@"),
    re.compile(r"(?<=://)[^/@\s'\"]{1,500}@"),
    # Begins where a word does, and has a longest password: a text of strangers, which may be long, is read once.
    re.compile(r"(?<![^/@:\s'\"(])[^/@:\s'\"(]*?(?::|%3A)[^/@\s'\"]{1,500}?(?:@|%40)(?=[\w.\[-])", re.IGNORECASE),
)
_QUERY = re.compile(r"(?<=[?&])([\w-]+)=[^&\s'\"<>]+")
_HEADER = re.compile(r"(Authorization|X-Amz-Security-Token|Cookie)(['\"]?\s*[:=]\s*).*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """`text` with the users and queries of URLs, headers of authorization, and secret values replaced by HIDDEN.

    A value is secret if it is that of an environment variable, or of an entry of fsspec's configuration, whose name
    holds KEY, SECRET, TOKEN, PASSW or CREDENTIAL.
    """
    for value in sorted(_secret_values(), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    text = _QUERY.sub(rf"\1={HIDDEN}", without_users(text))
    return _HEADER.sub(rf"\1\2{HIDDEN}", text)


def without_users(text: str) -> str:
    """`text` with the user and the password of each URL replaced by HIDDEN."""
    if "@" not in text and "%40" not in text:
        return text
    for user in _USERS:
        text = user.sub(f"{HIDDEN}@", text)
    return text


def check_no_secrets(url: str) -> None:
    """Raises UsageError for a URL that holds a user, a password or a query; the message does not repeat them."""
    parts = urlsplit(url)
    user = parts.netloc.rpartition("@")[0]
    # Some stores' URLs have a container's name in the place of the user, which is no secret.
    named = user if parts.scheme in ("http", "https") else user.partition(":")[2]
    if named or parts.query:
        place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        raise UsageError(
            f"the URL of {place} holds a user, a password or a query, which would end up in logs: leave it out and "
            "give credentials through the environment (AWS_ACCESS_KEY_ID, ...) or fsspec's configuration files"
        )


def _secret_values() -> set[str]:
    values = {value for name, value in os.environ.items() if _SECRET_NAME.search(name)}
    # If fsspec is not loaded, its configuration was not used; an error should not wait for its import.
    config = sys.modules.get("fsspec.config")
    for options in getattr(config, "conf", {}).values():
        if isinstance(options, dict):
            values |= {str(value) for name, value in options.items() if _SECRET_NAME.search(str(name))}
    return {value for value in values if len(value) >= SHORTEST}
