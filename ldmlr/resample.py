"""Over-sampling with generated rows, in the vocabulary of imbalanced-learn.

`LatentDiffusionSampler` takes the place of ``SMOTE`` and the like: the same
``sampling_strategy``, the same ``fit_resample``, the same result (original rows first). It
needs scikit-learn, not imbalanced-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator

from ldmlr.arrays import as_array
from ldmlr.diffusion.model import LatentDiffusion
from ldmlr.diffusion.rows import check_features
from ldmlr.errors import InputError, UsageError
from ldmlr.generation.classes import by_class
from ldmlr.generation.config import SampleConfig
from ldmlr.generation.plan import Counts, labels_of, plan

Strategy = str | float | Mapping[Any, int] | Callable[[npt.NDArray[Any]], Mapping[Any, int]]


class LatentDiffusionSampler(BaseEstimator):  # type: ignore[misc]
    """Over-sample classes with rows drawn from a latent diffusion model.

    Parameters
    ----------
    sampling_strategy
        As in imbalanced-learn: ``auto`` or ``not majority``, ``minority``, ``not minority``,
        ``all``; a number, for two classes: rows of the smaller over rows of the larger class after
        resampling; a dictionary from class to rows after resampling; a function from `y` to
        such a dictionary. Also ``ratio`` (the paper's: each class grows by the fraction `ratio`) and
        the shot groups ``many``, ``medium`` and ``few`` (filled up to the largest class).
    random_state
        Seed of training and sampling: a whole number, a NumPy generator of either kind, or None
        (another seed every time).
    ratio, minimum
        Of the strategy ``ratio``: the fraction, and the fewest rows a class grows by.
    solver, steps, guidance, scale
        How rows are drawn, see `ldmlr.LatentDiffusion.sample`. The defaults draw from the
        distribution of the rows given. Features of a network trained on these very rows are narrower
        than those of new rows: there guidance 1.5 and scale 1.41 serve better.
    backend
        ``auto``, ``reference``, ``native`` or ``cuda``.
    model_options
        Fields of the model's configuration, such as ``{"hidden": 256, "iterations": 5000}``.

    Attributes
    ----------
    model_
        The trained `ldmlr.LatentDiffusion`.
    classes_
        The label values; the model's class i is ``classes_[i]``.
    sampling_strategy_
        Rows generated, by label value.

    Examples
    --------
    >>> import numpy as np
    >>> from ldmlr import LatentDiffusionSampler
    >>> rng = np.random.default_rng(0)
    >>> y = np.repeat(["common", "rare"], [90, 10])
    >>> X = rng.standard_normal((100, 4)) + 3 * (y == "rare")[:, None]
    >>> sampler = LatentDiffusionSampler(model_options={"hidden": 16, "iterations": 20}, random_state=0)
    >>> X2, y2 = sampler.fit_resample(X, y)
    >>> X2.shape, int((y2 == "rare").sum())
    ((180, 4), 90)
    """

    def __init__(
        self,
        *,
        sampling_strategy: Strategy = "auto",
        random_state: Any = None,
        ratio: float = 0.2,
        minimum: int = 1,
        solver: str = "dpmpp2m",
        steps: int = 10,
        guidance: float = 1.0,
        scale: float = 1.0,
        backend: str = "auto",
        model_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.sampling_strategy = sampling_strategy
        self.random_state = random_state
        self.ratio = ratio
        self.minimum = minimum
        self.solver = solver
        self.steps = steps
        self.guidance = guidance
        self.scale = scale
        self.backend = backend
        self.model_options = model_options

    def fit_resample(self, X: Any, y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the rows and labels with generated ones added at the end.

        Parameters
        ----------
        X
            Features ``[N, D]``: an array, a tensor or anything NumPy turns into numbers.
        y
            Labels ``[N]`` of any values that can be sorted.

        Returns
        -------
        X, y
            Arrays in the types of the inputs: first the original rows, unchanged and in order, then
            the generated ones, class by class.

        Raises
        ------
        UsageError
            A strategy that cannot be followed.
        InputError
            Rows or labels that cannot be trained on.
        """
        features = check_features(X, "X")
        labels = as_array(y)
        if labels.ndim != 1 or len(labels) != len(features):
            raise InputError(
                f"y: expected {len(features)} labels, one per row, not shape {list(labels.shape)}"
            )
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            row = int(np.flatnonzero(~np.isfinite(labels))[0])
            raise InputError(f"y: row {row} is {labels[row]}, which is no class; remove such rows")
        try:
            found = np.unique(labels, return_inverse=True, return_counts=True)
        except TypeError as error:
            raise InputError(f"y: labels of several types cannot be sorted ({error}); convert them") from None
        self.classes_, numbers, counts = found
        # An unknown option is an error before the training, not after it.
        SampleConfig(solver=self.solver, steps=self.steps, guidance=self.guidance, scale=self.scale)
        wanted = self._plan(labels, counts.astype(np.int64))
        self.sampling_strategy_ = dict(zip(self.classes_.tolist(), wanted.tolist(), strict=True))
        seed = _seed(self.random_state)
        options = dict(self.model_options or {})
        if "seed" in options:
            raise UsageError("model_options: the seed is random_state; leave it out")
        self.model_ = LatentDiffusion(seed=seed, **options).fit(features, numbers)
        drawn_labels = labels_of(wanted, 0, int(wanted.sum()))
        drawn = self.model_.sample(
            drawn_labels, solver=self.solver, steps=self.steps, guidance=self.guidance, scale=self.scale,
            seed=seed, backend=self.backend,
        )  # fmt: skip
        kind = features.dtype if np.issubdtype(features.dtype, np.floating) else np.dtype(np.float64)
        rows = np.concatenate([features.astype(kind, copy=False), drawn.astype(kind)])
        return rows, np.concatenate([labels, self.classes_[drawn_labels]])

    def _plan(self, labels: npt.NDArray[Any], counts: Counts) -> Counts:
        """Return the rows to generate per class; imbalanced-learn's dictionaries hold totals."""
        strategy = self.sampling_strategy
        if callable(strategy):
            strategy = strategy(labels)
        if not isinstance(strategy, str | int | float | np.number | Mapping) or isinstance(strategy, bool):
            raise UsageError(
                "sampling_strategy: expected a word, a number, a dictionary or a function, not "
                f"{strategy!r}; a dictionary from class to rows names single classes"
            )
        if not isinstance(strategy, Mapping):
            try:
                return plan(counts, strategy, ratio=self.ratio, minimum=self.minimum)
            except UsageError as error:
                raise UsageError(str(error).replace("--strategy", "sampling_strategy")) from None
        places = {value: number for number, value in enumerate(self.classes_.tolist())}
        unknown = [value for value in strategy if value not in places]
        if unknown:
            raise UsageError(f"sampling_strategy: class {unknown[0]!r} is not in y")
        totals = by_class({places[value]: total for value, total in strategy.items()}, len(counts))
        asked = np.isin(np.arange(len(counts)), [places[value] for value in strategy])
        short = np.flatnonzero(asked & (totals < counts))
        if len(short):
            value = self.classes_[short[0]]
            raise UsageError(
                f"sampling_strategy: class {value!r} has {counts[short[0]]} rows, more than the "
                f"{totals[short[0]]} asked for; this sampler only adds rows"
            )
        return np.where(asked, totals - counts, 0)


def _seed(random_state: Any) -> int:
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31))
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer) or random_state < 0:
        raise UsageError(
            f"random_state: expected None, a whole number from 0 or a NumPy generator, not {random_state!r}"
        )
    return int(random_state)
