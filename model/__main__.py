"""python -m model predict MODEL.pth IMAGE...       the five best classes of each image
python -m model export MODEL.pth --output FILE   the network for other programs: torch.export and ONNX
"""

import sys
from collections.abc import Sequence

import shards

if "open_dataset" not in getattr(shards, "__all__", ()):
    print(f"{shards.__file__} hides this project's shards: start `shardfeed model` instead", file=sys.stderr)
    sys.exit(2)

from shards.common.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals("python -m model")  # while the modules below load

from model.options import Export, Predict, require_files, require_weights
from shards.common.atomic import refuse_unwritable
from shards.common.cli import Command, loading, run_commands


def _export(options: Export) -> None:
    require_weights(options.model)
    refuse_unwritable("--output", options.output)
    with loading("torch", "torch"):
        from model import export

    export.run(options)


def _predict(options: Predict) -> None:
    require_weights(options.model)
    require_files("the paths of images", *options.images)
    with loading("torch", "torch"):
        from model import predict

    predict.run(options)


COMMANDS = {
    "export": Command(Export, _export, "a torch.export program and ONNX, compared with the model"),
    "predict": Command(Predict, _predict, "the five best classes of images"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_commands("python -m model", COMMANDS, argv)


if __name__ == "__main__":
    sys.exit(main())
