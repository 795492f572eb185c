"""`ldmlr.heads.finetune`, stage 3: fine-tuned heads and their label-shift row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.axes import COUNTS, DIM, draw
from support.stage3 import accuracy_of, generated_rows, natural_rows, write_stores

import ldmlr
from ldmlr.errors import InputError, UsageError
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.headfile import FinetunedHead, ShiftedHead
from ldmlr.heads.logits import head_logits
from ldmlr.heads.modules import LinearHead, make_head
from ldmlr.heads.training import batch_size, fresh_head, train_head
from ldmlr.heads.training_rows import TrainingRows, gather_rows
from ldmlr.heads.tuned import fit_baseline
from ldmlr.store import FeatureStore


@pytest.fixture(scope="module")
def natural():
    return natural_rows()


@pytest.fixture(scope="module")
def generated():
    return generated_rows()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stores(tmp_path_factory.mktemp("stores"))


def test_generated_rows_help_the_rare_classes(natural, generated):
    features, labels = draw((300, 300, 300), seed=3)
    tuned = ldmlr.finetune(natural, generated, epochs=12, seed=0)
    assert tuned.method == "ldmlr"
    assert tuned.generated == 408
    assert tuned.counts.tolist() == list(COUNTS)
    before = head_logits(tuned.baseline, features)
    assert accuracy_of(tuned.logits(features), labels) > accuracy_of(before, labels) + 0.02
    assert [record["epoch"] for record in tuned.history] == list(range(1, 13))
    assert tuned.history[-1]["loss"] < tuned.history[0]["loss"]
    assert tuned.history[-1]["lr"] < 0.01 * tuned.config.lr


def test_a_seed_decides_everything_and_nothing_else_is_touched(natural, generated):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    runs = [ldmlr.finetune(natural, generated, epochs=2, init="fresh", seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    weights = [run.head.weight.detach() for run in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_tensors_and_arrays_give_the_same(natural, generated):
    arrays = ldmlr.finetune(natural, generated, epochs=1)
    tensors = ldmlr.finetune(*(tuple(map(torch.from_numpy, pair)) for pair in (natural, generated)), epochs=1)
    assert torch.equal(arrays.head.weight, tensors.head.weight)


def test_stores_arrays_and_one_balanced_store_agree(folder, natural, generated):
    stores = [FeatureStore.open(folder / name) for name in ("features.h5", "pseudo.h5", "balanced.h5")]
    two = ldmlr.finetune(stores[0], stores[1], epochs=2)
    one = ldmlr.finetune(stores[2], epochs=2)
    mixed = ldmlr.finetune(stores[0], generated, epochs=2)
    only_generated_rows_count = ldmlr.finetune(stores[0], stores[2], epochs=2)
    assert two.origin == "stored"
    assert two.counts.tolist() == one.counts.tolist() == list(COUNTS)
    for other in (one, mixed, only_generated_rows_count):
        assert torch.equal(two.head.weight, other.head.weight)


def test_generated_rows_without_source_are_all_taken(natural, generated):
    rows = gather_rows(natural, generated)
    assert (rows.encoded, rows.generated) == (312, 408)
    np.testing.assert_array_equal(rows.features[312:], generated[0])


def test_one_step_is_adam_on_the_mean_cross_entropy(natural):
    """A single full batch: every entry of the gradient moves its weight by the learning rate."""
    rows = gather_rows(natural)
    head = LinearHead(DIM, 3)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    small = TrainingRows(rows.features[:20], rows.labels[:20], 20, 3, "rows")
    train_head(head, small, FinetuneConfig(epochs=1, lr=0.01))
    x, onehot = small.features.astype(np.float64), np.eye(3)[small.labels]
    gradient = (np.full((20, 3), 1 / 3) - onehot).T @ x / 20
    np.testing.assert_allclose(head.weight.detach().numpy(), -0.01 * np.sign(gradient), rtol=1e-3)


def test_head_mix_moves_generated_rows_and_keeps_encoded_rows(monkeypatch, natural, generated):
    rows, seen = gather_rows(natural, generated), []
    head = make_head("linear", DIM, 3)
    forward = head.logits
    monkeypatch.setattr(head, "logits", lambda x: seen.append(x.detach().clone()) or forward(x))
    train_head(head, rows, FinetuneConfig(epochs=2, mix=0.5))
    epochs = torch.cat(seen).reshape(2, -1, DIM)
    originals = {row.tobytes() for row in rows.features[:312]}
    for epoch in epochs:
        kept = sum(row.numpy().tobytes() in originals for row in epoch)
        assert kept == 312
    assert not torch.equal(epochs[0].sort(dim=0)[0], epochs[1].sort(dim=0)[0])
    # Each mixed row lies on the segment between a generated row and an encoded one, in its nearer half.
    mixed = [row.numpy() for row in epochs[0] if row.numpy().tobytes() not in originals][:5]
    for row in mixed:
        gap = rows.features[:312][None] - rows.features[312:][:, None]
        away = row - rows.features[312:][:, None]
        share = (away * gap).sum(-1) / np.square(gap).sum(-1)
        error = np.square(away - share[..., None] * gap).sum(-1)
        best = np.unravel_index(error.argmin(), error.shape)
        assert error[best] < 1e-8
        assert -1e-4 <= share[best] <= 0.5 + 1e-4


def test_mix_one_switches_it_off(monkeypatch, natural, generated):
    rows, seen = gather_rows(natural, generated), []
    head = make_head("linear", DIM, 3)
    forward = head.logits
    monkeypatch.setattr(head, "logits", lambda x: seen.append(x.detach().clone()) or forward(x))
    train_head(head, rows, FinetuneConfig(epochs=1, mix=1.0))
    np.testing.assert_array_equal(np.sort(torch.cat(seen).numpy(), 0), np.sort(rows.features, 0))


def test_label_shift_row_is_one_linear_head(natural, generated):
    tuned = ldmlr.finetune(natural, generated, epochs=2, average=0.25, tau_shift=0.6)
    features, _ = draw((20, 20, 20), seed=9)
    shifted = tuned.label_shifted()
    assert isinstance(shifted, LinearHead)
    prior = np.log(np.array(COUNTS) / sum(COUNTS))
    expected = 0.25 * head_logits(tuned.baseline, features) + 0.75 * tuned.logits(features) - 0.6 * prior
    np.testing.assert_allclose(head_logits(shifted, features), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["cosine", "wcdas"])
@pytest.mark.parametrize("init", ["stored", "fresh"])
def test_other_heads_train_shift_and_come_back(tmp_path, folder, kind, init):
    store, pseudo = FeatureStore.open(folder / "features.h5"), FeatureStore.open(folder / "pseudo.h5")
    tuned = ldmlr.finetune(store, pseudo, head=kind, init=init, lr=0.01, epochs=8)
    features, labels = draw((100, 100, 100), seed=3)
    assert accuracy_of(tuned.logits(features), labels) > 0.7
    shifted = tuned.label_shifted()
    assert isinstance(shifted, ShiftedHead)
    prior = np.log(np.array(COUNTS) / sum(COUNTS))
    expected = 0.5 * head_logits(tuned.baseline, features) + 0.5 * tuned.logits(features) - 0.75 * prior
    np.testing.assert_allclose(head_logits(shifted, features), expected, rtol=1e-4, atol=1e-5)
    tuned.save(tmp_path / "head.safetensors")
    back = FinetunedHead.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(head_logits(back.label_shifted(), features), head_logits(shifted, features))


def test_another_kind_starts_from_the_stored_weights_and_their_spread(folder):
    store = FeatureStore.open(folder / "features.h5")
    tuned = ldmlr.finetune(store, head="wcdas", epochs=1, lr=1e-9)
    np.testing.assert_allclose(tuned.head.weight.detach().numpy(), store.head.weight, atol=1e-6)
    features = store.train.float32()
    spreads = [
        (logits - logits.mean(axis=1, keepdims=True)).std()
        for logits in (tuned.logits(features), head_logits(tuned.baseline, features))
    ]
    assert spreads[0] == pytest.approx(spreads[1], rel=1e-3)


def test_balanced_losses_correct_the_prior_without_generated_rows(folder):
    store = FeatureStore.open(folder / "features.h5")
    features, labels = draw((300, 300, 300), seed=4)
    scores = {}
    for loss, tau in (("cross-entropy", 1.0), ("balanced-softmax", 1.0), ("logit-adjustment", 1.0)):
        tuned = ldmlr.finetune(store, loss=loss, tau=tau, lr=0.02)
        assert tuned.method == "finetuned"
        scores[loss] = accuracy_of(tuned.logits(features), labels)
    assert scores["balanced-softmax"] > scores["cross-entropy"] + 0.02
    assert scores["logit-adjustment"] == scores["balanced-softmax"]


def test_fitted_baseline_does_not_mind_scale_and_offset():
    features, labels = draw(COUNTS)
    plain = fit_baseline(gather_rows((features, labels)))
    moved = fit_baseline(gather_rows((1000 * features + 50, labels)))
    constant = fit_baseline(gather_rows((np.c_[features, np.full(len(labels), 3.0)], labels)))
    expected = head_logits(plain, features)
    assert accuracy_of(expected, labels) > 0.85
    np.testing.assert_allclose(head_logits(moved, 1000 * features + 50), expected, atol=0.02)
    assert np.isfinite(head_logits(constant, np.c_[features, np.full(len(labels), 3.0)])).all()


def test_small_sets_get_smaller_batches():
    assert batch_size(50_000, 1024) == 1024
    assert batch_size(960, 1024) == 32
    assert batch_size(10, 1024) == 32
    assert batch_size(9600, 64) == 64


def test_rows_that_do_not_belong_together(natural, generated):
    with pytest.raises(InputError, match="pseudo: features have 4 dimensions, but store has 6"):
        ldmlr.finetune(natural, (generated[0][:, :4], generated[1]))
    with pytest.raises(InputError, match=r"store: 1 of 4 classes have no encoded row \(class 3 first\)"):
        ldmlr.finetune(natural, (generated[0], np.full(len(generated[1]), 3)))
    bad = natural[0].copy()
    bad[17, 2] = np.nan
    with pytest.raises(InputError, match="training row 17 holds NaN"):
        ldmlr.finetune((bad, natural[1]))
    with pytest.raises(InputError, match="labels are float64"):
        ldmlr.finetune((natural[0], natural[1].astype(float)))
    with pytest.raises(InputError, match=r"labels must be from 0 .* found -1"):
        ldmlr.finetune((natural[0], natural[1] - 1))
    with pytest.raises(InputError, match="labels"):
        ldmlr.finetune((natural[0], natural[1][:5]))
    with pytest.raises(InputError, match="no rows"):
        ldmlr.finetune((natural[0][:0], natural[1][:0]))
    with pytest.raises(InputError, match=r"expects features \[N, 6\], not \[2, 5\]"):
        ldmlr.finetune(natural, epochs=1).logits(np.zeros((2, 5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "liner"}, "did you mean 'linear'"),
        ({"epochs": 0}, "epochs: must be at least 1"),
        ({"mix": 1.5}, "mix: must be at most 1"),
        ({"tau": 0.5}, "tau: only loss='logit-adjustment'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"device": "gpu"}, "device"),
    ],
)
def test_wrong_options_are_named(natural, options, message):
    with pytest.raises(UsageError, match=message):
        ldmlr.finetune(natural, **options)


def test_config_or_options_but_not_both(natural):
    with pytest.raises(UsageError, match="not both"):
        ldmlr.finetune(natural, config=FinetuneConfig(), epochs=3)


def test_fresh_heads_depend_on_the_seed_alone():
    first = fresh_head("wcdas", 4, 3, 0)
    torch.rand(10)
    assert torch.equal(first.weight, fresh_head("wcdas", 4, 3, 0).weight)
    assert not torch.equal(first.weight, fresh_head("wcdas", 4, 3, 1).weight)
