"""python -m benchmarks gpu [--data DIR] [--source SOURCE]: all that waits for a GPU, unattended, in about ten minutes.

    tests     those marked `gpu`
    loaders   this loader on the GPU: a CPU decodes, the GPU's cores decode the region, its JPEG engines decode, the
              engines at several `hw_decoder_load`, batches that are lent in place of copied; beside the naive path,
              plain DALI with and without the GPU, and this loader on the CPU
    views     DINO's ten views of each image, with and without the GPU
    stages    the stages of one run, the copy to the GPU included, against the limits of the machine
    train     steps of the recipes `cnn` and `rn18_16` on real, cached and synthetic batches

Each step is a command that could be typed; it is printed, and its output goes to a file. A step that fails or runs out
of its time does not stop the next ones: the end names the steps that failed, and the exit status is 1. Results (JSON),
outputs and a page with all results go to a directory named after the date, in --out.

Without --data the images of SOURCE are converted first; without --source images are made up, whose figures are those of
small, simple images. --rehearsal runs the same steps with tiny settings, also without a GPU; its figures mean nothing.
"""

import contextlib
import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.commands import report
from benchmarks.peers.roster import ROSTER
from benchmarks.processes.command import run_command
from benchmarks.processes.process import ROOT
from shards.common.atomic import refuse_unwritable
from shards.common.cli import show_result
from shards.common.errors import ShardfeedError, UsageError
from shards.dataset import choose_split
from shards.format.layout import MANIFEST

# Seconds that an interrupted step has to end before it is killed.
GRACE = 15.0
# Minutes from which there is time for two intervals of each contender after the warm-up round: an estimate, of ten
# seconds to start each loader and three for each turn.
TWO_ROUNDS = 10.0


@dataclass(frozen=True)
class Options:
    """Runs what needs a GPU, unattended: its tests, and the loader, stages and training, measured."""

    data: Path | None = None
    """Shards, as written by `python -m preprocess`; made of SOURCE if not given."""
    source: str | None = None
    """The data set that the shards were made from, which the naive path reads; made-up images without either option."""
    minutes: float = 10.0
    """Time for everything but converting SOURCE; a step that takes longer than its share is stopped."""
    rehearsal: bool = False
    """The same steps with tiny settings, also without a GPU, to see that they run; their figures mean nothing."""
    out: Path = Path("Results/benchmarks")
    """Directory for made-up images and their shards, and for a directory with the results of this run."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < float("inf"):
            raise UsageError(f"--minutes must be above 0, not {self.minutes:g}")


@dataclass(frozen=True)
class Step:
    """A command of this project. share: its share of --minutes, beside what earlier steps left over."""

    name: str
    words: tuple[str, ...]
    share: float


def run(options: Options) -> None:
    """Runs all steps. Raises UsageError without a GPU, ShardfeedError, after the last step, if any of them failed."""
    import torch

    if not torch.cuda.is_available() and not options.rehearsal:
        raise UsageError("torch sees no GPU here; --rehearsal runs the same steps in little without one")
    refuse_unwritable("--out", options.out, directory=True)
    data, source = options.data, options.source
    if data is None:
        data, source = make_data(options)
    choose_split(data, ["train"])
    results = options.out / f"gpu-{datetime.now(UTC):%Y-%m-%dT%H%M%S}"
    results.mkdir(parents=True)
    plan = steps(data, source, results, options.rehearsal, rounds=1 if options.minutes < TWO_ROUNDS else 2)
    failed = perform(plan, results, 60 * options.minutes)
    found = sorted(results.glob("*.json"))
    if found:
        report.run(report.Options(tuple(found), results / "report.html"))
    show_result({"benchmark": "gpu", "results": found, "failed": failed})
    if failed:
        raise ShardfeedError(f"{', '.join(failed)} failed; the other results and all output lie in {results}")


def make_data(options: Options) -> tuple[Path, str]:
    """Makes shards of SOURCE, or of made-up images, unless they exist; returns their directory, and the source."""
    made, source = options.out / ("gpu-rehearsal" if options.rehearsal else "gpu-data"), options.source
    if source is not None:
        made = made / hashlib.sha256(source.encode()).hexdigest()[:12]
    shards, images = made / "shards", made / "images"
    if not (shards / MANIFEST).exists():
        if source is None:
            count = "128" if options.rehearsal else "4096"
            run_command("preprocess.synthetic", str(images), "--train", count, "--validation", "8")
        run_command("preprocess", source or str(images), str(shards), "--splits", "train")
    return shards, source or str(images)


def steps(data: Path, source: str | None, results: Path, little: bool, rounds: int = 2) -> tuple[Step, ...]:
    """The steps, in their order; `little`: with tiny settings. rounds: measuring intervals of each contender."""
    out = ["--out", str(results)]
    on_gpu = [name for name, entry in ROSTER.items() if entry.options.get("device") == "gpu"]
    of = ["--data", str(data), *(["--source", source] if source else [])]
    fast = ["--rounds", "1", "--seconds", "0.2"] if little else ["--rounds", str(rounds), "--seconds", "1.5"]
    pictures = ["--size", "32", "--batch-size", "16"] if little else []
    few = ["--batch-size", "16"] if little else []
    train = ["--size", "32", "--batch-size", "16", "--micro-batch", "8", "--steps", "1"] if little else []
    of_recipes = ["benchmarks", "train", "--data", str(data), *fast, *train, *out, "--recipe"]
    return (
        Step("tests", ("pytest", "-m", "gpu", "-rs", "-q", str(ROOT / "tests" / "gpu")), 0.15),
        Step("loaders", ("benchmarks", "loaders", *of, "--peers", *on_gpu, *fast, *pictures, *out), 0.35),
        Step("views", ("benchmarks", "loaders", "--data", str(data), "--views", "dino", *fast, *few, *out), 0.1),
        Step("stages", ("benchmarks", "stages", "--data", str(data), *fast, *pictures, *out), 0.15),
        *(Step(f"train {recipe}", (*of_recipes, recipe), 0.1) for recipe in ("cnn", "rn18_16")),
    )


def perform(plan: Sequence[Step], results: Path, seconds: float) -> list[str]:
    """Runs the steps; returns the names of those that failed. A step may use the time that earlier steps left over."""
    spare, failed = 0.0, []
    for step in plan:
        log, start = results / f"{step.name.replace(' ', '-')}.log", time.monotonic()
        limit = max(0.0, step.share * seconds + spare)
        print(f"\n$ python -m {shlex.join(step.words)}\n  output in {log}", flush=True)
        problem = _run(step.words, log, limit)
        took = time.monotonic() - start
        spare = limit - took
        print(f"FAILED {step.name}: {problem}" if problem else f"  {took:.0f} s", flush=True)
        failed += [step.name] if problem else []
    return failed


def _run(words: Sequence[str], log: Path, seconds: float) -> str | None:
    """Runs one command with its output in a file, for `seconds` at most; returns what went wrong, in one line."""
    with log.open("w") as file:
        # In a session of its own, so that processes that it leaves behind are killed with it.
        process = subprocess.Popen(
            [sys.executable, "-m", *words], stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {seconds:.0f} s, its share of the time"
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)  # so that it can clean up
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    # pytest exits with 5 where it found no test, which is no success either.
    return None if status == 0 else f"exit status {status}: {lines[-1] if lines else 'no output'}"
