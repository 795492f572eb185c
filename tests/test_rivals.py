"""The rivals of a comparison: what they generate and learn is what their names promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.experiments.baselines import crt, ncm, tau_norm
from ldmlr.experiments.catalogue import CompareConfig
from ldmlr.experiments.compare import compare
from ldmlr.experiments.diffusion import Diffusion, paper_settings, plain_settings
from ldmlr.generation import copies
from ldmlr.generation import gaussian_rival as gaussian
from ldmlr.generation import interpolation as smote
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.plan import plan
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.finetune import finetune
from ldmlr.heads.logits import head_logits
from ldmlr.heads.modules import LinearHead, to_stored
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.store import FeatureStore, SplitData

COUNTS = (40, 12, 3, 1)
GENERATORS = {
    "random-oversampling": copies.random_oversampling,
    "duplicated-views": copies.duplicated_views,
    "smote": smote.smote,
    "adasyn": smote.adasyn,
    "gaussian": gaussian.gaussian,
}


def make_rows(counts=COUNTS, dim=5, apart=1.0, views=3, seed=0) -> TrainRows:
    """Gaussian classes `apart` from each other, with views that are noisy copies."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    centre = apart * rng.normal(size=(len(counts), dim))
    features = (centre[labels] + rng.normal(size=(len(labels), dim))).astype(np.float32)
    noisy = [features + rng.normal(scale=0.3, size=features.shape).astype(np.float32) for _ in range(views)]
    kinds = ("weak", "weak", "strong")[:views]
    return TrainRows(features, labels, tuple(noisy), kinds, len(counts), "rows")


def on_a_segment(row, rows) -> bool:
    """Tell whether a row lies between two of `rows` (or on one of them)."""
    for start in rows:
        for end in rows:
            line = end - start
            length = float(line @ line)
            share = float((row - start) @ line) / length if length else 0.0
            if -1e-4 <= share <= 1 + 1e-4 and np.allclose(start + share * line, row, atol=1e-4):
                return True
    return False


@pytest.mark.parametrize("name", GENERATORS)
def test_every_generator_follows_the_plan_and_the_seed(name):
    rows = make_rows()
    wanted = plan(rows.counts)
    made = GENERATORS[name](rows, wanted, 3)
    assert made.features.dtype == np.float32
    assert made.labels.dtype == np.int64
    assert np.all(np.diff(made.labels) >= 0)
    found = np.bincount(made.labels, minlength=4)
    if name == "adasyn":  # rounds per row
        assert np.all(np.abs(found - wanted) <= rows.counts)
    else:
        assert found.tolist() == wanted.tolist() == [0, 28, 37, 39]
    again, other = GENERATORS[name](rows, wanted, 3), GENERATORS[name](rows, wanted, 4)
    np.testing.assert_array_equal(made.features, again.features)
    # Of the views, few classes leave a remainder to chance; the other generators draw every row.
    assert name == "duplicated-views" or not np.array_equal(made.features, other.features)


@pytest.mark.parametrize("name", GENERATORS)
def test_an_empty_plan_gives_no_rows(name):
    made = GENERATORS[name](make_rows(), np.zeros(4, np.int64), 0)
    assert made.features.shape == (0, 5)
    assert made.labels.shape == (0,)


def test_random_oversampling_repeats_clean_rows():
    rows = make_rows()
    made = copies.random_oversampling(rows, np.array([100, 0, 5, 2]), 0)
    for row, label in zip(made.features, made.labels, strict=True):
        assert (rows.features[rows.labels == label] == row).all(axis=1).any()


def test_duplicated_views_come_equally_often_and_are_not_the_clean_rows():
    rows = make_rows()
    made = copies.duplicated_views(rows, plan(rows.counts), 0)
    for label in (1, 2, 3):
        own = np.concatenate([view[rows.labels == label] for view in rows.views])
        drawn = made.features[made.labels == label]
        times = [(drawn == row).all(axis=1).sum() for row in own]
        assert sum(times) == len(drawn)
        assert max(times) - min(times) <= 1


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
def test_a_deck_takes_every_row_of_a_class_equally_often(counts, data):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    wanted = np.array([data.draw(st.integers(0, 30)) for _ in counts])
    chosen = copies.deck(labels, wanted, 0)
    assert np.bincount(labels[chosen], minlength=len(counts)).tolist() == wanted.tolist()
    times = np.bincount(chosen, minlength=len(labels))
    for number in range(len(counts)):
        assert np.ptp(times[labels == number]) <= 1


@pytest.mark.parametrize("method", [smote.smote, smote.adasyn])
@pytest.mark.parametrize("views", [False, True])
def test_interpolated_rows_lie_between_rows_of_their_class(method, views):
    rows = make_rows()
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    made = method(rows, np.array([0, 20, 20, 20]), 0, views=views)
    known = (made.features[:, None] == features[None]).all(axis=2).any(axis=1)
    for row, label in zip(made.features[::3], made.labels[::3], strict=True):
        assert on_a_segment(row, features[labels == label])
    assert not known[made.labels == 1].all()


def test_smote_says_which_classes_are_too_small():
    made = smote.smote(make_rows(), plan(COUNTS), 0)
    assert made.notes == (
        "1 of 4 classes have one row, which is repeated: it has no neighbour",
        "1 of 4 classes have fewer than 5 neighbours; all are used",
    )
    rows = make_rows()
    assert (made.features[made.labels == 3] == rows.features[-1]).all()
    assert smote.smote(make_rows((40, 12)), np.array([0, 28]), 0).notes == ()


def test_adasyn_without_a_border_is_smote_and_says_so():
    rows = make_rows((40, 12, 9), apart=1000.0)
    wanted = plan(rows.counts)
    made = smote.adasyn(rows, wanted, 0)
    assert made.notes == ("2 of 3 classes have no border for ADASYN to weigh; SMOTE took its place",)
    assert np.bincount(made.labels, minlength=3).tolist() == wanted.tolist()
    assert smote.adasyn(make_rows((40, 12, 9), apart=0.0), wanted, 0).notes == ()


@pytest.mark.parametrize("scale", [1.0, 1.41])
def test_gaussian_rows_have_the_moments_they_should(scale):
    rows = make_rows()
    fitted = gaussian.fit(rows)
    assert fitted.floor == -np.inf
    drawn = gaussian.gaussian(rows, np.array([0, 40_000, 0, 0]), 0, scale=scale).features
    np.testing.assert_allclose(drawn.mean(axis=0), fitted.mean[1], atol=0.04)
    covariance = fitted.factor[1] @ fitted.factor[1].T
    np.testing.assert_allclose(np.cov(drawn.T), scale**2 * covariance, atol=0.06)


def test_gaussian_rows_respect_features_that_are_never_negative():
    rows = make_rows()
    positive = TrainRows(
        np.abs(rows.features), rows.labels, tuple(map(np.abs, rows.views)), rows.kinds, 4, ""
    )
    drawn = gaussian.gaussian(positive, np.full(4, 200), 0).features
    assert drawn.min() == 0


def test_nearest_class_mean_predicts_as_scikit_learn_does():
    rows = make_rows((60, 30, 20, 8))
    asked = make_rows((50, 50, 50, 50), seed=1).features
    for views in (False, True):
        features, labels = rows.with_views() if views else (rows.features, rows.labels)
        expected = NearestCentroid().fit(features, labels).predict(asked)
        found = head_logits(ncm.nearest_class_mean(rows, views), asked).argmax(axis=1)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_tau_normalised_weights_are_weights_over_their_norm(tau):
    torch.manual_seed(0)
    head = LinearHead(5, 4)
    with torch.no_grad():
        head.weight[3] = 0
    weight = head.weight.detach().numpy()[:3]
    found = tau_norm.tau_normalised(head, tau)
    norm = np.linalg.norm(weight, axis=1, keepdims=True)
    np.testing.assert_allclose(found.weight.detach().numpy()[:3], weight / norm**tau, rtol=1e-5)
    assert found.bias is None
    assert not found.weight[3].any()


def test_tau_is_the_best_on_strong_views_alone():
    rows = make_rows((30, 30), apart=2.0)
    # Strong views in which the second class, whose weight is short, only wins when lengths are equal.
    weight = torch.tensor([[4.0, 0.0], [0.0, 0.5]])
    head = LinearHead(2, 2)
    with torch.no_grad():
        head.weight.copy_(weight)
    strong = np.where(rows.labels[:, None] == 0, [[1.0, 0.3]], [[0.3, 1.0]]).astype(np.float32)
    wrong = strong[:, ::-1].copy()
    made = TrainRows(strong, rows.labels, (wrong, strong), ("weak", "strong"), 2, "")
    tau = tau_norm.choose_tau(head, made)
    logits = head_logits(tau_norm.tau_normalised(head, tau), strong)
    assert (logits.argmax(axis=1) == rows.labels).all()
    before = head_logits(tau_norm.tau_normalised(head, round(tau - 0.1, 1)), strong)
    assert (before.argmax(axis=1) != rows.labels).any()


@pytest.mark.parametrize("views", [False, True])
def test_crt_sees_every_class_equally_often(views):
    rows = make_rows()
    balanced = crt.balanced_rows(rows, 0, views)
    largest = 40 * (4 if views else 1)
    assert balanced.counts.tolist() == [largest] * 4
    assert balanced.generated == 0
    features, _ = rows.with_views() if views else (rows.features, rows.labels)
    assert len(np.unique(balanced.features, axis=0)) == len(features)


def test_the_settings_of_the_paper_and_the_plain_ones():
    own = GenerateConfig(target=300, only=("few",), class_scale=("0=3.0",))
    model, drawing = paper_settings(DiffusionConfig(), own)
    assert model == DiffusionConfig(
        transform="standardised", weak_views=0, strong_views=0, class_power=1.0, label_dropout=0.0
    )
    assert drawing == GenerateConfig(strategy="ratio", scale=1.0, guidance=1.0)
    assert plain_settings(GenerateConfig(class_scale=("0=3.0",))) == GenerateConfig(scale=1.0, guidance=1.0)


def test_a_gaussian_may_widen_each_class_by_its_own_factor():
    rows, wanted = make_rows(), np.array([0, 50, 50, 50])
    wide = gaussian.gaussian(rows, wanted, 0, scale=np.array([1.0, 2.0, 1.5, 1.0]))
    for label, factor in ((1, 2.0), (2, 1.5), (3, 1.0)):
        same = gaussian.gaussian(rows, wanted, 0, scale=factor)
        assert np.array_equal(wide.features[wide.labels == label], same.features[same.labels == label])


def test_a_model_is_trained_once_and_charged_every_time(monkeypatch):
    rows, wanted = make_rows(), np.array([0, 3, 3, 3])
    config = DiffusionConfig(hidden=8, layers=1, iterations=5)
    models = Diffusion("cpu", 1)
    first = models.draw(rows, wanted, 0, config, GenerateConfig())
    assert models.borrowed == 0
    second = models.draw(rows, wanted, 0, config, GenerateConfig())
    assert models.borrowed > 0
    np.testing.assert_array_equal(first.features, second.features)
    assert models.chosen in ("native", "reference", "cuda")
    other = models.draw(rows, wanted, 1, config, GenerateConfig())
    assert not np.array_equal(first.features, other.features)


@pytest.mark.parametrize("kind", ["fitted", "linear", "wcdas", "cosine"])
def test_crt_ends_where_the_baseline_is_on_balanced_rows(tmp_path, kind):
    """There its draws are the plain rows, so a head that ends far below has not been trained enough."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 150)
    features = (rng.normal(size=(6, 24))[labels] + 0.9 * rng.normal(size=(900, 24))).astype(np.float32)
    train, test = (SplitData(features[part::2], labels[part::2]) for part in (0, 1))
    tuned = finetune((train.features, train.labels), head="linear" if kind == "fitted" else kind)
    head = None if kind == "fitted" else to_stored(tuned.head)
    store = FeatureStore.write(tmp_path / "rows.h5", train=train, test=test, head=head)
    config, tables = CompareConfig(methods=("baseline", "crt")), stage_tables({}, RunConfig(), "")
    found = compare(store, config, tables, seeds=1, device="cpu", threads=1)["rows"]
    accuracy = {row["method"]: row["all"]["mean"] for row in found if row["adjustment"] == "none"}
    assert accuracy["baseline"] > 80
    assert accuracy["crt"] > accuracy["baseline"] - 3
