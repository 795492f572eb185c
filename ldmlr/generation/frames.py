"""Rows and labels in, the same kinds of rows and labels out: lists, arrays, sparse matrices, data frames.

Whoever resamples a table gets a table: pandas or polars, the same column names and types, the original
rows untouched. A kind of container is one class here, with two jobs: to give its columns as arrays,
and to put columns of more rows below its own. pandas and polars are never imported: a caller who has a
data frame has imported them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import as_array
from ldmlr.errors import InputError

Array = npt.NDArray[Any]

# A sparse matrix is filled with its zeros to be learned from: numbers that take up to this many bytes.
DENSE_LIMIT = 2**32


class Rows:
    """Features ``[N, D]`` of an array, a tensor or anything NumPy turns into one.

    Parameters
    ----------
    values
        What the caller gave.
    array
        The same as an array.
    """

    names: tuple[str, ...] | None = None

    def __init__(self, values: Any, array: Array) -> None:
        self.values, self.array = values, array

    def columns(self) -> list[Array]:
        """Return the columns, each an array ``[N]``."""
        return list(self.array.T)

    def below(self, drawn: Sequence[Array]) -> Any:
        """Return these rows with the drawn ones, column by column, under them."""
        return np.concatenate([self.array, np.stack(list(drawn), 1).astype(self.array.dtype)])


class ListRows(Rows):
    """A list of lists."""

    def below(self, drawn: Sequence[Array]) -> Any:
        """Return these rows with the drawn ones under them, as a list."""
        return super().below(drawn).tolist()


class SparseRows(Rows):
    """A matrix of SciPy, filled with its zeros to be learned from."""

    def below(self, drawn: Sequence[Array]) -> Any:
        """Return these rows with the drawn ones under them, in the format they had."""
        from scipy import sparse  # the caller has a matrix of it

        kind = sparse.csr_array if isinstance(self.values, sparse.sparray) else sparse.csr_matrix
        return kind(super().below(drawn)).asformat(self.values.format)


class PandasRows(Rows):
    """A data frame of pandas; the result has a new index, as imbalanced-learn's has."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.names = tuple(str(name) for name in values.columns)

    def columns(self) -> list[Array]:
        """Return the columns; those of nullable types must be without gaps."""
        return [_pandas_column(self.values.iloc[:, place]) for place in range(self.values.shape[1])]

    def below(self, drawn: Sequence[Array]) -> Any:
        """Return these rows with the drawn ones under them: the same names, the same types."""
        pandas = sys.modules["pandas"]
        own = self.values.reset_index(drop=True)
        kinds = [own.dtypes.iloc[place] for place in range(own.shape[1])]
        added = [pandas.Series(column).astype(kind) for column, kind in zip(drawn, kinds, strict=True)]
        columns = [
            pandas.concat([own.iloc[:, place], column], ignore_index=True)
            for place, column in enumerate(added)
        ]
        frame = pandas.concat(columns, axis=1)
        frame.columns = own.columns
        return frame


class PolarsRows(Rows):
    """A data frame of polars."""

    def __init__(self, values: Any) -> None:
        self.values = values
        self.names = tuple(values.columns)

    def columns(self) -> list[Array]:
        """Return the columns."""
        return [_polars_column(self.values[name]) for name in self.values.columns]

    def below(self, drawn: Sequence[Array]) -> Any:
        """Return these rows with the drawn ones under them: the same names, the same types."""
        polars = sys.modules["polars"]
        own = self.values
        added = [
            polars.Series(name, column.tolist()).cast(kind)
            for name, column, kind in zip(own.columns, drawn, own.dtypes, strict=True)
        ]
        return polars.concat([own, polars.DataFrame(added)])


def read_rows(values: Any) -> Rows:
    """Return the rows of any container a caller may have.

    Raises
    ------
    InputError
        A sparse matrix that is too large to be filled, or masked values.
    """
    if _is_of(values, "pandas", "DataFrame"):
        return PandasRows(values)
    if _is_of(values, "polars", "DataFrame"):
        return PolarsRows(values)
    if _is_of(values, "scipy.sparse", "issparse"):
        size = int(np.prod(values.shape)) * np.dtype(values.dtype).itemsize
        if size > DENSE_LIMIT:
            raise InputError(
                f"X: a sparse matrix of shape {list(values.shape)} takes {size / 2**30:.1f} GiB with its "
                f"zeros, more than {DENSE_LIMIT / 2**30:.0f}; reduce its columns first, for "
                "instance by TruncatedSVD"
            )
        return SparseRows(values, values.toarray())
    if np.ma.isMaskedArray(values) and np.ma.getmaskarray(values).any():
        row, column = np.argwhere(np.ma.getmaskarray(values))[0][:2]
        raise InputError(f"X: row {row}, column {column} is masked; fill or remove such rows")
    array = as_array(values)
    if isinstance(values, list | tuple):
        return ListRows(values, array)
    return Rows(values, array)


class Labels:
    """Labels in whatever they came: a list, an array, a series, a frame of one column, one column a class.

    Parameters
    ----------
    values
        What the caller gave.
    array
        The class of each row ``[N]``.
    classes
        For one column a class: the number of classes, else 0.
    """

    def __init__(self, values: Any, array: Array, classes: int = 0) -> None:
        self.values, self.array, self.classes = values, array, classes

    def below(self, drawn: Array) -> Any:
        """Return these labels with the drawn ones under them."""
        if self.classes:
            whole = np.concatenate([self.array, drawn])
            return np.eye(self.classes, dtype=as_array(self.values).dtype)[whole]
        for library, kind in (("pandas", "Series"), ("polars", "Series")):
            if _is_of(self.values, library, kind):
                return _series_below(library, self.values, drawn)
        if _is_of(self.values, "pandas", "DataFrame"):
            return PandasRows(self.values).below([drawn])
        if _is_of(self.values, "polars", "DataFrame"):
            return PolarsRows(self.values).below([drawn])
        whole = np.concatenate([self.array, drawn])
        return whole.tolist() if isinstance(self.values, list | tuple) else whole


def _series_below(library: str, values: Any, drawn: Array) -> Any:
    module = sys.modules[library]
    if library == "polars":
        return module.concat([values, module.Series(values.name, drawn.tolist()).cast(values.dtype)])
    added = module.Series(drawn).astype(values.dtype)
    whole = module.concat([values.reset_index(drop=True), added], ignore_index=True)
    return whole.rename(values.name)


def _is_of(values: Any, library: str, name: str) -> bool:
    """Tell whether a value is of a class (or passes a test) of a library that may not be there."""
    module = sys.modules.get(library)
    if module is None:
        return False
    found = getattr(module, name)
    return bool(isinstance(values, found) if isinstance(found, type) else found(values))


def _pandas_column(series: Any) -> Array:
    if series.isna().any():
        row = int(np.flatnonzero(series.isna().to_numpy())[0])
        raise InputError(
            f"X: column {series.name!r} contains NaN or a missing value in row {row}; fill or remove "
            "such rows"
        )
    if series.dtype == "boolean":
        return np.asarray(series.to_numpy(bool))
    array = np.asarray(series.to_numpy())
    if array.dtype == object and _numeric(series.dtype):  # nullable numbers and those of Arrow
        array = np.asarray(series.to_numpy("float64" if "loat" in str(series.dtype) else "int64"))
    return array


def _numeric(dtype: Any) -> bool:
    return bool(sys.modules["pandas"].api.types.is_numeric_dtype(dtype))


def _polars_column(series: Any) -> Array:
    if series.null_count():
        row = int(series.is_null().arg_true()[0])
        raise InputError(f"X: column {series.name!r} contains null in row {row}; fill or remove such rows")
    if str(series.dtype) in ("Categorical", "String") or str(series.dtype).startswith(
        ("Enum", "Categorical")
    ):
        return np.array(series.to_list(), object)
    return np.asarray(series.to_numpy())
