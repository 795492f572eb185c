"""Class Gaussians that borrow: from whom, how much, and nothing where no class is large enough."""

from __future__ import annotations

import numpy as np

from ldmlr.generation.generators.borrowed import LENDER, borrow, lenders
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.generators.gaussian import ClassGaussians
from ldmlr.generation.train_rows import TrainRows
from ldmlr.select.entrants import ENTRANTS

MEAN = np.array([[0.0, 0.0], [4.0, 0.0], [2.5, 40.0], [3.0, 0.0]])
COUNTS = np.array([400, 200, 400, 10])


def test_the_nearest_large_classes_lend_in_units_of_the_shared_covariance():
    assert [found.tolist() for found in lenders(MEAN, np.eye(2), COUNTS)] == [[], [], [], [1, 0]]
    # Where the second dimension scatters widely, a distance along it is a small one.
    assert lenders(MEAN, np.diag([1.0, 1000.0]), COUNTS)[3].tolist() == [2, 1]
    even = np.full(4, 50)
    assert all(not len(found) for found in lenders(MEAN, np.eye(2), even))
    just = np.array([400, 10 * LENDER, 10 * LENDER - 1, 10])
    assert lenders(MEAN, np.eye(2), just)[3].tolist() == [1, 0]


def test_lenders_together_count_as_one_row_and_give_their_covariance():
    scatter = np.stack([np.eye(2) * size for size in (1.0, 3.0, 9.0, 100.0)])
    mean, target = borrow(MEAN, scatter, np.eye(2) * 2, COUNTS)
    np.testing.assert_array_equal(mean[:3], MEAN[:3])
    np.testing.assert_array_equal(target[:3], np.repeat(4 * np.eye(2)[None], 3, axis=0))
    np.testing.assert_allclose(mean[3], (10 * MEAN[3] + (MEAN[0] + MEAN[1]) / 2) / 11)
    np.testing.assert_allclose(target[3], 2 * np.eye(2))


def make_rows():
    """Two large classes with a long axis of their own each, and a rare one beside the second."""
    rng, counts = np.random.default_rng(0), (600, 600, 6)
    labels = np.repeat([0, 1, 2], counts)
    noise = rng.standard_normal((len(labels), 3))
    stretch = np.array([[5.0, 1, 1], [1, 5, 1], [1, 5, 1]])[labels]
    centre = np.array([[0.0, 0, 0], [0, 0, 8], [0, 0, 12]])[labels]
    return TrainRows((centre + stretch * noise).astype(np.float32), labels, (), (), 3, "rows")


def test_a_rare_class_has_the_shape_of_its_neighbours():
    rows = make_rows()
    plain, made = fit("gaussian", rows), fit("gaussian-borrowed", rows)
    labels = np.full(20_000, 2)
    assert made.name == "gaussian-borrowed"
    assert made.fingerprint() != plain.fingerprint()
    assert np.isfinite(made.draw(labels)).all()
    fitted = ClassGaussians.fit(rows.blocks, rows.counts, borrowed=True)
    own = rows.features[rows.labels == 2].astype(np.float64).mean(axis=0)
    large = np.stack([rows.features[rows.labels == label].mean(axis=0) for label in (0, 1)])
    np.testing.assert_allclose(fitted.mean[2], (6 * own + large.mean(axis=0)) / 7, rtol=1e-5, atol=1e-5)
    for label in (0, 1):
        same = np.full(500, label)
        np.testing.assert_array_equal(made.draw(same), plain.draw(same))


def test_it_is_one_of_the_entrants():
    assert ENTRANTS["gaussian-borrowed"].generator == "gaussian-borrowed"
