"""Data sets on the hub, through `datasets.load_dataset`; each of its errors becomes one line."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shards.common.errors import ShardfeedError, UsageError

if TYPE_CHECKING:
    import datasets

# By name, because the hub's client has changed its HTTP library twice, and each library has its own classes.
NETWORK_ERRORS = frozenset({"ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError"})
REACH_TIMEOUT = 10  # seconds to wait for the hub's first answer


def load_hub(name: str) -> "dict[str, datasets.Dataset]":
    """Loads all splits of a data set on the hub, from the local cache if it was loaded before.

    Raises UsageError where the data set does not exist, ShardfeedError where it is gated or the hub is unreachable.
    """
    import datasets
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError

    try:
        with _offline_if_unreachable():
            return dict(datasets.load_dataset(name))
    except Exception as error:
        reason = " ".join(str(error).split())
        if isinstance(error, GatedRepoError) or "gated" in reason:
            raise ShardfeedError(
                f"{name} is gated: its owners must grant you access. (1) Accept the terms on "
                f"https://huggingface.co/datasets/{name} (2) run `hf auth login` with a token that may read "
                "(3) try again"
            ) from error
        if isinstance(error, DatasetNotFoundError):
            raise UsageError(
                f"{name} is neither a directory here nor a data set on the hub (or the data set is private: "
                "`hf auth login` with an account that may read it, and try again)"
            ) from error
        if _is_network(error):
            raise ShardfeedError(
                f"{name} is no directory here, and the hub cannot be reached to look for a data set of that name "
                f"({type(error).__name__}): check the spelling or the network"
            ) from error
        raise ShardfeedError(f"{name} cannot be loaded from the hub: {type(error).__name__}: {reason}") from error


def download_folders(name: str) -> tuple[Path, ...]:
    """Where the libraries keep the files of a data set on the hub: those of its repository, and unpacked archives."""
    import datasets
    from huggingface_hub import constants

    repository = Path(constants.HF_HUB_CACHE) / f"datasets--{name.replace('/', '--')}"
    return repository, Path(datasets.config.DOWNLOADED_DATASETS_PATH)


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Puts `datasets` into its offline mode where the hub does not answer.

    A data set in the cache then still opens, and any other fails at once instead of after five retries.
    """
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or not _reachable()
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT)
    except Exception as error:
        # Only silence counts here; load_dataset reports a proxy's refusal or an unexpected answer.
        return not _is_network(error)
    return True


def _is_network(error: BaseException) -> bool:
    return any(cls.__name__ in NETWORK_ERRORS for cls in type(error).__mro__)
