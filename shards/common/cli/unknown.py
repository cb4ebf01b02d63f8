"""Options that a command does not have, and which was meant: by the names of timm and torchvision, or the closest."""

import difflib
import re
from collections.abc import Sequence

from shards.common.cli.options import Option

# Options of timm's and torchvision's training scripts, and what they are called here: the first that the command has.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "aa": ("augment",),
    "arch": ("model",),
    "auto-augment": ("augment",),
    "b": ("batch-size",),
    "batch": ("batch-size",),
    "base-lr": ("max-lr",),
    "bs": ("batch-size",),
    "checkpoint-hist": ("keep-every",),
    "clip-grad": ("clip",),
    "clip-grad-norm": ("clip",),
    "crop-size": ("size",),
    "cutmix-alpha": ("cutmix",),
    "data-dir": ("data",),
    "data-path": ("data",),
    "dataset": ("data", "source"),
    "ema-decay": ("ema",),
    "gpus": ("device",),
    "grad-checkpointing": ("recompute",),
    "image-size": ("size", "short-side"),
    "img-size": ("size", "short-side"),
    "initial-checkpoint": ("resume",),
    "input-size": ("size",),
    "j": ("threads", "workers"),
    "jobs": ("threads", "workers"),
    "learning-rate": ("max-lr",),
    "log-interval": ("log-every",),
    "log-wandb": ("wandb",),
    "lr": ("max-lr",),
    "lr-scheduler": ("schedule",),
    "mixup-alpha": ("mixup",),
    "model-ema-decay": ("ema",),
    "model-ema-steps": ("ema-every",),
    "name": ("out", "output"),
    "num-workers": ("threads", "workers"),
    "opt": ("optimizer",),
    "out": ("output",),
    "out-dir": ("out", "output"),
    "output": ("out",),
    "output-dir": ("out", "output"),
    "padding": ("pad",),
    "print-freq": ("log-every",),
    "random-erase": ("erase",),
    "reprob": ("erase",),
    "sched": ("schedule",),
    "size": ("short-side",),
    "smoothing": ("label-smoothing",),
    "sync-every": ("period",),
    "torchcompile": ("compile",),
    "train-crop-size": ("size",),
    "train-interpolation": ("interpolation",),
    "tta": ("flip-tta",),
    "val-crop-size": ("val-size",),
    "val-resize-size": ("val-resize",),
    "wd": ("weight-decay",),
    "workers": ("threads",),
    "threads": ("workers",),
}

# What is asked for in another way than by the value of one option. Only given by a command with all options named.
EXPLAINED = {
    "amp": "mixed precision is the default on a GPU, and --precision names the type",
    "amp-dtype": "--precision float16 or bfloat16",
    "crop-pct": "--val-resize is the shorter side before the centre crop: --val-size divided by the crop-pct",
    "grad-accum-steps": "--micro-batch is what a rank computes at a time; gradients accumulate up to --batch-size",
    "hflip": "--crop random and rrc flip half of the images",
    "lr-min": "--final-div-factor: the learning rate ends at --max-lr / --div-factor / --final-div-factor",
    "lr-warmup-epochs": "--pct-start is the fraction of all steps in which the learning rate rises",
    "min-lr": "--final-div-factor: the learning rate ends at --max-lr / --div-factor / --final-div-factor",
    "model-ema": "--ema DECAY, 0.9999 for example",
    "norm-weight-decay": "--decay kernels leaves norms and biases without weight decay",
    "start-epoch": "--resume goes on where the checkpoint was saved",
    "test-only": "--evaluate FILE.pth",
    "use-deterministic-algorithms": "--seed fixes order, crops and flips, and a CPU gives the same bits for it",
    "warmup-epochs": "--pct-start is the fraction of all steps in which the learning rate rises",
    "weights": "--evaluate FILE.pth",
    "world-size": "start it under torchrun, which says how many ranks there are",
}

# How like a known name an unknown one must be to be taken for a slip.
ALIKE = 0.8


def unknown_options(words: Sequence[str], options: Sequence[Option], allowed: Sequence[str]) -> list[str]:
    """A sentence for each word that looks like an option and is none of `options`, nor `allowed`."""
    known = {spelling for option in options if not option.positional for spelling in option.spellings}
    sentences: list[str] = []
    for word in words:
        given = word.partition("=")[0]
        if re.match(r"--?[A-Za-z]", given) and given.replace("_", "-") not in known | set(allowed):
            sentences.append(f"{'There' if sentences else 'there'} is no option {given}{_hint(given, known, options)}")
    return sentences


def stray_word(words: Sequence[str], options: Sequence[Option]) -> str | None:
    """A sentence for a first word that belongs to no option, of a command that takes none by position; or None."""
    if not words or words[0].startswith("-") or any(option.positional for option in options):
        return None
    given = {word.partition("=")[0] for word in words}
    needed = next((option.names[0] for option in options if option.required and not given & set(option.names)), None)
    meant = f": did you mean {needed} {words[0]}?" if needed else "."
    return f"{words[0]} stands behind no option{meant}"


def _hint(given: str, known: set[str], options: Sequence[Option]) -> str:
    name = given.lstrip("-").replace("_", "-").lower()
    if name in EXPLAINED and set(re.findall(r"--[a-z][a-z-]*", EXPLAINED[name])) <= known:
        return f": {EXPLAINED[name]}."
    for option in options:
        if option.positional and name in (option.names[0].lower(), *_CALLED.get(option.names[0], ())):
            return f": give {option.names[0]} by itself, without an option's name."
    meant = next((f"--{each}" for each in SYNONYMS.get(name, ()) if f"--{each}" in known), None)
    if meant is None:
        close = difflib.get_close_matches(f"--{name}", sorted(known), n=1, cutoff=ALIKE)
        meant = close[0] if close else None
    return f": did you mean {meant}?" if meant else "."


# Options of other commands that are given by position here.
_CALLED = {
    "DIR": ("data", "data-path", "data-dir"),
    "OUT": ("output", "output-dir", "dst"),
    "SOURCE": ("data", "dataset", "src"),
}
