"""Named training configurations. Each states its source, the accuracy to expect, and whether it has been run."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from shards.common.errors import UsageError
from train.config import Config
from train.options import Feeding, Mixing, Pixels, Sizes, Update

DEFAULT = "cnn"
BICUBIC = Pixels(interpolation="bicubic")


def cnn(data: Path) -> Config:
    """The reference recipe of the eight-convolution network: the defaults of `Config`.

    AdamW under a one-cycle learning rate, 64 images per optimizer step. Source: the network and the values are
    this project's own. Five epochs at size 32 on 10,000 CIFAR-10 images as JPEG should reach 53% top-1 or more on the
    test split. It has not been run on ImageNet, and no accuracy is claimed there.
    """
    return Config(data=data, recipe="cnn")


def demo(data: Path) -> Config:
    """The reference recipe, small enough for two CPU cores: four epochs at 32 pixels.

    For the 2,000 synthetic images of `make demo`, where it should reach 90% top-1 or more in two minutes.
    """
    return Config(data=data, recipe="demo", size=32, epochs=4)


def smoke(data: Path) -> Config:
    """A quick test: one epoch at 32 pixels with most options on, in seconds on a CPU for 1,000 images.

    Source: this project's own. Its accuracy means nothing.
    """
    return Config(
        data=data,
        recipe="smoke",
        model="resnet18",
        blur_pool=True,
        epochs=1,
        size=32,
        batch=32,
        crop="rrc",
        label_smoothing=0.1,
        update=Update(optimizer="sgd", decay="kernels", schedule="linear", ema=0.9),
        sizes=Sizes(flip_tta=True),
        mixing=Mixing(mixup=0.2, cutmix=1.0, erase=0.1),
    )


def rn18_16(data: Path) -> Config:
    """ResNet-18 in 16 epochs, 1,024 images per step at a peak rate of 0.5.

    Source: libffcv/ffcv-imagenet, rn18_configs/rn18_16_epochs.yaml, which reached 66.9% top-1 and 86.8% top-5. See
    `_resnet` for what differs. It has not been run on ImageNet.
    """
    return _resnet(data, "rn18_16", "resnet18", epochs=16)


def rn18_88(data: Path) -> Config:
    """ResNet-18 in 88 epochs, 1,024 images per step at a peak rate of 0.5.

    Source: libffcv/ffcv-imagenet, rn18_configs/rn18_88_epochs.yaml, which reached 72.4% top-1 and 90.3% top-5. See
    `_resnet` for what differs. It has not been run on ImageNet.
    """
    return _resnet(data, "rn18_88", "resnet18", epochs=88)


def rn50_16(data: Path) -> Config:
    """ResNet-50 in 16 epochs, 4,096 images per step (512 on each of 8 GPUs) at a peak rate of 1.7.

    Source: libffcv/ffcv-imagenet, rn50_configs/rn50_16_epochs.yaml, which reached 73.8% top-1 and 90.8% top-5. See
    `_resnet` for what differs. It has not been run on ImageNet.
    """
    return _resnet(data, "rn50_16", "resnet50", epochs=16)


def rn50_88(data: Path) -> Config:
    """ResNet-50 in 88 epochs, 4,096 images per step (512 on each of 8 GPUs) at a peak rate of 1.7.

    Source: libffcv/ffcv-imagenet, rn50_configs/rn50_88_epochs.yaml, which reached 78.4% top-1 and 94.1% top-5. See
    `_resnet` for what differs. It has not been run on ImageNet.
    """
    return _resnet(data, "rn50_88", "resnet50", epochs=88)


def _resnet(data: Path, recipe: str, model: str, epochs: int) -> Config:
    """The ResNet recipes.

    As in the source: RandomResizedCrop at 160 pixels growing to 192 in the epochs before the last sixth, blur pooling,
    label smoothing 0.1, momentum 0.9, no weight decay for norms, a learning rate that rises linearly from a
    ten-thousandth of its peak for two epochs and falls linearly to 0, incomplete steps left out, float16, and at test
    the mean over an image and its mirror image.

    Different: Nesterov momentum instead of plain; biases do not decay either; evaluation at 224 pixels of 256, as the
    source's text says, while its files say 256; images stored at 256 pixels (`python -m preprocess`) instead of 400 to
    500.
    """
    small = model == "resnet18"
    return Config(
        data=data,
        recipe=recipe,
        model=model,
        blur_pool=True,
        epochs=epochs,
        size=192,
        batch=1024 if small else 4096,
        micro_batch=512 if small else 256,
        max_lr=0.5 if small else 1.7,
        pct_start=2 / epochs,
        div_factor=1e4,
        weight_decay=5e-5 if small else 1e-4,
        clip=None,
        label_smoothing=0.1,
        crop="rrc",
        update=Update(optimizer="sgd", decay="kernels", schedule="linear", drop_last=True),
        sizes=Sizes(
            start_size=160,
            grow_from=11 if epochs == 16 else 65,
            grow_until=13 if epochs == 16 else 76,
            val_size=224,
            val_resize=256,
            flip_tta=True,
        ),
    )


def efficientnet_b0(data: Path) -> Config:
    """EfficientNet-B0 in 600 epochs, 1,024 images per step at a peak rate of 0.5.

    Source: the recipe of torchvision's refreshed weights (references/classification, "new training recipe": SGD,
    cosine after five epochs of warm-up, label smoothing 0.1, TrivialAugment, mixup 0.2, CutMix 1.0, random erasing
    0.1, weight decay 2e-5 except for norms, moving average, training at 176 and evaluation at 224 of 232), applied to
    this network. No accuracy is published for this combination: torchvision's weights of the network, which come from
    timm's RMSprop recipe, reach 77.7% top-1. Left out: repeated augmentation. Different: Nesterov momentum, and a
    cosine for the warm-up too. It has not been run on ImageNet.
    """
    return Config(
        data=data,
        recipe="efficientnet_b0",
        model="efficientnet_b0",
        epochs=600,
        size=176,
        batch=1024,
        micro_batch=256,
        max_lr=0.5,
        pct_start=5 / 600,
        div_factor=100.0,
        weight_decay=2e-5,
        clip=None,
        label_smoothing=0.1,
        crop="rrc",
        feeding=Feeding(augment="trivial"),
        # torchvision's decay 0.99998, as its script scales it: 1 - 2e-5 * 1024 images * 32 steps / 600 epochs.
        update=Update(optimizer="sgd", decay="kernels", drop_last=True, ema=0.9989, ema_every=32),
        sizes=Sizes(val_size=224, val_resize=232),
        mixing=Mixing(mixup=0.2, cutmix=1.0, erase=0.1),
    )


def rn50_a3(data: Path) -> Config:
    """ResNet-50 in 100 epochs at 160 pixels, 2,048 images per step, LAMB at a peak rate of 8e-3.

    Source: procedure A3 of "ResNet strikes back" (Wightman et al., arXiv:2110.00476, table 2), which reached 78.1%
    top-1 at 224 pixels. See `_strikes_back` for what differs. It has not been run on ImageNet.
    """
    return _strikes_back(data, "rn50_a3", epochs=100, size=160, max_lr=8e-3)


def rn50_a2(data: Path) -> Config:
    """timm's ResNet-50 in 300 epochs at 224 pixels, 2,048 images per step, LAMB at a peak rate of 5e-3.

    Source: procedure A2 of "ResNet strikes back" (Wightman et al., arXiv:2110.00476, table 2), which reached 79.8%
    top-1. See `_strikes_back` for what differs. It has not been run on ImageNet.
    """
    config = _strikes_back(data, "rn50_a2", epochs=300, size=224, max_lr=5e-3)
    feeding = dataclasses.replace(config.feeding, num_repeats=3)
    return dataclasses.replace(config, model="timm:resnet50", drop_path=0.05, feeding=feeding)


def _strikes_back(data: Path, recipe: str, epochs: int, size: int, max_lr: float) -> Config:
    """The procedures of "ResNet strikes back".

    As in the source: LAMB, weight decay 0.02 except for norms and biases, a cosine after five epochs of warm-up, binary
    cross-entropy, mixup 0.1 and CutMix 1.0, evaluation at 224 pixels of 236.

    Different: RandAugment with torchvision's operations at strength 9 of 31, where the source has timm's, of strength 6
    or 7 of 10 with noise; one mix for a whole batch and not for each image; bilinear in place of bicubic.
    """
    return Config(
        data=data,
        recipe=recipe,
        model="resnet50",
        epochs=epochs,
        size=size,
        batch=2048,
        micro_batch=256,
        max_lr=max_lr,
        pct_start=5 / epochs,
        div_factor=max_lr / 1e-4,
        final_div_factor=100.0,
        weight_decay=0.02,
        clip=None,
        crop="rrc",
        feeding=Feeding(augment="rand"),
        update=Update(optimizer="lamb", decay="kernels", schedule="cosine", loss="bce", drop_last=True),
        pixels=BICUBIC,
        sizes=Sizes(val_size=224, val_resize=235),
        mixing=Mixing(mixup=0.1, cutmix=1.0),
    )


def convnext_t(data: Path) -> Config:
    """ConvNeXt-T in 300 epochs, 4,096 images per step, AdamW at a peak rate of 4e-3.

    Source: "A ConvNet for the 2020s" (Liu et al., arXiv:2201.03545, table 5), which reached 82.1% top-1. See
    `_transformer` for what differs. It has not been run on ImageNet.
    """
    config = _transformer(data, "convnext_t", "convnext_tiny", batch=4096, max_lr=4e-3, warm_up=20 / 300)
    update = dataclasses.replace(config.update, ema=0.9999, ema_warm_up=True)
    return dataclasses.replace(config, update=update)


def deit_s(data: Path) -> Config:
    """timm's DeiT-S in 300 epochs, 1,024 images per step, AdamW at a peak rate of 1e-3.

    Source: "Training data-efficient image transformers" (Touvron et al., arXiv:2012.12877, table 9), which reached
    79.8% top-1 without distillation. See `_transformer` for what differs. It has not been run on ImageNet.
    """
    config = _transformer(data, "deit_s", "timm:deit_small_patch16_224", batch=1024, max_lr=1e-3, warm_up=5 / 300)
    return dataclasses.replace(config, feeding=dataclasses.replace(config.feeding, num_repeats=3))


def _transformer(data: Path, recipe: str, model: str, batch: int, max_lr: float, warm_up: float) -> Config:
    """What DeiT and ConvNeXt have in common.

    As in the sources: AdamW, weight decay 0.05 except for norms and biases, a cosine after a linear warm-up, label
    smoothing 0.1, mixup 0.8 and CutMix 1.0, random erasing 0.25, drop path 0.1, no clipping, images resized by bicubic.

    Different: RandAugment with torchvision's operations at strength 9 of 31, where the sources have timm's, of strength
    9 of 10 with noise; one mix for a whole batch and not for each image; erased parts are of the mean colour and not
    noise; position embeddings decay; the moving average begins with a warm-up.
    """
    return Config(
        data=data,
        recipe=recipe,
        model=model,
        drop_path=0.1,
        epochs=300,
        size=224,
        batch=batch,
        micro_batch=128,
        max_lr=max_lr,
        pct_start=warm_up,
        div_factor=max_lr / 1e-6,
        final_div_factor=1.0,
        weight_decay=0.05,
        clip=None,
        label_smoothing=0.1,
        crop="rrc",
        feeding=Feeding(augment="rand"),
        pixels=BICUBIC,
        update=Update(decay="kernels", schedule="cosine", drop_last=True),
        mixing=Mixing(mixup=0.8, cutmix=1.0, erase=0.25),
    )


def vit_s16_90(data: Path) -> Config:
    """timm's ViT-S/16 in 90 epochs, 1,024 images per step, AdamW at a peak rate of 1e-3.

    Source: "Better plain ViT baselines for ImageNet-1k" (Beyer et al., arXiv:2205.01580), which reached 76.5% top-1.
    As there, and in google-research/big_vision, configs/vit_s16_i1k.py: RandomResizedCrop of 5% of the image and more,
    pixels from -1 to 1, mixup 0.2, a cosine after 10,000 steps of warm-up, gradients clipped at norm 1, weight decay
    1e-4 a step at the peak rate (0.1 of the rate).

    Different: a class token and learned position embeddings in place of the mean over patches and fixed ones;
    RandAugment with torchvision's operations at strength 9 of 31 (there 10 of 10, other operations); resizes are
    antialiased; norms and biases do not decay. It has not been run on ImageNet.
    """
    return Config(
        data=data,
        recipe="vit_s16_90",
        model="timm:vit_small_patch16_224",
        epochs=90,
        size=224,
        batch=1024,
        micro_batch=128,
        max_lr=1e-3,
        pct_start=10_000 / (90 * 1_281_167 // 1024),
        div_factor=1e3,
        final_div_factor=1e3,
        weight_decay=0.1,
        clip=1.0,
        crop="rrc",
        feeding=Feeding(augment="rand", scale=(0.05, 1.0), ratio=(0.75, 1.33)),
        pixels=Pixels(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)),
        update=Update(decay="kernels", schedule="cosine", drop_last=True),
        mixing=Mixing(mixup=0.2),
    )


RECIPES: dict[str, Callable[[Path], Config]] = {
    recipe.__name__: recipe
    for recipe in (
        *(cnn, demo, smoke, rn18_16, rn18_88, rn50_16, rn50_88, rn50_a2, rn50_a3),
        *(efficientnet_b0, convnext_t, deit_s, vit_s16_90),
    )
}


def find_recipe(words: Sequence[str]) -> Callable[[Path], Config]:
    """The recipe that `--recipe NAME` or `--recipe=NAME` asks for (the last one counts), or the default.

    It is found before the other words are parsed, because it sets their defaults.
    Raises UsageError for a name that is no recipe.
    """
    name = DEFAULT
    for position, word in enumerate(words):
        if word == "--recipe":
            name = "".join(words[position + 1 : position + 2])
        elif word.startswith("--recipe="):
            name = word.removeprefix("--recipe=")
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[name]
