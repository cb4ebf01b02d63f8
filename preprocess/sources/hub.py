"""Data sets on the hub, through `datasets.load_dataset`; each of its errors becomes one line."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from preprocess.sources.room import check_hub_room
from preprocess.sources.source import choose
from shards.common.errors import ShardfeedError, UsageError

if TYPE_CHECKING:
    import datasets

# By name, because the hub's client has changed its HTTP library twice, and each library has its own classes.
NETWORK_ERRORS = frozenset({"ConnectionError", "TimeoutError", "TransportError", "LocalEntryNotFoundError"})
REACH_TIMEOUT = 10  # seconds to wait for the hub's first answer


# Beside a prepared data set of some splits, because the library finds such a one again only while the hub answers.
NOTE = "shardfeed-splits.json"


def load_hub(name: str, splits: Sequence[str] | None = None) -> "dict[str, datasets.Dataset]":
    """Loads the splits of a data set on the hub, all if None, from the local cache if they were loaded before.

    Raises UsageError where the data set or a split does not exist, ShardfeedError where it is gated, the hub is
    unreachable, or the disk has too little room.
    """
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError

    try:
        with _offline_if_unreachable():
            return _load(name, splits)
    except ShardfeedError:
        raise
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


def _load(name: str, splits: Sequence[str] | None) -> "dict[str, datasets.Dataset]":
    import datasets

    if splits is not None and datasets.config.HF_HUB_OFFLINE and (kept := _prepared(name, splits)):
        return kept
    builder = datasets.load_dataset_builder(name)
    files = builder.config.data_files
    if not files or Path(builder.cache_dir, datasets.config.DATASET_INFO_FILENAME).is_file():
        return dict(datasets.load_dataset(name))  # all splits are prepared, or the library does not know their files
    if splits is None:
        check_hub_room(name, [url for urls in files.values() for url in urls])
        return dict(datasets.load_dataset(name))
    # With `split=...` the library downloads all splits, and returns one.
    chosen = {split: files[split] for split in choose(name, [str(split) for split in files], splits)}
    check_hub_room(name, [url for urls in chosen.values() for url in urls])
    loaded = dict(datasets.load_dataset(name, data_files=chosen, features=builder.info.features))
    if loaded and (paths := next(iter(loaded.values())).cache_files):
        note = Path(paths[0]["filename"]).with_name(NOTE)
        with contextlib.suppress(OSError):  # another user's cache
            note.write_text(json.dumps({"name": name, "splits": list(chosen)}))
    return loaded


def _prepared(name: str, splits: Sequence[str]) -> "dict[str, datasets.Dataset] | None":
    """These splits, where a run with `--splits` has prepared them; None if not."""
    import datasets

    notes = Path(datasets.config.HF_DATASETS_CACHE).glob(f"*/*/*/*/{NOTE}")
    for path in sorted(notes, key=lambda path: path.stat().st_mtime, reverse=True):
        note = json.loads(path.read_text())
        if note["name"] == name and set(splits) <= set(note["splits"]):
            return {split: _prepared_split(path.parent, split) for split in splits}
    return None


def _prepared_split(directory: Path, split: str) -> "datasets.Dataset":
    import datasets

    info = datasets.DatasetInfo.from_directory(str(directory))
    paths = [*directory.glob(f"*-{split}.arrow"), *directory.glob(f"*-{split}-?????-of-?????.arrow")]
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(path), info=info) for path in sorted(paths)])


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
