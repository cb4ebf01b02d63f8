"""One feed loop at a time over open shards: a jump to another cursor, or another size, is another loop."""

import atexit
import contextlib
import dataclasses
import functools
import threading
import weakref

from shards.dataset import JoinedSplit, Split
from shards.feed.joined import JoinedShards
from shards.feed.local import LocalShards
from shards.feed.loop import THREADS, Delivered, FeedConfig, FeedLoop, must_resize
from shards.feed.plan import SamplingConfig
from shards.remote.prefetch import Prefetcher
from shards.sampling.batch import Cursor

_open: "weakref.WeakSet[FeedRunner]" = weakref.WeakSet()


def _close_all() -> None:
    for runner in list(_open):
        runner.close()


@functools.cache
def _close_all_at_exit() -> None:
    """Registers the end of all loops for the end of the program, before DALI's own: it takes their graphs away."""
    # What is registered later is called earlier, and DALI registered its function when it was imported above.
    atexit.register(_close_all)


class FeedRunner:
    """The open shards and the loop that feeds from them. It knows nothing of the loader, so the loader can be freed."""

    def __init__(self, split: Split, config: FeedConfig) -> None:
        self.config = config
        self._split = split
        # Here a damaged index is an error before the first batch, and Ctrl-C ends the wait for a store that stalls.
        _ = split.index
        self._shards = open_shards(split)
        self._loop: FeedLoop | None = None
        _open.add(self)
        _close_all_at_exit()

    def take(self, cursor: Cursor) -> Delivered:
        """The batch at `cursor`: from the running loop if that is its next batch, otherwise from a new loop."""
        if self._loop is None or self._loop.cursor != cursor:
            self._stop()
            self._loop = FeedLoop(self._split, self._shards, self.config, cursor)
        return self._loop.take()

    def gpu_wait(self) -> float:
        """Seconds that the consumer's stream has waited for batches of the running loop since the last call."""
        return 0.0 if self._loop is None else self._loop.gpu_wait()

    def change(self, sampling: SamplingConfig) -> None:
        """Uses `sampling` from the next batch on."""
        self._stop()
        resize = self.config.graph.device == "gpu" and must_resize(self._split, sampling)
        graph = dataclasses.replace(self.config.graph, resize=resize)
        self.config = dataclasses.replace(self.config, sampling=sampling, graph=graph)

    def close(self) -> None:
        """Ends the loop and closes the shards."""
        if threading.current_thread().name.startswith(THREADS):
            # The garbage collector found the loader on a thread of a loader, which would wait for itself.
            threading.Thread(target=self._close, name="close").start()
        else:
            self._close()

    def _close(self) -> None:
        _open.discard(self)
        self._shards.stop()  # before the loop is waited for, which may wait for a lock of theirs
        self._stop()
        self._shards.close()

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.stop()
        self._loop = None


def open_shards(split: Split) -> LocalShards | Prefetcher | JoinedShards:
    """The shards of a split, open for reading: files of this machine, or behind a URL."""
    if isinstance(split, JoinedSplit):
        return _open_joined(split)
    if split.origin is not None:
        return Prefetcher(split.remote_shards())
    sizes = [shard.bytes for shard in split.info.shards]
    return LocalShards(split.shard_paths, sizes, split.how_to_mend())


def _open_joined(split: JoinedSplit) -> JoinedShards:
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(contextlib.closing(open_shards(part))) for part in split.parts]
        stack.pop_all()  # closed by what holds them now
    return JoinedShards(parts, [len(part.info.shards) for part in split.parts])
