"""ldmlr/diffusion/heldout.py: what training added to the class Gaussian, and what is held back."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr import LatentDiffusion
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.heldout import BANDS, LARGEST, SMALLEST, examine, hold_out
from ldmlr.diffusion.schedule import make_schedule

COUNTS = np.array([2000, 100, SMALLEST, SMALLEST - 1])
LABELS = np.repeat(np.arange(4), COUNTS)


def test_a_share_of_each_class_that_is_large_enough():
    held = hold_out(LABELS, COUNTS, 0.1, seed=3)
    assert np.bincount(LABELS[held], minlength=4).tolist() == [LARGEST, 10, 2, 0]
    assert (held == hold_out(LABELS, COUNTS, 0.1, seed=3)).all()
    assert (held != hold_out(LABELS, COUNTS, 0.1, seed=4)).any()
    assert not hold_out(LABELS, COUNTS, 0.0, seed=3).any()


def answer(factor: float):
    """A denoiser whose answer is a multiple of what v is on average, given x, for rows of variance 4."""

    def predict(x, t, labels):
        schedule = make_schedule(DiffusionConfig().noise_schedule)
        alpha, sigma = (level(t).astype(np.float32)[:, None] for level in (schedule.alpha, schedule.sigma))
        return factor * alpha * sigma * (1 - 4) / (4 * alpha**2 + sigma**2) * x

    return predict


def examined(factor: float):
    z = 2 * np.random.default_rng(0).standard_normal((len(LABELS), 3)).astype(np.float32)
    return examine(answer(factor), z, LABELS, COUNTS, np.ones(3), DiffusionConfig())


def test_the_right_answer_is_better_and_nothing_is_held_back():
    found = examined(1.0)
    assert 0.5 < found.document["loss_over_gaussian"] < 0.95
    assert len(found.document["bands"]) == BANDS
    assert set(found.document["groups"]) == {"many", "medium", "few"}
    assert found.gain is None
    assert found.at(np.array([0.5])) is None
    assert "below the class Gaussian" in found.words()


@pytest.mark.parametrize("factor", [-1.0, 5.0])
def test_an_answer_worse_than_none_is_held_back(factor):
    found = examined(factor)
    assert found.document["loss_over_gaussian"] <= 1.0
    assert all(ratio <= 1.0 + 1e-9 for ratio in found.document["bands"])
    assert found.gain is not None
    assert found.at(np.linspace(0, 1, 7)).shape == (7, 4)
    if factor < 0:
        assert not found.gain.any()
        assert "drawn instead" in found.words()


def test_one_group_is_held_back_and_the_others_are_not():
    def mixed(x, t, labels):
        return answer(1.0)(x, t, labels) * np.where(labels == 0, 1.0, -1.0)[:, None]

    z = 2 * np.random.default_rng(0).standard_normal((len(LABELS), 3)).astype(np.float32)
    held = hold_out(LABELS, COUNTS, 0.05, seed=0)
    found = examine(mixed, z[held], LABELS[held], COUNTS, np.ones(3), DiffusionConfig())
    assert (found.gain[:, 0] == 1).all()
    assert not found.gain[:, 1:].any()  # the smallest class, with no row held out, as the next larger ones
    assert found.document["groups"]["many"] < 0.95
    assert found.document["groups"]["medium"] == pytest.approx(1.0)
    assert found.document["groups"]["few"] is None


def test_a_model_of_two_modes_says_that_it_learned_them_and_draws_them():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [700, 700])
    rows = random.standard_normal((1400, 80)).astype(np.float32)
    rows[:, :8] += 4 * random.choice([-1, 1], (1400, 1))
    turn = np.linalg.qr(random.standard_normal((80, 80)))[0].astype(np.float32)
    model = LatentDiffusion(iterations=600, seed=0).fit(rows @ turn, labels, threads=1)
    assert model.held_out["loss_over_gaussian"] < 0.99
    assert "below the class Gaussian" in model.learned
    drawn = model.sample(np.repeat([0, 1], 400), guidance=1.0, scale=1.0, seed=1) @ turn.T
    assert (np.abs(drawn[:, :8].mean(axis=1)) < 2).mean() < 0.05
    assert drawn.std() == pytest.approx(rows.std(), rel=0.05)


def test_rows_of_a_gaussian_are_drawn_as_one():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 60])
    rows = random.standard_normal((360, 70)).astype(np.float32)
    model = LatentDiffusion(iterations=200, hidden=16, layers=1, seed=0).fit(rows, labels, threads=1)
    assert model.held_out["loss_over_gaussian"] == 1.0
    assert "drawn instead" in model.learned
    one, four = (model.sample(labels, guidance=g, scale=1.0, seed=0) for g in (1.0, 4.0))
    np.testing.assert_array_equal(one, four)


def test_saved_and_read_it_draws_the_same_rows(tmp_path):
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1], [300, 60])
    rows = np.maximum(random.standard_normal((360, 70)), 0).astype(np.float32)
    model = LatentDiffusion(iterations=60, hidden=16, layers=1, latent=20, seed=0).fit(
        rows, labels, threads=1
    )
    model.save(tmp_path / "model.safetensors")
    back = LatentDiffusion.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(back.sample(labels, seed=5), model.sample(labels, seed=5))
    assert (back.held_out, back.fingerprint()) == (model.held_out, model.fingerprint())
    assert back.transform.latent == 20
