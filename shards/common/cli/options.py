"""The options of a command, read from the dataclass that `tyro` makes them from: for help, and to find mistakes."""

import ast
import dataclasses
import functools
import inspect
import textwrap
import types
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

_Argument: Any = type(tyro.conf.arg())  # what `tyro.conf.arg` puts into an annotation


@dataclass(frozen=True)
class Group:
    """Annotates a field: the help lists its option, or the options of a nested dataclass, under this title."""

    title: str


@dataclass(frozen=True)
class Option:
    """One option, or one positional argument.

    names: the option's name, such as "--batch-size", then its old names; for a positional argument its metavar.
    metavar: what stands for the value; empty for a flag. takes: the values that it takes, in words.
    default: `dataclasses.MISSING` where the option must be given.
    group: title in the help; empty for the options that come first.
    """

    names: tuple[str, ...]
    metavar: str
    takes: str
    help: str
    default: Any
    group: str
    positional: bool

    @property
    def required(self) -> bool:
        """Whether the option must be given."""
        return self.default is dataclasses.MISSING or self.default is tyro.MISSING

    @property
    def spellings(self) -> tuple[str, ...]:
        """All that the command line takes for it; a flag can be turned off too."""
        if self.metavar:
            return self.names
        return (*self.names, *(f"--no-{name.removeprefix('--')}" for name in self.names))


def options_of(config: Any, default: Any = None, group: str = "") -> Iterator[Option]:
    """The options of `config`, in the order of its fields; those of a nested dataclass in its place.

    default: a value of `config` that holds the defaults, in place of those of the fields.
    """
    while get_origin(config) is Annotated:
        config = get_args(config)[0]
    hints, helps = get_type_hints(config, include_extras=True), _docstrings(config)
    for field in dataclasses.fields(config):
        kind, extras = _unwrapped(hints[field.name])
        if tyro.conf.Fixed in extras:
            continue
        value = _default(field) if default is None else getattr(default, field.name)
        title = next((each.title for each in extras if isinstance(each, Group)), group)
        if dataclasses.is_dataclass(kind):
            yield from options_of(kind, value, title)
            continue
        argument: Any = next((each for each in extras if isinstance(each, _Argument)), tyro.conf.arg())
        positional = tyro.conf.Positional in extras
        metavar = argument.metavar or _metavar(kind)
        name = metavar if positional else f"--{argument.name or field.name.replace('_', '-')}"
        yield Option(
            names=(name, *(argument.aliases or ())),
            metavar=metavar,
            takes=_takes(kind, metavar),
            help=helps.get(field.name, ""),
            default=value,
            group=title,
            positional=positional,
        )


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its annotations, and these."""
    return (hint.__origin__, hint.__metadata__) if get_origin(hint) is Annotated else (hint, ())


def _default(field: "dataclasses.Field[Any]") -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


@functools.cache
def _docstrings(config: type[Any]) -> dict[str, str]:
    """The string under each field of a class, as one paragraph."""
    [definition] = ast.parse(textwrap.dedent(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            found[field.target.id] = " ".join(str(ast.literal_eval(below.value)).split())
    return found


_METAVARS = {bool: "", int: "N", float: "X", str: "NAME", Path: "PATH"}
_TAKES = {int: "a whole number", float: "a number"}


def _metavar(kind: Any) -> str:
    """What stands for a value of a type in usage and help; None, the value of what is not given, is left out."""
    if get_origin(kind) is Literal:
        return "{" + ",".join(get_args(kind)) + "}"
    if get_origin(kind) is tuple:
        return f"{_metavar(get_args(kind)[0])} ..."
    if get_origin(kind) in (Union, types.UnionType):
        parts = [part for part in get_args(kind) if part is not types.NoneType]
        return "|".join(dict.fromkeys(_metavar(part).strip("{}").replace(",", "|") for part in parts))
    return _METAVARS[kind]


def _takes(kind: Any, metavar: str) -> str:
    """The values that an option takes, in words."""
    if get_origin(kind) in (Union, types.UnionType):
        words = [_takes(part, metavar) for part in get_args(kind) if part is not types.NoneType]
        return " or ".join(dict.fromkeys(words))
    if get_origin(kind) is Literal:
        *others, last = get_args(kind)
        return f"{', '.join(others)} or {last}" if others else str(last)
    if get_origin(kind) is tuple:
        return _takes(get_args(kind)[0], metavar)
    return _TAKES.get(kind, metavar)
