"""Checks that a data set is what its manifest says, down to every sample: `python -m shards verify DIR [--decode]`.

Each shard is read once from end to end. Its SHA-256 is compared with the manifest, and its content with index.parquet
and the `.idx`: names, positions, lengths, labels, checksums, sizes in pixels (shards/format/verify_shard.py).
`--decode` decodes every image too (shards/format/verify_image.py): a core checks about as many images as it decodes.
"""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shards.common.errors import ShardfeedError
from shards.common.machine import usable_cores
from shards.common.terminal import ProgressLog, doing, progress_bar
from shards.format.index import Index
from shards.format.layout import INDEX, MANIFEST, REJECTS, dali_index_name, split_dir
from shards.format.manifest import Manifest, ShardInfo, SplitInfo, index_info
from shards.format.verify_shard import FOREIGN, Problem, ShardCheck
from shards.format.verify_tars import verify_tars

MAX_KEY = 96  # characters: with its extension a name has 100 in a tar's header


@dataclass(frozen=True)
class Verified:
    """What was checked, and all that is wrong with it, in the order of the shards."""

    shards: int
    samples: int
    bytes: int
    problems: tuple[Problem, ...]


def verify(root: str | Path, decode: bool = False, workers: int | None = None) -> Verified:
    """Checks the data set in `root` with `workers` threads, one for each core if None; shows progress on a terminal.

    Raises UsageError where `root` holds no finished data set.
    """
    root = Path(root)
    manifest = Manifest.read(root)
    if manifest.indexed:
        return _verify_tars(root, manifest, decode, workers or usable_cores())
    problems = unexpected_files(root, manifest)
    work: list[tuple[str, ShardInfo, Index | None]] = []
    for split, info in manifest.splits.items():
        with doing(f"reading the index of {split}"):
            index, found = _split_index(root, split, info)
        problems += [*found, *count_problems(root, split, info)]
        bounds = [0] * (len(info.shards) + 1)
        if index is not None:
            bounds = np.searchsorted(index.shard, np.arange(len(info.shards) + 1)).tolist()
        for number, shard in enumerate(info.shards):
            part = None if index is None else index.rows(slice(bounds[number], bounds[number + 1]))
            work.append((split, shard, part))
    total = sum(info.samples for info in manifest.splits.values())
    for found in _check_all(ShardCheck(root, manifest, decode), work, total, workers or usable_cores()):
        problems += found
    return Verified(len(work), total, sum(shard.bytes for _, shard, _ in work), tuple(problems))


def _verify_tars(root: Path, manifest: Manifest, decode: bool, threads: int) -> Verified:
    shards = [shard for info in manifest.splits.values() for shard in info.shards]
    problems = verify_tars(root, manifest, decode, threads)
    samples = sum(info.samples for info in manifest.splits.values())
    return Verified(len(shards), samples, sum(shard.bytes for shard in shards), problems)


def _check_all(
    check: ShardCheck, work: Sequence[tuple[str, ShardInfo, Index | None]], total: int, threads: int
) -> list[list[Problem]]:
    """The problems of each shard of `work`, in its order. `total`: samples of all, for the progress bar."""
    results: dict[int, list[Problem]] = {}
    lock = threading.Lock()
    executor = ThreadPoolExecutor(threads, thread_name_prefix="shardfeed-verify")
    try:
        log = ProgressLog(total)
        with progress_bar(total=total, unit="images") as bar:

            def progress(samples: int) -> None:
                with lock:
                    bar.update(samples)
                    log.advance(samples)

            futures = {executor.submit(check.problems, *each, progress): place for place, each in enumerate(work)}
            for future in as_completed(futures):
                results[futures[future]] = future.result()
    finally:
        # After Ctrl-C, shards that are not begun need not be.
        executor.shutdown(cancel_futures=True)
    return [results[place] for place in range(len(work))]


def _split_index(root: Path, split: str, info: SplitInfo) -> tuple[Index | None, list[Problem]]:
    """The index of a split, or None where it cannot be used; and the problems of the index as a whole."""
    name = f"{split}/{INDEX}"
    path = split_dir(root, split) / INDEX
    if not path.is_file():
        return None, [Problem(name, "is missing")]
    try:
        index = Index.read(path, keys=True)
    except ShardfeedError:
        return None, [Problem(name, "is damaged: it cannot be read")]
    if np.any(np.diff(index.shard) < 0) or np.any(index.shard < 0) or np.any(index.shard >= len(info.shards)):
        return None, [Problem(name, "is damaged: its rows are not in the order of the shards")]
    assert index.key is not None
    keys = index.key.tolist()
    if np.any(index.size < 1) or not all(key.isascii() and 0 < len(key) <= MAX_KEY for key in keys):
        return None, [Problem(name, "is damaged: it holds lengths or keys that cannot be")]
    problems = []
    # An index that cannot be used at all was named above.
    if info.index is not None and index_info(path) != info.index:
        problems.append(Problem(name, "its SHA-256 is not the manifest's: its bytes have changed"))
    if len(index) != info.samples:
        problems.append(Problem(name, f"has {len(index):,} rows, the manifest says {info.samples:,} samples"))
    if len(set(keys)) != len(index):
        problems.append(Problem(name, "has the same key twice"))
    return index, problems


def count_problems(root: Path, split: str, info: SplitInfo) -> Iterator[Problem]:
    """Where the rejects of a split, or the kinds of its files, do not add up to what the manifest says."""
    path = split_dir(root, split) / REJECTS
    if path.is_file():
        # Files of the source that are no rows of it are listed too, and not counted.
        rejects = sum(b'"row": null' not in line for line in path.read_bytes().splitlines())
        if rejects != info.rejects:
            yield Problem(f"{split}/{REJECTS}", f"lists {rejects:,} rows, the manifest says {info.rejects:,} rejects")
    elif info.rejects:
        yield Problem(f"{split}/{REJECTS}", "is missing")
    if info.kinds and sum(info.kinds.values()) != info.samples:
        yield Problem(MANIFEST, f"the kinds of {split} do not add up to its {info.samples:,} samples")


def unexpected_files(root: Path, manifest: Manifest) -> list[Problem]:
    """Files in the data set that do not belong to it: readers that go by the names of files would read them too."""
    expected = {MANIFEST, *manifest.splits}
    for split, info in manifest.splits.items():
        tars = [shard.name for shard in info.shards]
        names: Sequence[str] = [INDEX, REJECTS, *tars, *map(dali_index_name, tars)]
        expected |= {f"{split}/{name}" for name in names}
    there: list[Path] = []
    for directory in ("", *manifest.splits):
        if (root / directory).is_dir():
            there += sorted((root / directory).iterdir())
    names = [path.relative_to(root).as_posix() for path in there]
    return [Problem(name, FOREIGN) for name in names if name not in expected]
