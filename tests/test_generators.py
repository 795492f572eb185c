"""The generators: one face, rows that no split of the work changes, and what each name promises."""

from __future__ import annotations

import functools
import itertools
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors
from support.rows import COUNTS, make_rows

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.generation.generators.copies import Oversampling, Views
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.generators.gaussian import Gaussian
from ldmlr.generation.generators.interpolation import Adasyn, Smote, nearest
from ldmlr.generation.plan import labels_of, plan
from ldmlr.generation.train_rows import TrainRows

SMALL = DiffusionConfig(hidden=8, layers=1, iterations=4)


@functools.cache
def fitted(name: str):
    """Each generator, fitted once to the same rows."""
    return fit(name, make_rows(), diffusion=SMALL, device="cpu", threads=1)


def generator_names():
    return pytest.mark.parametrize("name", GENERATORS)


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


@generator_names()
@given(
    cuts=st.lists(st.integers(0, 120), max_size=3),
    first=st.one_of(st.integers(0, 10_000), st.integers(2**32 - 60, 2**32 + 60), st.integers(0, 2**62)),
    seed=st.integers(0, 2**64 - 1),
    data=st.data(),
)
def test_any_split_of_the_rows_gives_the_same_bits(name, cuts, first, seed, data):
    made = fitted(name)
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=120, max_size=120)))
    whole = made.draw(labels, seed, first)
    for low, high in itertools.pairwise([0, *sorted(cuts), 120]):
        part = made.draw(labels[low:high], seed, first + low)
        np.testing.assert_array_equal(part, whole[low:high])


@generator_names()
def test_blocks_and_tiles_leave_no_seam(name):
    made = fitted(name)
    labels = labels_of(np.array([9000, 500, 20, 0]), 0, 9520)
    whole = made.draw(labels, 5, 1000)
    for low, high in ((8191, 8193), (7190, 8300), (9400, 9520)):
        np.testing.assert_array_equal(made.draw(labels[low:high], 5, 1000 + low), whole[low:high])


@generator_names()
def test_rows_are_finite_float32_and_follow_the_seed(name):
    made, rows = fitted(name), make_rows()
    wanted = plan(rows.counts)
    labels = labels_of(wanted, 0, int(wanted.sum()))
    drawn = made.draw(labels, 3)
    assert drawn.shape == (int(wanted.sum()), made.dim)
    assert drawn.dtype == np.float32
    assert np.isfinite(drawn).all()
    assert (made.name, made.num_classes) == (name, 4)
    np.testing.assert_array_equal(made.draw(labels, 3), drawn)
    assert not np.array_equal(made.draw(labels, 4), drawn)
    assert not np.array_equal(made.draw(labels, 3, 1), drawn)
    assert made.draw(np.zeros(0, np.int64)).shape == (0, 5)


@generator_names()
def test_what_cannot_be_drawn_is_refused(name):
    made = fitted(name)
    with pytest.raises(UsageError, match=r"row 1 is 4, outside 0 \.\. 3"):
        made.draw([0, 4])
    with pytest.raises(UsageError, match="seed: must be a whole number"):
        made.draw([0], seed=-1)
    with pytest.raises(UsageError, match="first_row: must be a whole number"):
        made.draw([0, 0], first_row=2**64 - 1)


@generator_names()
def test_the_fingerprint_is_that_of_what_rows_depend_on(name):
    rows = make_rows()
    again = fit(name, rows, diffusion=SMALL, device="cpu", threads=1)
    assert again.fingerprint() == fitted(name).fingerprint()
    views = tuple(view + 1 for view in rows.views)
    changed = TrainRows(rows.features + 1, rows.labels, views, rows.kinds, 4, "rows")
    other = fit(name, changed, diffusion=SMALL, device="cpu", threads=1)
    assert other.fingerprint() != again.fingerprint()


def test_no_two_generators_have_one_fingerprint():
    assert len({fitted(name).fingerprint() for name in GENERATORS}) == len(GENERATORS)


def test_a_class_of_one_row_is_no_obstacle():
    rows = make_rows((5, 1, 1))
    for name in ("smote", "adasyn", "oversampling"):
        drawn = fit(name, rows).draw(np.repeat([1, 2], 20))
        np.testing.assert_array_equal(drawn, np.repeat(rows.features[-2:], 20, axis=0))


@pytest.mark.parametrize("name", [name for name, entry in GENERATORS.items() if entry.needs_views])
def test_what_needs_views_says_so(name):
    with pytest.raises(UsageError, match=f"generator {name}: needs augmented views, and rows is used"):
        fit(name, make_rows(views=0))


def test_an_unknown_generator_is_named_with_its_nearest():
    with pytest.raises(UsageError, match="generator: unknown value 'smot'; did you mean 'smote'"):
        fit("smot", make_rows())


def test_oversampling_repeats_clean_rows_alike():
    rows = make_rows()
    drawn = Oversampling(rows).draw(np.repeat([0, 2], [20_000, 30]), 1)
    for row in drawn[20_000:]:
        assert (rows.features[rows.labels == 2] == row).all(axis=1).any()
    times = (drawn[:20_000, None, 0] == rows.features[None, :40, 0]).sum(axis=0)
    assert times.sum() == 20_000
    np.testing.assert_allclose(times, 500, atol=6 * 500**0.5)


def test_views_come_equally_often_and_are_not_the_clean_rows():
    rows = make_rows()
    wanted = plan(rows.counts)
    labels = labels_of(wanted, 0, int(wanted.sum()))
    drawn = Views(rows).draw(labels)
    for label in (1, 2, 3):
        own = np.concatenate([view[rows.labels == label] for view in rows.views])
        of_class = drawn[labels == label]
        times = [(of_class == row).all(axis=1).sum() for row in own]
        assert sum(times) == len(of_class)
        assert max(times) - min(times) <= 1


@given(first=st.integers(0, 2**63), seed=st.integers(0, 2**64 - 1), label=st.integers(0, 3))
def test_as_many_rows_as_there_are_views_are_all_the_views(first, seed, label):
    made, rows = fitted("views"), make_rows()
    own = np.concatenate([view[rows.labels == label] for view in rows.views])
    drawn = made.draw(np.full(len(own), label), seed, first)
    np.testing.assert_array_equal(np.unique(drawn, axis=0), np.unique(own, axis=0))


@pytest.mark.parametrize("kind", [Smote, Adasyn])
@pytest.mark.parametrize("views", [False, True])
def test_interpolated_rows_lie_between_rows_of_their_class(kind, views):
    rows = make_rows()
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    wanted = np.repeat([1, 2, 3], 20)
    drawn = kind(rows, views=views).draw(wanted)
    known = (drawn[:, None] == features[None]).all(axis=2).any(axis=1)
    for row, label in zip(drawn[::3], wanted[::3], strict=True):
        assert on_a_segment(row, features[labels == label])
    assert not known[wanted == 1].all()


def test_neighbours_are_those_of_imbalanced_learn():
    """Its SMOTE asks for one more and drops the row itself."""
    rows = make_rows((60, 9)).features
    for k in (1, 5):
        expected = NearestNeighbors(n_neighbors=k + 1).fit(rows).kneighbors(rows)[1][:, 1:]
        np.testing.assert_array_equal(nearest(rows, k), expected)


@pytest.mark.parametrize("name", ["smote", "adasyn", "smote-views", "adasyn-views"])
def test_rows_are_distributed_as_those_of_imbalanced_learn(name):
    from imblearn.over_sampling import ADASYN, SMOTE

    rows = make_rows((40, 25), apart=0.5)
    views = name.endswith("-views")
    features, labels = rows.with_views() if views else (rows.features, rows.labels)
    wanted = 40_000
    sampler = (SMOTE if name.startswith("smote") else ADASYN)(
        sampling_strategy={1: wanted + int((labels == 1).sum())}, random_state=0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        theirs = sampler.fit_resample(features, labels)[0][len(labels) :]
    ours = fit(name, rows).draw(np.full(wanted, 1))
    # Means and second moments of 40,000 rows each: their difference is noise of the draws.
    for power in (1, 2):
        one, other = ours.astype(float) ** power, theirs.astype(float) ** power
        noise = np.sqrt(one.var(axis=0) / len(one) + other.var(axis=0) / len(other))
        assert (np.abs(one.mean(axis=0) - other.mean(axis=0)) < 5 * noise).all()


def test_the_remarks_are_on_the_classes_that_were_drawn():
    rows = make_rows()
    made = Smote(rows)
    made.draw(np.zeros(5, np.int64))
    assert made.notes == ()
    made.draw(labels_of(plan(COUNTS), 0, int(plan(COUNTS).sum())))
    assert made.notes == (
        "1 of 4 classes have one row, which is repeated: it has no neighbour",
        "1 of 4 classes have fewer than 5 neighbours; all are used",
    )


def test_adasyn_without_a_border_is_smote_and_says_so():
    rows = make_rows((40, 12, 9), apart=1000.0)
    labels = np.repeat([1, 2], 30)
    made = Adasyn(rows)
    drawn = made.draw(labels, 2)
    assert made.notes == ("2 of 3 classes have no border for ADASYN to weigh; SMOTE took its place",)
    np.testing.assert_array_equal(drawn, Smote(rows).draw(labels, 2))
    mixed = Adasyn(make_rows((40, 12, 9), apart=0.0))
    mixed.draw(labels)
    assert mixed.notes == ()


def test_adasyn_starts_where_other_classes_are_near():
    """Of two groups of a class, only the one among the other class has a border."""
    rng = np.random.default_rng(0)
    far, near = rng.normal(50, 1, (20, 3)), rng.normal(0, 1, (20, 3))
    features = np.concatenate([rng.normal(0, 1, (200, 3)), far, near]).astype(np.float32)
    labels = np.repeat([0, 1], [200, 40])
    drawn = Adasyn(TrainRows(features, labels, (), (), 2, "rows")).draw(np.full(500, 1))
    assert (np.abs(drawn) < 10).all()


def test_copies_of_a_row_are_no_border():
    """A row among copies of itself: the search finds those first, and must drop one row, not none."""
    features = np.repeat(np.float32([[0, 0], [9, 9]]), [12, 8], axis=0)
    labels = np.repeat([0, 1], [12, 8])
    made = Adasyn(TrainRows(features, labels, (), (), 2, "rows"))
    np.testing.assert_array_equal(made.draw(np.full(9, 1)), np.full((9, 2), 9, np.float32))
    assert len(made.notes) == 1


@pytest.mark.parametrize(("name", "scale"), [("gaussian", 1.0), ("gaussian-wide", 1.41)])
def test_gaussian_rows_have_the_moments_they_should(name, scale):
    made = fitted(name)
    assert isinstance(made, Gaussian)
    assert made.fitted.floor == -np.inf
    drawn = made.draw(np.full(40_000, 1))
    np.testing.assert_allclose(drawn.mean(axis=0), made.fitted.mean[1], atol=0.04)
    covariance = made.fitted.factor[1] @ made.fitted.factor[1].T
    np.testing.assert_allclose(np.cov(drawn.T), scale**2 * covariance, atol=0.06)


def test_the_gaussians_differ_in_nothing_but_their_usual_widening():
    rows, labels = make_rows(), np.repeat([0, 1, 2, 3], 9)
    config = GenerateConfig(scale=1.41)
    np.testing.assert_array_equal(
        fit("gaussian", rows, config).draw(labels), fitted("gaussian-wide").draw(labels)
    )
    narrow = fitted("gaussian-wide").drawing_as(GenerateConfig(scale=1.0))
    np.testing.assert_array_equal(narrow.draw(labels), fitted("gaussian").draw(labels))


def test_gaussian_rows_respect_features_that_are_never_negative():
    rows = make_rows()
    positive = TrainRows(
        np.abs(rows.features), rows.labels, tuple(map(np.abs, rows.views)), rows.kinds, 4, ""
    )
    assert fit("gaussian", positive).draw(np.repeat(range(4), 200)).min() == 0


def test_a_gaussian_may_widen_each_class_by_its_own_factor():
    rows, labels = make_rows(), np.repeat([1, 2, 3], 50)
    wide = fit("gaussian", rows, GenerateConfig(class_scale=("1=2.0", "2=1.5"))).draw(labels)
    for label, factor in ((1, 2.0), (2, 1.5), (3, 1.0)):
        same = fit("gaussian", rows, GenerateConfig(scale=factor)).draw(labels)
        np.testing.assert_array_equal(wide[labels == label], same[labels == label])


def test_the_diffusion_model_draws_what_it_samples():
    made = fitted("diffusion")
    labels = np.repeat([0, 3], 20)
    expected = made.model.sample(labels, seed=7, first_row=5, device="cpu", threads=1)
    np.testing.assert_array_equal(made.draw(labels, 7, 5), expected)
    assert made.backend in ("native", "reference")
