"""Whether a run could write into --out: permission, locks, room for its checkpoints, and what lies there already."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from shards.common.errors import ShardfeedError
from shards.common.locks import open_locked
from shards.common.space import check_room, size
from train.checkpoints.earlier import CHECKPOINTS, result_of
from train.checkpoints.resume import would_resume
from train.config import Config
from train.curves import METRICS
from train.report.metrics import open_log
from train.report.result import complete_line

# Checkpoints that lie there at once while one is written: the new one, the last, the one before, and the best.
AT_ONCE = 4


def check_out(config: Config, network: nn.Module, own: Mapping[str, Any], ranks: int) -> str:
    """Tries what a run does with `config.out`, and says what it found; nothing stays there.

    own: the run's identity. Raises UsageError for results that the run may not overwrite or go on from, ShardfeedError
    where another run writes there, or where it has no permission, no locks or no room.
    """
    out = config.out
    if (result := result_of(config)) is not None:
        return complete_line(out, result)
    if (out / METRICS).exists():
        open_log(out).close()
    resumed = would_resume(config, own, ranks)
    try:
        with _directory(out):
            for directory in filter(Path.is_dir, (out, out / CHECKPOINTS)):
                with tempfile.NamedTemporaryFile(dir=directory, prefix="check-") as file:
                    open_locked(Path(file.name)).close()
    except OSError as error:
        raise ShardfeedError(f"{out} cannot be written ({error.strerror or error}): choose another --out") from error
    needed = bytes_needed(config, network, ranks)
    there = sum(path.stat().st_size for path in ((out / CHECKPOINTS).glob("*.pt") if out.is_dir() else ()))
    check_room("the run", {out: max(needed // AT_ONCE, needed - there)}, "choose another --out")
    goes_on = f"; the run goes on from {resumed}" if resumed else ""
    return f"{out} can be written, and has room for checkpoints of about {size(needed)} in all{goes_on}"


def bytes_needed(config: Config, network: nn.Module, ranks: int) -> int:
    """Bytes of all checkpoints and of the weights that lie in --out at once."""
    weights: int = sum(each.numel() * each.element_size() for each in network.state_dict().values())
    moments = 2 if config.update.optimizer == "adamw" else int(config.update.momentum > 0)
    one = weights * (1 + moments + (config.update.ema > 0))
    if ranks > 1 and config.distributed.parallel == "local-sgd":
        one *= 1 + ranks  # each rank has weights and an optimizer of its own
    kept = AT_ONCE + (config.epochs // config.keep_every if config.keep_every else 0)
    return one * kept + 2 * weights


@contextlib.contextmanager
def _directory(out: Path) -> Iterator[None]:
    """Makes `out`; afterwards those directories are removed again that were not there."""
    missing = [directory for directory in (out, *out.parents) if not directory.exists()]
    try:
        out.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for directory in missing:
            with contextlib.suppress(OSError):
                directory.rmdir()
