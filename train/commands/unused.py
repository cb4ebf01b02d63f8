"""Options of a command line that do nothing, because another one, which would read them, is not given.

Only what was typed is refused, and not at its default: a recipe may leave a value behind that another option made
idle, as the moving average's --ema-every after `--ema 0`.
"""

from collections.abc import Callable, Collection

from shards.common.errors import UsageError
from train.checkpoints.earlier import flat
from train.config import NO_DATA, Config
from train.options import option

# Fields; whether a run reads them; the option that makes it do so.
_READ_WITH: tuple[tuple[tuple[str, ...], Callable[[Config], bool], str], ...] = (
    (("scale", "ratio"), lambda config: config.crop == "rrc", "--crop rrc"),
    (("window",), lambda config: config.order == "blocks", "--order blocks"),
    (("momentum",), lambda config: config.update.optimizer == "sgd", "--optimizer sgd"),
    (("ema_every", "ema_warm_up"), lambda config: config.update.ema > 0, "--ema"),
    (("period", "warm_up"), lambda config: config.distributed.parallel == "local-sgd", "--parallel local-sgd"),
    (("grow_from", "grow_until"), lambda config: config.sizes.start_size is not None, "--start-size"),
    (("start_size",), lambda config: config.sizes.grow_until > 0, "--grow-until"),
)


def refuse_unused(config: Config, given: Collection[str]) -> None:
    """Raises UsageError for options that do nothing in this run. given: the fields that the command line sets."""
    for names, read, other in _READ_WITH:
        if not read(config) and (idle := changed(config, given, names)):
            raise UsageError(f"{in_words(idle)} nothing without {other}: add that, or leave {them(idle)} out")


def changed(config: Config, given: Collection[str], names: Collection[str]) -> list[str]:
    """Those of `names` that the command line sets to another value than the default."""
    own, usual = flat(config), flat(Config(NO_DATA))
    return [name for name in names if name in given and own[name] != usual[name]]


def in_words(idle: Collection[str]) -> str:
    """The options of these fields, as the subject of a sentence, and its verb."""
    return f"{' and '.join(map(option, idle))} {'does' if len(idle) == 1 else 'do'}"


def them(idle: Collection[str]) -> str:
    """The pronoun for these options."""
    return "it" if len(idle) == 1 else "them"
