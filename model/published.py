"""The weights that torchvision and timm publish, and how they want their images prepared.

torchvision's come from its web server into torch's hub directory (TORCH_HOME), timm's from the Hugging Face hub into
that hub's cache (HF_HOME). A file that lies there already needs no network.
"""

import contextlib
import http.client
import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.hub import HASH_REGEX, download_url_to_file
from torchvision.models import WeightsEnum, get_model_weights, list_models

from model.names import TIMM, check_name
from model.networks import MODELS, timm_of
from model.start import Start, checked_state, read_start
from model.weights import About
from shards.common.errors import ShardfeedError, UsageError

FILTERS = ("bilinear", "bicubic")
REACH_TIMEOUT = 10  # seconds to wait for the hub's first answer
# By name, because the hub's client has changed its HTTP library twice, and each library has its own classes.
SILENCE = frozenset({"ConnectionError", "TimeoutError", "TransportError"})


def published(name: str) -> Start:
    """The weights of the network `name` as they are published, all classes of them; downloaded where need be.

    Raises UsageError for a network without such weights, ShardfeedError where they cannot be had.
    """
    check_name(name, MODELS)
    about = wanted(name)
    if about is None:
        raise UsageError(f"nobody publishes weights of {name}, as torchvision and timm do of theirs")
    if not name.startswith(TIMM):
        return _of_torchvision(name, about)
    return _of_timm(name, about)


def wanted(name: str) -> About | None:
    """How the published weights of the network `name` want their images; None where there are none.

    Raises UsageError where the loader cannot give them so.
    """
    if name.startswith(TIMM):
        return _wanted_of_timm(name)
    if name not in list_models():
        return None
    transforms: Any = _weights(name).transforms()
    return About(
        model=name,
        class_names=(),
        size=transforms.crop_size[0],
        resize=transforms.resize_size[0],
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        interpolation=transforms.interpolation.value,
    )


def _weights(name: str) -> WeightsEnum:
    """The newest weights of torchvision's network `name`."""
    weights: WeightsEnum = get_model_weights(name).DEFAULT
    return weights


def _of_torchvision(name: str, about: About) -> Start:
    weights = _weights(name)
    path = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rpartition("/")[2]
    if not path.is_file():
        print(f"{weights}: from {weights.url} to {path}", file=sys.stderr)
        digest = HASH_REGEX.search(path.name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(weights.url, str(path), digest and digest.group(1), progress=sys.stderr.isatty())
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            raise ShardfeedError(
                f"{weights} could not be downloaded from {weights.url} ({_line(error)}): without network put that file "
                f"at {path}, or give it to `python -m train --init`"
            ) from error
    return Start(f"{weights} ({path.name})", read_start(path).state, about)


def _of_timm(name: str, about: About) -> Start:
    timm, inner = timm_of(name), name.removeprefix(TIMM)
    entry = timm.get_pretrained_cfg(inner)
    print(f"{name}: weights from {entry.hf_hub_id or entry.url} or the cache", file=sys.stderr)
    try:
        with _quiet(), _offline_if_unreachable():
            donor = timm.create_model(inner, pretrained=True)
    except Exception as error:  # of the hub, its HTTP client, safetensors, torch: no type in common
        raise ShardfeedError(
            f"the weights of {name} could not be had from {entry.hf_hub_id or entry.url} ({_line(error)}): without "
            "network fill the cache of the Hugging Face hub on another machine (HF_HOME), or give a file "
            "to `python -m train --init`"
        ) from error
    squashed = "" if entry.crop_mode == "center" else f", published with {entry.crop_mode} images, here centre crops"
    return Start(f"{name}{squashed}", checked_state(donor.state_dict(), name), about)


def _wanted_of_timm(name: str) -> About | None:
    timm = timm_of(name)
    entry = timm.get_pretrained_cfg(name.removeprefix(TIMM))
    if entry is None or not entry.has_weights:
        return None
    images = timm.data.resolve_data_config(pretrained_cfg=entry.to_dict())
    channels, height, width = images["input_size"]
    if (channels, images["interpolation"] in FILTERS) != (3, True) or height != width:
        raise UsageError(
            f"{name} takes images of {height} x {width} pixels, {channels} channels, resized by "
            f"{images['interpolation']}: the loader gives square ones of three, resized by {' or '.join(FILTERS)}"
        )
    return About(
        model=name,
        class_names=(),
        size=height,
        resize=math.floor(height / images["crop_pct"]),  # as timm's own transform
        mean=tuple(images["mean"]),
        std=tuple(images["std"]),
        interpolation=images["interpolation"],
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the hub's warning for each attempt: the error says it once."""
    logger = logging.getLogger("huggingface_hub")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Puts the hub's client into its offline mode where the hub does not answer.

    A file in the cache is then found at once, and any other is missed at once; retries would take two minutes.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable() -> bool:
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=REACH_TIMEOUT)
    except Exception as error:
        # Only silence counts: the download itself reports a proxy's refusal or an unexpected answer.
        return not any(cls.__name__ in SILENCE for cls in type(error).__mro__)
    return True


def _line(error: BaseException) -> str:
    """The first line of an error's words."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
