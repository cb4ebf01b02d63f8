"""Arguments of public functions: each has the type that its function needs, or one line says which one has not."""

import dataclasses
import difflib
import functools
import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from shards.common.errors import UsageError

Word = TypeVar("Word", bound=str)
P = ParamSpec("P")
T = TypeVar("T")

# Characters of a wrong value that a message shows.
SHOWN = 80


def whole_number(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """`value` as an int: numpy's integers and torch's scalars are numbers too.

    Raises UsageError for anything else, and for a number below `least` or above `most`.
    """
    try:
        if isinstance(value, bool):  # Python counts it among the integers
            raise TypeError
        number = operator.index(value)
    except (TypeError, ValueError):  # of a torch tensor with several elements
        raise UsageError(f"{name} must be a whole number, not {shown(value)}") from None
    if least is not None and number < least:
        raise UsageError(f"{name} must be {least:,} or more, not {number:,}")
    if most is not None and number > most:
        raise UsageError(f"{name} must be {most:,} or less, not {shown(number)}")
    return number


def flag(name: str, value: Any) -> bool:
    """`value` as a bool. Raises UsageError for anything but True and False."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, not {shown(value)}")
    return bool(value)


def share(name: str, value: Any) -> float:
    """`value` as a float from 0 to 1. Raises UsageError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value <= 1:
        raise UsageError(f"{name} must be a number from 0 to 1, not {shown(value)}")
    return float(value)


def channels(name: str, value: Any, least: float) -> tuple[float, float, float]:
    """`value` as three floats from `least` to 1: red, green and blue. Raises UsageError for anything else."""
    try:
        red, green, blue = (float(each) for each in value)
    except (TypeError, ValueError):
        red = green = blue = math.nan
    if not all(least <= each <= 1 for each in (red, green, blue)):
        raise UsageError(
            f"{name} must be three numbers from {least:g} to 1, of red, green and blue in [0, 1], not {shown(value)}"
        )
    return red, green, blue


def number(name: str, value: Any, least: float | None = None, most: float | None = None) -> float:
    """`value` as a float. Raises UsageError for anything but a finite number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
        raise UsageError(f"{name} must be a number, not {shown(value)}")
    if least is not None and value < least:
        raise UsageError(f"{name} must be {least:g} or more, not {value:g}")
    if most is not None and value > most:
        raise UsageError(f"{name} must be {most:g} or less, not {value:g}")
    return float(value)


def interval(name: str, value: Any, least: float, most: float) -> tuple[float, float]:
    """`value` as two floats, the second no less than the first. Raises UsageError for anything else."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise UsageError(f"{name} must be two numbers, (least, most), not {shown(value)}")
    low, high = (number(name, each, least, most) for each in value)
    if low > high:
        raise UsageError(f"{name} must be (least, most), not {shown(value)}")
    return low, high


def one_of(name: str, value: Any, known: Sequence[Word]) -> Word:
    """`value`, one of the `known` words. Raises UsageError for anything else."""
    for word in known:
        if isinstance(value, str) and value == word:
            return word
    raise UsageError(f"{name} must be one of {', '.join(known)}, not {shown(value)}")


def distinct_words(name: str, value: Any, count: int) -> tuple[str, ...]:
    """`value` as a tuple of `count` different words. Raises UsageError for anything else, a single text among it."""
    words = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()
    if not all(isinstance(word, str) for word in words) or not len(words) == len(set(words)) == count:
        raise UsageError(f"{name} must be {count} different words, not {shown(value)}")
    return words


def as_path(name: str, value: Any) -> Path:
    """`value`, text or a path, as a path without a `~`. Raises UsageError for anything else."""
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name} must be a path, not {shown(value)}")
    return Path(value).expanduser()


def check_fields(config: Any, unset: object = None) -> None:
    """Gives every field of a frozen dataclass its declared type: for `__post_init__`, before the values are compared.

    numpy's numbers become Python's, text becomes a path where a path is declared. `unset` is left as it is.
    Raises UsageError for a value of another type.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, hint = getattr(config, field.name), hints[field.name]
        if value is not unset:
            kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
            object.__setattr__(config, field.name, _declared(field.name, value, kinds))


def _declared(name: str, value: Any, kinds: Sequence[Any]) -> Any:
    """`value` as the first of the types `kinds` that it fits."""
    for kind in kinds:
        try:
            return _as(kind, name, value)
        except UsageError:
            pass
    raise UsageError(f"{name} must be {' or '.join(map(_in_words, kinds))}, not {shown(value)}")


def _as(kind: Any, name: str, value: Any) -> Any:
    if kind is bool:
        return flag(name, value)
    if kind is int:
        return whole_number(name, value)
    if kind is float and isinstance(value, int | float | np.number) and not isinstance(value, bool):
        return float(value)
    if kind is Path:
        return as_path(name, value)
    if get_origin(kind) is Literal:
        return one_of(name, value, get_args(kind))
    if get_origin(kind) is tuple and isinstance(value, tuple | list):
        return tuple(_declared(name, each, get_args(kind)[:1]) for each in value)
    if get_origin(kind) is None and kind is not float and isinstance(value, kind):
        return value
    raise UsageError


def _in_words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return f"several, each {_in_words(get_args(kind)[0])}"
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "text", Path: "a path"}
    return words.get(kind, "None" if kind is NoneType else f"of the type {kind.__name__}")


def checked_call(name: str, called_elsewhere: Mapping[str, str]) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A decorator of the `__init__` of class `name`: missing and unknown arguments are answered by a UsageError.

    called_elsewhere: what to say of arguments that other libraries have. Signature and types stay what they are.
    """

    def decorate(init: Callable[P, None]) -> Callable[P, None]:
        signature = inspect.signature(init)
        known = [each for each in signature.parameters if each != "self"]
        needed = [each for each in known if signature.parameters[each].default is inspect.Parameter.empty]

        @functools.wraps(init)
        def checked(*args: P.args, **kwargs: P.kwargs) -> None:
            said = [_unknown(each, known, called_elsewhere) for each in kwargs if each not in known]
            try:
                bound = signature.bind_partial(*args, **{each: kwargs[each] for each in kwargs if each in known})
                said += [f"{each} must be given" for each in needed if each not in bound.arguments]
            except TypeError as error:
                said.append(str(error))
            if said:
                raise UsageError(f"{name}: {'; '.join(said)}")
            init(*args, **kwargs)

        return checked

    return decorate


def checked_class(cls: type[T]) -> type[T]:
    """A decorator of a dataclass of the library's: `checked_call` for its arguments."""
    setattr(cls, "__init__", checked_call(cls.__name__, {})(cls.__init__))  # noqa: B010 - a type checker forbids it
    return cls


def _unknown(given: str, known: Sequence[str], called_elsewhere: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    hint = called_elsewhere.get(given) or (f"did you mean {close[0]}?" if close else "")
    return f"there is no argument {given}" + (f" ({hint})" if hint else "")


def shown(value: Any) -> str:
    """A value on one line, for a message."""
    words = " ".join(repr(value).split())
    return words if len(words) <= SHOWN else f"{words[: SHOWN - 3]}..."
