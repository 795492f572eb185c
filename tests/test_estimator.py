"""The over-sampler under the checks and in the tools of scikit-learn and imbalanced-learn, on any table."""

from __future__ import annotations

import imblearn
import numpy as np
import pandas as pd
import polars as pl
import pytest
from imblearn.ensemble import BalancedBaggingClassifier
from imblearn.pipeline import make_pipeline
from imblearn.utils.estimator_checks import parametrize_with_checks as sampler_checks
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import DataConversionWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import ldmlr
from ldmlr.errors import InputError
from ldmlr.generation.columns import Category, Table, reflect

FAST = {"hidden": 8, "layers": 1, "iterations": 5, "batch_size": 32}


def sampler(**options):
    return ldmlr.LatentDiffusionSampler(**{"random_state": 0, "model_options": FAST, **options})


CHECKED = [sampler(), sampler(categorical_features="auto")]
# A generator, which pytest takes no more.
SAMPLER_CHECKS = list(sampler_checks(CHECKED).args[1])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks(CHECKED)
def test_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")  # meant, and tested below
@pytest.mark.parametrize(("estimator", "check"), SAMPLER_CHECKS)
def test_imbalanced_learn(estimator, check):
    check(estimator)


def table(rows: int = 120) -> tuple[pd.DataFrame, pd.Series]:
    """Return a table with a column of every kind, and labels."""
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1], [rows - 20, 20]))
    frame = pd.DataFrame({
        "income": rng.lognormal(1, 1, rows),
        "age": rng.integers(18, 90, rows),
        "member": rng.random(rows) < np.where(y, 0.9, 0.2),
        "grade": pd.array(rng.integers(1, 5, rows), "Int64"),
        "score": pd.array(rng.random(rows), "Float64"),
        "flag": pd.array(rng.random(rows) < 0.5, "boolean"),
        "city": pd.Categorical(rng.choice(["x", "y", "z"], rows, p=[0.6, 0.3, 0.1])),
    })  # fmt: skip
    return frame, pd.Series(y, name="sick")


def test_a_data_frame_comes_back_as_one():
    X, y = table()
    X.index = range(1000, 1120)
    used = sampler(categorical_features="auto")
    X2, y2 = used.fit_resample(X, y)
    assert isinstance(X2, pd.DataFrame)
    assert X2.dtypes.equals(X.dtypes)
    pd.testing.assert_frame_equal(X2.iloc[:120], X.reset_index(drop=True))
    pd.testing.assert_series_equal(y2[:120], y)
    assert (y2[120:] == 1).all()
    assert len(y2) == 200
    assert used.generated_mask_.tolist() == [False] * 120 + [True] * 80
    assert used.feature_names_in_.tolist() == list(X.columns)
    assert used.get_feature_names_out().tolist() == list(X.columns)
    drawn = X2[120:]
    assert drawn["income"].between(X["income"].min(), X["income"].max()).all()
    assert set(drawn["grade"]) <= {1, 2, 3, 4}
    assert drawn["age"].between(18, 89).all()
    # Of the 20 rows of the class about nine in ten are members, of the table about three in ten.
    assert 0.75 < drawn["member"].mean() <= 1


def test_a_frame_of_polars_comes_back_as_one():
    pandas, labels = table()
    X = pl.DataFrame({name: pandas[name].tolist() for name in pandas.columns})
    X = X.with_columns(pl.col("city").cast(pl.Categorical), pl.col("age").cast(pl.Int16))
    y = pl.Series("sick", labels.tolist())
    X2, y2 = sampler(categorical_features="auto").fit_resample(X, y)
    assert isinstance(X2, pl.DataFrame)
    assert isinstance(y2, pl.Series)
    assert X2.schema == X.schema
    assert X2.head(120).equals(X)
    assert y2.name == "sick"
    assert len(y2) == len(X2) == 200


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint8, np.float16, np.float64])
def test_arrays_keep_their_type(kind):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 200, (60, 3)).astype(kind)
    y = np.repeat([0, 1], [45, 15]).astype(np.int8)
    X2, y2 = sampler().fit_resample(X, y)
    assert (X2.dtype, y2.dtype) == (X.dtype, y.dtype)
    assert X2.min() >= X.min()
    assert X2.max() <= X.max()


def test_truth_values_stay_truth_values():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [80, 20])
    X = rng.random((100, 2)) < np.where(y, 0.9, 0.1)[:, None]
    X2, _ = sampler().fit_resample(X, y)
    assert X2.dtype == bool
    assert X2[100:].mean() > 0.75


@pytest.mark.parametrize("kind", ["csr_matrix", "csc_array", "coo_array"])
def test_sparse_rows_come_back_sparse(kind):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 3)) * (rng.random((60, 3)) < 0.5)
    y = np.repeat([0, 1], [45, 15])
    given = getattr(sparse, kind)(X)
    X2, _ = sampler().fit_resample(given, y)
    assert type(X2) is type(given)
    assert np.array_equal(X2.toarray(), sampler().fit_resample(X, y)[0])


def test_a_sparse_matrix_beyond_memory_is_refused():
    huge = sparse.csr_matrix((200_000, 100_000))
    with pytest.raises(ValueError, match=r"takes 149\.0 GiB with its zeros, more than 4; reduce"):
        sampler().fit_resample(huge, np.zeros(200_000))


def test_labels_of_a_column_and_of_a_column_per_class():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 3)), np.repeat([0, 1, 2], [30, 20, 10])
    X1, y1 = sampler().fit_resample(X, y)
    with pytest.warns(DataConversionWarning):
        assert np.array_equal(sampler().fit_resample(X, y[:, None])[1], y1)
    X3, y3 = sampler().fit_resample(X, np.eye(3, dtype=int)[y])
    assert np.array_equal(X1, X3)
    assert np.array_equal(y3, np.eye(3)[y1])
    _, y4 = sampler().fit_resample(X, pd.DataFrame({"kind": y}))
    assert isinstance(y4, pd.DataFrame)
    assert y4["kind"].tolist() == y1.tolist()


def column_of(name, value):
    X, y = table()
    X = X.drop(columns="city").astype({"grade": "int64", "score": "float64"})
    X[name] = value
    return X, y


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (*column_of("city", "x"), r"X: column 'city' .*categorical_features='auto', or encode it"),
        (*column_of("income", np.nan), r"X: column 'income' contains NaN or a missing value in row 0"),
        (*column_of("income", np.inf), r"X: row 0, column 'income' is inf"),
        (*column_of("when", pd.Timestamp("2020-01-01")), r"X: column 'when' is of type datetime64.*numbers"),
        (pd.DataFrame(np.eye(3)).assign(city="x"), [0, 1, 1], "X: column 'city' .*categorical_features"),
        (np.ma.masked_greater(np.eye(3), 0.5), [0, 1, 1], "X: row 0, column 0 is masked"),
        (np.eye(3), [0.5, 1.5, 2.25], "Unknown label type"),
        (np.eye(3), [1, 1, 1], "y: holds one class, 1; to balance classes there must be two"),
        (np.eye(3), [[1, 1], [0, 1], [1, 0]], "Multilabel and multioutput targets are not supported"),
        (np.eye(3), None, "requires y to be passed, but the target y is None"),
        (np.zeros((0, 2)), [], "0 sample"),
    ],
)
def test_what_cannot_be_learned_is_a_value_error(X, y, message):
    with pytest.raises(ValueError, match=message):
        sampler().fit_resample(X, y)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["town"], "'town' is no column of X, which has 7"),
        ([7], "7 is no column"),
        ([True], "a mask of 1 for 7 columns"),
        ("all", "expected None, 'auto', a list of columns or a mask, not 'all'"),
    ],
)
def test_wrong_categorical_features(columns, message):
    with pytest.raises(ValueError, match=message):
        sampler(categorical_features=columns).fit_resample(*table())


@pytest.mark.parametrize("columns", [["city"], [6], [False] * 6 + [True]])
def test_named_columns_are_categories(columns):
    X, y = table()
    X2, _ = sampler(categorical_features=columns).fit_resample(X, y)
    assert X2["city"].dtype == X["city"].dtype
    assert set(X2["city"]) <= {"x", "y", "z"}


def test_categories_are_drawn_in_the_shares_of_their_class():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [2000, 400])
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])
    X = np.array([["a", "b", "c"][rng.choice(3, p=p[label])] for label in y], object)[:, None]
    used = sampler(categorical_features="auto", model_options={**FAST, "iterations": 100})
    X2, _ = used.fit_resample(X, y)
    found = [(X2[2400:, 0] == name).mean() for name in "abc"]
    seen = [(X[2000:, 0] == name).mean() for name in "abc"]
    # 512 rows set the shares and 1,600 show them: three standard deviations of both together are 0.08.
    assert np.abs(np.subtract(found, seen)).max() < 0.08


def test_the_shares_of_a_class_of_five_leave_room_for_what_it_lacks():
    values = np.array(["a"] * 90 + ["b"] * 10 + ["a"] * 5, object)
    classes = np.repeat([0, 1], [100, 5])
    shares = Category(values).shares(values, classes, 2)
    assert 0 < shares[1, 1] < 0.05
    assert np.allclose(shares.sum(axis=1), 1)


def test_a_class_of_five_rows_is_not_memorised():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [300, 5])
    X = rng.standard_normal((305, 4)) + 2 * y[:, None]
    X2, _ = sampler(model_options={"hidden": 32, "iterations": 300}).fit_resample(X, y)
    five, new = X[300:], rng.standard_normal((300, 4)) + 2

    def nearest(rows):
        return np.median(np.linalg.norm(rows[:, None] - five, axis=2).min(axis=1))

    # A copy would be at distance 0, new rows of the class are where they are.
    assert nearest(X2[305:]) > 0.6 * nearest(new)


def test_numbers_stay_in_the_range_without_piling_up_at_its_ends():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [900, 100])
    X = rng.random((1000, 1))
    X2, _ = sampler(model_options={**FAST, "iterations": 50}).fit_resample(X, y)
    drawn = X2[1000:]
    assert drawn.min() >= X.min()
    assert drawn.max() <= X.max()
    # Uniform numbers: one in fifty lies in the outer two hundredths; clipping would put one in eight there.
    assert np.mean((drawn < 0.01) | (drawn > 0.99)) < 0.06
    outside, _ = sampler(model_options={**FAST, "iterations": 50}, keep_range=False).fit_resample(X, y)
    assert outside.min() < X.min() or outside.max() > X.max()


def test_ranks_learn_heavy_tails():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [1500, 500])
    X = rng.lognormal(0, 2, (2000, 1))
    options = {"model_options": {**FAST, "iterations": 50}}
    drawn = sampler(rank_gaussian=True, **options).fit_resample(X, y)[0][2000:]
    levels = [0.1, 0.5, 0.9]
    ratio = np.quantile(drawn, levels) / np.quantile(X, levels)
    assert np.abs(np.log(ratio)).max() < 0.4
    plain = sampler(**options).fit_resample(X, y)[0][2000:]
    assert np.abs(np.log(np.quantile(plain, levels) / np.quantile(X, levels))).max() > 0.4


@pytest.mark.parametrize("low", [-3.0, 0.0, 1e6])
def test_reflection(low):
    values = low + np.linspace(-25, 25, 1001)
    found = reflect(values, low, low + 2)
    assert found.min() >= low
    assert found.max() <= low + 2
    inside = (values >= low) & (values <= low + 2)
    assert np.allclose(found[inside], values[inside], rtol=1e-12)
    assert reflect(np.array([low - 0.5]), low, low + 2) == pytest.approx(low + 0.5)
    assert (reflect(values, low, low) == low).all()


def test_units_of_columns_play_no_part():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [80, 20])
    X = rng.standard_normal((100, 3)) + y[:, None]
    units = np.array([1e-6, 1.0, 1e9])
    plain, scaled = (sampler().fit_resample(rows, y)[0] for rows in (X, X * units))
    assert np.allclose(plain * units, scaled, rtol=1e-3)


def test_the_same_rows_for_every_container():
    X, y = table()
    numbers = X.drop(columns="city").astype(float)
    expected = sampler().fit_resample(numbers.to_numpy(), y.to_numpy())[0]
    assert np.array_equal(sampler().fit_resample(numbers, y)[0].to_numpy(), expected)
    assert np.array_equal(sampler().fit_resample(numbers.to_numpy().tolist(), y.tolist())[0], expected)
    assert np.array_equal(sampler().fit_resample(pl.DataFrame(dict(numbers)), y)[0].to_numpy(), expected)


@pytest.mark.parametrize(("kind", "frame"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
def test_set_output(kind, frame):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 2)), np.repeat([0, 1], [30, 10])
    used = sampler().set_output(transform=kind)
    X2, _ = used.fit_resample(X, y)
    assert isinstance(X2, frame)
    assert list(X2.columns) == ["x0", "x1"]
    assert np.array_equal(X2.to_numpy(), sampler().fit_resample(X, y)[0])
    assert isinstance(used.set_output(transform="default").fit_resample(X, y)[0], np.ndarray)
    with pytest.raises(ValueError, match="unknown value 'panda'; did you mean 'pandas'"):
        used.set_output(transform="panda")


def test_fit_settles_the_plan_and_generates_nothing():
    X, y = table()
    used = sampler(categorical_features="auto").fit(X, y)
    assert used.sampling_strategy_ == {0: 0, 1: 80}
    assert not hasattr(used, "generated_mask_")
    assert used.n_features_in_ == 7


def numbers():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [80, 20])
    return rng.standard_normal((100, 3)) + y[:, None], y


def test_pipelines():
    X, y = numbers()
    X2, y2 = make_pipeline(StandardScaler(), sampler()).fit_resample(X, y)
    assert len(X2) == len(y2) == 160
    model = make_pipeline(StandardScaler(), sampler(), LogisticRegression())
    found = GridSearchCV(model, {"latentdiffusionsampler__steps": [4, 8]}, cv=2).fit(X, y)
    assert found.best_score_ > 0.5
    assert len(cross_validate(model, X, y, cv=2, n_jobs=2)["test_score"]) == 2
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    by_name = ColumnTransformer([("s", StandardScaler(), ["a"])])
    make_pipeline(sampler(), by_name, LogisticRegression()).fit(frame, y).predict(frame)


def test_ensembles():
    X, y = numbers()
    bagging = BalancedBaggingClassifier(sampler=sampler(), n_estimators=2, random_state=0).fit(X, y)
    assert bagging.score(X, y) > 0.6


@pytest.mark.skipif(
    imblearn.__version__ < "0.13", reason="imbalanced-learn 0.12 has pipelines that route no metadata"
)
def test_metadata_routing_passes_it_by():
    import sklearn

    X, y = numbers()
    with sklearn.config_context(enable_metadata_routing=True):
        weighted = LogisticRegression().set_fit_request(sample_weight=True)
        model = make_pipeline(sampler(sampling_strategy={1: 20}), weighted)
        model.fit(X, y, sample_weight=np.ones(100))
    with pytest.raises(ValueError, match="fit_resample: knows no 'weights'"):
        sampler().fit_resample(X, y, weights=1)


def test_a_constant_column_stays_constant():
    X, y = numbers()
    X[:, 1] = 7
    X2, _ = sampler(rank_gaussian=True).fit_resample(X, y)
    assert (X2[:, 1] == 7).all()


def test_a_table_knows_its_columns_by_name():
    columns = [np.array([1.0, 2.0]), np.array(["a", "b"], object)]
    with pytest.raises(InputError, match="column 'town' holds 'a'"):
        Table(columns, ["size", "town"], None, True, False)
