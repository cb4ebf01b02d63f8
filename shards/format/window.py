"""Reads a long file forwards through a window of it, so that small reads side by side are one request."""

from collections.abc import Callable

# Reads so many bytes from a position on: all of them, or as many as the file has.
Fetch = Callable[[int, int], bytes]


class Window:
    """The bytes around the place that is read; reads go forwards.

    `fetch` reads the file, of `length` bytes. The window begins with `least` bytes. It doubles, up to `most`, while
    what is read lies closer together than `skip` bytes; a longer gap is not fetched, and the window is small again.
    """

    def __init__(self, fetch: Fetch, length: int, *, least: int, most: int, skip: int) -> None:
        self.length = length
        self.fetch = fetch
        self._least, self._most, self._skip = least, most, skip
        self._ahead = least
        self._start, self._data = 0, b""
        self._used = 0  # the end of the last read

    def read(self, start: int, size: int) -> bytes:
        """`size` bytes from `start` on, fewer at the end of the file."""
        at = start - self._start
        if at < 0 or at + size > len(self._data):
            at = self._move(start, size)
        self._used = start + size
        return self._data[at : at + size]

    def _move(self, start: int, size: int) -> int:
        """Makes the window hold these bytes; returns where in it they begin."""
        near = 0 <= start - self._used < self._skip
        self._ahead = min(2 * self._ahead, self._most) if near and self._data else self._least
        wanted = min(max(size, self._ahead), max(0, self.length - start))
        kept = self._data[start - self._start :] if 0 <= start - self._start <= len(self._data) else b""
        if len(kept) < wanted:
            kept += self.fetch(start + len(kept), wanted - len(kept))
        self._start, self._data = start, kept
        return 0
