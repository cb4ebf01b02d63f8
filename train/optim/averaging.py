"""The moving average of the weights (EMA): it is evaluated and saved in their place, because it is less noisy."""

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from train.config import Config


def make_average(network: nn.Module, config: Config) -> AveragedModel | None:
    """A copy of the network that follows it, batch norm's statistics included; None without `config.update.ema`."""
    if not config.update.ema:
        return None
    mix = get_ema_multi_avg_fn(config.update.ema)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=mix, use_buffers=True)


def follow(average: AveragedModel | None, network: nn.Module, step: int, every: int) -> None:
    """After optimizer step `step`, counted from 1: the first one is copied, then each `every`-th is mixed in."""
    if average is not None and (step == 1 or step % every == 0):
        average.update_parameters(network)
