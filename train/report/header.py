"""The lines with which a run begins: what it trains, on what, and where the results go."""

from torch import nn
from tqdm import tqdm

from shards.common.terminal import counted, wrapped
from shards.dataset import Split
from shards.dataset.sizes import squares_of
from train.config import Config
from train.report.environment import device_name
from train.run import Run, Setup


def print_header(split: Split, held_out: Split | None, run: Run, samples: int, micro_batches: int) -> None:
    """Prints data, model, device, precision, batch and learning rate, on the main rank.

    samples: of an epoch, over all ranks; micro_batches: of an epoch, on each rank. The line before these comes from
    train/__main__.py, at once.
    """
    if not run.setup.world.is_main:
        return
    for line in (
        data_line(split, held_out, run, samples, micro_batches),
        model_line(run),
        *hints(split, run.setup.config),
    ):
        tqdm.write(wrapped(line))


def data_line(split: Split, held_out: Split | None, run: Run, samples: int, micro_batches: int) -> str:
    """The sizes of both splits, and how many images an epoch leaves out."""
    batch, config = run.setup.batch, run.setup.config
    if config.update.drop_last:
        micro_batches = batch.steps(micro_batches, drop_last=True) * batch.accumulate
    left_out = samples - micro_batches * batch.micro_batch * run.setup.world.size
    without = (
        f"; an epoch leaves out {counted(left_out, 'image')} for want of a full "
        f"{'step' if config.update.drop_last else 'micro-batch'}, others each time"
    )
    return f"data: {split_words(split, held_out)}{without if left_out else ''}"


def split_words(split: Split, held_out: Split | None) -> str:
    """The sizes of both splits: "270 images in train and 30 held out of it (10%), 10 classes"."""
    where, beside = split.title, ", no validation"
    if held_out is not None:
        beside = f", {len(held_out):,} in {held_out.title}"
        if split.view is not None and held_out.view is not None and held_out.view.held_out:
            where, share = split.view.divided, len(held_out) / (len(held_out) + len(split))
            beside = f" and {len(held_out):,} held out of it ({100 * share:.2g}%)"
    return f"{counted(len(split), 'image')} in {where}{beside}, {counted(len(split.class_names), 'class', 'classes')}"


def model_line(run: Run) -> str:
    """Parameters, device, precision, steps, batch and learning rate."""
    config = run.setup.config
    return (
        f"{network_line(run)}; {counted(config.epochs, 'epoch')}, {counted(run.total_steps, 'step')} of "
        f"{step_words(run.setup)}, learning rate up to {config.max_lr:g}"
    )


def network_line(run: Run) -> str:
    """Parameters, device and precision: the beginning of `model_line`."""
    setup, config = run.setup, run.setup.config
    ranks = f"{setup.world.size} x " if setup.world.size > 1 else ""
    trained = sum(each.numel() for each in run.learner.network.parameters() if each.requires_grad)
    frozen = f" ({trained:,} trained)" if config.start.freeze else ""
    precision = "tf32" if config.precision == "tf32" else str(setup.dtype).removeprefix("torch.")
    return (
        f"model: {config.model} of {parameters(run.learner.network):,} parameters{frozen} on {ranks}"
        f"{device_name(setup.world)} in {precision}"
    )


def step_words(setup: Setup) -> str:
    """The images of a step, and how they are split: "64 images (2 x 16 on each of 2 ranks)"."""
    batch, ranks = setup.batch, setup.world.size
    parts = [f"{batch.accumulate} x {batch.micro_batch}"] if batch.accumulate > 1 or ranks > 1 else []
    parts += [f"on each of {ranks} ranks"] if ranks > 1 else []
    return counted(setup.config.batch, "image") + (f" ({' '.join(parts)})" if parts else "")


def parameters(network: nn.Module) -> int:
    """The number of weights; of the whole network, also where FSDP has divided it over the ranks."""
    return sum(each.numel() for each in network.parameters())


def hints(split: Split, config: Config) -> list[str]:
    """What the options do not do here, and what would help."""
    lines, size = [], config.size
    if len(split.class_names) == 1:
        lines.append(f"there is only the class {split.class_names[0]}, so nothing is learned: every answer is right")
    if config.crop != "random" or config.feeding.pad or not squares_of(split, size):
        return lines
    lines.append(
        f"--crop random cuts nothing off: every image is stored at {size} x {size} pixels, which is --size. "
        f"--pad {size // 8} puts a black border around it to cut from; --crop rrc cuts too, and so does a smaller "
        f"--size: --val-size {size} then leaves the evaluation as it is"
    )
    return lines
