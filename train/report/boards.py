"""Where a run's numbers go besides metrics.jsonl: TensorBoard if it is installed, and W&B with --wandb."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from shards.common.errors import MissingDependency, ShardfeedError

# Holds the id of the run at W&B, so that a resumed run goes on there too.
WANDB_RUN = "wandb-run.txt"


class Board(Protocol):
    """Shows the numbers of an event ("train" or "validation"); closed at the end, also when the run fails."""

    def write(self, event: str, epoch: int, step: int, values: Mapping[str, float]) -> None: ...

    def close(self, failed: bool) -> None: ...


def open_boards(out: Path, resolved: Mapping[str, Any], first_step: int | None, wandb: str | None) -> list[Board]:
    """The boards of a run whose files lie in `out`.

    first_step: of a resumed run, its first step; None for a new run. wandb: the project at W&B; None for no W&B.
    Raises MissingDependency if W&B is asked for and not installed, ShardfeedError if it does not start.
    """
    boards: list[Board] = []
    writer = _tensorboard(out, first_step)
    if writer is not None:
        boards.append(TensorBoard(writer))
    if wandb is not None:
        boards.append(WeightsAndBiases(_wandb(out, resolved, wandb, goes_on=first_step is not None)))
    return boards


class TensorBoard:
    """Writes to torch's SummaryWriter."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, event: str, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """A point on each value's curve."""
        for name, value in values.items():
            self._writer.add_scalar(f"{event}/{name}", value, step)

    def close(self, failed: bool) -> None:
        """Writes the points that are still in memory."""
        self._writer.close()


class WeightsAndBiases:
    """Writes to a run of W&B."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, event: str, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """A point on each value's curve. The step is a value too, as W&B's own step must not go back after resuming."""
        self._run.log({"step": step, "epoch": epoch, **{f"{event}/{name}": value for name, value in values.items()}})

    def close(self, failed: bool) -> None:
        """Sends the points that are still here, and how the run ended."""
        self._run.finish(exit_code=int(failed))


def _tensorboard(out: Path, first_step: int | None) -> Any:
    """A writer of TensorBoard's files, or None where that extra is not installed.

    Points from `first_step` on that an earlier writer left are hidden.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(out / "tensorboard"), purge_step=first_step)


def _wandb(out: Path, resolved: Mapping[str, Any], project: str, goes_on: bool) -> Any:
    """A run of W&B; for a resumed run the same one again."""
    try:
        import wandb
    except ImportError as error:
        raise MissingDependency("W&B is not installed, which --wandb needs: pip install wandb") from error
    name = out / WANDB_RUN
    known = name.read_text().strip() if goes_on and name.exists() else None
    config = json.loads(json.dumps(resolved, default=str))
    try:
        # "allow": goes on with that run, or makes it if it never reached W&B.
        run = wandb.init(project=project, dir=str(out), config=config, id=known, resume="allow" if known else None)
    except Exception as error:  # its network, login and settings raise many types
        raise ShardfeedError(
            f"W&B did not start ({type(error).__name__}: {error}): run `wandb login`, or set WANDB_MODE=offline"
        ) from error
    run.define_metric("*", step_metric="step")
    name.write_text(f"{run.id}\n")
    return run
