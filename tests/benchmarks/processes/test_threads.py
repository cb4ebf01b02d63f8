"""A thread that waits for room in its queue, which nobody reads any more, ends."""

from queue import Queue
from threading import Thread

from benchmarks.processes.threads import end


def test_a_thread_that_marks_the_end_of_an_epoch_in_a_full_queue_gets_room() -> None:
    queue: Queue[int | None] = Queue(1)
    queue.put(1)
    thread = Thread(target=queue.put, args=[None], daemon=True)  # as FFCV's, which looks at no event meanwhile
    thread.start()
    end(thread, queue, room_after=0.01)
    assert not thread.is_alive()
    assert queue.get_nowait() is None
