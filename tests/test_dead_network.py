"""A network that dies in training starts again at a lower rate, or the error says so (diffusion/train.py)."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr import LatentDiffusion
from ldmlr.diffusion import course, fused, train
from ldmlr.errors import LdmlrError

LABELS = np.repeat([0, 1], [600, 300])


def fit(dim: int, lr: float, trainer: str = "reference", **options) -> LatentDiffusion:
    rows = np.maximum(np.random.default_rng(0).standard_normal((900, dim)), 0).astype(np.float32)
    model = LatentDiffusion(
        basis="cholesky", lr=lr, hidden=32, iterations=300, seed=0, trainer=trainer, precision="float32"
    )
    return model.fit(rows, LABELS, threads=1, **options)


@pytest.mark.parametrize("trainer", ["native", "reference"])
def test_it_starts_again_at_a_quarter_of_the_rate(monkeypatch, trainer):
    tried = []

    def noted(config, key, checkpoint, resumed, run, *ranks):
        def once(lowered, own):
            tried.append(lowered.lr)
            return run(lowered, own)

        return whole(config, key, checkpoint, resumed, once, *ranks)

    whole = course.attempts
    monkeypatch.setattr(course, "attempts", noted)
    model = fit(256, 0.05, trainer)
    assert tried == [0.05, 0.0125]
    assert len(model.losses) == 6
    drawn = [model.sample(LABELS, guidance=guidance, scale=1.0) for guidance in (1.0, 4.0)]
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3


@pytest.mark.parametrize("trainer", ["native", "reference"])
def test_where_no_rate_helps_the_error_says_so(trainer):
    with pytest.raises(LdmlrError, match=r"the network dies in training, .* or lower lr"):
        fit(64, 0.5, trainer)


@pytest.mark.parametrize("trainer", ["native", "reference"])
def test_a_batch_of_one_row_tells_nothing(trainer):
    rows = np.random.default_rng(0).standard_normal((900, 3)).astype(np.float32)
    model = LatentDiffusion(iterations=50, hidden=8, layers=1, batch_size=1, seed=0, trainer=trainer)
    model.fit(rows, LABELS)
    assert len(model.losses) == 1


def test_an_interrupted_second_try_goes_on_as_one(tmp_path, monkeypatch):
    whole = fit(256, 0.05)
    report, seen = train._report, []

    def interrupted(state, config, ranks):
        report(state, config, ranks)
        seen.append(config.lr)
        if seen.count(0.0125) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(course, "CHECKPOINT_EVERY", 100)
    monkeypatch.setattr(train, "_report", interrupted)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(256, 0.05, checkpoint=checkpoint)
    monkeypatch.setattr(train, "_report", report)
    resumed = fit(256, 0.05, checkpoint=checkpoint, resume=True)
    assert resumed.fingerprint() == whole.fingerprint()


def test_an_interrupted_second_try_of_the_native_trainer_goes_on_as_one(tmp_path, monkeypatch):
    whole = fit(256, 0.05, "native")
    advance = fused.Steps.advance

    def interrupted(self, config, state, last, bar=None):
        if config.lr == 0.0125 and last > 200:
            raise KeyboardInterrupt
        advance(self, config, state, last, bar)

    monkeypatch.setattr(course, "CHECKPOINT_EVERY", 100)
    monkeypatch.setattr(fused.Steps, "advance", interrupted)
    checkpoint = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(256, 0.05, "native", checkpoint=checkpoint)
    monkeypatch.setattr(fused.Steps, "advance", advance)
    resumed = fit(256, 0.05, "native", checkpoint=checkpoint, resume=True)
    assert resumed.fingerprint() == whole.fingerprint()
