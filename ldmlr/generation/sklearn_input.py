"""Rows and labels as scikit-learn's estimators take and refuse them, for `LatentDiffusionSampler`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target

from ldmlr.arguments import as_array
from ldmlr.errors import InputError, counted
from ldmlr.generation.frames import Labels, PandasRows, PolarsRows, Rows, read_rows

Array = npt.NDArray[Any]


def read_labels(y: Any, estimator: str) -> Labels:
    """Return the labels of any container.

    Parameters
    ----------
    y
        Labels ``[N]``, ``[N, 1]`` (with scikit-learn's usual warning), or one column of 0 and 1 per class.
    estimator
        Name in messages.

    Raises
    ------
    InputError
        None, a missing label, or several labels a row.
    ValueError
        Targets of a regression: scikit-learn's own words.
    """
    if y is None:
        raise InputError(f"{estimator} requires y to be passed, but the target y is None: give labels")
    frame = hasattr(y, "columns")
    array = as_array(y.to_numpy() if hasattr(y, "to_numpy") else y)
    row = _first_missing(array) if array.ndim == 1 else None
    if row is not None:
        raise InputError(f"y: row {row} is {array[row]}, which is no class; remove such rows")
    if array.ndim == 2 and array.shape[1] > 1:
        if type_of_target(array) != "multilabel-indicator" or (array.sum(axis=1) != 1).any():
            raise InputError(
                # The sentence is the one that imbalanced-learn's own checks look for.
                f"y: has {counted(array.shape[1], 'column')}: Multilabel and multioutput targets are "
                "not supported. Give one column of labels, or one column of 0 and 1 per class"
            )
        return Labels(y, array.argmax(axis=1), array.shape[1])
    # Labels of several types are "unknown" there: the error comes from the sorting.
    if array.dtype.kind not in "mM" and type_of_target(array) != "unknown":
        check_classification_targets(array)
    return Labels(y, column_or_1d(array, warn=array.ndim == 2 and not frame))


def read_features(X: Any, estimator: Any, numeric: bool) -> Rows:
    """Return the rows of any container, looked at as scikit-learn looks at them.

    Parameters
    ----------
    X
        Features ``[N, D]``.
    estimator
        Named in messages.
    numeric
        Whether arrays must hold numbers.

    Raises
    ------
    InputError
        No rows or columns, masked or missing values, or a sparse matrix that is too large.
    ValueError, TypeError
        Another number of dimensions, or no numbers: scikit-learn's own words.
    """
    rows = read_rows(X)
    if isinstance(rows, PandasRows | PolarsRows):
        if not rows.names or not len(X):
            raise InputError(f"X: expected rows and columns [N, D], not shape {list(X.shape)}")
    else:
        rows.array = check_array(
            rows.array, dtype="numeric" if numeric else None, estimator=estimator, input_name="X",
            ensure_min_samples=2, **_any_values(),
        )  # fmt: skip
    return rows


def check_finite(columns: Sequence[Array], names: Sequence[str] | None) -> None:
    """Refuse what float32 cannot hold.

    Raises
    ------
    InputError
        The row, the column and the value.
    """
    for place, column in enumerate(columns):
        if column.dtype.kind == "f":
            wrong = ~(np.abs(column) <= np.finfo(np.float32).max)
        elif column.dtype.kind == "O":
            wrong = np.array([_is_missing(value) for value in column.tolist()], bool)
        else:
            continue
        if wrong.any():
            row = int(wrong.argmax())
            name = place if names is None else repr(names[place])
            value = "NaN" if column[row] != column[row] else column[row]
            raise InputError(
                f"X: row {row}, column {name} is {value}, expected a finite float32; remove or "
                "repair such rows"
            )


def remember_columns(estimator: Any, X: Any) -> None:
    """Set ``n_features_in_`` and ``feature_names_in_`` as scikit-learn's estimators do.

    Raises
    ------
    TypeError
        Names of columns of several types: scikit-learn's own words.
    """
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:  # before scikit-learn 1.6
        estimator._check_n_features(X, reset=True)
        estimator._check_feature_names(X, reset=True)
        return
    validate_data(estimator, X, reset=True, skip_check_array=True)


def _any_values() -> dict[str, bool]:
    """Return what lets `check_array` pass values that are not finite, as the installed version calls it."""
    known = inspect.signature(check_array).parameters
    return {"ensure_all_finite" if "ensure_all_finite" in known else "force_all_finite": False}


def _first_missing(labels: npt.NDArray[Any]) -> int | None:
    """Return the first row whose label is NaN, infinite, NaT, None or pandas' NA; None if there is none."""
    if labels.dtype.kind in "fc":
        missing = ~np.isfinite(labels)
    elif labels.dtype.kind in "mM":
        missing = np.isnat(labels)
    elif labels.dtype.kind == "O":
        missing = np.array([_is_missing(value) for value in labels], bool)
    else:
        return None
    return int(missing.argmax()) if missing.any() else None


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value) or (isinstance(value, float) and math.isinf(value))
    except (TypeError, ValueError):  # pandas' NA is neither equal nor unequal to itself
        return True
