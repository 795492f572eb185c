"""ldmlr.diffusion.schedule: amplitudes, monotony and the inverse, in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldmlr.diffusion.schedule import SCHEDULES, amplitudes, make_schedule
from ldmlr.errors import UsageError

times = st.floats(0, 1)
names = pytest.mark.parametrize("name", sorted(SCHEDULES))


@names
@given(t=times)
def test_variance_is_preserved(name, t):
    schedule = make_schedule(name)
    assert schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 == pytest.approx(1, abs=1e-14)


@names
@given(t=times, u=times)
def test_noise_grows_with_time(name, t, u):
    schedule = make_schedule(name)
    low, high = sorted((t, u))
    assert schedule.alpha(low) >= schedule.alpha(high)
    assert schedule.sigma(low) <= schedule.sigma(high)
    assert schedule.log_snr(low) >= schedule.log_snr(high)


@names
@given(t=st.floats(1e-6, 0.9999))
def test_time_is_the_inverse_of_log_snr(name, t):
    schedule = make_schedule(name)
    assert schedule.time(schedule.log_snr(t)) == pytest.approx(t, rel=1e-6, abs=1e-12)


@given(log_snr=st.floats(-30, 30))
def test_amplitudes_of_a_log_snr(log_snr):
    alpha, sigma = amplitudes(log_snr)
    assert np.log(alpha) - np.log(sigma) == pytest.approx(log_snr, abs=1e-12)
    assert alpha**2 + sigma**2 == pytest.approx(1, abs=1e-14)


@names
def test_ends(name):
    schedule = make_schedule(name)
    assert (schedule.alpha(0.0), schedule.sigma(0.0)) == (1, 0)
    assert schedule.log_snr(0.0) == np.inf
    assert schedule.time(np.inf) == 0
    assert schedule.alpha(1.0) < 0.01


def test_cosine_keeps_the_digits_of_small_noise():
    # 1 - alpha^2 has lost all its digits here; the true value is sqrt(sin(u - u0) sin(u + u0)) / cos(u0).
    t = np.float64(1e-15)
    step, u0 = t / 1.008 * np.pi / 2, 0.008 / 1.008 * np.pi / 2
    expected = np.sqrt(step * np.sin(2 * u0)) / np.cos(u0)
    assert make_schedule("cosine").sigma(t) == pytest.approx(expected, rel=1e-3)


def test_unknown_schedule_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        make_schedule("cosin")
