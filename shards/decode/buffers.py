"""Memory that is used again: batches come and go by hundreds of megabytes a second, and fresh pages cost time."""

import threading
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt


class Buffers:
    """Hands out arrays whose memory returns here when the last reference to them is gone.

    A fresh 38 MB batch costs thousands of page faults, which is as long as filling it. Arrays may be taken and
    forgotten on any thread. As many pieces of memory are kept as were in use at once.
    """

    def __init__(self) -> None:
        self._free: list[npt.NDArray[np.uint8]] = []
        # Reentrant: an array can be forgotten, by the garbage collector, while this thread takes another.
        self._lock = threading.RLock()

    def take(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """An array that holds whatever was in its memory. Views of it, and tensors over it, keep it taken."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        with self._lock:
            flat = self._free.pop() if self._free else np.empty(size, np.uint8)
        if flat.size < size:
            flat = np.empty(size, np.uint8)
        array = np.frombuffer(flat.data[:size], dtype)
        # numpy lets a view of a view refer to the array that owns the memory, which would be `flat`; a memoryview
        # in between ends that search, so it lives exactly as long as anything that can see this memory.
        weakref.finalize(array.base, self._give_back, flat).atexit = False
        return array.reshape(shape)

    def _give_back(self, flat: npt.NDArray[np.uint8]) -> None:
        with self._lock:
            self._free.append(flat)
