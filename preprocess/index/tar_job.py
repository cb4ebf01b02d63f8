"""One tar is one task: its rows, its cleaned images and its marker are written into the job's work directory."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from preprocess.index.scan import Clean, Rules, Scan, scan
from preprocess.job.workers import Progress
from shards.common.atomic import replacing
from shards.common.errors import ShardfeedError
from shards.format.index import Index
from shards.format.layout import dali_index_name, sample_key
from shards.format.tar import Sample, write_shard
from shards.format.window import Window
from shards.indexed.source import Source, Tar
from shards.remote.object_store import ObjectStore
from shards.remote.urls import is_url

Task = tuple[str, int]
# Bytes that one call reads of a file: what fits into the fastest cache.
CHUNK = 1 << 16
# Behind a URL: bytes of the smallest and the largest request, and of the gap that is worth a request of its own. A
# request takes as long as some hundred kilobytes do.
LEAST, MOST, SKIP = 1 << 14, 1 << 20, 1 << 16
STEP = 64  # samples between two reports of progress


@dataclass(frozen=True)
class TarResult:
    """What one tar holds: counts of samples that stay, that were cleaned and that are left out; and lines to say.

    `damaged`: it cannot be read to its end, and the samples before that are counted.
    """

    split: str
    number: int
    samples: int
    cleaned: int
    rejects: int
    largest_label: int
    kinds: dict[str, int]
    notes: tuple[str, ...]
    damaged: bool = False


@dataclass(frozen=True)
class TarJob:
    """Reads any tar of a source. It pickles, for worker processes.

    `directory`, `splits`: of the source; `parts`: the directory for the results.
    """

    directory: str
    splits: Mapping[str, tuple[Tar, ...]]
    rules: Rules
    parts: Path

    @classmethod
    def of(cls, source: Source, rules: Rules, work: Path) -> "TarJob":
        """The job of reading a source. Its parts lie in a directory of their own: other tars or rules, another one."""
        tars = {name: [dataclasses.asdict(tar) for tar in tars] for name, tars in source.splits.items()}
        what = json.dumps([source.directory, tars, dataclasses.asdict(rules)])
        parts = work / hashlib.sha256(what.encode()).hexdigest()[:16]
        return cls(source.directory, source.splits, rules, parts)

    def part(self, task: Task, ending: str) -> Path:
        """A file of a task's result: "rows", "cleaned" (tables), "json" (the marker), "rejects"."""
        return self.parts / f"{task[0]}-{task[1]:05d}.{ending}"

    def run(self, task: Task, progress: Progress, stop: threading.Event | None = None) -> TarResult:
        """Reads one tar, or finds that it was read. Raises ShardfeedError where it cannot be read.

        `stop` ends the wait for a store, with Cancelled.
        """
        found = self._find(task)
        if found is not None:
            progress(0, self._tar(task).bytes, found.rejects, found.samples + found.cleaned + found.rejects)
            return found
        what = Scan()
        cleaned, keys = deque[tuple[str, Sample]](), list[str]()

        def clean(key: str, sample: Sample) -> None:
            cleaned.append((key, sample))

        def samples() -> Iterator[Sample]:
            for _ in self._scanned(task, what, clean, progress, stop):
                while cleaned:
                    key, sample = cleaned.popleft()
                    keys.append(key)
                    yield dataclasses.replace(sample, key=sample_key(len(keys) - 1))

        several = samples()
        first = next(several, None)
        if first is not None:
            _, table = write_shard(self.parts, task[0], task[1], itertools.chain([first], several))
            dataclasses.replace(table, key=_objects(keys)).write(self.part(task, "cleaned"))
        Index.from_rows([(task[1], *row) for row in what.rows], what.keys).write(self.part(task, "rows"))
        result = self._result(task, what, len(keys))
        with replacing(self.part(task, "rejects")) as file:
            file.write(json.dumps(what.rejects).encode())
        with replacing(self.part(task, "json")) as file:
            file.write(json.dumps(dataclasses.asdict(result)).encode())
        return result

    def rejects(self, task: Task) -> list[tuple[str, str]]:
        """Key and reason of each sample of a tar that is left out."""
        return [(key, reason) for key, reason in json.loads(self.part(task, "rejects").read_bytes())]

    def _result(self, task: Task, what: Scan, cleaned: int) -> TarResult:
        total = len(what.rows) + cleaned + len(what.rejects)
        listed = None if is_url(self.directory) else listed_samples(Path(self.directory) / self._tar(task).name)
        if listed not in (None, total):
            what.notes.append(f"its .idx lists {listed:,} samples, and {total:,} were found: the .idx is not used")
        return TarResult(
            split=task[0],
            number=task[1],
            samples=len(what.rows),
            cleaned=cleaned,
            rejects=len(what.rejects),
            largest_label=what.largest_label,
            kinds=dict(what.kinds),
            notes=tuple(what.notes),
            damaged=what.damaged,
        )

    def _find(self, task: Task) -> TarResult | None:
        try:
            content = json.loads(self.part(task, "json").read_bytes())
            return TarResult(**{**content, "notes": tuple(content["notes"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def _tar(self, task: Task) -> Tar:
        return self.splits[task[0]][task[1]]

    def _scanned(
        self, task: Task, what: Scan, clean: Clean, progress: Progress, stop: threading.Event | None
    ) -> Iterator[None]:
        """Scans the tar; yields after each sample, and reports progress now and then."""
        tar, before, rejects, count = self._tar(task), 0, 0, 0
        with self._window(task, stop) as window:
            for count, position in enumerate(scan(window, self.rules, what, clean), 1):
                if count % STEP == 0:
                    progress(STEP, position - before, len(what.rejects) - rejects, 0)
                    before, rejects = position, len(what.rejects)
                yield
        progress(count % STEP, tar.bytes - before, len(what.rejects) - rejects, 0)

    @contextlib.contextmanager
    def _window(self, task: Task, stop: threading.Event | None) -> Iterator[Window]:
        tar = self._tar(task)
        if not is_url(self.directory):
            with local_window(Path(self.directory) / tar.name) as window:
                yield window
            return
        store = ObjectStore(self.directory)
        store.read_range(tar.name, 0, min(1, tar.bytes), stop)
        if store.knows_ranges:
            yield Window(
                lambda start, size: store.read_range(tar.name, start, size, stop),
                tar.bytes,
                least=LEAST,
                most=MOST,
                skip=SKIP,
            )
            return
        copy = self.part(task, "part")
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            store.fetch(tar.name, copy, stop)
            with local_window(copy) as window:
                yield window
        finally:
            copy.unlink(missing_ok=True)


@contextlib.contextmanager
def local_window(path: Path) -> Iterator[Window]:
    """A window of a file of this machine. Raises ShardfeedError where it cannot be read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ShardfeedError(f"{path} cannot be read: {error.strerror}") from None

    def fetch(start: int, size: int) -> bytes:
        try:
            return os.pread(file, size, start)
        except OSError as error:
            raise ShardfeedError(f"{path} cannot be read at byte {start:,}: {error.strerror}") from None

    try:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        yield Window(fetch, os.fstat(file).st_size, least=CHUNK, most=CHUNK, skip=CHUNK)
    finally:
        os.close(file)


def listed_samples(tar: Path) -> int | None:
    """The number of samples in DALI's index beside a tar, by its first line; None where there is none that says it.

    Nothing depends on it: it may be of another tar.
    """
    try:
        with tar.with_name(dali_index_name(tar.name)).open("rb") as file:
            words = file.readline(64).split()
    except OSError:
        return None
    return int(words[1]) if len(words) == 2 and words[0].startswith(b"v1") and words[1].isdigit() else None


def _objects(keys: list[str]) -> npt.NDArray[np.object_]:
    return np.array(keys, object)
