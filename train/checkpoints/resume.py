"""Which checkpoint a run goes on from, if any, and what its output directory must not hold."""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from model.weights import OF_RANKS, read_saved
from shards.common.errors import ShardfeedError, UsageError
from train.checkpoints.snapshot import refuse_other
from train.checkpoints.weights import WEIGHTS
from train.config import Config
from train.ranks.distributed import World, try_on_main
from train.report.environment import run_id
from train.report.metrics import CONFIG, TOTAL_TIME, LogPosition, open_log, room_in

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS = "last.pt", "previous.pt"
# Exists only between two renames; then it is the newest.
NEW = "new.pt"
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


def refuse_results(config: Config) -> None:
    """Raises UsageError if `out` holds results that this run may not overwrite, or `resume` is no file."""
    out, resume = config.out, _resume(config)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, not a directory")
    if isinstance(resume, Path) and not resume.is_file():
        raise UsageError(f"--resume {resume} is not a file: give a checkpoint, auto or never")
    saved = _saved(out)
    if saved and (out / TOTAL_TIME).exists() and resume != "never":
        raise UsageError(f"{out} holds a complete run: choose another --out, or remove it to train again")
    inside = isinstance(resume, Path) and resume.resolve().parent == (out / CHECKPOINTS).resolve()
    if inside or (saved and resume == "auto"):
        return
    for path in [out / WEIGHTS, *saved]:
        if path.exists():
            raise UsageError(f"{path} exists already: choose another --out, or remove it to train again")


def _resume(config: Config) -> str | Path:
    """`config.resume`, which is for the beginning of a run: after a restart by torchrun it is "auto".

    torchrun counts restarts after a failure. It does not count them when nodes come or go, but its job keeps its name.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    same_job = run_id() is not None and run_id() == _job_of(config.out)
    return "auto" if (restarts > 0 or same_job) and _saved(config.out) else config.resume


def _saved(out: Path) -> list[Path]:
    """The checkpoints that a run goes on from by itself, the newest first."""
    return [path for name in (NEW, LAST, PREVIOUS) if (path := out / CHECKPOINTS / name).exists()]


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _job_of(out: Path) -> str | None:
    """The name of the torchrun job that wrote the configuration in `out`, if it had one."""
    try:
        written = json.loads((out / CONFIG).read_text())
    except (OSError, ValueError):
        return None
    return written.get("torchrun") if isinstance(written, dict) else None


def claim(config: Config, world: World, found: Checkpoint | None) -> IO[str] | None:
    """Opens and locks the run's log on the main rank: from here on no other run changes what lies in `out`.

    found: what `find_checkpoint` returned. Raises, on every rank, what `open_log` and `room_in` raise, and
    ShardfeedError if the run that held the lock before has saved or ended since.
    """
    log: list[IO[str]] = []

    def lock() -> None:
        with room_in(config.out):
            log.append(open_log(config.out))
        refuse_results(config)
        newest = next(iter(_saved(config.out)), None)
        known = None if found is None else (found.path, found.stamp)
        given = found is not None and config.resume == found.path
        if not given and (newest and (newest, _stamp(newest))) != known:
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
    resume = _resume(config)
    if resume == "never":
        return None
    if isinstance(resume, Path):
        return _read(resume, own, ranks)
    candidates = _saved(config.out)
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
