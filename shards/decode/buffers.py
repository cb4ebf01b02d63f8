"""Memory that is used again: batches come and go by hundreds of megabytes a second, and fresh pages cost time."""

import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

# What `sys.getrefcount(pieces[i])` says where nothing but the list refers to the array.
_PROBE = [np.empty(0, np.uint8)]
_UNUSED = sys.getrefcount(_PROBE[0])


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
