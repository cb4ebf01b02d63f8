"""The end of threads that make batches, in loaders of other systems."""

import contextlib
from queue import Empty, Queue
from threading import Thread
from typing import Any

ROOM_AFTER = 2.0  # seconds; FFCV's thread looks twice a second whether it is to end


def end(thread: Thread, queue: "Queue[Any]", room_after: float = ROOM_AFTER) -> None:
    """Waits for a thread that was told to end.

    A thread that waits for room in the queue, to mark an epoch's end, may not hear that: it gets the room.
    """
    thread.join(room_after)
    while thread.is_alive():
        with contextlib.suppress(Empty):
            queue.get_nowait()
        thread.join(room_after)
