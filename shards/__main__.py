"""python -m shards info DIR      what is in a data set
python -m shards verify DIR     whether everything in a data set is as it was written
python -m shards preview DIR    a picture of one batch as the loader feeds it
python -m shards index SOURCE   an index of tars that others wrote, so that they are read in place
"""

import sys

from shards.common.signals import end_on_signals

if __name__ == "__main__":
    end_on_signals("python -m shards")  # while the modules below load

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

import shards
from shards.common.cli import Command, LazyCommand, loading, run_commands, show_result
from shards.common.errors import ShardfeedError, UsageError
from shards.common.machine import check_workers
from shards.common.terminal import counted, some
from shards.dataset import Split, open_dataset
from shards.dataset.sizes import fitting_size, shorter_side
from shards.format.mend import directory_sizes, files_in_words, wrong_files
from shards.preview import check_output, preview
from shards.remote.urls import is_url
from shards.sampling.colour import Augment
from shards.sampling.crops import Crop

Place = Annotated[tyro.conf.Positional[str | Path], tyro.conf.arg(metavar="DIR")]


@dataclass(frozen=True)
class Info:
    """Prints what is in a data set: where it came from, its settings, its splits."""

    data: Place
    """The directory that `python -m preprocess` wrote, or its URL; or what `python -m shards index` has indexed."""


@dataclass(frozen=True)
class Verify:
    """Checks every shard and sample of a data set against its manifest and indices.

    Names what is damaged, missing or unexpected. Exit status: 0 whole, 1 damaged or with other files, 2 no data set.
    """

    data: Place
    """The directory that `python -m preprocess` wrote, on this machine: every byte is read."""
    decode: bool = False
    """Decode every image too, which takes about ten times as long."""
    workers: Annotated[int | None, tyro.conf.arg(name="threads", aliases=("--workers",))] = None
    """Threads that check; by default one a core."""

    def __post_init__(self) -> None:
        if self.workers is not None:
            check_workers("--threads", self.workers)


@dataclass(frozen=True)
class Preview:
    """Draws a labelled grid of one batch as the loader feeds it, augmentation included."""

    data: Place
    """The directory that `python -m preprocess` wrote, or its URL."""
    output: Path = Path("preview.png")
    """The picture to write, a PNG."""
    split: str = "train"
    """The split to draw; any but train is drawn as in validation: in order, the centre crop, no flip."""
    count: int = 32
    """Images to draw."""
    size: int | None = None
    """Side of the crop, in pixels; by default 224, or less where smaller images are stored."""
    resize: int | None = None
    """Shorter side before the crop; by default in proportion 256 to 224 to --size, at most what is stored."""
    crop: Crop | None = None
    """How images are cropped: random: Resize and RandomCrop, the default of the split train; rrc: RandomResizedCrop;
    center: the default of other splits."""
    pad: int = 0
    """With --crop random: black pixels around the images before they are cropped."""
    flip: bool = True
    """Mirrors half of the images of the split train, as training does."""
    augment: Literal["none"] | Augment = "none"
    """Augmentation after the crop: TrivialAugment, RandAugment, AutoAugment or 3-Augment."""
    seed: int = 0
    """Seed of order, crops and flips."""
    epoch: int = 0
    """Epoch to draw the beginning of."""

    def __post_init__(self) -> None:
        for name, least in {"count": 1, "pad": 0, "epoch": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"--{name} must be {least} or more, not {getattr(self, name)}")


def info(options: Info) -> None:
    """Prints a data set's manifest and figures from its index for people.

    Raises ShardfeedError, at the end, for files that are missing or of another length than the manifest says.
    """
    splits = open_dataset(options.data)
    manifest = next(iter(splits.values())).manifest
    settings = manifest.settings
    stored = "original sizes" if settings.short_side is None else f"shorter side {settings.short_side}"
    print(f"source       {manifest.source}")
    how = f"JPEG, quality {settings.quality} where encoded anew" if settings.encoding == "jpeg" else "raw pixels"
    if manifest.indexed:
        print("stored       tars of others, read where they lie, original sizes")
    else:
        print(f"stored       {how}, {stored}")
        print(f"order        seed {settings.seed}, up to {counted(settings.shard_size, 'sample')} a shard")
    print(f"classes      {len(manifest.class_names):,}: {some(manifest.class_names)}")
    print(f"made by      shardfeed {manifest.program_version}, format version {manifest.format_version}")
    print(f"fingerprint  {manifest.fingerprint}")
    for name, split in splits.items():
        print(f"\n{name}")
        shards = counted(len(split.info.shards), "shard")
        print(f"  samples    {len(split):,} in {shards}, {split.info.bytes / 1e6:,.1f} MB")
        if len(split):
            index = split.index
            print(f"  images     {index.size.mean() / 1e3:.1f} KB in the mean, {index.size.max() / 1e3:.1f} KB at most")
            print(f"  pixels     {index.width.mean():.0f} x {index.height.mean():.0f} in the mean")
        print(f"  rejects    {split.info.rejects:,}")
        kinds = sorted(split.info.kinds.items(), key=lambda kind: -kind[1])
        print(f"  kinds      {', '.join(f'{kind} {count:,}' for kind, count in kinds)}")
    bad = _wrong(list(splits.values()))
    show_result(
        {
            "source": manifest.source,
            "fingerprint": manifest.fingerprint,
            "classes": len(manifest.class_names),
            "splits": {
                name: {"samples": len(split), "shards": len(split.info.shards), "bytes": split.info.bytes}
                for name, split in splits.items()
            },
            "damaged": bad,
        }
    )
    if bad:
        raise ShardfeedError(
            f"missing, or not as long as the manifest says: {files_in_words(bad)}; "
            f"`python -m shards verify {options.data}` says more, and {next(iter(splits.values())).how_to_mend()}"
        )


def _wrong(splits: Sequence[Split]) -> list[str]:
    """Files on this machine that are missing or not as long as the manifest says."""
    first = splits[0]
    if first.origin is not None:
        return []
    if not first.manifest.indexed:
        sizes = partial(directory_sizes, first.root)
        return [f"{first.root}/{name}" for name in wrong_files(first.manifest, sizes)]
    tars = [pair for split in splits for pair in zip(split.shard_paths, split.info.shards, strict=True)]
    return [str(path) for path, tar in tars if not path.is_file() or path.stat().st_size != tar.bytes]


def check(options: Verify) -> None:
    """Prints a line for each problem. Raises ShardfeedError where there is one."""
    from shards.format.verify import verify

    if is_url(options.data):
        raise UsageError(f"verify reads every byte of a data set: copy {options.data} to this machine first")
    splits = open_dataset(options.data)
    split = next(iter(splits.values()))
    if split.origin is not None:
        raise UsageError(
            f"verify reads every byte of a data set: copy the tars of {options.data} to this machine first"
        )
    found = verify(split.root, options.decode, options.workers)
    for problem in found.problems:
        print(problem)
    damaged = list(dict.fromkeys(each.file for each in found.problems if not each.foreign))
    foreign = [each.file for each in found.problems if each.foreign]
    checked = {"whole": not damaged, "samples": found.samples, "shards": found.shards, "bytes": found.bytes}
    if found.problems:
        show_result({**checked, "problems": found.problems})
        others = f"holds {files_in_words(foreign)} that {'do' if len(foreign) > 1 else 'does'} not belong to it: remove"
        others += " them" if len(foreign) > 1 else " it"
        if not damaged:
            raise ShardfeedError(f"{options.data} is whole, but {others}")
        raise ShardfeedError(
            f"{options.data} is damaged: {files_in_words(damaged)}; {split.how_to_mend()}"
            f"{f'. It also {others}' if foreign else ''}"
        )
    decoded = ", every image decoded" if options.decode else ""
    print(
        f"{options.data} is whole: {counted(found.samples, 'sample')} in {counted(found.shards, 'shard')}, "
        f"{found.bytes / 1e6:,.1f} MB{decoded}"
    )
    show_result(checked)


def draw(options: Preview) -> None:
    """Writes the picture and says where it is."""
    check_output(options.output)
    splits = open_dataset(options.data)
    if options.split not in splits:
        raise UsageError(f"{options.data} has no split {options.split!r}: it has {', '.join(splits)}")
    split, train = splits[options.split], options.split == "train"
    crop = options.crop or ("random" if train else "center")
    if options.pad and crop != "random":
        raise UsageError(f"--pad is for --crop random, not {crop}")
    with loading("torch and DALI", "shards.loader"):
        _ = shards.Loader
    size = fitting_size(split) if options.size is None else options.size
    shorter_side(split, size, options.resize, crop, pad="python -m shards preview --pad", larger="--resize")
    drawn = preview(
        split,
        options.output,
        train=train,
        flip=train and options.flip,
        count=options.count,
        size=size,
        resize=options.resize,
        crop=crop,
        padding=options.pad,
        augment=options.augment,
        seed=options.seed,
        epoch=options.epoch,
    )
    all_there = "" if drawn == options.count else f", which has no more (--count {options.count:,})"
    print(
        f"wrote {options.output}: {counted(drawn, 'image')} of the split {options.split}{all_there}, "
        f"cropped to {size} x {size} pixels"
    )
    show_result({"picture": options.output, "images": drawn})


COMMANDS: dict[str, Command | LazyCommand] = {
    "info": Command(Info, info, "what is in a data set"),
    "verify": Command(Verify, check, "whether everything in a data set is as it was written"),
    "preview": Command(Preview, draw, "a picture of one batch as the loader feeds it"),
    # By name alone: this package imports none of those above it, and indexing cleans images as a conversion does.
    "index": LazyCommand("preprocess.index.options", "an index of tars of others, so that they are read in place"),
}

if __name__ == "__main__":
    sys.exit(run_commands("python -m shards", COMMANDS))
