"""`ldmlr.experiments.baselines` and `methods`: they learn and draw what their names promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestCentroid
from support.rows import make_rows

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.experiments import baselines
from ldmlr.experiments.catalogue import CompareConfig
from ldmlr.experiments.compare import compare
from ldmlr.experiments.loop import Seed
from ldmlr.experiments.methods import Bench, draw_rows, paper_settings
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.train_rows import TrainRows
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.finetune import finetune
from ldmlr.heads.logits import head_logits
from ldmlr.heads.modules import LinearHead, to_stored
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.store import FeatureStore, SplitData


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=6), data=st.data())
def test_a_deck_takes_every_row_of_a_class_equally_often(counts, data):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    wanted = np.array([data.draw(st.integers(0, 30)) for _ in counts])
    chosen = baselines.deck(labels, wanted, 0)
    assert np.bincount(labels[chosen], minlength=len(counts)).tolist() == wanted.tolist()
    times = np.bincount(chosen, minlength=len(labels))
    for number in range(len(counts)):
        assert np.ptp(times[labels == number]) <= 1


def test_nearest_class_mean_predicts_as_scikit_learn_does():
    rows = make_rows((60, 30, 20, 8))
    asked = make_rows((50, 50, 50, 50), seed=1).features
    for views in (False, True):
        features, labels = rows.with_views() if views else (rows.features, rows.labels)
        expected = NearestCentroid().fit(features, labels).predict(asked)
        found = head_logits(baselines.nearest_class_mean(rows, views), asked).argmax(axis=1)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_tau_normalised_weights_are_weights_over_their_norm(tau):
    torch.manual_seed(0)
    head = LinearHead(5, 4)
    with torch.no_grad():
        head.weight[3] = 0
    weight = head.weight.detach().numpy()[:3]
    found = baselines.tau_normalised(head, tau)
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
    tau = baselines.choose_tau(head, made)
    logits = head_logits(baselines.tau_normalised(head, tau), strong)
    assert (logits.argmax(axis=1) == rows.labels).all()
    before = head_logits(baselines.tau_normalised(head, round(tau - 0.1, 1)), strong)
    assert (before.argmax(axis=1) != rows.labels).any()


@pytest.mark.parametrize("views", [False, True])
def test_crt_sees_every_class_equally_often(views):
    rows = make_rows()
    balanced = baselines.balanced_rows(rows, 0, views)
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
    assert GenerateConfig(class_scale=("0=3.0",)).as_learned() == GenerateConfig(scale=1.0, guidance=1.0)


def test_a_model_is_trained_once_and_charged_every_time():
    rows, wanted = make_rows(), np.array([0, 3, 3, 3])
    config = DiffusionConfig(hidden=8, layers=1, iterations=5)
    bench = Bench(rows, wanted, stage_tables({"diffuse": config.to_dict()}, RunConfig()), 1)

    def seed(number):
        head = LinearHead(5, 4)
        return Seed(number, rows.training_rows(), head, "stored", FinetuneConfig(head="linear"), "cpu")

    at = seed(0)
    first = draw_rows("diffusion", bench, at)
    assert at.shared.borrowed == 0
    second = draw_rows("diffusion", bench, at)
    assert at.shared.borrowed > 0
    np.testing.assert_array_equal(first.features, second.features)
    assert first.backend in ("native", "reference", "cuda")
    assert first.seconds > 0
    other = draw_rows("diffusion", bench, seed(1))
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
