"""python -m benchmarks loaders --data DIR --source SOURCE    this project's loader against the naive PIL path
python -m benchmarks peers --source SOURCE                 every loader that can be measured here, in one table
python -m benchmarks peers-install                         environments for the other systems' loaders
python -m benchmarks preprocess --source SOURCE            converting images to shards, against a PIL worker
python -m benchmarks shuffle                               how well each order mixes neighbours on disk
python -m benchmarks train --data DIR --recipe R           does training wait for its data?
python -m benchmarks accuracy --data DIR --source SOURCE   does this loader train as well as the usual one?
python -m benchmarks stages --data DIR                     the loader stage by stage, against the machine's limits
python -m benchmarks scale --data DIR                      start-up, memory and speed over rows, epochs and threads
python -m benchmarks verdict --data DIR --recipe R         what holds a run back, and what to change
python -m benchmarks report RESULTS... --output FILE       results as one page with tables and charts
python -m benchmarks readme RESULTS...                     results of loaders as the README's table and picture
python -m benchmarks gpu                                    all that waits for a GPU, unattended, in ten minutes
python -m benchmarks demo                                  the whole project once, on synthetic images
"""

import sys

try:
    from benchmarks.commands import accuracy, demo, gpu, loaders, preprocess, readme, scale, shuffle, stages, verdict
    from benchmarks.commands import peers as rows
    from benchmarks.commands import train as train_step
    from benchmarks.processes import install
    from benchmarks.report import page
    from shards.common.cli import Command, run_commands
except KeyboardInterrupt:  # the libraries take seconds to load
    print("python -m benchmarks: interrupted", file=sys.stderr)
    raise SystemExit(130) from None

COMMANDS = {
    "accuracy": Command(accuracy.Options, accuracy.run, "training with this loader and with the usual one, in top-1"),
    "demo": Command(demo.Options, demo.run, "the whole project once, on a small synthetic data set"),
    "gpu": Command(gpu.Options, gpu.run, "all that waits for a GPU, unattended: tests, loaders, stages, training"),
    "loaders": Command(loaders.Options, loaders.run, "the loader against the naive PIL path, in images/s"),
    "peers": Command(rows.Options, rows.run, "every loader that can be measured here, over every row of one table"),
    "peers-install": Command(install.Options, install.run, "environments for the other systems' loaders"),
    "preprocess": Command(preprocess.Options, preprocess.run, "converting images to shards, in images/s and core"),
    "readme": Command(readme.Options, readme.run, "results of loaders as the README's table and picture"),
    "report": Command(page.Options, page.run, "results as one page with tables and charts"),
    "scale": Command(scale.Options, scale.run, "start-up, memory and speed over rows, epochs and threads"),
    "shuffle": Command(shuffle.Options, lambda options: print(shuffle.run(options)), "how well each order mixes"),
    "stages": Command(stages.Options, stages.run, "the loader stage by stage, against the machine's limits"),
    "train": Command(train_step.Options, train_step.run, "training on real, cached and synthetic batches"),
    "verdict": Command(verdict.Options, verdict.run, "what holds a training run back, and what to change"),
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_commands("python -m benchmarks", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
