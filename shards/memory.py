"""A split held in RAM, once for all processes of a machine that read it.

The first process copies the shards into anonymous memory (`memfd_create`), from disk or from behind a URL, by way of
the cache as far as that holds them. Then it answers on a socket, whose
name in the kernel's own namespace is made from the data set; the others get the same memory through it.
Nothing of this has a name in a file system: when the last process ends, however it ends, the memory is
free. Once filled it is sealed, so nobody can change or shorten it under a reader.
"""

import contextlib
import fcntl
import hashlib
import itertools
import mmap
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Never

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from shards.dataset import Origin, Split
from shards.errors import ShardfeedError
from shards.layout import MANIFEST
from shards.supply import Supply

# Shards copied at once: more than a cold disk or a network file system needs to be busy.
COPIERS = 8
CHUNK = 16 * 2**20  # bytes between two looks at whether to stop
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_READY = b"r"
_FAILED = b"f"

_held: "weakref.WeakValueDictionary[str, SplitMemory]" = weakref.WeakValueDictionary()
_held_lock = threading.Lock()


class SplitMemory:
    """The bytes of a split's shards. Lives while anybody refers to it or to one of its arrays."""

    def __init__(self, file: int, sizes: list[int]) -> None:
        mapped = mmap.mmap(file, max(1, sum(sizes)), flags=mmap.MAP_SHARED, prot=mmap.PROT_READ)
        whole = np.frombuffer(mapped, np.uint8)
        bounds = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).tolist()
        self.shards: list[npt.NDArray[np.uint8]] = [whole[first:last] for first, last in itertools.pairwise(bounds)]


def hold(split: Split) -> SplitMemory:
    """The split's shards in memory: copied here, or shared with the process of this machine that copied them.

    Waits while another process copies. Raises ShardfeedError where there is not enough memory, or a shard cannot
    be read, in whichever process copies.
    """
    name = _name(split)
    with _held_lock:
        memory = _held.get(name)
        if memory is None:
            memory = _held[name] = _shared(split, name)
        return memory


def _name(split: Split) -> str:
    """One name for one content, place and user. The leading NUL keeps it out of the file system."""
    manifest = (split.root / MANIFEST).read_bytes()
    digest = hashlib.sha256(manifest + b"\0" + os.fsencode(split.root.resolve()) + b"\0" + split.name.encode())
    return f"\0shardfeed-{os.getuid()}-{digest.hexdigest()[:32]}"


def _shared(split: Split, name: str) -> SplitMemory:
    sizes = [shard.bytes for shard in split.info.shards]
    while True:
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.bind(name)
        except OSError:
            server.close()
        else:
            server.listen(64)
            return _serve(split, sizes, server)
        try:
            file = _ask(name, sum(sizes))
        except ConnectionError:
            # Between its bind and its listen, or gone before it was done: this process may be the next to copy.
            time.sleep(0.01)
            continue
        try:
            return SplitMemory(file, sizes)
        finally:
            os.close(file)


def _ask(name: str, size: int) -> int:
    """The file of the process that answers under `name`. Raises ConnectionError where there is none (any more)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(name)
        if _peer(client) != os.getuid():
            raise ShardfeedError("another user answers in the place of the process that holds this split in memory")
        message, files, _, _ = socket.recv_fds(client, 4096, 1)
        if message[:1] == _FAILED:
            raise ShardfeedError(message[1:].decode(errors="replace"))
        if not files:
            raise ConnectionResetError
        file = files[0]
        if os.fstat(file).st_size != max(1, size) or fcntl.fcntl(file, fcntl.F_GET_SEALS) & SEALS != SEALS:
            os.close(file)
            raise ShardfeedError("the memory that another process shares is not this split: start without in_memory")
        return file


def _serve(split: Split, sizes: list[int], server: socket.socket) -> SplitMemory:
    """Fills the memory, and answers whoever asks for it for as long as it lives."""
    try:
        file = _filled(split, sizes)
    except BaseException as error:
        reason = str(error) if isinstance(error, ShardfeedError) else f"copying into memory failed: {error!r}"
        _refuse_waiting(server, reason)
        server.close()
        raise
    memory = SplitMemory(file, sizes)
    thread = threading.Thread(target=_answer, args=(server, file), name="shardfeed-memory", daemon=True)
    thread.start()
    weakref.finalize(memory, _end, server, thread, file)
    return memory


def _answer(server: socket.socket, file: int) -> None:
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        # Whoever went away meanwhile has no use for an answer.
        with client, contextlib.suppress(OSError):
            if _peer(client) == os.getuid():
                socket.send_fds(client, [_READY], [file])


def _end(server: socket.socket, thread: threading.Thread, file: int) -> None:
    # Wakes the thread, which waits for the next one to ask.
    with contextlib.suppress(OSError):
        server.shutdown(socket.SHUT_RDWR)
    server.close()
    if thread is not threading.current_thread():
        thread.join()
    os.close(file)


def _refuse_waiting(server: socket.socket, reason: str) -> None:
    """Tells those who asked while the memory was being filled why there is none."""
    server.setblocking(False)
    with contextlib.suppress(OSError):
        while True:
            client, _ = server.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(_FAILED + reason.encode()[:4000])


def _filled(split: Split, sizes: list[int]) -> int:
    """A sealed memory file with the shards one after the other."""
    total = sum(sizes)
    source = _FromDisk(split) if split.origin is None else _FromStore(split, split.supply(), split.origin)
    need, room = total + source.extra, available_memory()
    if need > room:
        raise ShardfeedError(
            f"the split {split.name} needs {need / 2**30:.1f} GiB, and {room / 2**30:.1f} GiB of memory are free: "
            "start without in_memory, which reads from disk as needed"
        )
    file = os.memfd_create("shardfeed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stop = threading.Event()
    try:
        os.ftruncate(file, max(1, total))
        starts = itertools.accumulate(sizes[:-1], initial=0)
        with (
            tqdm(total=total, desc=f"{split.name} into memory", unit="B", unit_scale=True, disable=None) as bar,
            ThreadPoolExecutor(COPIERS, thread_name_prefix="shardfeed-copy") as copiers,
        ):
            copies = [
                copiers.submit(_copy, source, number, file, start, size, stop, bar)
                for number, (start, size) in enumerate(zip(starts, sizes, strict=True))
            ]
            try:
                for copy in copies:
                    copy.result()
            except BaseException:
                stop.set()
                source.stop()
                copiers.shutdown(cancel_futures=True)
                raise
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, SEALS)
    except BaseException:
        os.close(file)
        raise
    finally:
        source.stop()
    return file


class _FromDisk:
    """The shards of a split in a directory."""

    extra = 0  # bytes of memory that copying takes for itself

    def __init__(self, split: Split) -> None:
        self._split = split

    def place(self, number: int) -> str:
        return self._split.shard_place(number)

    @contextlib.contextmanager
    def opened(self, number: int) -> Iterator[int]:
        with self._split.shard_paths[number].open("rb") as file:
            yield file.fileno()

    def stop(self) -> None:
        """Nothing to do: no read waits for long."""


class _FromStore:
    """The shards of a split behind a URL: as many as the cache can hold come by way of it, the others straight."""

    def __init__(self, split: Split, supply: Supply, origin: Origin) -> None:
        self._split = split
        self._supply = supply
        sizes = [shard.bytes for shard in split.info.shards]
        self._cached = sum(taken <= origin.cache.bytes for taken in itertools.accumulate(sizes))
        self.extra = sum(sorted(sizes[self._cached :])[-COPIERS:])

    def place(self, number: int) -> str:
        return self._split.shard_place(number)

    def opened(self, number: int) -> contextlib.AbstractContextManager[int]:
        return self._supply.whole(number, keep=number < self._cached)

    def stop(self) -> None:
        """Begins no more downloads, and ends those under way that can be."""
        self._supply.stop()


def _copy(
    source: _FromDisk | _FromStore,
    number: int,
    target: int,
    start: int,
    size: int,
    stop: threading.Event,
    bar: "tqdm[Never]",
) -> None:
    """Copies one shard into the memory file, inside the kernel."""
    place = source.place(number)
    own = -1
    try:
        own = os.open(f"/proc/self/fd/{target}", os.O_WRONLY | os.O_CLOEXEC)  # a position of its own
        os.lseek(own, start, os.SEEK_SET)
        with source.opened(number) as shard:
            actual = os.fstat(shard).st_size
            if actual != size:
                raise ShardfeedError(
                    f"shard {place} has {actual:,} bytes, the manifest says {size:,}: it was cut off or changed; "
                    "copy or make the data set again"
                )
            done = 0
            while done < size and not stop.is_set():
                count = os.sendfile(own, shard, done, min(CHUNK, size - done))
                if count == 0:
                    raise ShardfeedError(f"shard {place} ends at byte {done:,} of {size:,}: copy or make it again")
                done += count
                bar.update(count)
            # Its pages in the cache would take the room that the copy needs.
            os.posix_fadvise(shard, 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise ShardfeedError(f"shard {place} cannot be copied into memory: {error.strerror}") from None
    finally:
        if own >= 0:
            os.close(own)


def available_memory() -> int:
    """Bytes that this process can still take: of the machine, and of its control group where that has a limit."""
    room = _fields(Path("/proc/meminfo"))["MemAvailable:"] * 1024
    with contextlib.suppress(OSError, ValueError, KeyError):  # no control groups, or no limit ("max")
        group = Path("/sys/fs/cgroup")
        use = _fields(group / "memory.stat")
        # The page cache counts as used there, but gives way; shared memory, which counts as part of it, does not.
        taken = int((group / "memory.current").read_text()) - (use["file"] - use["shmem"])
        room = min(room, int((group / "memory.max").read_text()) - taken)
    return room


def _fields(path: Path) -> dict[str, int]:
    """The first number of each line of a file of the kernel, by the line's first word."""
    return {words[0]: int(words[1]) for words in map(str.split, path.read_text().splitlines())}


def _peer(connection: socket.socket) -> int:
    """The user at the other end."""
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return int(user)
