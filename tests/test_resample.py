"""The over-sampler in imbalanced-learn's vocabulary."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone

import ldmlr
from ldmlr.errors import InputError, UsageError

FAST = {"hidden": 8, "layers": 1, "iterations": 10, "batch_size": 32}
COUNTS = {"cat": 50, "dog": 20, "eel": 6}


def data(values=tuple(COUNTS)):
    generator = np.random.default_rng(0)
    labels = generator.permutation(np.repeat(values, [50, 20, 6]))
    shift = np.searchsorted(np.unique(values), labels)
    return generator.standard_normal((76, 3)) + 4 * shift[:, None], labels


def sampler(**options):
    return ldmlr.LatentDiffusionSampler(**{"random_state": 0, "model_options": FAST, **options})


@pytest.mark.parametrize(
    ("strategy", "totals"),
    [
        ("auto", (50, 50, 50)),
        ("not majority", (50, 50, 50)),
        ("all", (50, 50, 50)),
        ("minority", (50, 20, 50)),
        ("not minority", (50, 50, 6)),
        ("few", (50, 20, 50)),
        ("medium", (50, 50, 6)),
        ("ratio", (60, 24, 7)),
        ({"dog": 30, "eel": 6}, (50, 30, 6)),
        (lambda y: {"eel": int((y == "dog").sum())}, (50, 20, 20)),
    ],
)
def test_strategies_give_these_totals(strategy, totals):
    X, y = data()
    used = sampler(sampling_strategy=strategy)
    X2, y2 = used.fit_resample(X, y)
    found = [int((y2 == name).sum()) for name in COUNTS]
    assert found == list(totals)
    assert np.array_equal(X2[:76], X)
    assert np.array_equal(y2[:76], y)
    assert X2.dtype == X.dtype
    assert y2.dtype == y.dtype
    added = dict(zip(COUNTS, np.array(totals) - [50, 20, 6], strict=True))
    assert used.sampling_strategy_ == added


@pytest.mark.parametrize("values", [(7, -3, 100), (1.0, 2.0, 4.0), (True, False)])
def test_labels_may_be_any_values(values):
    generator = np.random.default_rng(0)
    y = np.repeat(values, [20, 10, 5][: len(values)])
    X = generator.standard_normal((len(y), 3)).astype(np.float32)
    X2, y2 = sampler().fit_resample(X, y)
    assert {int((y2 == value).sum()) for value in values} == {20}
    assert X2.dtype == np.float32
    assert y2.dtype == y.dtype


def test_a_number_is_the_ratio_of_two_classes():
    X, y = data()
    X, y = X[y != "dog"], y[y != "dog"]
    _, y2 = sampler(sampling_strategy=0.5).fit_resample(X, y)
    assert (y2 == "eel").sum() == 25
    with pytest.raises(UsageError, match=r"^sampling_strategy: class 'eel' already has 6 of the 5 rows"):
        sampler(sampling_strategy=0.1).fit_resample(X, y)


def test_generated_rows_belong_to_their_class():
    X, y = data()
    X2, y2 = sampler(model_options={**FAST, "iterations": 100}).fit_resample(X, y)
    for name in COUNTS:
        centre = X[y == name].mean(axis=0)
        drawn = X2[76:][y2[76:] == name]
        if len(drawn):
            assert np.abs(drawn.mean(axis=0) - centre).max() < 0.8


def test_the_seed_decides():
    X, y = data()
    first, second, other = (sampler(random_state=s).fit_resample(X, y)[0] for s in (1, 1, 2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert np.array_equal(sampler(random_state=np.int64(1)).fit_resample(X, y)[0], first)
    for state in (np.random.RandomState(3), np.random.default_rng(3), np.random, None):
        assert len(sampler(random_state=state).fit_resample(X, y)[0]) == 150
    for state in ("x", True, -1, 2**64, 1.0):
        with pytest.raises(UsageError, match=r"^random_state: expected None, a whole number"):
            sampler(random_state=state).fit_resample(X, y)


def test_it_is_a_scikit_learn_estimator():
    used = sampler(sampling_strategy="few", steps=7)
    assert used.get_params()["steps"] == 7
    copy = clone(used).set_params(steps=5)
    assert (copy.steps, used.steps) == (5, 7)
    assert "LatentDiffusionSampler" in repr(used)


def test_imbalanced_learn_is_not_needed():
    code = "import sys, ldmlr.generation.imblearn; assert 'imblearn' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_model_can_be_used_afterwards():
    X, y = data()
    used = sampler()
    used.fit_resample(X, y)
    assert used.classes_.tolist() == list(COUNTS)
    assert used.model_.sample([2, 2]).shape == (2, 3)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sampling_strategy": "autto"}, UsageError, "did you mean 'auto'"),
        ({"sampling_strategy": {"fox": 3}}, UsageError, "class 'fox' is not in y"),
        ({"sampling_strategy": {"cat": 3}}, UsageError, "has 50 rows, more than the 3 asked for"),
        ({"sampling_strategy": 0.5}, UsageError, "for two classes"),
        ({"sampling_strategy": {"cat": "x"}}, UsageError, "asks for 'x' rows of class 'cat'; give a whole"),
        ({"sampling_strategy": {"cat": 60.5}}, UsageError, "asks for 60.5 rows of class 'cat'"),
        ({"sampling_strategy": {"cat": float("nan")}}, UsageError, "asks for nan rows of class 'cat'"),
        ({"sampling_strategy": None}, UsageError, "expected a word, a number, a dictionary or a function"),
        ({"sampling_strategy": ["cat"]}, UsageError, "a dictionary from class to rows names single classes"),
        ({"sampling_strategy": "many-few"}, UsageError, "^sampling_strategy: unknown value 'many-few'"),
        ({"sampling_strategy": True}, UsageError, "^sampling_strategy: expected a word.* not True"),
        ({"sampling_strategy": lambda y: None}, UsageError, "^sampling_strategy: expected a word"),
        ({"solver": "euler"}, UsageError, "^solver: unknown value"),
        ({"ratio": "x"}, UsageError, "^ratio: expected a number"),
        ({"minimum": -1}, UsageError, "^minimum: must be at least 0"),
        ({"model_options": {"width": 3}}, UsageError, "unknown key 'width'"),
        ({"model_options": {"hidden": 0}}, UsageError, r'^model_options\["hidden"\]: must be at least 1'),
        ({"model_options": {"seed": 3}}, UsageError, "^model_options: the seed is random_state"),
        ({"model_options": [("hidden", 3)]}, UsageError, "^model_options: expected a dictionary"),
        ({"backend": "gpu"}, UsageError, "^backend: unknown value"),
    ],
)
def test_wrong_options(options, error, message, monkeypatch):
    def train(*arguments, **more):
        raise AssertionError("trained before the options were looked at")

    monkeypatch.setattr("ldmlr.generation.training.train", train)
    with pytest.raises(error, match=message):
        sampler(**options).fit_resample(*data())


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.eye(3), np.zeros(2), "y: expected 3 labels"),
        (np.full((2, 2), np.nan), np.zeros(2), "X: row 0"),
        (np.eye(2), np.array([1, np.nan]), "y: row 1 is nan, which is no class; remove such rows"),
        (np.eye(2), np.array([1, "a"], object), "cannot be sorted"),
        (np.array([[1.0], [1e300]]), np.zeros(2), "X: row 1, column 0 is 1e.300"),
        (np.eye(2), np.array([0, np.nan], object), "y: row 1 is nan"),
        (np.eye(2), np.array(["a", None], object), "y: row 1 is None"),
        (np.eye(2), np.array(["2020", "NaT"], "M8[Y]"), "y: row 1 is NaT"),
    ],
)
def test_wrong_rows(X, y, message):
    with pytest.raises(InputError, match=message):
        sampler().fit_resample(X, y)
