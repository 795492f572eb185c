"""A head as scikit-learn knows classifiers, without scikit-learn.

Labels are the whole numbers 0 .. C-1 of the store; the names of the classes, where it has any, are
``class_names_``, in the same order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import as_array
from ldmlr.errors import InputError
from ldmlr.heads.logits import block_rows
from ldmlr.metrics.calibration import log_softmax

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
# Where a temperature is looked for.
COLDEST, HOTTEST = 1e-2, 1e2


class Classifier:
    """What a classifier of scikit-learn offers after ``fit``: a base of heads with ``logits``.

    Attributes
    ----------
    classes_
        Labels ``[C]``: 0 .. C-1.
    class_names_
        Names of the classes ``[C]``, or None.
    n_features_in_
        Feature dimensions D.
    """

    _estimator_type = "classifier"

    class_names: tuple[str, ...] | None
    temperature: float
    config: Any

    @property
    def num_classes(self) -> int:
        """Classes C; each head defines it."""
        raise TypeError(f"{type(self).__name__} defines no classes")

    @property
    def dim(self) -> int:
        """Feature dimensions D; each head defines it."""
        raise TypeError(f"{type(self).__name__} defines no dimensions")

    def logits(self, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return logits ``[N, C]``; each head defines it."""
        raise TypeError(f"{type(self).__name__} defines no logits")

    @property
    def classes_(self) -> Labels:
        """Labels of the classes, ``[C]``."""
        return np.arange(self.num_classes)

    @property
    def class_names_(self) -> npt.NDArray[np.str_] | None:
        """Names of the classes, ``[C]``, or None."""
        return None if self.class_names is None else np.array(self.class_names)

    @property
    def n_features_in_(self) -> int:
        """Feature dimensions D."""
        return self.dim

    def predict(self, X: npt.ArrayLike) -> Labels:
        """Return the most likely label of each row ``[N]``; see `classes_`."""
        parts = [logits.argmax(axis=1) for logits in self._blocks(X)]
        return np.concatenate(parts).astype(np.int64) if parts else np.zeros(0, np.int64)

    def predict_log_proba(self, X: npt.ArrayLike) -> Floats:
        """Return logarithms of `predict_proba`, ``[N, C]``."""
        parts = [log_softmax(logits / self.temperature) for logits in self._blocks(X)]
        return np.concatenate(parts) if parts else np.zeros((0, self.num_classes))

    def predict_proba(self, X: npt.ArrayLike) -> Floats:
        """Return probabilities ``[N, C]``, columns in the order of `classes_`."""
        probabilities: Floats = np.exp(self.predict_log_proba(X))
        return probabilities

    def decision_function(self, X: npt.ArrayLike) -> Floats:
        """Return logits ``[N, C]``; of two classes, that of the second over the first, ``[N]``."""
        logits = self.logits(X).astype(np.float64)
        return logits[:, 1] - logits[:, 0] if self.num_classes == 2 else logits

    def score(
        self,
        X: npt.ArrayLike,
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Return the share of rows ``[N, D]`` whose label ``[N]`` is predicted."""
        right = self.predict(X) == self._labels(y, len(as_array(X)))
        return float(np.average(right, weights=None if sample_weight is None else as_array(sample_weight)))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the options it was fitted with."""
        found: dict[str, Any] = self.config.to_dict()
        return found

    def calibrated(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Return the head with the temperature that suits held-out rows (Guo et al., ICML 2017).

        Classes count alike, as they do for a head that is to be balanced. Predictions stay, probabilities
        become as sure as they are right.

        Parameters
        ----------
        X, y
            Rows ``[N, D]`` that the head was not trained on, and their labels ``[N]``.

        Raises
        ------
        InputError
            There is no row, or labels that do not belong to the head.
        """
        labels = self._labels(y, len(as_array(X)))
        if not len(labels):
            raise InputError("calibrated: there are no rows to find a temperature on")
        found = temperature_of(self.logits(X), labels)
        changed: Self = dataclasses.replace(self, temperature=found)  # type: ignore[type-var]
        return changed

    def _blocks(self, X: npt.ArrayLike) -> Iterator[npt.NDArray[np.float32]]:
        rows = as_array(X)
        size = block_rows(self.num_classes)
        for start in range(0, len(rows) if rows.ndim else 1, size):
            yield self.logits(rows[start : start + size] if rows.ndim else rows)

    def _labels(self, y: npt.ArrayLike, rows: int) -> Labels:
        labels = as_array(y)
        if labels.shape != (rows,) or labels.dtype.kind not in "iu":
            raise InputError(
                f"head: expected whole numbers as labels [{rows}], not {labels.dtype} {list(labels.shape)}"
            )
        if rows and not 0 <= labels.min() <= labels.max() < self.num_classes:
            wrong = labels[(labels < 0) | (labels >= self.num_classes)][0]
            raise InputError(f"head: label {wrong} is none of its classes 0 .. {self.num_classes - 1}")
        return labels.astype(np.int64)


def temperature_of(logits: npt.NDArray[Any], labels: Labels) -> float:
    """Return the temperature that suits held-out rows, all classes alike.

    Parameters
    ----------
    logits, labels
        Of rows that no head was trained on which these are the logits of, ``[N, C]`` and ``[N]``.
    """
    wide = logits.astype(np.float64)
    weight = 1 / np.bincount(labels, minlength=wide.shape[1])[labels]

    def loss(log_temperature: float) -> float:
        own = log_softmax(wide / np.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-(weight * own).sum())

    return float(np.exp(_lowest(loss, np.log(COLDEST), np.log(HOTTEST))))


def _lowest(function: Any, low: float, high: float, steps: int = 60) -> float:
    """Return where a function with one valley is lowest (golden section)."""
    ratio = (np.sqrt(5.0) - 1) / 2
    a, b = high - ratio * (high - low), low + ratio * (high - low)
    at_a, at_b = function(a), function(b)
    for _ in range(steps):
        if at_a <= at_b:
            high, b, at_b = b, a, at_a
            a = high - ratio * (high - low)
            at_a = function(a)
        else:
            low, a, at_a = a, b, at_b
            b = low + ratio * (high - low)
            at_b = function(b)
    return float((low + high) / 2)
