"""Not a loader but a limit: libjpeg-turbo decodes the stored bytes, whole images, and does nothing else.

Through simplejpeg, with the accurate DCT; a thread per core, since simplejpeg decodes without Python's lock. Nothing is
cropped, put into batches or handed over. benchmarks/stages/limits.py holds the stages of our loader against it.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import simplejpeg

from benchmarks.processes.task import Peer, PeerTask, stored_bytes
from shards.common.errors import ShardfeedError
from shards.common.versions import version
from shards.dataset import Split

PIECE = 16  # images that a thread decodes at a time
# Images that are decoded over and over: enough to be typical, few enough to be read quickly.
IMAGES = 512


def peer(task: PeerTask) -> Peer:
    return Peer(
        lambda: decoding(task.open_split(), max(1, task.threads)),
        {"simplejpeg": version("simplejpeg"), "dct": "accurate", "decodes": "whole images"},
        depth=max(1, task.threads),
        images=int,
    )


@contextlib.contextmanager
def decoding(split: Split, threads: int) -> Iterator[Iterator[int]]:
    """Decodes images of the split endlessly, PIECE at a time. Raises ShardfeedError if it can decode none of them."""
    stored = stored_bytes(split)
    images = [image for image in map(bytes, stored[:: -(-len(stored) // IMAGES)]) if _decodes(image)]
    if not images:
        raise ShardfeedError(f"no image of {split.root} is one that libjpeg-turbo decodes by itself")
    endless = itertools.cycle(images)
    pieces = (list(itertools.islice(endless, PIECE)) for _ in itertools.repeat(None))
    with ThreadPoolExecutor(threads) as executor:
        ahead = [executor.submit(_decode, next(pieces)) for _ in range(2 * threads)]

        def counts() -> Iterator[int]:
            while True:
                yield ahead.pop(0).result()
                ahead.append(executor.submit(_decode, next(pieces)))

        try:
            yield counts()
        finally:
            executor.shutdown(cancel_futures=True)


def _decode(images: Sequence[bytes]) -> int:
    for image in images:
        simplejpeg.decode_jpeg(image, "RGB")
    return len(images)


def _decodes(image: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(image, "RGB")
    except ValueError:  # not a JPEG, or a chroma subsampling that libjpeg-turbo's simple interface does not know
        return False
    return True
