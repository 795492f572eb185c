"""The columns of a table as numbers that a diffusion model can learn, and back.

A model of continuous numbers is fitted to tables that hold more: whole numbers, truth values, categories.
A kind of column is one class here. ``encode`` gives the numbers to learn from, ``decode`` turns drawn
numbers into values that can stand in the table:

- a number stays in the range seen, unless asked otherwise: what is beyond an end is reflected at it, so that
  nothing piles up there;
- a whole number is rounded; one of few values becomes the nearest value seen;
- a column of two values is cut where each class has its own share of the two;
- a category is the largest of one number per category, each shifted until each class has its own shares.

The shares are set on rows drawn for that purpose after the training (`Table.calibrate`), so that a row
stays a pure function of its number, class and seed. Values are scaled to mean 0 and standard deviation
1: units play no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, UsageError, counted

Array = npt.NDArray[Any]
Classes = npt.NDArray[np.int64]

# A column of whole numbers with so few different values holds codes or grades: drawn ones are values seen.
FEW_VALUES = 20
# Rows drawn per class to set its shares, and the steps that set those of categories.
CALIBRATION_ROWS = 512
SHIFTS = 60
# Noise on columns of few values, in standard deviations: so a class with one value has a spread, too.
JITTER = 0.05


class Number:
    """A column of numbers.

    Parameters
    ----------
    values
        The column ``[N]``.
    keep_range
        Whether drawn values stay in the range seen.
    rank
        Whether values are learned as normal scores of their ranks: for heavy tails and skew.
    """

    width = 1
    discrete = False

    def __init__(self, values: Array, keep_range: bool, rank: bool) -> None:
        self._known = np.unique(np.asarray(values, np.float64))
        self._fold = keep_range or rank  # beyond the outer ranks there is no value to give
        self._scores: Array | None = None
        numbers = np.asarray(values, np.float64)
        if rank:
            self._scores = _normal_scores(numbers, self._known)
            numbers = np.interp(numbers, self._known, self._scores)
        self._centre = float(numbers.mean())
        # A column of one value has no scale; drawn values are that value whatever it is.
        self._scale = float(numbers.std()) or 1.0

    def encode(self, values: Array) -> Array:
        """Return what to learn from, ``[N, 1]``."""
        numbers = np.asarray(values, np.float64)
        if self._scores is not None:
            numbers = np.interp(numbers, self._known, self._scores)
        return np.asarray((numbers - self._centre) / self._scale)[:, None]

    def calibrate(self, drawn: Array, shares: Array) -> None:
        """Numbers have no shares to set."""

    def decode(self, drawn: Array, classes: Classes) -> Array:
        """Return the values of drawn rows ``[M, 1]``."""
        numbers = drawn[:, 0].astype(np.float64) * self._scale + self._centre
        ends = self._known if self._scores is None else self._scores
        if self._fold:
            numbers = reflect(numbers, float(ends[0]), float(ends[-1]))
        if self._scores is not None:
            numbers = np.interp(numbers, self._scores, self._known)
        return np.asarray(numbers)

    def shares(self, values: Array, classes: Classes, count: int) -> Array:
        """Numbers have no shares: ``[C, 0]``."""
        return np.zeros((count, 0))


class WholeNumber(Number):
    """A column of whole numbers: drawn ones are rounded, to a value seen where there are few."""

    def __init__(self, values: Array, keep_range: bool, rank: bool) -> None:
        super().__init__(values, keep_range, rank)
        self.discrete = len(self._known) <= FEW_VALUES

    def decode(self, drawn: Array, classes: Classes) -> Array:
        """Return the values of drawn rows ``[M, 1]``."""
        numbers = super().decode(drawn, classes)
        if not self.discrete:
            return np.rint(numbers)
        between = (self._known[1:] + self._known[:-1]) / 2
        return np.asarray(self._known[np.searchsorted(between, numbers)])


class Binary:
    """A column of two values (or one): drawn numbers are cut where each class has its own share.

    Parameters
    ----------
    values
        The column ``[N]``, of any type that can be compared.
    """

    width = 1
    discrete = True

    def __init__(self, values: Array) -> None:
        self.values = _distinct(values)
        self._cuts: Array = np.zeros(0)

    def encode(self, values: Array) -> Array:
        """Return 1 for the second value, 0 for the first, scaled, ``[N, 1]``."""
        second = (values == self.values[-1]).astype(np.float64)
        spread = second.std() or 1.0
        return np.asarray((second - second.mean()) / spread)[:, None]

    def shares(self, values: Array, classes: Classes, count: int) -> Array:
        """Return the share of the second value in each class ``[C, 1]``."""
        return _shares((values == self.values[-1]).astype(np.int64), classes, count, 2)[:, 1:]

    def calibrate(self, drawn: Array, shares: Array) -> None:
        """Cut so that the rows of a class ``[C, R, 1]`` have its share ``[C, 1]`` of the second value."""
        self._cuts = np.array([
            np.quantile(rows[:, 0], 1 - share) for rows, share in zip(drawn, shares[:, 0], strict=True)
        ])  # fmt: skip

    def decode(self, drawn: Array, classes: Classes) -> Array:
        """Return the values of drawn rows ``[M, 1]``."""
        return np.asarray(
            self.values[(drawn[:, 0] > self._cuts[classes]).astype(int) * (len(self.values) - 1)]
        )


class Category:
    """A column of three values and more without an order: one number per value, the largest is drawn.

    Parameters
    ----------
    values
        The column ``[N]``.
    """

    discrete = True

    def __init__(self, values: Array) -> None:
        self.values = _distinct(values)
        self.width = len(self.values)
        self._shifts: Array = np.zeros((0, self.width))

    def _numbers(self, values: Array) -> Classes:
        places = {value: place for place, value in enumerate(self.values.tolist())}
        return np.array([places[value] for value in values.tolist()], np.int64)

    def encode(self, values: Array) -> Array:
        """Return one number per value ``[N, K]``, scaled alike: their differences decide."""
        hot = np.eye(self.width)[self._numbers(values)]
        return np.asarray((hot - hot.mean(axis=0)) / (hot.std() or 1.0))

    def shares(self, values: Array, classes: Classes, count: int) -> Array:
        """Return the share of each value in each class ``[C, K]``."""
        return _shares(self._numbers(values), classes, count, self.width)

    def calibrate(self, drawn: Array, shares: Array) -> None:
        """Shift until the drawn rows of a class ``[C, R, K]`` have its shares ``[C, K]``."""
        self._shifts = np.zeros_like(shares)
        floor = 0.5 / drawn.shape[1]
        for number, rows in enumerate(drawn):
            step = rows.std(axis=0).mean()
            for turn in range(SHIFTS):
                largest = (rows + self._shifts[number]).argmax(axis=1)
                found = np.bincount(largest, minlength=self.width) / len(rows)
                change = np.log((shares[number] + floor) / (found + floor))
                self._shifts[number] += step * change / (1 + turn / 8)

    def decode(self, drawn: Array, classes: Classes) -> Array:
        """Return the values of drawn rows ``[M, K]``."""
        return np.asarray(self.values[(drawn + self._shifts[classes]).argmax(axis=1)])


Column = Number | Binary | Category


class Table:
    """All columns of a table.

    Parameters
    ----------
    columns
        The columns, arrays ``[N]``.
    names
        Their names in messages; None: their numbers.
    categorical
        None: columns of truth values are binary, all others are numbers. ``auto``: columns of text, objects
        and truth values are categories, columns of whole numbers are whole numbers, whatever their type.
        A list of names or numbers, or a mask: these columns are categories.
    keep_range
        Whether drawn numbers stay in the range seen.
    rank
        Whether numbers are learned as normal scores of their ranks.

    Raises
    ------
    UsageError
        A column that is named but is not there.
    InputError
        A column of text that is not named as categorical, or of a type that cannot be learned.
    """

    def __init__(
        self,
        columns: Sequence[Array],
        names: Sequence[str] | None,
        categorical: Any,
        keep_range: bool,
        rank: bool,
    ) -> None:
        chosen = _chosen(categorical, len(columns), names)
        self.columns: list[Column] = [
            _column(
                values,
                _name(names, place),
                place in chosen,
                categorical == "auto" if isinstance(categorical, str) else False,
                keep_range,
                rank,
            )
            for place, values in enumerate(columns)
        ]
        self.ends = np.cumsum([column.width for column in self.columns])

    def encode(self, columns: Sequence[Array]) -> npt.NDArray[np.float32]:
        """Return the numbers to learn from, ``[N, E]``."""
        parts = []
        for place, (column, values) in enumerate(zip(self.columns, columns, strict=True)):
            part = column.encode(values)
            if column.discrete:
                part = part + np.random.default_rng(place).uniform(-JITTER, JITTER, part.shape)
            parts.append(part)
        return np.concatenate(parts, axis=1).astype(np.float32)

    def calibrate(self, columns: Sequence[Array], classes: Classes, draw: Callable[[Classes], Array]) -> None:
        """Set what depends on drawn rows: the shares of values in each class.

        Parameters
        ----------
        columns, classes
            The table and the classes of its rows, 0 .. C - 1.
        draw
            Draws one row ``[E]`` per class given.
        """
        if all(isinstance(column, Number) for column in self.columns):
            return
        count = int(classes.max()) + 1
        drawn = draw(np.repeat(np.arange(count), CALIBRATION_ROWS)).reshape(count, CALIBRATION_ROWS, -1)
        for column, values, end in zip(self.columns, columns, self.ends, strict=True):
            shares = column.shares(values, classes, count)
            column.calibrate(drawn[:, :, end - column.width : end].astype(np.float64), shares)

    def decode(self, drawn: Array, classes: Classes) -> list[Array]:
        """Return the columns of drawn rows ``[M, E]``."""
        return [
            column.decode(drawn[:, end - column.width : end].astype(np.float64), classes)
            for column, end in zip(self.columns, self.ends, strict=True)
        ]


def reflect(values: Array, low: float, high: float) -> Array:
    """Return values with those beyond an end reflected at it, as often as it takes."""
    span = high - low
    if span <= 0:
        return np.full_like(values, low)
    inside = np.mod(values - low, 2 * span)
    # Rounding must not carry a value over an end it was just kept inside of.
    return np.asarray(np.clip(low + np.minimum(inside, 2 * span - inside), low, high))


def _normal_scores(values: Array, known: Array) -> Array:
    """Return the normal score of each known value: of the middle of the ranks it takes."""
    from scipy.special import ndtri  # only this option needs it

    ranks = np.searchsorted(np.sort(values), known, side="left") + np.searchsorted(
        np.sort(values), known, side="right"
    )
    return np.asarray(ndtri(ranks / 2 / len(values)))


def _shares(numbers: Classes, classes: Classes, count: int, values: int) -> Array:
    """Return the share of each value in each class ``[C, K]``; half a row of the whole table is added.

    Without it a value that a class of five rows happens to lack could never be drawn for it.
    """
    found = np.zeros((count, values))
    np.add.at(found, (classes, numbers), 1.0)
    whole = found.sum(axis=0) / found.sum()
    return np.asarray((found + 0.5 * whole) / (found.sum(axis=1, keepdims=True) + 0.5))


def _distinct(values: Array) -> Array:
    """Return the distinct values, sorted where they can be, of the column's own type."""
    if values.dtype != object:
        return np.unique(values)
    try:
        ordered = sorted(set(values.tolist()))
    except TypeError:  # of several types: by their text
        ordered = sorted(set(values.tolist()), key=repr)
    found = np.empty(len(ordered), object)
    found[:] = ordered
    return found


def _name(names: Sequence[str] | None, place: int) -> str:
    return str(place) if names is None else repr(names[place])


def _chosen(categorical: Any, count: int, names: Sequence[str] | None) -> set[int]:
    """Return the numbers of the columns that are categories by the caller's word."""
    if categorical is None or (isinstance(categorical, str) and categorical == "auto"):
        return set()
    given = np.asarray(categorical)
    if isinstance(categorical, str) or given.ndim != 1:
        raise UsageError(
            f"categorical_features: expected None, 'auto', a list of columns or a mask, not {categorical!r}"
        )
    if given.dtype == bool:
        if len(given) != count:
            raise UsageError(f"categorical_features: a mask of {len(given)} for {counted(count, 'column')}")
        return set(np.flatnonzero(given).tolist())
    chosen = set()
    for entry in given.tolist():
        if isinstance(entry, str) and names is not None and entry in names:
            chosen.add(list(names).index(entry))
        elif isinstance(entry, int) and -count <= entry < count:
            chosen.add(entry % count)
        else:
            raise UsageError(f"categorical_features: {entry!r} is no column of X, which has {count}")
    return chosen


def _column(values: Array, name: str, chosen: bool, auto: bool, keep_range: bool, rank: bool) -> Column:
    """Return the kind of a column."""
    kind = values.dtype.kind
    if chosen or (auto and kind in "OUSb"):
        return _codes(values)
    if kind == "b":
        return Binary(values)
    if kind == "O":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError(
                f"X: column {name} holds {_example(values)!r}, which is no number; give "
                "categorical_features='auto', or encode it"
            ) from None
        return Number(values, keep_range, rank)
    if kind not in "fiu":
        raise InputError(
            f"X: column {name} is of type {values.dtype}; expected numbers, truth values or categories. "
            + ("Give categorical_features='auto', or encode it" if kind in "US" else "Turn it into numbers")
        )
    if auto and len(known := np.unique(values)) <= FEW_VALUES and (known == np.rint(known)).all():
        return Binary(values) if len(known) == 2 else WholeNumber(values, keep_range, rank)
    whole = kind in "iu" or (auto and bool((values == np.rint(values)).all()))
    return (WholeNumber if whole else Number)(values, keep_range, rank)


def _codes(values: Array) -> Column:
    return Binary(values) if len(_distinct(values)) <= 2 else Category(values)


def _example(values: Array) -> Any:
    for value in values.tolist():
        try:
            float(value)
        except (TypeError, ValueError):
            return value
    return values[0]
