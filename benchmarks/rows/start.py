"""Starts a peer with the number of threads or processes with which it does best."""

from collections.abc import Callable, Sequence

from benchmarks.measure.harness import Schedule
from benchmarks.measure.progress import note
from benchmarks.peers.roster import Entry
from benchmarks.processes.process import Hangs, PeerProcess
from benchmarks.processes.task import PeerTask
from shards.common.errors import ShardfeedError
from shards.common.machine import usable_cores


def thread_counts() -> tuple[int, ...]:
    """Numbers of threads to try: half of the cores, as many, one more, as this loader takes, and twice as many."""
    cores = usable_cores()
    return tuple(sorted({max(1, cores // 2), cores, cores + 1, 2 * cores}))


def best_of(entry: Entry, task: Callable[[int], PeerTask], counts: Sequence[int], seconds: float) -> PeerProcess:
    """The process with the most images/s in a turn, after the one that each begins with.

    A number that the peer refuses does not count: FFCV takes none above the cores. Raises ShardfeedError where it
    refuses all of them, or gives no answer.
    """
    best: PeerProcess | None = None
    most, refusal = 0.0, ShardfeedError(f"{entry.title}: no number of threads to try")
    try:
        for threads in counts:
            note(f"{entry.title}: trying {threads} {'processes' if entry.processes else 'threads'}")
            try:
                process = entry.start(task(threads))
            except Hangs:
                raise
            except ShardfeedError as error:
                refusal = error
                continue
            speed, loser = 0.0, process
            try:
                speed = process.turn(Schedule(seconds=seconds)).images_per_s
                if speed > most:
                    best, loser, most = process, best, speed
            except Hangs:
                raise
            except ShardfeedError as error:
                refusal = error
            finally:
                if loser is not None:
                    loser.close()
        if best is None:
            raise refusal
        return best
    except BaseException:
        if best is not None:
            best.close()
        raise
