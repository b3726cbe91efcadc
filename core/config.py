"""One frozen dataclass holds an object's settings; from it come its command-line options, TOML and checkpoint header.

    @dataclass(frozen=True)
    class Config:
        beta: float = option(4.0, "weight of the KL term", paper="4", min=0)

Supported field types: int, float, str, bool, Literal[...], tuple[T, ...] and each of them `| None`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Literal, Union, cast

from typing_extensions import TypeVar

from distk.errors import UsageError, nearest
from distk.files import read_bytes

CONFIG = 16 << 20
"""Bytes of a TOML file that are read."""
C = TypeVar("C", default=Any)
"""The config of a method, data set, metric or penalty. Without a parameter a type checker knows nothing of it."""
T = TypeVar("T")


def option(
    default: Any,
    help: str,
    *,
    paper: str = "",
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    place: bool = False,
) -> Any:
    """A dataclass field with its help text, the paper's value and its range.

    min, max: inclusive bounds. above: exclusive lower bound. Bounds apply to every member of a tuple.
    place: it names a file or folder, which is read only where the user named it, see `distk.places`.
    """
    metadata = {"help": help, "paper": paper, "min": min, "max": max, "above": above, "place": place}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class NoConfig:
    """For objects without settings."""


class Configured(Generic[C]):
    """What has settings: `class Mine(Method[Config])` has `Mine.Config`, and its `self.config` is a `Config`.

    A class may set `Config` by hand instead. One whose parameter is still a type variable takes that one's default.
    """

    Config: ClassVar[type] = NoConfig
    config: C

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "Config" in cls.__dict__:
            return
        for base in cls.__dict__.get("__orig_bases__", ()):
            origin = typing.get_origin(base)
            if isinstance(origin, type) and issubclass(origin, Configured):
                for argument in typing.get_args(base):
                    settings = getattr(argument, "__default__", argument)
                    if isinstance(settings, type) and dataclasses.is_dataclass(settings):
                        cls.Config = settings


@functools.cache
def hints(config: type) -> dict[str, Any]:
    """Field name -> resolved type annotation of a config dataclass."""
    found = typing.get_type_hints(config)
    return {field.name: found[field.name] for field in dataclasses.fields(config)}


def split_optional(annotation: Any) -> tuple[Any, bool]:
    """`T | None` -> (T, True); T -> (T, False)."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        members = [m for m in typing.get_args(annotation) if m is not type(None)]
        return members[0], True
    return annotation, False


PROGRAM_WORDS = frozenset({"help", "debug"})
"""Options that every command has, so that no setting can be called so."""


def own_names(config: type, taken: Collection[str]) -> str:
    """What is wrong with the names of these settings, as the end of a sentence; empty where nothing is.

    taken: words that mean something else where the settings are given, beside `PROGRAM_WORDS`.
    """
    names = hints(config)
    if clashing := sorted({*taken, *PROGRAM_WORDS} & names.keys()):
        return f"its setting '{clashing[0]}' has a name that distk uses itself: rename it"
    for name, annotation in names.items():
        if split_optional(annotation)[0] is bool and f"no_{name}" in names:
            return f"its setting 'no_{name}' is also what switches '{name}' off, {flag('no_' + name)}: rename it"
    return ""


def from_dict(
    config: type[T], values: Mapping[str, Any], where: str, typed: Mapping[str, str] = MappingProxyType({})
) -> T:
    """Build and check a config from untrusted values.

    where: what the message calls the source, as "[model] in run.toml". typed: setting -> what the user typed for it,
    as "--beta-h", which a message then names instead.
    Raises UsageError naming the field, for an unknown name, a wrong type or a value out of range.
    """
    annotations = hints(cast(type, config))
    for name in values:
        if name not in annotations:
            raise UsageError(f"{where} has no setting '{name}'.{nearest(str(name), annotations)}")
    checked = {name: _check(config, name, value, where, typed.get(name)) for name, value in values.items()}
    try:
        return config(**checked)
    except ValueError as error:  # a config's own __post_init__
        raise UsageError(f"{where}: {error}") from error


def _check(config: type, name: str, value: Any, where: str, typed: str | None) -> Any:
    field = next(f for f in dataclasses.fields(config) if f.name == name)
    inner, optional = split_optional(hints(config)[name])
    shown = typed or f"{where}, '{name.replace('_', '-')}'"
    if value is None and optional:
        return None
    value = _coerce(inner, value, shown)
    for member in value if isinstance(value, tuple) else (value,):
        _check_range(member, field.metadata, shown)
    return value


def _check_range(value: Any, bounds: Mapping[str, Any], shown: str) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{shown}: {value} is not allowed.")
    if isinstance(value, int) and abs(value) >= 1 << 64:  # no file of ours holds it
        raise UsageError(f"{shown}: a number of this size is not allowed.")
    if bounds.get("min") is not None and value < bounds["min"]:
        raise UsageError(f"{shown}: {value} is below the smallest allowed value {bounds['min']}.")
    if bounds.get("above") is not None and value <= bounds["above"]:
        raise UsageError(f"{shown}: {value} must be above {bounds['above']}.")
    if bounds.get("max") is not None and value > bounds["max"]:
        raise UsageError(f"{shown}: {value} is above the largest allowed value {bounds['max']}.")


def _coerce(annotation: Any, value: Any, shown: str) -> Any:
    origin = typing.get_origin(annotation)
    if origin is Literal:
        choices = typing.get_args(annotation)
        if value in choices:
            return value
        if isinstance(value, str) and value in map(str, choices):  # as the command line gives numbers
            return next(choice for choice in choices if str(choice) == value)
        known = ", ".join(map(str, choices))
        raise UsageError(f"{shown}: '{value}' is none of {known}.{nearest(str(value), map(str, choices))}")
    if origin is tuple:
        member = typing.get_args(annotation)[0]
        if isinstance(value, str):
            value = [part for part in value.split(",") if part != ""]
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{shown}: expected a list, found {value!r}.")
        return tuple(_coerce(member, part, shown) for part in value)
    if annotation is bool and isinstance(value, bool):
        return value
    if annotation is str and isinstance(value, (str, Path)):
        return in_utf8(str(value), shown)
    if annotation in (int, float) and not isinstance(value, bool):
        try:
            number = annotation(value)
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is not None and (annotation is float or not isinstance(value, float) or number == value):
            return number
    raise UsageError(f"{shown}: expected {_type_name(annotation)}, found {value!r}.")


def in_utf8(text: str, shown: str) -> str:
    """The text. Raises UsageError where it is no UTF-8, as a file's name may be: no file of ours could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{shown}: {text!r} is no UTF-8: rename it.") from None
    return text


def _type_name(annotation: Any) -> str:
    return {int: "a whole number", float: "a number", str: "text", bool: "true or false"}.get(
        annotation, str(annotation)
    )


def assignments(
    pairs: Iterable[str], section: str = "", sections: Collection[str] = (), option: str = "--set"
) -> dict[str, dict[str, Any]]:
    """Texts as the user types them, `SECTION.KEY=VALUE` or `KEY=VALUE`, as values by section and key.

    section: where a key without one belongs. sections: the others that may be named. A dash in a key is an underscore,
    `true` and `false` are truth values, every other value stays text. A later text wins.
    Raises UsageError for a text without a key or "=", and for an unknown section.
    """
    values: dict[str, dict[str, Any]] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        where, _, key = name.rpartition(".")
        if not equals or not key:
            raise UsageError(f"{option} '{pair}' is not understood; write NAME=VALUE.")
        if where and where != section and where not in sections:
            known = sorted({section, *sections} - {""})
            raise UsageError(f"{option} '{pair}': '{where}' is none of {', '.join(known)}.{nearest(where, known)}")
        values.setdefault(where or section, {})[key.replace("-", "_")] = {"true": True, "false": False}.get(
            value.lower(), value
        )
    return values


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain values (tuples become lists), for TOML and JSON."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}


def to_toml(sections: Mapping[str, Mapping[str, Any]], top: Mapping[str, Any] | None = None) -> str:
    """TOML text of flat sections. None has no TOML form: such settings are left out, which means the default."""

    def line(key: str, value: Any) -> str:
        return f"{key} = {json.dumps(value, ensure_ascii=False)}"

    parts = [line(k, v) for k, v in (top or {}).items() if v is not None]
    for title, values in sections.items():
        parts += ["", f"[{title}]", *(line(k, v) for k, v in values.items() if v is not None)]
    return "\n".join(parts).lstrip("\n") + "\n"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file. Raises UsageError with the parser's line for a file that is not TOML."""
    import tomllib

    try:
        return tomllib.loads(read_bytes(path, CONFIG, link=True).decode("utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(f"config file '{path}' does not exist.") from None
    except RecursionError:
        raise UsageError(f"config file '{path}' cannot be read: it is nested too deep.") from None
    except (OSError, ValueError) as error:  # no UTF-8, no TOML, a number of thousands of digits
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"config file '{path}' cannot be read: {reason}.") from error


def flag(name: str) -> str:
    """The command-line spelling of a field name."""
    return "--" + re.sub(r"_", "-", name)
