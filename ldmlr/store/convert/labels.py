"""Turning labels of any kind into 0 .. C-1.

- Texts become classes in alphabetical order (or in the order of given class names).
- Whole numbers that are 0 .. C-1 stay as they are; also where the number of classes is known and
  they lie in its range.
- Other whole numbers (starting at 1, with gaps, negative) become 0 .. C-1 in ascending order, and
  the class names hold the original numbers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ldmlr.arguments import beyond_int64
from ldmlr.errors import InputError, counted
from ldmlr.store.layout import Array, Int64, repeated_name


@dataclasses.dataclass
class MappedLabels:
    """Labels in ``0 .. C-1`` per split, the names of the classes, and what was done, in words."""

    labels: dict[str, Int64]
    class_names: tuple[str, ...] | None
    num_classes: int
    note: str = ""


def map_labels(
    where: str,
    found: Mapping[str, Array],
    class_names: tuple[str, ...] | None = None,
    num_classes: int | None = None,
) -> MappedLabels:
    """Map the labels of all splits together, so that a class has the same number in each.

    Parameters
    ----------
    where
        The file, for messages.
    found
        Labels ``[N]`` per split: whole numbers (also as floats without fractions), or texts.
    class_names, num_classes
        Where they are known.
    """
    clean = {name: _clean(f"{where}: {name} labels", values) for name, values in found.items()}
    filled = [values for values in clean.values() if len(values)]
    if not filled:
        raise InputError(f"{where}: has no rows; expected at least one")
    kinds = {values.dtype.kind == "i" for values in filled}
    if len(kinds) > 1:
        raise InputError(f"{where}: labels are numbers in one split and texts in another; convert one")
    values = np.unique(np.concatenate([np.unique(part) for part in filled]))
    if not kinds.pop():
        return _texts(where, clean, values, class_names)
    if class_names is not None:
        num_classes = num_classes or len(class_names)
    if num_classes is not None:
        outside = values[(values < 0) | (values >= num_classes)]
        if len(outside):
            raise InputError(
                f"{where}: label {outside[0]} is not in 0 .. {num_classes - 1}; correct the labels or "
                "the number of classes"
            )
        return MappedLabels(clean, class_names, num_classes)
    if values[0] == 0 and values[-1] == len(values) - 1:
        return MappedLabels(clean, None, len(values))
    names = tuple(str(value) for value in values.tolist())
    note = (
        f"labels {_few(names)} became classes 0 .. {len(values) - 1}; the class names hold the original "
        "numbers"
    )
    mapped = {name: np.searchsorted(values, part).astype(np.int64) for name, part in clean.items()}
    return MappedLabels(mapped, names, len(values), note)


def renumbered(where: str, labels: Array, names: tuple[str, ...], order: tuple[str, ...]) -> Array:
    """Return labels that count in `names` as the numbers that the same names have in `order`.

    Raises
    ------
    InputError
        A class that `order` lacks, a name that two classes share, or a label without a name.
    """
    if names != order:
        _check_names(f"{where}: class names", names)
        _check_names(f"{where}: class names of the training rows", order)
    number = {name: place for place, name in enumerate(order)}
    missing = next((name for name in names if name not in number), None)
    if missing is not None:
        raise InputError(
            f"{where}: class {missing!r} is not among the {len(order)} of the training rows; give both the "
            "same class names"
        )
    values = _clean(f"{where}: labels", labels)
    if values.dtype.kind != "i":
        return values
    if len(values) and not 0 <= values.min() <= values.max() < len(names):
        raise InputError(f"{where}: labels are not in 0 .. {len(names) - 1}, which have names; correct them")
    if names == order:
        return values
    return np.array([number[name] for name in names], dtype=np.int64)[values]


def _texts(
    where: str, clean: Mapping[str, Array], values: Array, class_names: tuple[str, ...] | None
) -> MappedLabels:
    names = class_names or tuple(values.tolist())
    _check_names(f"{where}: class names", names)
    number = {name: place for place, name in enumerate(names)}
    unknown = [value for value in values.tolist() if value not in number]
    if unknown:
        raise InputError(
            f"{where}: label {unknown[0]!r} is not among the {counted(len(names), 'class name')}; add it"
        )
    table = np.array([number[value] for value in values.tolist()], dtype=np.int64)
    mapped = {name: table[np.searchsorted(values, part)] for name, part in clean.items() if len(part)}
    mapped |= {name: np.empty(0, np.int64) for name, part in clean.items() if not len(part)}
    note = "" if class_names else f"labels {_few(names)} became classes 0 .. {len(names) - 1}, in this order"
    return MappedLabels(mapped, names, len(names), note)


def _check_names(where: str, names: tuple[str, ...]) -> None:
    """Refuse names that two classes share, where the name has to say which class is meant."""
    repeated = repeated_name(names)
    if repeated is not None:
        raise InputError(f"{where}: {repeated}; rename one")


def _clean(where: str, values: Array) -> Array:
    """Return labels as int64 or as an array of texts."""
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{where}: have shape {values.shape}, expected one label per row")
    kind = values.dtype.kind
    row = beyond_int64(values)
    if row is not None:
        raise InputError(
            f"{where}: row {row} holds {values[row]}, beyond 2^63 - 1; give such labels as texts"
        )
    if kind in "iub":
        return values.astype(np.int64)
    if kind == "f":
        whole = (np.abs(values) < 2.0**63) & (values == np.floor(values))
        if not whole.all():
            first = int((~whole).argmax())
            raise InputError(f"{where}: row {first} holds {values[first]}, expected whole numbers or texts")
        return values.astype(np.int64)
    if kind in "OSU":
        texts = [v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in values.tolist()]
        strange = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
        if strange is not None:
            raise InputError(f"{where}: row {strange} holds {texts[strange]!r}, expected a number or a text")
        return np.array(texts, dtype=str)
    raise InputError(f"{where}: are {values.dtype}, expected whole numbers or texts; convert them")


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])} ... {names[-1]}"
