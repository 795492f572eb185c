"""Model files: the one reader and writer of diffusion models, heads and baselines.

A model file is safetensors, never a pickle. Beside the tensors its metadata have one entry, ``ldmlr``, a JSON
object with

- ``format``: the kind, such as ``ldmlr-head``;
- ``schema_version``: today 2;
- ``sha256``: over all other fields of this object and over names, types, shapes and bytes of the tensors,
  so that a changed bound or prediction is noticed like a changed weight;
- the fields of the kind.

Equal models are equal files, byte for byte. Version 1 is read as well: there the checksum of diffusion models
covered the tensors alone, and heads and baselines had none, and called their version ``version``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors.numpy import save

from ldmlr.arguments import SEED_LIMIT
from ldmlr.boundary import first_line, out_of_memory
from ldmlr.config import MAX_WHOLE, Config, UnknownKey
from ldmlr.errors import InputError, LdmlrError
from ldmlr.files import check_input, check_output, parse_json, write_bytes
from ldmlr.otherfile import may_be_safetensors, other_file
from ldmlr.runfolder import kept_in_run, of_stage, tuned_head
from ldmlr.tensorfile import open_tensors

SCHEMA_VERSION = 2
KEY = "ldmlr"

C = TypeVar("C", bound=Config)
Header = dict[str, Any]
# By name; NumPy's arrays, or tensors of PyTorch where a kind is read or written as such.
Tensors = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a model file may hold.

    Parameters
    ----------
    format
        Its name in the header.
    noun, file
        What messages call it, and its file.
    maker
        The command that writes it.
    kept
        Where the folder of a run has it: patterns, first choice first.
    """

    format: str
    noun: str
    file: str
    maker: str
    kept: tuple[str, ...]


DIFFUSION = Kind(
    "ldmlr-diffusion", "diffusion model", "model file", "ldmlr diffuse",
    (of_stage("diffuse", "model.safetensors"),),
)  # fmt: skip
HEAD = Kind(
    "ldmlr-head", "head", "head file", "ldmlr finetune",
    (of_stage("auto", "head.safetensors"), of_stage("finetune", "head.safetensors"), tuned_head("*")),
)  # fmt: skip
BASELINE = Kind(
    "ldmlr-baseline", "baseline", "model file", "ldmlr baseline",
    (of_stage("baseline", "model.safetensors"),),
)  # fmt: skip
KINDS = {kind.format: kind for kind in (DIFFUSION, HEAD, BASELINE)}


@dataclasses.dataclass(frozen=True)
class Rule:
    """What a field of a header must be.

    Parameters
    ----------
    words
        What is expected, for messages.
    holds
        Whether a value, as JSON gives it, is that.
    """

    words: str
    holds: Callable[[Any], bool]


def whole(minimum: int = 0, maximum: int = MAX_WHOLE) -> Rule:
    """Expect a whole number within limits."""
    return Rule(
        f"a whole number from {minimum} to {maximum}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum,
    )


def number(above: float = -math.inf) -> Rule:
    """Expect a finite number, larger than `above`."""
    words = "a finite number" + (f" above {above:g}" if math.isfinite(above) else "")
    return Rule(words, lambda value: _is_number(value) and above < value and abs(value) <= sys.float_info.max)


def choice(*words: str) -> Rule:
    """Expect one of some words."""
    return Rule(f"one of {', '.join(words)}", lambda value: isinstance(value, str) and value in words)


def optional(rule: Rule) -> Rule:
    """Expect null or what a rule says."""
    return Rule(f"null or {rule.words}", lambda value: value is None or rule.holds(value))


def many(rule: Rule, length: int | None = None) -> Rule:
    """Expect a list, each entry of which a rule allows."""
    count = "" if length is None else f"{length} times "
    return Rule(
        f"a list ({count}{rule.words})",
        lambda value: (
            isinstance(value, list) and length in (None, len(value)) and all(map(rule.holds, value))
        ),
    )


def fields(**rules: Rule) -> Rule:
    """Expect an object with these fields at least."""
    words = ", ".join(f"{name}: {rule.words}" for name, rule in rules.items())
    return Rule(
        f"an object with {words}" if rules else "an object",
        lambda value: (
            isinstance(value, dict)
            and all(name in value and rule.holds(value[name]) for name, rule in rules.items())
        ),
    )


TEXT = Rule("a text", lambda value: isinstance(value, str))
# The first version wrote names of classes as they were given, numbers as well.
NAME = Rule("a name", lambda value: isinstance(value, str | int))
# A loss that got out of hand is a fact to be kept: JSON's NaN and Infinity, which Python reads, are allowed.
FIGURE = Rule("a number", lambda value: _is_number(value))
SEED = whole(0, SEED_LIMIT - 1)
ANY = fields()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def checksum(tensors: Mapping[str, Any]) -> str:
    """Return the sha256 over names, types, shapes and bytes of arrays or tensors, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        kind, shape, data = _contents(tensors[name])
        digest.update(f"{name} {kind} {shape}\n".encode())
        digest.update(data)
    return digest.hexdigest()


def _contents(tensor: Any) -> tuple[str, list[int], Any]:
    """Return the type (as torch writes it), the shape and the bytes of an array or a tensor."""
    if isinstance(tensor, np.ndarray):
        return f"torch.{tensor.dtype}", list(tensor.shape), np.ascontiguousarray(tensor).reshape(-1).data
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return str(tensor.dtype), list(tensor.shape), flat.view(torch.uint8).numpy().data


def _whole_checksum(header: Mapping[str, Any], tensors: Tensors) -> str:
    """Return the sha256 over the tensors and every field of the header but itself."""
    text = json.dumps({name: value for name, value in header.items() if name != "sha256"}, sort_keys=True)
    return hashlib.sha256(f"{text}\n{checksum(tensors)}".encode()).hexdigest()


def write(
    path: Path, kind: Kind, header: Mapping[str, Any], tensors: Mapping[str, Any], overwrite: bool
) -> None:
    """Write header and tensors, whole or not at all.

    Parameters
    ----------
    path
        The file.
    kind
        What it holds.
    header
        The fields of the kind: plain data.
    tensors
        By name, all of NumPy or all of PyTorch; those that share memory are written once each.
    overwrite
        Replace a file that exists.
    """
    check_output(path, overwrite)
    arrays = all(isinstance(tensor, np.ndarray) for tensor in tensors.values())
    flat: Tensors = {
        name: tensor.copy(order="C") if arrays else tensor.detach().cpu().contiguous().clone()
        for name, tensor in tensors.items()
    }
    document = {"format": kind.format, "schema_version": SCHEMA_VERSION, **header}
    document["sha256"] = _whole_checksum(json.loads(json.dumps(document)), flat)
    # One entry: safetensors orders several at random.
    metadata = {KEY: json.dumps(document, sort_keys=True)}
    if arrays:
        write_bytes(path, save(flat, metadata), overwrite)
        return
    from safetensors.torch import save as save_tensors

    write_bytes(path, save_tensors(flat, metadata), overwrite)


def read(
    path: Path, kind: Kind, rules: Mapping[str, Rule], *, framework: str = "np"
) -> tuple[Header, Tensors]:
    """Return the header and the tensors of a model file.

    Parameters
    ----------
    path
        The file.
    kind
        What it is expected to hold.
    rules
        What each field of the header must be.
    framework
        ``np`` for arrays, ``pt`` for tensors of PyTorch, which has types that NumPy lacks.

    Raises
    ------
    InputError
        The file is missing, no safetensors file, of another kind or a newer version, or damaged.
    """
    refuse_run(path, kind)
    check_input(path, kind.file)
    try:
        with open_tensors(path, framework) as file:
            text = (file.metadata() or {}).get(KEY)
            header = _header(path, kind, text)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except LdmlrError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise MemoryError(f"{path}: {first_line(error)}") from error
        other = other_file(path)
        if other is not None:
            raise InputError(
                f"{path}: is {other}, not a {kind.noun}; give one made by {kind.maker}"
            ) from None
        if path.suffix != ".safetensors" and not may_be_safetensors(path):
            raise InputError(
                f"{path}: is no {kind.file}; a {kind.noun} is a .safetensors file, and {kind.maker} makes it"
            ) from None
        raise InputError(
            f"{path}: not a safetensors file, or damaged ({first_line(error)}); make or copy it again"
        ) from None
    with damaged(path, kind):
        if "sha256" in header:
            old = header.get("schema_version") == 1
            found = checksum(tensors) if old else _whole_checksum(header, tensors)
            if found != header["sha256"]:
                raise ValueError("the checksum does not match")
        for name, rule in rules.items():
            if name not in header:
                raise ValueError(f"its header has no {name}")
            if not rule.holds(header[name]):
                raise ValueError(f"{name} is {_short(header[name])}, expected {rule.words}")
    return header, tensors


def refuse_run(path: Path, kind: Kind) -> None:
    """Refuse the folder of a run where one of its models is expected, and name that one.

    Raises
    ------
    InputError
        It is such a folder.
    """
    found = kept_in_run(path, kind.kept)
    if found is not None:
        raise InputError(f"{path}: is the folder of a run; its {kind.noun} is {found}")


def kind_of(path: Path) -> Kind:
    """Return what kind of model a file holds.

    Raises
    ------
    InputError
        The file is missing, or none of the kinds; the message names them.
    """
    found = known_kind(check_input(path, "model file"))
    if found is None:
        what = other_file(path) or "no model file of ldmlr, or damaged"
        makers = ", ".join(kind.maker for kind in KINDS.values())
        raise InputError(f"{path}: is {what}; give one made by {makers}")
    return found


def known_kind(path: Path) -> Kind | None:
    """Return what kind of model a file holds; None if it is no model file."""
    try:
        with open_tensors(path, "np") as file:
            header = parse_json((file.metadata() or {}).get(KEY, ""))
        return KINDS[header["format"]]
    except Exception:
        return None


def _header(path: Path, kind: Kind, text: str | None) -> Header:
    """Return the header of a file of the right kind and a known version."""
    if text is None:
        raise InputError(f"{path}: a safetensors file, but no {kind.noun}; give one made by {kind.maker}")
    with damaged(path, kind):
        header = parse_json(text)
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
    found = header.get("format")
    if found != kind.format:
        other = KINDS.get(found) if isinstance(found, str) else None
        what = f"is a {other.noun}" if other else f"holds {_short(found)}"
        raise InputError(f"{path}: {what}, expected a {kind.noun}; give one made by {kind.maker}")
    # Heads and baselines of the first version have no checksum; whatever else has none is damaged.
    first = kind is not DIFFUSION and "version" in header and "schema_version" not in header
    version: Any = header.get("version" if first else "schema_version")
    with damaged(path, kind):
        if not whole(1).holds(version):
            raise ValueError(f"its version is {_short(version)}")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: written by a newer version (schema {version}, this one reads up to {SCHEMA_VERSION}); "
            "upgrade ldmlr"
        )
    with damaged(path, kind):
        if "sha256" not in header and not (first and version == 1):
            raise ValueError("it has no checksum")
    return header


class NewerOption(Exception):
    """A configuration has an option that this version does not know."""


def config_of(config: type[C], values: Mapping[str, Any]) -> C:
    """Return the configuration of a header; an option that is not known was added by a newer version."""
    try:
        return config.from_mapping(values)
    except UnknownKey as error:
        raise NewerOption(error.message.partition(";")[0]) from None


def check_options(config: type[Config], values: Mapping[str, Any]) -> None:
    """Refuse options that are not known: a newer version added them, and may mean another network by them.

    For configurations that are a record alone: their values are not looked at.
    """
    known = {
        name for field in dataclasses.fields(config) for name in (field.name, field.metadata.get("formerly"))
    }
    unknown = next((str(key) for key in values if key not in known), None)
    if unknown is not None:
        raise NewerOption(f"unknown key {_short(unknown)}")


@contextmanager
def damaged(path: Path, kind: Kind) -> Iterator[None]:
    """Turn whatever contents that do not fit together cause into one line that names the file."""
    try:
        yield
    except NewerOption as error:
        raise InputError(f"{path}: written by a newer version ({error.args[0]}); upgrade ldmlr") from None
    except Exception as error:
        raise InputError(
            f"{path}: damaged {kind.file} ({first_line(error)}); make or copy it again"
        ) from error


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
