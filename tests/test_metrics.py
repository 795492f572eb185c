"""Accuracy, calibration and label shift against independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from ldmlr.errors import InputError, UsageError
from ldmlr.groups import PaperRanges, ShotGroups, parse_groups
from ldmlr.metrics.accuracy import AccuracyCounter, accuracy
from ldmlr.metrics.calibration import CalibrationCounter, calibration
from ldmlr.metrics.shift import label_shift


def problem(seed: int, n: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=n)
    logits = 2 * generator.normal(size=(n, classes))
    logits[np.arange(n), labels] += 1
    return logits, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits)
    return p / p.sum(axis=1, keepdims=True)


@given(seed=st.integers(0, 1000), n=st.sampled_from([1, 7, 63, 200]))
def test_accuracy_agrees_with_scikit_learn(seed, n):
    logits, labels = problem(seed, n)
    predicted = logits.argmax(axis=1)
    found = accuracy(logits, labels, [500, 50, 30, 3])
    assert found["all"] == pytest.approx(100 * sk.accuracy_score(labels, predicted))
    recalls = [100 * (predicted[labels == c] == c).mean() for c in range(4) if (labels == c).any()]
    assert found["balanced"] == pytest.approx(np.mean(recalls))
    medium = [100 * (predicted[labels == c] == c).mean() for c in (1, 2) if (labels == c).any()]
    assert found["medium"] == (pytest.approx(np.mean(medium)) if medium else None)
    counter = AccuracyCounter(4, confusion=True)
    counter.update(logits, labels)
    np.testing.assert_array_equal(counter.confusion, sk.confusion_matrix(labels, predicted, labels=range(4)))


def test_a_group_is_the_mean_of_its_classes():
    # Class 0: 3 of 4 right; class 1: 0 of 1. By rows 60 %, by classes 37.5 %.
    labels = np.array([0, 0, 0, 0, 1])
    logits = np.eye(2)[[0, 0, 0, 1, 0]]
    found = accuracy(logits, labels, [200, 200])
    assert found == {"all": 60.0, "many": 37.5, "medium": None, "few": None, "balanced": 37.5}


def test_classes_without_test_rows_do_not_count():
    counter = AccuracyCounter(3)
    counter.update(np.eye(3)[[0, 1]], [0, 0])
    assert counter.summary([500, 5, 5])["few"] is None
    assert counter.per_class()[0] == 50.0
    assert np.isnan(counter.per_class()[1:]).all()


def test_ties_go_to_the_first_class():
    assert accuracy(np.zeros((2, 2)), [0, 1], [200, 200])["all"] == 50.0


@given(seed=st.integers(0, 100), cut=st.integers(0, 200))
def test_batches_add_up(seed, cut):
    logits, labels = problem(seed)
    counters = AccuracyCounter(4), CalibrationCounter(4)
    for counter in counters:
        for part in (slice(0, cut), slice(cut, None)):
            counter.update(logits[part], labels[part])
    counts = [500, 50, 30, 3]
    assert counters[0].summary(counts) == accuracy(logits, labels, counts)
    assert counters[1].summary() == pytest.approx(calibration(logits, labels))


@given(seed=st.integers(0, 1000))
def test_nll_and_brier_agree_with_scikit_learn(seed):
    logits, labels = problem(seed)
    found, p = calibration(logits, labels), softmax(logits)
    assert found["nll"] == pytest.approx(sk.log_loss(labels, p, labels=range(4)))
    assert found["brier"] == pytest.approx(np.square(p - np.eye(4)[labels]).sum(axis=1).mean())


@given(seed=st.integers(0, 1000))
def test_ece_is_the_weighted_gap_of_its_bins(seed):
    logits, labels = problem(seed)
    p = softmax(logits)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration(logits, labels)["ece"] == pytest.approx(expected)


def test_certain_and_right_is_perfectly_calibrated():
    found = calibration(1000.0 * np.eye(3), [0, 1, 2])
    assert found == {"ece": 0.0, "nll": 0.0, "brier": 0.0}


@given(seed=st.integers(0, 100), shift=st.floats(-50, 50))
def test_a_constant_per_row_changes_nothing(seed, shift):
    logits, labels = problem(seed, 50)
    assert calibration(logits + shift, labels) == pytest.approx(calibration(logits, labels), abs=1e-9)


def test_label_shift_is_the_bayes_correction():
    logits, _ = problem(1)
    prior = np.array([0.6, 0.2, 0.15, 0.05])
    corrected = softmax(logits) / prior
    np.testing.assert_allclose(
        softmax(label_shift(logits, np.log(prior))), corrected / corrected.sum(axis=1, keepdims=True)
    )
    np.testing.assert_array_equal(label_shift(logits, np.log(prior), tau=0), logits)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((2, 3)), [0], "labels"),
        (np.zeros((2, 3)), [0, 3], "reach 3"),
        (np.zeros((2, 3)), [-1, 0], "expected 0 to 2"),
        (np.array([[0.0, 1, 2], [0, np.nan, 1]]), [0, 1], "row 1 are not finite"),
        (np.zeros((0, 3)), [], "no rows"),
    ],
)
def test_bad_measurements_are_refused(logits, labels, message):
    with pytest.raises(InputError, match=message):
        accuracy(logits, np.array(labels, dtype=int), [1, 1, 1])
    with pytest.raises(InputError, match=message):
        calibration(logits, np.array(labels, dtype=int))


def test_thresholds_and_ranges_of_groups():
    counts = np.array([101, 100, 20, 19])
    assert [mask.tolist() for mask in parse_groups("100,20").masks(counts).values()] == [
        [True, False, False, False], [False, True, True, False], [False, False, False, True]
    ]  # fmt: skip
    assert parse_groups(" 50, 10 ") == ShotGroups(50, 10)
    sizes = {c: [int(m.sum()) for m in PaperRanges().masks(np.full(c, 5)).values()] for c in (10, 100)}
    assert sizes == {10: [3, 4, 3], 100: [36, 35, 29]}


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(0, 200), st.integers(0, 200))
def test_every_class_is_in_exactly_one_group(counts, many, few):
    if few > many + 1:
        many, few = few, many
    masks = ShotGroups(many, few).masks(counts)
    np.testing.assert_array_equal(np.sum(list(masks.values()), axis=0), np.ones(len(counts)))


@pytest.mark.parametrize("text", ["100", "many", "100,20,5", "-1,3", "20,100"])
def test_groups_that_make_no_sense(text):
    with pytest.raises(UsageError, match="groups"):
        parse_groups(text)


def test_paper_ranges_need_their_sets():
    with pytest.raises(UsageError, match="10 and 100 classes, not 7"):
        PaperRanges().masks(np.arange(7))
    with pytest.raises(InputError, match="falling counts"):
        PaperRanges().masks(np.arange(1, 11))
