"""Named training configurations. Each states its source, the accuracy to expect, and whether it has been run."""

from collections.abc import Callable, Sequence
from pathlib import Path

from shards.common.errors import UsageError
from train.config import Config
from train.options import Feeding, Mixing, Sizes, Update

DEFAULT = "cnn"


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


RECIPES: dict[str, Callable[[Path], Config]] = {
    recipe.__name__: recipe for recipe in (cnn, demo, smoke, rn18_16, rn18_88, rn50_16, rn50_88, efficientnet_b0)
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
