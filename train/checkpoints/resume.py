"""Which checkpoint a run goes on from, if any. What its output directory must not hold: earlier.py."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from model.weights import OF_RANKS, read_saved
from shards.common.errors import ShardfeedError, UsageError
from train.checkpoints.earlier import CHECKPOINTS, result_of, resume_of, saved_in
from train.checkpoints.snapshot import refuse_other
from train.config import Config
from train.ranks.distributed import World, try_on_main
from train.report.metrics import LogPosition, open_log, room_in

DAMAGED = ".damaged"


@dataclass(frozen=True)
class Checkpoint:
    """A snapshot, and the file that it was read from."""

    path: Path
    snapshot: dict[str, Any]
    stamp: tuple[int, int]
    """Time and length of the file."""

    @property
    def log_position(self) -> LogPosition:
        """How far the run's other files had come."""
        return LogPosition(step=self.snapshot["step"], sizes=self.snapshot["files"])


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def claim(config: Config, world: World, found: Checkpoint | None) -> IO[str] | None:
    """Opens and locks the run's log on the main rank: from here on no other run changes what lies in `out`.

    found: what `find_checkpoint` returned. Raises, on every rank, what `open_log` and `room_in` raise, and
    ShardfeedError if the run that held the lock before has saved or ended since.
    """
    log: list[IO[str]] = []

    def lock() -> None:
        with room_in(config.out):
            log.append(open_log(config.out))
        complete = result_of(config) is not None
        newest = next(iter(saved_in(config.out)), None)
        known = None if found is None else (found.path, found.stamp)
        given = found is not None and config.resume == found.path
        if complete or (not given and (newest and (newest, _stamp(newest))) != known):
            raise ShardfeedError(f"the run in {config.out} has gone on meanwhile: give the same command again")

    try_on_main(lock, (ShardfeedError, OSError), world)
    return next(iter(log), None)


def find_checkpoint(config: Config, world: World, own: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint that `config.resume` asks for, the same on every rank; None where the run begins anew.

    A damaged checkpoint is reported and renamed, and the one before is taken. Only the main rank reads, so that other
    machines need not see its files.

    Raises UsageError for the checkpoint of another run, ShardfeedError if all are damaged.
    """

    def find() -> Checkpoint | None:
        try:
            return _find(config, own, world.size)
        except OSError as error:
            raise ShardfeedError(f"{config.out / CHECKPOINTS} cannot be read ({error})") from error

    return try_on_main(find, ShardfeedError, world)


def would_resume(config: Config, own: Mapping[str, Any], ranks: int) -> Path | None:
    """The checkpoint that a run of `ranks` ranks would go on from; nothing changes. Raises as `find_checkpoint`."""
    found = _find(config, own, ranks, put_aside=False)
    return None if found is None else found.path


def _find(config: Config, own: Mapping[str, Any], ranks: int, put_aside: bool = True) -> Checkpoint | None:
    resume = resume_of(config)
    if resume == "never":
        return None
    if isinstance(resume, Path):
        return _read(resume, own, ranks)
    candidates = saved_in(config.out)
    for path in candidates:
        try:
            return _read(path, own, ranks)
        except UsageError:
            raise
        except ShardfeedError as error:
            if not put_aside:
                continue
            path.replace(path.with_name(path.name + DAMAGED))
            tqdm.write(f"{error}: it is now {path.name + DAMAGED}, and the checkpoint before is taken", file=sys.stderr)
    if candidates:
        raise ShardfeedError(
            f"{config.out / CHECKPOINTS} holds no whole checkpoint: choose another --out, or remove {config.out} "
            "to begin anew"
        )
    return None


def _read(path: Path, own: Mapping[str, Any], ranks: int) -> Checkpoint:
    stamp, snapshot = _stamp(path), read_checkpoint(path)
    refuse_other(path, snapshot, own, ranks)
    return Checkpoint(path, snapshot, stamp)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The snapshot in a file. Raises ShardfeedError if the file is damaged or holds something else."""
    snapshot = read_saved(path)
    if not isinstance(snapshot, dict) or not {"format", "identity", OF_RANKS, "files"} <= snapshot.keys():
        raise ShardfeedError(f"{path} is no checkpoint of a run")
    return snapshot
