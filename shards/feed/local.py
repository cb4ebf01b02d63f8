"""Shard files on this machine, all open for reading at once.

Reads are `preadv`: a shard that was cut off, or a disk that fails, is an error that names the place. (Memory-mapped
shards would save a copy, 1% of what decoding costs; but there a failing read is SIGBUS, which ends the process, and the
decoder's threads would wait for the disk.)
"""

import contextlib
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shards.common.errors import ShardfeedError
from shards.common.machine import allow_open_files


class LocalShards:
    """Open shard files. `paths` and `sizes`: each shard and its length in bytes by the manifest.

    mend: what makes damaged shards again, in messages.

    Raises ShardfeedError for a shard that is missing or of another length.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[int], mend: str = "make the data set again") -> None:
        allow_open_files(len(paths))
        self._sizes = sizes
        self._files = np.full(len(paths), -1, np.intc)
        self._announced: set[int] = set()
        try:
            for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
                self._files[number] = _open(path, size, mend)
        except BaseException:
            self.close()
            raise

    def preadv(
        self, number: int, buffers: Sequence[memoryview], offset: int, stop: threading.Event | None = None
    ) -> int:
        """Reads bytes of a shard as `os.preadv` does; returns their number, 0 at its end. Raises OSError."""
        return os.preadv(self._files[number], list(buffers), offset)

    def files(self, numbers: npt.NDArray[np.int32]) -> AbstractContextManager[npt.NDArray[np.intc]]:
        """Descriptors (n,) of these shards (n,), which are all open."""
        return contextlib.nullcontext(self._files[numbers])

    def announce(self, numbers: Sequence[int]) -> None:
        """Asks the kernel to read newly announced shards into the page cache, whole; returns at once."""
        for number in numbers:
            if number not in self._announced:
                with contextlib.suppress(OSError):  # only a hint: the read itself reports what is wrong
                    os.posix_fadvise(self._files[number], 0, self._sizes[number], os.POSIX_FADV_WILLNEED)
        self._announced = set(numbers)

    def stop(self) -> None:
        """Nothing to do: reads of files end by themselves."""

    def close(self) -> None:
        """Closes the files, which nobody may be reading any more."""
        for file in self._files[self._files >= 0].tolist():
            os.close(file)
        self._files = np.empty(0, np.intc)


def _open(path: Path, size: int, mend: str) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe's writer is not waited for
    except OSError as error:
        raise ShardfeedError(f"cannot read shard {path}: {error.strerror}; copy it again, or {mend}") from None
    actual = os.fstat(file).st_size
    if actual != size:
        os.close(file)
        raise ShardfeedError(
            f"shard {path} has {actual:,} bytes, the manifest says {size:,}: it was cut off or changed; "
            f"copy it again, or {mend}"
        )
    # Without this the kernel reads on past every random read, for pages that nobody wants.
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_RANDOM)
    return file
