"""Which checkpoint a run goes on from, if any; and what its output directory must not hold."""

import json
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from tqdm import tqdm

from shards.common.errors import ShardfeedError, UsageError
from train.checkpoints.snapshot import refuse_other
from train.checkpoints.weights import WEIGHTS
from train.config import Config
from train.ranks.distributed import World, from_main
from train.report.environment import run_id
from train.report.metrics import CONFIG, TOTAL_TIME, Kept, open_log, room_in

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS = "last.pt", "previous.pt"
# Exists only between two renames; then it is the newest.
NEW = "new.pt"
DAMAGED = ".damaged"


@dataclass(frozen=True)
class Found:
    """A checkpoint read from `path`."""

    path: Path
    state: dict[str, Any]
    stamp: tuple[int, int]
    """Time and length of the file."""

    @property
    def kept(self) -> Kept:
        """What it says of the run's other files."""
        return Kept(step=self.state["step"], sizes=self.state["files"])


def refuse_results(config: Config) -> None:
    """Raises UsageError if `out` holds what this run may not overwrite: the results of another, or of a finished one.

    Raises it for a `resume` that is no file, too.
    """
    out, resume = config.out, "auto" if _has_begun(config) else config.resume
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, not a directory")
    if isinstance(resume, Path) and not resume.is_file():
        raise UsageError(f"--resume {resume} is not a file: give a checkpoint, auto or never")
    saved = [path for name in (NEW, LAST, PREVIOUS) if (path := out / CHECKPOINTS / name).exists()]
    if saved and (out / TOTAL_TIME).exists() and resume != "never":
        raise UsageError(f"{out} holds a complete run: choose another --out, or remove it to train again")
    inside = isinstance(resume, Path) and resume.resolve().parent == (out / CHECKPOINTS).resolve()
    if inside or (saved and resume == "auto"):
        return
    for path in [out / WEIGHTS, *saved]:
        if path.exists():
            raise UsageError(f"{path} exists already: choose another --out, or remove it to train again")


def _has_begun(config: Config) -> bool:
    """Whether this run has saved something before torchrun started its ranks again: `resume` was for its beginning.

    torchrun counts restarts after a failure. When nodes come or go it does not, but its job keeps its name.
    """
    restarts, folder = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")), config.out / CHECKPOINTS
    same_job = run_id() is not None and run_id() == _job_of(config.out)
    return (restarts > 0 or same_job) and any((folder / name).exists() for name in (NEW, LAST, PREVIOUS))


def _checkpoint(config: Config, name: str) -> Path:
    return config.out / CHECKPOINTS / name


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _job_of(out: Path) -> str | None:
    """The name of the job whose configuration lies in `out`, if it has one."""
    try:
        written = json.loads((out / CONFIG).read_text())
    except (OSError, ValueError):
        return None
    return written.get("torchrun") if isinstance(written, dict) else None


def claim(config: Config, world: World, found: Found | None) -> IO[str] | None:
    """The log of the run in `out`, on the main rank, locked: from here on no other run changes what lies there.

    `found`: what `find_checkpoint` gave. Raises on every rank what `open_log` and `room_in` raise, and ShardfeedError
    where the run that had the lock has saved or ended since.
    """
    log: IO[str] | None = None
    error: Exception | None = None
    if world.is_main:
        try:
            with room_in(config.out):
                log = open_log(config.out)
            refuse_results(config)
            newest = next(
                (path for name in (NEW, LAST, PREVIOUS) if (path := _checkpoint(config, name)).exists()), None
            )
            known = None if found is None else (found.path, found.stamp)
            given = isinstance(config.resume, Path) and known is not None and known[0] == config.resume
            if not given and (newest and (newest, _stamp(newest))) != known:
                raise ShardfeedError(f"the run in {config.out} has gone on meanwhile: give the same command again")
        except (ShardfeedError, OSError) as failure:
            error = failure
    error = from_main(error, world)
    if error is not None:
        raise error
    return log


def find_checkpoint(config: Config, world: World, own: Mapping[str, Any]) -> Found | None:
    """The checkpoint that `config.resume` asks for, the same on every rank; None where there is none to go on from.

    A damaged one is told, put aside, and the one before is taken. Only the main rank reads, so that other
    machines need not see its files.

    Raises UsageError for the checkpoint of another run, ShardfeedError if all are damaged.
    """
    found: Found | ShardfeedError | None = None
    if world.is_main:
        try:
            found = _find(config, world, own)
        except ShardfeedError as error:
            found = error
        except OSError as error:  # the others are waiting
            found = ShardfeedError(f"{config.out / CHECKPOINTS} cannot be read ({error})")
    found = from_main(found, world)
    if isinstance(found, ShardfeedError):
        raise found
    return found


def _find(config: Config, world: World, own: Mapping[str, Any]) -> Found | None:
    resume: str | Path = "auto" if _has_begun(config) else config.resume
    if resume == "never":
        return None
    folder = config.out / CHECKPOINTS
    given = isinstance(resume, Path)
    paths = [resume] if isinstance(resume, Path) else [folder / name for name in (NEW, LAST, PREVIOUS)]
    damaged = None
    for path in paths:
        if not path.exists():
            continue
        try:
            stamp = _stamp(path)
            state = read_checkpoint(path)
        except ShardfeedError as error:
            if given:
                raise
            damaged = error
            path.replace(path.with_name(path.name + DAMAGED))
            tqdm.write(f"{error}: it is now {path.name + DAMAGED}, and the checkpoint before is taken", file=sys.stderr)
            continue
        refuse_other(path, state, own, world)
        return Found(path, state, stamp)
    if damaged is not None:
        raise ShardfeedError(f"{folder} holds no whole checkpoint: choose another --out, or remove it to begin anew")
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises ShardfeedError if it is damaged or something else."""
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load does not compare the checksums that torch.save wrote
            broken = archive.testzip()
        state = None if broken else torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # in a damaged file any byte may be wrong: a dozen types of exception were seen
        raise ShardfeedError(f"{path} is damaged, or is no checkpoint") from error
    if broken:
        raise ShardfeedError(f"{path} is damaged (the checksum of {broken} is wrong)")
    if not isinstance(state, dict) or not {"format", "identity", "of_ranks", "files"} <= state.keys():
        raise ShardfeedError(f"{path} is no checkpoint of a run")
    return state
