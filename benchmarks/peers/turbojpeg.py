"""Not a loader but a limit: libjpeg-turbo decodes the stored bytes, whole images, in processes, and nothing else.

Through simplejpeg, which decodes with the accurate DCT. What comes out is not put into batches, cropped or handed over.
"""

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait

from benchmarks.processes.job import Job, Peer, stored_bytes
from shards.common.errors import ShardfeedError
from shards.common.versions import version

PIECE = 64  # images between two reports of a process


def peer(job: Job) -> Peer:
    return Peer(
        lambda: _pieces(job),
        {"simplejpeg": version("simplejpeg"), "dct": "accurate", "decodes": "whole images"},
        depth=max(1, job.threads),
        images=lambda piece: PIECE,
    )


@contextlib.contextmanager
def _pieces(job: Job) -> Iterator[Iterator[None]]:
    # Forked: what is imported here need not be imported again in each, and simplejpeg is all that they call.
    context = multiprocessing.get_context("fork")
    here, running = [], []
    for seat in range(max(1, job.threads)):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=_decode, args=(job, seat, writer), daemon=True)
        process.start()
        writer.close()
        here.append(reader)
        running.append(process)

    def pieces() -> Iterator[None]:
        while True:
            for ready in wait(here):
                assert isinstance(ready, Connection)
                try:
                    yield ready.recv()
                except EOFError:
                    raise ShardfeedError("a decoding process died") from None

    try:
        # All are at work from here on: importing is no part of the warm-up.
        for each in here:
            each.recv()
        yield pieces()
    finally:
        for process in running:
            process.kill()
            process.join()
        for each in here:
            each.close()


def _decode(job: Job, seat: int, writer: Connection) -> None:
    import simplejpeg

    images = [each.tobytes() for each in stored_bytes(job.opened())]
    turns = itertools.cycle(images[seat:] + images[:seat])
    with contextlib.suppress(BrokenPipeError):
        while True:
            for _ in range(PIECE):
                simplejpeg.decode_jpeg(next(turns), "RGB")
            writer.send(None)
