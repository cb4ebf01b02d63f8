"""What lies in --out already: nothing, a run to go on with, this run complete, or results that stay. Without torch."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.options import require_weights
from shards.common.errors import UsageError
from shards.sampling.crops import RRC_RATIO, RRC_SCALE
from train.config import Config
from train.data import training_split
from train.options import Pixels
from train.report.metrics import CONFIG, TOTAL_TIME
from train.report.result import WEIGHTS, Result, read_result

CHECKPOINTS = "checkpoints"
LAST, PREVIOUS = "last.pt", "previous.pt"
# Exists only between two renames; then it is the newest.
NEW = "new.pt"

# Options that change nothing in the arithmetic of a step but rounding. Of `precision` the resolved type counts, of
# `subset` and `class_map` what they choose. Another micro-batch gives batch norm other batches, as another number of
# ranks does.
FREE = {
    "data", "recipe", "out", "device", "precision", "threads", "on_error", "log_every", "check", "evaluate", "eval_set",
    "find_lr", "resume", "checkpoint_minutes", "keep_every", "micro_batch", "compile", "recompute", "offload",
    "bad_losses", "subset", "class_map", "val_size", "val_resize", "flip_tta", "val_split", "wandb", "decode",
    "cache_dir", "cache_size", "real_labels",
}  # fmt: skip
# Those of them on which the result of a complete run depends.
RESULTING = {"subset", "class_map", "precision", "val_size", "val_resize", "flip_tta", "val_split"}

# Options that files of before them do not name, with the values that they stood for.
SINCE = {
    "flip": True, "pad": 0, "num_repeats": 1, "loss": "ce", "ema_warm_up": False, "drop_path": None,
    "pretrained": False, "init": None, "freeze": False, "backbone_lr_scale": 1.0, "scale": RRC_SCALE,
    "ratio": RRC_RATIO, **dataclasses.asdict(Pixels().resolved()),
}  # fmt: skip
# Options that follow from the weights that training begins with, unless they are given; those are read later.
FOLLOWING = {"interpolation", "val_resize"}


def result_of(config: Config) -> Result | None:
    """The result of this very run, if it lies in `config.out` complete; None where the run may begin or go on.

    Raises UsageError if `out` holds results that this run may not overwrite, or `resume` is no file.
    """
    out, resume = config.out, resume_of(config)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file, not a directory")
    if isinstance(resume, Path):
        require_weights(resume, what="--resume a checkpoint, auto or never")
    saved = saved_in(out)
    if saved and (out / TOTAL_TIME).exists() and resume != "never":
        _refuse_other_options(config)
        return read_result(out)
    inside = isinstance(resume, Path) and resume.resolve().parent == (out / CHECKPOINTS).resolve()
    if inside or (saved and resume == "auto"):
        return None
    for path in [out / WEIGHTS, *saved]:
        if path.exists():
            raise UsageError(f"{path} exists already: choose another --out, or remove it to train again")
    return None


def resume_of(config: Config) -> str | Path:
    """`config.resume`, which is for the beginning of a run: after a restart by torchrun it is "auto".

    torchrun counts restarts after a failure. It does not count them when nodes come or go, but its job keeps its name.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    same_job = run_id() is not None and run_id() == _written(config.out).get("torchrun")
    return "auto" if (restarts > 0 or same_job) and saved_in(config.out) else config.resume


def saved_in(out: Path) -> list[Path]:
    """The checkpoints that a run goes on from by itself, the newest first."""
    return [path for name in (NEW, LAST, PREVIOUS) if (path := out / CHECKPOINTS / name).exists()]


def run_id() -> str | None:
    """The name of torchrun's job (`--rdzv-id`), which stays the same when it restarts ranks; None without a name."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    return None if name == "none" else name


def flat(config: Config | Mapping[str, Any]) -> dict[str, Any]:
    """The options by name, without the groups in which a Config or its JSON has them."""
    options: dict[str, Any] = {}
    for name, value in (dataclasses.asdict(config) if isinstance(config, Config) else config).items():
        options |= value if isinstance(value, dict) else {name: value}
    if options.get("init"):
        options["init"] = Path(options["init"]).name  # the file may move
    return options


def _refuse_other_options(config: Config) -> None:
    """Raises UsageError where the complete run in `out` is of other data or options, or lacks its weights."""
    out, written = config.out, _written(config.out)
    why = ""
    if not written:
        why = f" whose {CONFIG} cannot be read"
    elif not (out / WEIGHTS).exists():
        why = f" without its {WEIGHTS}"
    elif differing := _differing(config, written):
        why = f" of other options ({'; '.join(differing[:3])})"
    if why:
        raise UsageError(f"{out} holds a complete run{why}: choose another --out, or remove it to train again")


def _differing(config: Config, written: Mapping[str, Any]) -> list[str]:
    """In words, what the result depends on and is not as `written` says."""
    theirs = json.loads(json.dumps({**SINCE, **flat(written)}))
    following = {"mean", "std"}  # no options
    if config.start.pretrained or config.start.init:
        following |= {name for name in FOLLOWING if flat(config)[name] in (None, "auto")}
    config = dataclasses.replace(config, pixels=config.pixels.resolved())
    ours = json.loads(json.dumps(flat(config), default=str))
    ours = {
        name: value for name, value in ours.items() if (name not in FREE or name in RESULTING) and name not in following
    }
    ours["fingerprint"] = training_split(config).manifest.fingerprint
    return [
        f"{name} is {theirs.get(name)} there and {value} here"
        for name, value in ours.items()
        if theirs.get(name) != value
    ]


def _written(out: Path) -> dict[str, Any]:
    """The configuration that a run has written to `out`; empty where there is none that can be read."""
    try:
        written = json.loads((out / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return written if isinstance(written, dict) else {}
