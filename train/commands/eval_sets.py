"""What weights are evaluated on: the validation split of the data, or other data sets, whose classes are matched."""

import sys
from collections.abc import Sequence
from pathlib import Path

from shards.common.errors import UsageError
from shards.common.terminal import counted
from shards.dataset import VALIDATION, Split, open_dataset
from shards.dataset.parts import numbers_by_name
from train.config import Config
from train.data import held_out_split


def evaluation_splits(config: Config) -> list[Split]:
    """The splits to evaluate on: of each of `config.eval_set` the one for validation, or its only one; or the data's.

    No index is read yet. Raises UsageError where a data set has none of these.
    """
    if not config.eval_set:
        held_out = held_out_split(config)
        assert held_out is not None, "Config refuses --evaluate with --val-split none"
        return [held_out]
    chosen = []
    for place in config.eval_set:
        splits = open_dataset(place, config.feeding.cache)
        names = [name for name in VALIDATION if name in splits] or list(splits)
        if names[0] not in VALIDATION and len(names) > 1:
            raise UsageError(f"{place} has none of the splits {', '.join(VALIDATION)}, and several others")
        chosen.append(splits[names[0]])
    return chosen


def class_columns(
    trained: Sequence[str], here: Sequence[str], weights: Path, place: str, quiet: bool = False
) -> list[int] | None:
    """For each class of a data set, the number that it has for the weights; None where the numbers are the same.

    Classes are matched by name, or by the first word of it, the WNID. Names that are the numbers 0 to n - 1, as
    ImageNet-V2's, are numbers. As many classes of other names are taken to be in the same order, which stderr says
    unless `quiet`.
    Raises UsageError for other classes.
    """
    if tuple(here) == tuple(trained):
        return None
    if sorted(here) == sorted(map(str, range(len(trained)))):
        numbers = [int(name) for name in here]
    else:
        known = numbers_by_name(trained)
        words = {number: word for word, number in numbers_by_name(here).items() if word in known}
        numbers = [known.get(name, known.get(words.get(number, ""), -1)) for number, name in enumerate(here)]
        if -1 in numbers or len(set(numbers)) < len(numbers):
            _same_order(trained, here, weights, place, quiet)
            return None
    if numbers == list(range(len(trained))):
        return None
    if len(numbers) < len(trained) and not quiet:
        said = f"{place}: {len(numbers):,} of the {len(trained):,} classes of {weights}; only their logits are compared"
        print(said, file=sys.stderr)
    return numbers


def _same_order(trained: Sequence[str], here: Sequence[str], weights: Path, place: str, quiet: bool) -> None:
    """Warns if a label means another class than in training: the figures would be wrong and look right."""
    if len(trained) != len(here):
        unknown = sorted(set(here) - set(trained))
        such_as = f" ({unknown[0]!r} is none of them)" if unknown else ""
        raise UsageError(
            f"{weights} is for {counted(len(trained), 'class', 'classes')}, but {place} has {len(here)}{such_as}; "
            "weights that were trained with --class-map, or --subset and a list of classes, need --data and that option"
        )
    label = next(label for label, (theirs, ours) in enumerate(zip(trained, here, strict=True)) if theirs != ours)
    if quiet:
        return
    print(
        f"{weights} was trained on other classes: label {label} is {trained[label]!r} there and {here[label]!r} here",
        file=sys.stderr,
    )
