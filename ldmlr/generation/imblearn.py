"""Over-sampling with generated rows, in the vocabulary of imbalanced-learn.

`LatentDiffusionSampler` takes the place of ``SMOTE`` and the like: the same
``sampling_strategy``, the same ``fit_resample``, the same result (original rows first). It
needs scikit-learn, not imbalanced-learn; where that is loaded, it finds the tags its tools look
for. Containers are the matter of `frames.py`, kinds of columns that of `columns.py`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, OneToOneFeatureMixin
from sklearn.utils import check_random_state

from ldmlr.arguments import SEED_LIMIT
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import InputError, LdmlrError, UsageError, counted, nearest
from ldmlr.generation.columns import Table
from ldmlr.generation.config import PlanConfig
from ldmlr.generation.frames import Labels, Rows, read_rows
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import Counts, labels_of, plan
from ldmlr.generation.sklearn_input import check_finite, read_features, read_labels, remember_columns
from ldmlr.sampler.backends import BACKEND_NAMES
from ldmlr.sampler.config import SampleConfig

Strategy = str | float | Mapping[Any, int] | Callable[[npt.NDArray[Any]], Mapping[Any, int]]
Array = npt.NDArray[Any]

CONTAINERS = ("default", "pandas", "polars")
# Rows drawn to set the shares of categories have numbers far from those of any result.
CALIBRATION_START = 2**48


class SamplerInputError(InputError, ValueError):
    """Rows or labels that cannot be trained on; a ``ValueError``, as scikit-learn's are."""


class SamplerUsageError(UsageError, ValueError):
    """A parameter that is wrong; a ``ValueError``, as scikit-learn's are."""


class LatentDiffusionSampler(OneToOneFeatureMixin, BaseEstimator):  # type: ignore[misc]
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
    categorical_features
        None: every column is numbers (truth values stay truth values, whole numbers are rounded where the
        type is one of whole numbers). ``auto``: columns of text, categories and truth values are
        categories, and columns of whole numbers are whole numbers whatever their type. Or the columns
        that are categories: names, numbers or a mask. Generated categories are ones that `X` has.
    keep_range
        Keep generated numbers in the range of their column: what is beyond an end is reflected at it.
    rank_gaussian
        Learn numbers as normal scores of their ranks: for columns with heavy tails or much skew.
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
        The trained `ldmlr.LatentDiffusion`, of the columns as numbers of mean 0 and standard deviation 1.
    classes_
        The label values; the model's class i is ``classes_[i]``.
    sampling_strategy_
        Rows generated, by label value.
    generated_mask_
        Of the last `fit_resample`: which of its rows are generated ``[N + M]``.
    n_features_in_, feature_names_in_
        Columns of `X`, and their names where it has names.

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

    # What imbalanced-learn's ensembles and pipelines ask for.
    _estimator_type = "sampler"
    _sampling_type = "over-sampling"

    def __init__(
        self,
        *,
        sampling_strategy: Strategy = "auto",
        random_state: Any = None,
        categorical_features: Any = None,
        keep_range: bool = True,
        rank_gaussian: bool = False,
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
        self.categorical_features = categorical_features
        self.keep_range = keep_range
        self.rank_gaussian = rank_gaussian
        self.ratio = ratio
        self.minimum = minimum
        self.solver = solver
        self.steps = steps
        self.guidance = guidance
        self.scale = scale
        self.backend = backend
        self.model_options = model_options

    def fit(self, X: Any, y: Any) -> Self:
        """Train the model and settle how many rows of each class are wanted; generates none.

        Parameters
        ----------
        X, y
            As in `fit_resample`, which trains by itself.

        Raises
        ------
        ValueError
            As `fit_resample`.
        """
        with _as_value_errors(self.get_params(deep=False)):
            self._fit(X, y)
        return self

    def fit_resample(self, X: Any, y: Any, **params: Any) -> tuple[Any, Any]:
        """Return the rows and labels with generated ones added at the end.

        Parameters
        ----------
        X
            Features ``[N, D]``: an array, a list, a tensor, a sparse matrix (of up to 4 GiB with its
            zeros), or a data frame of pandas or polars.
        y
            Labels ``[N]`` of any values that can be sorted, or one column of 0 and 1 per class.
        **params
            None is known; pipelines may pass some on.

        Returns
        -------
        X, y
            In the containers and types of the inputs: first the original rows, unchanged and in order, then
            the generated ones, class by class. Tensors come back as arrays.

        Raises
        ------
        ValueError
            An option that is wrong, a strategy that cannot be followed, or rows and labels that cannot be
            trained on. What this package finds is a
            `ldmlr.errors.LdmlrError` as well.
        """
        if params:
            raise SamplerUsageError(f"fit_resample: knows no {sorted(params)[0]!r}; leave it out")
        with _as_value_errors(self.get_params(deep=False)):
            return self._resampled(*self._fit(X, y))

    def _fit(self, X: Any, y: Any) -> tuple[Rows, Labels, Counts, int]:
        """Train; returns rows, labels, rows to generate per class and the seed."""
        labels = read_labels(y, type(self).__name__)
        rows = read_features(X, self, self.categorical_features is None)
        columns = rows.columns()
        if len(labels.array) != len(columns[0]):
            raise InputError(
                f"y: expected {counted(len(columns[0]), 'label')}, one per row, not shape "
                f"{list(np.shape(labels.array))}"
            )
        check_finite(columns, rows.names)
        try:
            found = np.unique(labels.array, return_inverse=True, return_counts=True)
        except TypeError as error:
            raise InputError(f"y: labels of several types cannot be sorted ({error}); convert them") from None
        self.classes_, numbers, counts = found
        if len(self.classes_) < 2:
            raise InputError(
                f"y: holds one class, {self.classes_.tolist()[0]!r}; to balance classes there must be two "
                "or more"
            )
        # An unknown option is an error before the training, not after it.
        self._draw_config()
        PlanConfig(ratio=self.ratio, minimum=self.minimum)
        if self.backend not in BACKEND_NAMES:
            raise UsageError(
                f"backend: unknown value {self.backend!r}; {nearest(str(self.backend), BACKEND_NAMES)}"
            )
        wanted = self._plan(labels.array, counts.astype(np.int64))
        self.sampling_strategy_ = dict(zip(self.classes_.tolist(), wanted.tolist(), strict=True))
        seed = _seed(self.random_state)
        options = _model_options(self.model_options)
        self._table = Table(
            columns, rows.names, self.categorical_features, bool(self.keep_range), bool(self.rank_gaussian)
        )
        remember_columns(self, X if rows.names else rows.array)
        self.model_ = LatentDiffusion(seed=seed, **options).fit(self._table.encode(columns), numbers)
        self._table.calibrate(columns, numbers, lambda classes: self._draw(classes, seed, CALIBRATION_START))
        return rows, labels, wanted, seed

    def _resampled(self, rows: Rows, labels: Labels, wanted: Counts, seed: int) -> tuple[Any, Any]:
        drawn_classes = labels_of(wanted, 0, int(wanted.sum()))
        drawn = self._table.decode(self._draw(drawn_classes, seed, 0), drawn_classes)
        self.generated_mask_ = np.arange(len(labels.array) + len(drawn_classes)) >= len(labels.array)
        return self._contained(rows.below(drawn)), labels.below(self.classes_[drawn_classes])

    def _draw(self, classes: npt.NDArray[np.int64], seed: int, first_row: int) -> Array:
        return np.asarray(
            self.model_.sample(
                classes, solver=self.solver, steps=self.steps, guidance=self.guidance, scale=self.scale,
                seed=seed, first_row=first_row, backend=self.backend,
            )
        )  # fmt: skip

    def _draw_config(self) -> SampleConfig:
        return SampleConfig(solver=self.solver, steps=self.steps, guidance=self.guidance, scale=self.scale)

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
                    f"sampling_strategy: class {value!r} has {counted(there, 'row')}, more than the "
                    f"{total} asked for; this sampler only adds rows"
                )
            wanted[places[value]] = int(total) - there
        return wanted

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose the container of the rows that `fit_resample` returns.

        Parameters
        ----------
        transform
            ``pandas`` or ``polars``: a data frame, whatever was given. ``default``: the kind that was given.
            None: leave it as it is.

        Raises
        ------
        ValueError
            Another word.
        """
        if transform is None:
            return self
        if transform not in CONTAINERS:
            raise SamplerUsageError(
                f"transform: unknown value {transform!r}; {nearest(str(transform), CONTAINERS)}"
            )
        self._sklearn_output_config = {"transform": transform}
        return self

    def _contained(self, rows: Any) -> Any:
        kind = getattr(self, "_sklearn_output_config", {}).get("transform", "default")
        if kind == "default" or type(rows).__module__.split(".")[0] == kind:
            return rows
        import importlib

        library = importlib.import_module(kind)
        names = [str(name) for name in self.get_feature_names_out()]
        columns = read_rows(rows).columns()
        return library.DataFrame(dict(zip(names, columns, strict=True)))

    def _more_tags(self) -> dict[str, Any]:
        """Tags of scikit-learn before 1.6."""
        kinds = ["2darray", "sparse", "dataframe"]
        return {
            "X_types": kinds + (["string", "categorical"] if self.categorical_features is not None else [])
        }

    def __sklearn_tags__(self) -> Any:
        """Tags of scikit-learn from 1.6; where imbalanced-learn is loaded, of the kind its tools need."""
        tags = super().__sklearn_tags__()
        tags.estimator_type = "sampler"
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.input_tags.string = tags.input_tags.categorical = self.categorical_features is not None
        if "imblearn" not in sys.modules:
            return tags
        from imblearn.utils._tags import InputTags, SamplerTags, Tags

        fields = {field.name: getattr(tags, field.name) for field in dataclasses.fields(tags)}
        inputs = {
            field.name: getattr(tags.input_tags, field.name) for field in dataclasses.fields(tags.input_tags)
        }
        fields["input_tags"] = InputTags(**{**inputs, "dataframe": True})
        return Tags(**{**fields, "sampler_tags": SamplerTags()})


@contextlib.contextmanager
def _as_value_errors(parameters: Mapping[str, Any]) -> Iterator[None]:
    """Name parameters of the sampler in errors that speak of options of stage 2, and raise ``ValueError``."""
    names = {name: f'model_options["{name}"]' for name in DiffusionConfig.names() if name not in parameters}
    try:
        yield
    except LdmlrError as error:
        named = error.renamed({**names, "strategy": "sampling_strategy", "seed": "random_state"})
        kinds: tuple[type[LdmlrError], ...] = (SamplerUsageError, SamplerInputError)
        kind = next((kind for kind in kinds if issubclass(kind, type(error))), None)
        raise (kind(named.message) if kind else named) from error.__cause__


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
