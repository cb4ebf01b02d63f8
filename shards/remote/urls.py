"""URLs of data sets: which words are one, and the file system of fsspec behind it."""

import re
import threading
from pathlib import Path
from typing import Any

from shards.common.errors import MissingDependency, ShardfeedError, UsageError
from shards.common.redact import without_secrets
from shards.remote.answers import said

# The packages that open a kind of URL, as extras of this project; others come with `datasets` or Python.
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/]")
_CHAIN = re.compile(r"[A-Za-z0-9+.-]+::.*:/")
_ALMOST = re.compile(rf"({'|'.join([*EXTRAS, 'hf'])}):", re.IGNORECASE)
# Held while a file system is opened anew.
_opening = threading.Lock()


def is_url(place: str | Path) -> bool:
    """Whether `place` is a URL and not a path. Raises UsageError for what is nearly one: `s3:/BUCKET`, `cache::s3://`."""
    shown = without_secrets(str(place))
    if _CHAIN.match(str(place)):
        raise UsageError(f"{shown}: URLs in a chain are not read: give the last one alone, as {shown.split('::')[-1]}")
    if _URL.match(str(place)):
        return True
    if almost := _ALMOST.match(str(place)):
        raise UsageError(
            f"{shown} is not a URL: write {almost[1].lower()}://BUCKET/PATH (or ./{shown} for a directory)"
        )
    return False


def open_files(url: str) -> Any:
    """The file system behind a URL. fsspec keeps one of each kind for a process.

    Raises UsageError for a URL of no known kind, MissingDependency where the package for it is not installed,
    ShardfeedError where it cannot be opened.
    """
    import fsspec

    scheme = url.partition("://")[0]
    try:
        return fsspec.filesystem(scheme)
    except ImportError:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'shardfeed[{extra}]'" if extra else f"install fsspec's package for {scheme}://"
        raise MissingDependency(f"{url} cannot be opened: {how}") from None
    except ValueError:
        raise UsageError(f"{url}: fsspec knows no {scheme}:// - give s3://, gs://, hf:// or https://") from None
    except Exception as error:  # no credentials, for some stores
        raise ShardfeedError(f"{url} cannot be opened: {said(error)}") from None


def open_anew(url: str, refused: Any) -> Any:
    """The file system with credentials as they are now, in place of `refused`, whose credentials have expired."""
    with _opening:
        if open_files(url) is refused:  # no other thread has opened it anew
            type(refused).clear_instance_cache()
        return open_files(url)
