"""Over-sampling with generated rows, in the vocabulary of imbalanced-learn.

`LatentDiffusionSampler` takes the place of ``SMOTE`` and the like: the same
``sampling_strategy``, the same ``fit_resample``, the same result (original rows first). It
needs scikit-learn, not imbalanced-learn.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from ldmlr.arguments import SEED_LIMIT, as_array
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.rows import check_features
from ldmlr.errors import InputError, LdmlrError, UsageError, nearest
from ldmlr.generation.config import PlanConfig
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import Counts, labels_of, plan
from ldmlr.sampler.backends import BACKEND_NAMES
from ldmlr.sampler.config import SampleConfig

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
        Seed of training and sampling: a whole number, a NumPy generator of either kind, ``np.random``,
        or None (another seed every time).
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
            An option that is wrong, or a strategy that cannot be followed.
        InputError
            Rows or labels that cannot be trained on.
        """
        with _python_names(self.get_params(deep=False)):
            return self._fit_resample(X, y)

    def _fit_resample(self, X: Any, y: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        features = check_features(X, "X")
        labels = as_array(y)
        if labels.ndim != 1 or len(labels) != len(features):
            raise InputError(
                f"y: expected {len(features)} labels, one per row, not shape {list(labels.shape)}"
            )
        row = _first_missing(labels)
        if row is not None:
            raise InputError(f"y: row {row} is {labels[row]}, which is no class; remove such rows")
        try:
            found = np.unique(labels, return_inverse=True, return_counts=True)
        except TypeError as error:
            raise InputError(f"y: labels of several types cannot be sorted ({error}); convert them") from None
        self.classes_, numbers, counts = found
        # An unknown option is an error before the training, not after it.
        SampleConfig(solver=self.solver, steps=self.steps, guidance=self.guidance, scale=self.scale)
        PlanConfig(ratio=self.ratio, minimum=self.minimum)
        if self.backend not in BACKEND_NAMES:
            raise UsageError(
                f"backend: unknown value {self.backend!r}; {nearest(str(self.backend), BACKEND_NAMES)}"
            )
        wanted = self._plan(labels, counts.astype(np.int64))
        self.sampling_strategy_ = dict(zip(self.classes_.tolist(), wanted.tolist(), strict=True))
        seed = _seed(self.random_state)
        options = _model_options(self.model_options)
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
            names = [repr(value) for value in self.classes_.tolist()]
            return plan(counts, strategy, ratio=self.ratio, minimum=self.minimum, class_names=names)
        places = {value: number for number, value in enumerate(self.classes_.tolist())}
        unknown = [value for value in strategy if value not in places]
        if unknown:
            raise UsageError(f"sampling_strategy: class {unknown[0]!r} is not in y")
        wanted = np.zeros_like(counts)
        for value, total in strategy.items():
            there = int(counts[places[value]])
            if not _is_count(total):
                raise UsageError(
                    f"sampling_strategy: asks for {total!r} rows of class {value!r}; give a whole number "
                    "from 0"
                )
            if total < there:
                raise UsageError(
                    f"sampling_strategy: class {value!r} has {there} rows, more than the {total} asked for; "
                    "this sampler only adds rows"
                )
            wanted[places[value]] = int(total) - there
        return wanted


@contextlib.contextmanager
def _python_names(parameters: Mapping[str, Any]) -> Iterator[None]:
    """Name parameters of the sampler in errors that speak of options of stage 2."""
    names = {name: f'model_options["{name}"]' for name in DiffusionConfig.names() if name not in parameters}
    try:
        yield
    except LdmlrError as error:
        raise error.renamed(
            {**names, "strategy": "sampling_strategy", "seed": "random_state"}
        ) from error.__cause__


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


def _is_count(value: Any) -> bool:
    """Tell whether a value is a whole number of rows."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return False
    return bool(0 <= value < math.inf and int(value) == value)


def _model_options(given: Any) -> dict[str, Any]:
    options = {} if given is None else given
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise UsageError(
            f'model_options: expected a dictionary such as {{"hidden": 256}}, not {given!r}; name fields of '
            "the model's configuration"
        )
    if "seed" in options:
        raise UsageError("model_options: the seed is random_state; leave it out")
    return dict(options)


def _seed(random_state: Any) -> int:
    if random_state is np.random:  # scikit-learn's word for NumPy's global generator
        random_state = check_random_state(random_state)
    if isinstance(random_state, np.random.RandomState):
        return int(random_state.randint(2**31))
    if random_state is None or isinstance(random_state, np.random.Generator):
        return int(np.random.default_rng(random_state).integers(2**31))
    whole = isinstance(random_state, int | np.integer) and not isinstance(random_state, bool)
    if not whole or not 0 <= random_state < SEED_LIMIT:
        raise UsageError(
            "random_state: expected None, a whole number from 0 and below 2^64, or a NumPy generator, not "
            f"{random_state!r}"
        )
    return int(random_state)
