"""Noise schedules in continuous time, in float64.

A schedule says how much signal and noise a feature vector holds at time t in [0, 1]:
``x_t = alpha(t) x0 + sigma(t) eps`` with ``alpha^2 + sigma^2 = 1`` (variance preserving).
Solvers work on ``lambda(t) = log(alpha / sigma)``, half the logarithm of the
signal-to-noise ratio, so every schedule can be inverted: `time` returns t of lambda.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from ldmlr.errors import UsageError, nearest, opt

Array = npt.NDArray[np.float64]


class Schedule(ABC):
    """Signal and noise at a time; t may be a number or an array."""

    name: str

    @abstractmethod
    def alpha(self, t: npt.ArrayLike) -> Array:
        """Return the signal amplitude: 1 at t = 0, falling to (nearly) 0 at t = 1."""

    @abstractmethod
    def sigma(self, t: npt.ArrayLike) -> Array:
        """Return the noise amplitude ``sqrt(1 - alpha^2)``, without cancellation near t = 0."""

    @abstractmethod
    def time(self, log_snr: npt.ArrayLike) -> Array:
        """Return the t in [0, 1] at which ``log_snr(t)`` has the given value."""

    def log_snr(self, t: npt.ArrayLike) -> Array:
        """Return ``lambda = log(alpha / sigma)``: strictly falling, +inf at t = 0."""
        with np.errstate(divide="ignore"):
            return np.log(self.alpha(t)) - np.log(self.sigma(t))


class CosineSchedule(Schedule):
    """``alpha(t) = cos(u) / cos(u0)``, ``u = (t + s) / (1 + s) * pi / 2``, s = 0.008.

    Nichol & Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021), equation 17.
    """

    name = "cosine"
    _offset = 0.008

    def _angles(self, t: npt.ArrayLike) -> tuple[Array, float]:
        u = (np.asarray(t, np.float64) + self._offset) / (1 + self._offset) * (math.pi / 2)
        return u, self._offset / (1 + self._offset) * (math.pi / 2)

    def alpha(self, t: npt.ArrayLike) -> Array:
        """Return the signal amplitude at t."""
        u, u0 = self._angles(t)
        return np.asarray(np.cos(u) / math.cos(u0))

    def sigma(self, t: npt.ArrayLike) -> Array:
        """Return the noise amplitude at t, as ``sqrt(sin(u - u0) sin(u + u0)) / cos(u0)``."""
        u, u0 = self._angles(t)
        return np.asarray(np.sqrt(np.maximum(np.sin(u - u0) * np.sin(u + u0), 0.0)) / math.cos(u0))

    def time(self, log_snr: npt.ArrayLike) -> Array:
        """Return t of lambda, through ``tan(u)`` so that both ends keep their digits."""
        alpha, sigma = amplitudes(log_snr)
        _, u0 = self._angles(0.0)
        sine = np.hypot(math.sin(u0), sigma * math.cos(u0))
        u = np.arctan2(sine, alpha * math.cos(u0))
        return np.asarray(np.clip(u * (2 / math.pi) * (1 + self._offset) - self._offset, 0.0, 1.0))


class LinearSchedule(Schedule):
    """Variance rate growing linearly from 0.1 to 20: ``log alpha = -beta0 t / 2 - (beta1 - beta0) t^2 / 4``.

    The continuous form of the schedule of Ho et al. (2020); Song et al., "Score-Based
    Generative Modeling through Stochastic Differential Equations" (2021), equation 29.
    """

    name = "linear"
    _beta0, _beta1 = 0.1, 20.0

    def _log_alpha(self, t: npt.ArrayLike) -> Array:
        t = np.asarray(t, np.float64)
        return np.asarray(-t * (self._beta0 / 2 + (self._beta1 - self._beta0) / 4 * t))

    def alpha(self, t: npt.ArrayLike) -> Array:
        """Return the signal amplitude at t."""
        return np.asarray(np.exp(self._log_alpha(t)))

    def sigma(self, t: npt.ArrayLike) -> Array:
        """Return the noise amplitude at t."""
        return np.asarray(np.sqrt(-np.expm1(2 * self._log_alpha(t))))

    def time(self, log_snr: npt.ArrayLike) -> Array:
        """Return t of lambda: the positive root of the quadratic in t, without cancellation."""
        log_alpha = -0.5 * np.logaddexp(0.0, -2 * np.asarray(log_snr, np.float64))
        linear, square = self._beta0 / 2, (self._beta1 - self._beta0) / 4
        root = np.sqrt(linear**2 - 4 * square * log_alpha)
        return np.asarray(np.clip(-2 * log_alpha / (linear + root), 0.0, 1.0))


def amplitudes(log_snr: npt.ArrayLike) -> tuple[Array, Array]:
    """Return (alpha, sigma) of lambda: the same for every variance-preserving schedule."""
    twice = 2 * np.asarray(log_snr, np.float64)
    alpha = np.exp(-0.5 * np.logaddexp(0.0, -twice))
    sigma = np.exp(-0.5 * np.logaddexp(0.0, twice))
    return np.asarray(alpha), np.asarray(sigma)


SCHEDULES: dict[str, type[Schedule]] = {"cosine": CosineSchedule, "linear": LinearSchedule}


def make_schedule(name: str) -> Schedule:
    """Return the schedule ``cosine`` or ``linear``."""
    if name not in SCHEDULES:
        raise UsageError(f"{opt('schedule')}: unknown value {name!r}; {nearest(name, SCHEDULES)}")
    return SCHEDULES[name]()
