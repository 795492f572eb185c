"""Configurations: one dataclass per stage is the source of its options everywhere.

A field made with `option` carries its default, help text and limits. The command line, the
TOML file, the Python keyword arguments and the saved result all read the same fields, so
an option has one name, one meaning and one check.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ldmlr.errors import UsageError, nearest, opt
from ldmlr.files import check_input
from ldmlr.remote import as_path

# What whole numbers end at that have no limit of their own: more is a slip, and no library counts so far.
MAX_WHOLE = 2**40


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    metavar: str | None = None,
    off: str | None = None,
    formerly: str | None = None,
) -> Any:
    """Declare a configuration field.

    Parameters
    ----------
    default
        The value when nothing is said.
    help
        One line for the help text, with units.
    choices
        The allowed words of a text field, or of each text of a list.
    minimum, maximum
        Inclusive limits of a number, or of each number of a list.
    above
        Exclusive lower limit, likewise.
    metavar
        How the command line names the value.
    off
        What the command line calls the other side of a switch.  [default: no-NAME]
    formerly
        Another name that it had: older files and commands go on to work.
    """
    metadata = {
        "help": help, "choices": choices, "minimum": minimum, "maximum": maximum,
        "above": above, "metavar": metavar, "off": off, "formerly": formerly,
    }  # fmt: skip
    if isinstance(default, dict):
        # A table is no key of anything, and every configuration has its own.
        return dataclasses.field(default_factory=default.copy, hash=False, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class UnknownKey(UsageError):
    """A key that is no option."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of all stage configurations: checked values, built from mappings, hashed."""

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = _check(field, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Return the names of the options."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "") -> Self:
        """Build from keys and values; an unknown key is an error that names the nearest one.

        Parameters
        ----------
        values
            Keys may be written with hyphens or underscores.
        where
            Prefix of error messages, such as ``run.toml: [diffuse]``.
        """
        prefix = f"{where}: " if where else ""
        known = cls.names()
        renamed = {field.metadata.get("formerly"): field.name for field in dataclasses.fields(cls)}
        clean: dict[str, Any] = {}
        for key, value in values.items():
            name = key.replace("-", "_")
            name = renamed.get(name, name)
            if name not in known:
                raise UnknownKey(f"{prefix}unknown key {key!r}; {nearest(name, known)}")
            clean[name] = value
        try:
            return cls(**clean)
        except UsageError as error:
            raise UsageError(f"{prefix}{error}") from None

    def to_dict(self) -> dict[str, Any]:
        """Return the values as plain data that JSON and TOML can hold."""
        return {f.name: plain(getattr(self, f.name)) for f in dataclasses.fields(self)}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed."""
        return dataclasses.replace(self, **changes)


def plain(value: Any) -> Any:
    """Turn tuples, paths and nested mappings into lists, text and dicts."""
    if isinstance(value, Config):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} cannot be saved as plain data")


def config_hash(*parts: Any) -> str:
    """Return a short sha256 of configurations and other plain data, for reuse and provenance."""
    text = json.dumps([plain(part) for part in parts], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def parse_toml(text: str) -> dict[str, Any]:
    """Return what a TOML text holds; whatever is wrong with it, be it a thousand brackets, is ValueError."""
    try:
        return tomllib.loads(text)
    except ValueError:
        raise
    except Exception as error:  # RecursionError, and what dates and numbers beyond all limits raise
        raise ValueError(str(error) or type(error).__name__) from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; errors name the file and the line."""
    check_input(path, "TOML file")
    try:
        return parse_toml(as_path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except ValueError as error:
        raise UsageError(f"{path}: not a TOML file ({error}); correct it") from None


def _check(field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    """Return `value` in the type of the field, or raise an error that names the option."""
    name = opt(field.name)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        arms = typing.get_args(hint)
        if value is None and type(None) in arms:
            return None
        arms = tuple(arm for arm in arms if arm is not type(None))
        if len(arms) > 1:
            # An option of several types (a strategy: word, number, dict) is checked where it is used.
            return value
        hint = arms[0]
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if isinstance(value, str):
            # As lists are written on one line, such as 124,116,104; an empty text is an empty list.
            value = [_of_text(item, part.strip()) for part in value.split(",")] if value.strip() else []
        elif isinstance(value, int | float):
            value = (value,)
        try:
            entries = tuple(_number_or_text(name, item, entry) for entry in value)
        except TypeError:
            raise UsageError(f"{name}: expected a list, not {value!r}") from None
        for entry in entries:
            _check_limits(name, field.metadata, entry)
        return entries
    if isinstance(hint, type):
        value = _number_or_text(name, hint, value)
    _check_limits(name, field.metadata, value)
    return value


def _of_text(hint: type, text: str) -> Any:
    """Return the number that a part of a comma list stands for, if numbers are wanted and it is one."""
    if hint in (int, float):
        try:
            return float(text)
        except ValueError:
            return text
    return text


def _number_or_text(name: str, hint: type, value: Any) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if hint is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if hint is Path and isinstance(value, str):
        value = as_path(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        value = value.item()
    if (hint in (int, float) and isinstance(value, bool)) or not isinstance(value, hint):
        expected = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise UsageError(f"{name}: expected {expected.get(hint, hint.__name__)}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{name}: expected a finite number, not {value!r}")
    return value


def _shown(limit: float) -> str:
    # Whole limits in full: 1e+06 is no number that one types.
    return str(limit) if isinstance(limit, int) else f"{limit:g}"


def _check_limits(name: str, metadata: Mapping[str, Any], value: Any) -> None:
    choices = metadata.get("choices")
    if choices and value not in choices:
        raise UsageError(f"{name}: unknown value {value!r}; {nearest(str(value), choices)}")
    low, high, above = metadata.get("minimum"), metadata.get("maximum"), metadata.get("above")
    if high is None and isinstance(value, int):
        high = MAX_WHOLE
    if low is not None and value < low:
        raise UsageError(f"{name}: must be at least {_shown(low)}, not {value!r}")
    if high is not None and value > high:
        raise UsageError(f"{name}: must be at most {_shown(high)}, not {value!r}")
    if above is not None and value <= above:
        raise UsageError(f"{name}: must be above {_shown(above)}, not {value!r}")
