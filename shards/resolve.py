"""Resolves the arguments of a loader: what is left open is chosen, what makes no sense is refused, by its name.

`Loader` (shards/loader.py) has the arguments, their defaults and what each means; shards/defaults.py chooses what
depends on the machine.
"""

from collections.abc import Sequence
from typing import Any, Literal

from shards.common.arguments import channels, flag, interval, one_of, shown, whole_number
from shards.common.errors import UsageError
from shards.common.terminal import advice, counted
from shards.dataset import Split
from shards.dataset.sizes import pixels, side_before_crop
from shards.decode.graph import ON_ENGINES, Device, DType, GraphConfig
from shards.defaults import (
    choose_decoder,
    choose_device,
    choose_threads,
    choose_together,
    choose_upsampling,
    choose_whole,
    draw_of,
)
from shards.feed.loop import FeedConfig, must_resize
from shards.feed.plan import SamplingConfig
from shards.sampling.colour import NO_CHANGE, Augment
from shards.sampling.crops import CROPS, RATIOS, REACH, RRC_RATIO, RRC_SCALE, SCALES, SIZE, Crop, Interpolation
from shards.sampling.order import ORDERS, Order, Share
from shards.sampling.policies import POLICIES
from shards.sampling.presets import Method, choose_views, refuse_beside_views
from shards.sampling.views import View

# More samples in a batch than any memory holds: where DALI is asked for so many, it ends the process.
MOST_SAMPLES = 2**20
# Least standard deviation of a channel: no photographs have one so small, and float16 has room for its values.
LEAST_STD = 1e-3
# Ranks, devices, and shards of a shuffle block: numbers that numpy's int64 holds in every product.
MOST = 2**31 - 1


def feed_config(
    split: Split,
    *,
    batch_size: int,
    train: bool,
    size: int,
    resize: int | None,
    crop_pct: float | None,
    crop: Crop | None,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    padding: int,
    interpolation: Interpolation,
    flip: bool | None,
    augment: Augment | Literal["none"],
    views: Sequence[View] | Method | None,
    order: Order | None,
    window: int,
    weights: Any,
    num_samples: int | None,
    replacement: bool,
    num_repeats: int,
    seed: int,
    order_seed: int | None,
    rank: int,
    world_size: int,
    device: Device | Literal["auto"],
    device_id: int,
    decode: Literal["auto", "cpu", "region", "hardware", "hybrid"],
    hw_decoder_load: float | None,
    fast_idct: bool,
    dtype: DType,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    threads: int | None,
    drop_last: bool | None,
    check: Literal["auto", "crc", "none"],
    on_error: Literal["raise", "skip", "omit"],
) -> FeedConfig:
    """What a loop makes of `split` for a loader of these arguments.

    Raises UsageError for arguments that do not fit each other, the split or the machine.
    """
    train = flag("train", train)
    share = Share(
        whole_number("batch_size", batch_size, 1, MOST_SAMPLES),
        whole_number("rank", rank, 0),
        whole_number("world_size", world_size, 1, MOST),
        train if drop_last is None else flag("drop_last", drop_last),
    )
    draw = draw_of(split, weights, num_samples, replacement, num_repeats)
    drawn = draw.weights is not None or bool(draw.mixture)
    if not train and (drawn or draw.repeats > 1):
        weighed = ("weights draw", "leave them out") if drawn else ("num_repeats draws", "leave it out")
        what, instead = ("a mix draws", "concatenate the splits") if draw.mixture else weighed
        raise UsageError(
            f"{what} samples for training, and train=False gives each sample once: give train=True, or {instead}"
        )
    if drawn and order not in (None, "global"):
        raise UsageError(f"weights and mixes draw samples in random order: order={shown(order)} does not apply")
    samples = draw.length(len(split))
    if share.drop_last and samples < share.global_batch:
        raise UsageError(
            f"an epoch of the split {split.name} has {counted(samples, 'sample')}, fewer than one global batch of "
            f"{share.global_batch}: choose a smaller "
            f"{advice('batch_size, or drop_last=False', 'batch (`python -m train --batch-size`)')}"
        )
    one_of("on_error", on_error, ("raise", "skip", "omit"))
    one_of("check", check, ("auto", "crc", "none"))
    one_of("augment", augment, ("none", *POLICIES, "three"))
    policy = None if augment == "none" else augment
    scale, ratio = interval("scale", scale, *SCALES), interval("ratio", ratio, *RATIOS)
    several = choose_views(views)
    if several:
        refuse_beside_views(
            size=size != SIZE,
            resize=resize is not None,
            crop_pct=crop_pct is not None,
            crop=crop is not None,
            scale=scale != RRC_SCALE,
            ratio=ratio != RRC_RATIO,
            padding=padding != 0,
            interpolation=interpolation != "bilinear",
            flip=flip is not None,
            augment=policy is not None,
        )
        crop, size = "rrc", max(view.size for view in several)
    cropped: Crop = ("random" if train else "center") if crop is None else one_of("crop", crop, CROPS)
    interpolation = one_of("interpolation", interpolation, list(REACH))
    size, resize = pixels("size", size), None if resize is None else pixels("resize", resize)
    seed = whole_number("seed", seed)
    sampling = SamplingConfig(
        share=share,
        seed=seed,
        order_seed=seed if order_seed is None else whole_number("order_seed", order_seed),
        order=("global" if train or drawn else "index") if order is None else one_of("order", order, ORDERS),
        crop=cropped,
        flip=train if flip is None else flag("flip", flip),
        resize=side_before_crop(split, size, resize, cropped, crop_pct),
        size=size,
        block_shards=whole_number("window", window, 1, MOST),
        augment=policy,
        padding=whole_number("padding", padding, 0),
        interpolation=interpolation,
        views=several,
        draw=draw,
        scale=scale,
        ratio=ratio,
    )
    device_id = whole_number("device_id", device_id, 0, MOST)
    device = choose_device(device, device_id)
    on_gpu = device == "gpu"
    decoder = choose_decoder(split, decode, device, device_id, threads)
    graph = GraphConfig(
        device=device,
        decode=decoder,
        dtype=dtype,
        batch_size=share.batch_size * choose_together(share, device, samples),
        resize=on_gpu and not several and must_resize(split, sampling),
        threads=choose_threads(threads, raw=decoder == "raw" and not on_gpu),
        interpolation=interpolation,
        device_id=device_id if on_gpu else None,
        augment=policy if on_gpu and policy != "three" else None,
        pads=on_gpu and sampling.padding > 0,
        views=several if on_gpu else (),
        recoloured=on_gpu and (policy == "three" or any(view.colour != NO_CHANGE for view in several)),
        mean=channels("mean", mean, 0),
        std=channels("std", std, LEAST_STD),
        whole=device == "cpu" and decoder == "cpu" and not several and choose_whole(split),
        fast_idct=flag("fast_idct", fast_idct),
        hw_decoder_load=hw_decoder_load,
        fancy_upsampling=choose_upsampling(decoder),
        largest=(int(split.index.height.max()), int(split.index.width.max())) if decoder in ON_ENGINES else (0, 0),
    )
    skip = on_error != "raise"
    checks = check == "crc" or (check == "auto" and (skip or decoder != "raw"))
    return FeedConfig(sampling, graph, checks, skip)
