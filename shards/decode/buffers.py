"""Memory that is used again: batches come and go by hundreds of megabytes a second, and fresh pages cost time.

The encoded samples of a batch lie in it side by side, as DALI takes them with the least work.
"""

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

# What `sys.getrefcount(pieces[i])` says where nothing but the list refers to the array.
_PROBE = [np.empty(0, np.uint8)]
_UNUSED = sys.getrefcount(_PROBE[0])


UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]
# With which a JPEG ends: a decoder reads nothing behind it.
END_OF_JPEG = (0xFF, 0xD9)
# Samples stand in rows as long as the longest one where that takes at most twice their own room, or so many bytes.
ROWS = 4 << 20


class Buffers:
    """Hands out arrays whose memory can be handed out again once the last reference to them is gone.

    A fresh 38 MB batch costs thousands of page faults, which take as long as filling it. Arrays may be taken and
    dropped on any thread; as many pieces of memory are kept as were in use at once. Whether a piece is in use is read
    from its reference count, so no Python code runs when an array is dropped: a finalizer could swallow a Ctrl-C.
    """

    def __init__(self) -> None:
        self._pieces: list[npt.NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array that holds whatever was in its memory. Views of it, and tensors over it, keep it taken."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self._lock:
            # numpy lets a view of a view refer to the array that owns the memory, which would be the piece; the
            # memoryview in between ends that search, so it lives exactly as long as anything that can see the memory.
            memory = self._unused(size).data[:size]
        return np.frombuffer(memory, dtype).reshape(shape)

    def _unused(self, size: int) -> npt.NDArray[np.uint8]:
        """A piece of at least `size` bytes that nobody uses; a new one takes the place of one that is too small.

        Of several it takes the one that was handed out last: what is left of it in the processor's cache is the most.
        """
        for place in reversed(range(len(self._pieces))):
            if sys.getrefcount(self._pieces[place]) == _UNUSED:
                piece = self._pieces.pop(place)
                self._pieces.append(piece if piece.size >= size else np.empty(size, np.uint8))
                return self._pieces[-1]
        self._pieces.append(np.empty(size, np.uint8))
        return self._pieces[-1]


@dataclass(frozen=True)
class EncodedSamples:
    """The bytes of n samples in one buffer.

    Of JPEGs DALI can be given the buffer as one array of rows. A list of n arrays costs 10 microseconds a sample, of
    the one thread that feeds it: a fifth of what a JPEG of 32 pixels costs in all (docs/decisions.md).
    """

    buffer: UInt8Array
    start: Int64Array
    """(n,): the byte at which each sample begins."""
    size: Int64Array
    """(n,): bytes of each sample."""
    row: int
    """Bytes from the beginning of one sample to that of the next; 0 where they lie one right behind another."""
    elsewhere: dict[int, UInt8Array] = field(default_factory=dict)
    """Samples that took the place of others, by their places."""

    @staticmethod
    def room_for(size: Int64Array, buffers: Buffers) -> "EncodedSamples":
        """Room for samples of these sizes (n,): it holds whatever was in its memory."""
        longest, total = int(size.max()), int(size.sum())
        if longest * len(size) <= max(2 * total, ROWS):
            buffer = buffers.take((longest * len(size),), np.uint8)
            return EncodedSamples(buffer, longest * np.arange(len(size)), size, longest)
        return EncodedSamples(buffers.take((total,), np.uint8), np.cumsum(size) - size, size, 0)

    def __len__(self) -> int:
        return len(self.size)

    def __getitem__(self, i: int) -> UInt8Array:
        """The bytes of sample i: a view."""
        start = self.start.item(i)
        return self.elsewhere[i] if i in self.elsewhere else self.buffer[start : start + self.size.item(i)]

    def __iter__(self) -> Iterator[UInt8Array]:
        return (self[i] for i in range(len(self)))

    def __setitem__(self, i: int, sample: UInt8Array) -> None:
        """Puts another sample in the place of sample i."""
        self.elsewhere[i] = sample

    def jpeg_rows(self) -> UInt8Array | None:
        """(n, row): a JPEG at the beginning of each row, and anything behind it.

        None where samples do not lie so, or one does not end as a JPEG does: a decoder would read on behind it.
        """
        if not self.row or self.elsewhere or int(self.size.min()) < len(END_OF_JPEG):
            return None
        end = self.start + self.size
        ends = (self.buffer[end - 2] == END_OF_JPEG[0]) & (self.buffer[end - 1] == END_OF_JPEG[1])
        return self.buffer.reshape(len(self), self.row) if ends.all() else None
