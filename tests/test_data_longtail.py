"""`ldmlr.data.longtail`: long-tailed draws and hold-outs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldmlr.data import LongTailedDraw, hold_out, long_tailed_counts, long_tailed_indices, open_image_set
from ldmlr.errors import InputError, LdmlrError, UsageError


def balanced(num_classes: int, per_class: int) -> np.ndarray:
    """Labels of a balanced set, in mixed order."""
    return np.random.default_rng(0).permutation(np.repeat(np.arange(num_classes), per_class))


@pytest.mark.parametrize(
    ("n_max", "num_classes", "factor", "total"),
    [(5000, 10, 100, 12406), (500, 100, 100, 10847), (5000, 10, 10, 20431), (500, 100, 10, 19573)],
)
def test_totals_of_the_published_cifar_subsets(n_max, num_classes, factor, total):
    assert long_tailed_counts(n_max, num_classes, factor).sum() == total


def test_counts_of_cifar10_lt():
    assert long_tailed_counts(5000, 10, 100).tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


@given(st.integers(2, 300), st.integers(1, 50), st.integers(1, 200))
def test_counts_fall_from_n_max_to_its_factor(num_classes, last, factor):
    counts = long_tailed_counts(last * factor, num_classes, factor)
    assert counts.shape == (num_classes,)
    assert counts[0] == last * factor
    assert counts[-1] == last
    assert np.all(np.diff(counts) <= 0)


@given(st.integers(2, 8), st.integers(5, 30), st.floats(1, 5), st.integers(0, 2**40), st.booleans())
def test_draw_is_a_subset_with_the_right_counts(num_classes, per_class, factor, seed, shuffle):
    labels = balanced(num_classes, per_class)
    rows = long_tailed_indices(labels, factor, seed, shuffle_classes=shuffle)
    assert np.all(np.diff(rows) > 0)
    assert rows[0] >= 0
    assert rows[-1] < len(labels)
    counts = np.bincount(labels[rows], minlength=num_classes)
    expected = long_tailed_counts(per_class, num_classes, factor)
    assert sorted(counts.tolist(), reverse=True) == expected.tolist()
    if not shuffle:
        assert counts.tolist() == expected.tolist()
    assert np.array_equal(rows, long_tailed_indices(labels, factor, seed, shuffle_classes=shuffle))


@given(st.floats(1, 10), st.floats(1, 10), st.integers(0, 1000), st.booleans())
def test_draws_of_one_seed_are_nested(first, second, seed, shuffle):
    labels = balanced(5, 20)
    large, small = (
        long_tailed_indices(labels, factor, seed, shuffle_classes=shuffle)
        for factor in sorted((first, second))
    )
    assert np.isin(small, large).all()


def test_rows_of_a_class_do_not_depend_on_the_other_classes():
    labels = balanced(4, 20)
    alone = long_tailed_indices(np.where(labels == 3, 2, labels), 4, seed=7, num_classes=3)
    together = long_tailed_indices(labels, 4, seed=7)
    head = [rows[labels[rows] == 0] for rows in (alone, together)]
    assert np.array_equal(*head)


def test_seed_chooses_the_rows():
    labels = balanced(3, 50)
    assert not np.array_equal(long_tailed_indices(labels, 5, 0), long_tailed_indices(labels, 5, 1))


def test_known_draw():
    # Saved runs name a seed: the rows behind it must never change.
    rows = long_tailed_indices(np.repeat(np.arange(3), 4), 4, seed=0)
    assert rows.tolist() == [0, 1, 2, 3, 5, 6, 8]


def test_the_head_class_is_as_large_as_every_class_can_follow():
    labels = np.repeat(np.arange(3), [100, 30, 10])
    rows = long_tailed_indices(labels, 4, 0)
    counts = np.bincount(labels[rows])
    assert counts.tolist() == long_tailed_counts(int(counts[0]), 3, 4).tolist()
    assert counts[2] == 10 or counts[1] == 30


@pytest.mark.parametrize("factor", [0.5, 0, -1, float("nan"), float("inf")])
def test_a_factor_below_one_is_refused(factor):
    with pytest.raises(UsageError, match="imbalance_factor: must be 1"):
        long_tailed_indices(balanced(3, 5), factor)


def test_a_factor_that_empties_a_class_names_the_largest_one():
    with pytest.raises(UsageError, match="largest has 5 and the smallest 5; use at most 5"):
        long_tailed_indices(balanced(3, 5), 6)
    assert np.bincount(balanced(3, 5)[long_tailed_indices(balanced(3, 5), 5)]).min() == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 0], "only 1 class"), ([1, 1], "only 1 class"), ([0, 2], "no training image has label 1"),
     ([0, -1], "label -1 in row 1"), ([0.0, 1.0], "float64"), ([0, 2**31], "out of range")],
)  # fmt: skip
def test_a_draw_needs_labels_without_gaps(labels, message):
    with pytest.raises(InputError, match=message):
        long_tailed_indices(labels, 2)


def test_a_class_without_a_row_cannot_be_drawn():
    with pytest.raises(UsageError, match="at least two classes with rows"):
        long_tailed_indices([0, 0, 2, 2], 1, num_classes=3)


def test_a_negative_seed_is_refused():
    with pytest.raises(UsageError, match="seed: must be 0 or more"):
        long_tailed_indices(balanced(2, 5), 2, -1)


@pytest.fixture
def draw() -> LongTailedDraw:
    drawn = open_image_set("digits-lt", imbalance_factor=10, seed=3, shuffle_classes=True).draw
    assert drawn is not None
    return drawn


def test_saved_draw_comes_back_and_reproduces_the_set(tmp_path, draw):
    draw.save(tmp_path / "indices.json")
    again = LongTailedDraw.load(tmp_path / "indices.json")
    assert np.array_equal(again.indices, draw.indices)
    assert (again.counts, again.seed, again.imbalance_factor) == (draw.counts, 3, 10.0)
    assert again.sha256 == draw.sha256
    first = open_image_set("digits-lt", imbalance_factor=10, seed=3, shuffle_classes=True)
    second = open_image_set("digits-lt", indices=tmp_path / "indices.json")
    assert first.fingerprint() == second.fingerprint()
    assert first.provenance == second.provenance
    assert np.array_equal(first.train.load([0, -1]), second.train.load([0, -1]))


def test_saving_does_not_replace_a_file(tmp_path, draw):
    path = tmp_path / "indices.json"
    path.write_text("mine")
    with pytest.raises(UsageError, match="already exists"):
        draw.save(path)
    assert path.read_text() == "mine"


def test_changed_indices_are_refused(tmp_path, draw):
    path = tmp_path / "indices.json"
    draw.save(path)
    document = json.loads(path.read_text())
    document["indices"][0] += 1
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"indices\.json: the indices do not match their sha256"):
        LongTailedDraw.load(path)


@pytest.mark.parametrize(
    "change",
    [{"format": "other"}, {"schema_version": 2}, {"indices": [0, "a"]}, {"indices": None}, {"counts": 3},
     {"seed": None}, {"indices": [[0]]}, {"indices": [0.5]}],
)  # fmt: skip
def test_a_file_that_is_no_draw_is_refused(tmp_path, draw, change):
    path = tmp_path / "indices.json"
    draw.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=r"indices\.json: not a saved draw"):
        LongTailedDraw.load(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", "null", "{}", '"text"'])
def test_other_json_is_refused(tmp_path, content):
    path = tmp_path / "indices.json"
    path.write_text(content)
    with pytest.raises(InputError, match="not a saved draw"):
        LongTailedDraw.load(path)


def test_a_folder_is_no_draw(tmp_path):
    with pytest.raises(LdmlrError, match="is a folder"):
        LongTailedDraw.load(tmp_path)


def test_a_missing_draw_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.json: no such file of saved indices"):
        LongTailedDraw.load(tmp_path / "nowhere.json")


@given(st.lists(st.integers(0, 6), min_size=1, max_size=120), st.floats(0.01, 0.99), st.integers(0, 100))
def test_hold_out_takes_from_every_class_and_leaves_some(labels, fraction, seed):
    train, val = hold_out(labels, fraction, seed)
    assert sorted([*train, *val]) == list(range(len(labels)))
    label = np.asarray(labels)
    for c in np.unique(label):
        kept, held = np.sum(label[train] == c), np.sum(label[val] == c)
        assert kept >= 1
        assert held >= 1 or kept == 1
        if kept + held > 1:
            assert held == 1 or kept == 1 or abs(held - fraction * (kept + held)) <= 0.5
    assert np.array_equal(val, hold_out(label, fraction, seed)[1])


def test_hold_out_depends_on_the_seed():
    labels = balanced(3, 40)
    assert not np.array_equal(hold_out(labels, 0.2, 0)[1], hold_out(labels, 0.2, 1)[1])


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_hold_out_refuses_other_fractions(fraction):
    with pytest.raises(UsageError, match="above 0 and below 1"):
        hold_out([0, 1], fraction)


def test_classes_that_have_an_order_keep_it():
    labels = np.repeat(np.arange(4), [10, 40, 400, 90])
    counts = np.bincount(labels[long_tailed_indices(labels, 8, 0)])
    assert counts[[2, 3, 1, 0]].tolist() == long_tailed_counts(int(counts[2]), 4, 8).tolist()
    assert counts[0] == 10  # as much as the smallest class allows
    nearly = np.repeat(np.arange(3), [90, 100, 99])
    assert np.bincount(nearly[long_tailed_indices(nearly, 9, 0)]).tolist() == [90, 30, 10]


@given(st.lists(st.integers(1, 2000), min_size=2, max_size=12), st.integers(1, 10**6))
def test_the_bound_that_a_refusal_names_works_and_is_the_largest(counts, factor):
    labels = np.repeat(np.arange(len(counts)), counts)
    try:
        long_tailed_indices(labels, factor)
    except UsageError as error:
        bound = int(str(error).rpartition("at most ")[2])
        assert 1 <= bound < factor
        assert np.bincount(labels[long_tailed_indices(labels, bound)]).min() >= 1
        with pytest.raises(UsageError, match=f"use at most {bound}$"):
            long_tailed_indices(labels, bound + 1)


def test_a_draw_of_an_imbalanced_set_says_what_it_keeps(tmp_path):
    for name, count in zip("abc", (2, 30, 8), strict=True):
        for number in range(count):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGB", (2, 2)).save(tmp_path / name / f"{number}.png")
    images = open_image_set(tmp_path, imbalance_factor=4)
    assert images.train.counts.tolist() == [2, 11, 5]
    assert images.notes == (
        f"{tmp_path}: is imbalanced already (30 images of the largest class, 2 of the smallest); its order "
        "of classes is kept, and factor 4 keeps 18 of 40 images",
    )
    assert open_image_set("digits-lt").notes == ()
