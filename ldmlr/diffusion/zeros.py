"""Features that are often exactly zero keep their zeros and class means: a censored model per dimension.

A feature behind a ReLU is zero in a part of the rows of a class and positive in the rest. A normal that is
cut at zero has neither the share of zeros nor the mean of such a feature. Here a drawn value is standardised
to u by what the model itself draws for the class, cut where the class has its share of zeros, and bent so
that mean and variance are those of the training rows:

    v = max(u - a, 0),  x = v (s1 + s2 v),  s1, s2 >= 0

a is the normal quantile of the share of zeros (a Tobit model, Tobin 1958); s1 and s2 follow in closed form
from the moments of a censored normal. Share and relative variance of a class with few rows lean on those of
all classes.

Cutting weakens correlations, and unequally, so the latent axes have factors of their own in these dimensions:
with them the rows have the variance of the training rows along each axis again.

A widening k multiplies the deviation of x, not of u: the zeros and the mean stay. Where k asks for more than
s1 = 0 gives, or for less than s2 = 0, x has that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Self

import numpy as np
import numpy.typing as npt

from ldmlr.diffusion.statistics import Array, Labels, Statistics

Table = npt.NDArray[np.float32]
# From labels [N] to z of drawn rows [N, K].
Draw = Callable[[Labels], Table]
# Rows of a class that the share of zeros, and the relative variance, of all classes count for.
SHARE_ROWS, VARIATION_ROWS = 4, 16
# Shares of zeros lie so far from 0 and 1, and relative variances below this: a single row says little.
NEAREST, WIDEST = 1e-3, 1e3
# Rows drawn to standardise by, at most and at least of a class, and of all classes together.
PER_CLASS, FEWEST, TOGETHER = 1000, 64, 32768
# How often the factors of the axes are adjusted, how far they may lie from 1, and by how many rows of all
# classes, at least of one; seed of their remainders.
ROUNDS, FURTHEST, ADJUSTED_BY, OF_A_CLASS, SEED = 4, 2.0, 4096, 16, 20


@dataclasses.dataclass(frozen=True)
class Censored:
    """The dimensions with zeros, and what a class has there.

    Attributes
    ----------
    columns
        The dimensions, int64 ``[M]``, ascending.
    threshold
        a of each class, in deviations, float32 ``[C, M]``.
    variation
        Variance of the training rows over their squared mean, float32 ``[C, M]``.
    factors
        What the K latent axes are multiplied by in these dimensions, float32 ``[K]``.
    centre, spread
        Mean and deviation of ``row - mean[y]`` of rows that the model draws with these factors and k = 1,
        before they are cut, float32 ``[C, M]``.
    """

    columns: npt.NDArray[np.int64]
    threshold: Table
    variation: Table
    factors: Table
    centre: Table
    spread: Table

    def standardised(self, space: Space, draw: Draw, silent: Draw) -> Self:
        """Return it standardised by rows of the model.

        Parameters
        ----------
        space
            Where rows of z lead.
        draw, silent
            Draw z with the model, and with the same noise from a model whose network answers zero: its z have
            mean zero, so what both have in common is no shift of the model but chance.
        """
        classes, at = len(space.mean), self.columns
        rows = max(FEWEST, min(PER_CLASS, TOGETHER // classes))
        labels = [np.full(rows, label) for label in range(classes)]
        z = [draw(same).astype(np.float64) for same in labels]
        shift = [_shift(own - silent(same)) for own, same in zip(z, labels, strict=True)]
        found = self
        for number in range(ROUNDS + 1):
            scale = space.scale[at] * found.factors
            spread = np.empty(self.spread.shape)
            for label, own in enumerate(z):
                shared = np.einsum("mk,mk->m", scale @ np.cov(own.T).reshape(len(own.T), -1), scale)
                spread[label] = np.sqrt(shared + space.psi[at] ** 2)
            found = dataclasses.replace(
                found, centre=(shift @ scale.T).astype(np.float32), spread=spread.astype(np.float32)
            )
            if number < ROUNDS:
                ratio = np.sqrt(space.variance / np.maximum(found._variance(space, z), 1e-12))
                factors = np.clip(found.factors * ratio, 1 / FURTHEST, FURTHEST)
                found = dataclasses.replace(found, factors=factors.astype(np.float32))
        return found

    def _variance(self, space: Space, z: list[Array]) -> Array:
        """Return the variance along each axis ``[K]`` of rows that are cut, classes as they weigh."""
        cut, floor, bend = self.tables(space.mean, -np.inf, 1.0)
        rows, noise = max(OF_A_CLASS, ADJUSTED_BY // len(z)), np.random.default_rng(SEED)
        scale, psi = self.widened(space.scale).T.astype(np.float32), space.psi.astype(np.float32)
        onto, total = space.whitening.T.astype(np.float32), np.zeros(len(scale))
        for label, every in enumerate(z):
            own = every[:rows].astype(np.float32)
            v = psi * noise.standard_normal((len(own), len(psi)), np.float32)
            v += own @ scale + cut[label].astype(np.float32)
            v = np.maximum(v, floor.astype(np.float32))
            v *= (bend[0, label] + bend[1, label] * v).astype(np.float32)
            v -= space.mean[label].astype(np.float32)
            total += space.weight[label] * (v @ onto).var(axis=0, ddof=1, dtype=np.float64)
        return np.asarray(total / space.weight.sum())

    def widened(self, scale: Array) -> Array:
        """Return the scale ``[D, K]`` with the factors in these dimensions."""
        found = scale.copy()
        found[self.columns] *= self.factors
        return found

    def tables(self, mean: Array, floor: float | Array, k: float | Array) -> tuple[Array, Array, Array]:
        """Return mean, floor and bend of a `ldmlr.sampler.spec.SamplerSpec`.

        Parameters
        ----------
        mean
            ``[C, D]``.
        floor
            Of the other dimensions, one number or ``[D]``.
        k
            Widening, one number or ``[C]``.
        """
        at, wide = self.columns, np.broadcast_to(np.asarray(k, np.float64), len(mean))[:, None]
        a, spread = self.threshold.astype(np.float64), wide * self.spread
        slope, curve = bent(mean[:, at], (1 + wide**2 * self.variation) * mean[:, at] ** 2, a)
        # A dimension in which the model draws one value has no deviation to divide by, and no zeros to keep.
        still = spread <= 0
        divisor = np.where(still, 1.0, spread)
        cut, bend = mean.copy(), np.stack([np.ones_like(mean), np.zeros_like(mean)])
        cut[:, at] = np.where(still, mean[:, at], -wide * (self.centre + a * self.spread))
        bend[0][:, at] = np.where(still, 1.0, slope / divisor)
        bend[1][:, at] = np.where(still, 0.0, curve / divisor**2)
        least = np.array(np.broadcast_to(np.asarray(floor, np.float64), mean.shape[1]))
        least[at] = 0.0
        return cut, least, bend


@dataclasses.dataclass(frozen=True)
class Space:
    """How z and rows belong together, and how the training rows lie.

    Attributes
    ----------
    mean, scale, psi
        A row is ``mean[y] + scale z + psi e``: ``[C, D]``, ``[D, K]``, ``[D]``.
    whitening
        ``[K, D]``, from a residual to z.
    variance
        Of the training rows' z along each axis ``[K]``, a class weighted by `weight` ``[C]``.
    """

    mean: Array
    scale: Array
    psi: Array
    whitening: Array
    variance: Array
    weight: Array


def _shift(z: Array) -> Array:
    """Return the mean of rows ``[N, K]``, as much nearer to zero as it may be chance (James and Stein)."""
    mean, chance = z.mean(axis=0), z.var(axis=0) / len(z)
    size = float((mean**2).sum())
    return np.asarray(mean * max(0.0, 1 - float(chance.sum()) / size) if size > 0 else mean)


def censored(statistics: Statistics, counts: npt.NDArray[np.int64], latent: int) -> Censored | None:
    """Return the dimensions with zeros of training rows, not standardised yet; None where there are none."""
    found = statistics.censored
    if found is None:
        return None
    from scipy.special import ndtri

    rows = counts[:, None].astype(np.float64)
    share = (found.share * rows + SHARE_ROWS * statistics.zeros[found.columns]) / (rows + SHARE_ROWS)
    square = statistics.mean[:, found.columns] ** 2
    known = square > 0
    own = np.divide(found.variance, square, out=np.zeros_like(square), where=known)
    weight = known * np.sqrt(rows)
    shared = (np.minimum(own, WIDEST) * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300)
    variation = (rows * np.minimum(own, WIDEST) + VARIATION_ROWS * shared) / (rows + VARIATION_ROWS)
    threshold = ndtri(np.clip(share, NEAREST, 1 - NEAREST)).astype(np.float32)
    return Censored(
        found.columns, threshold, variation.astype(np.float32),
        np.ones(latent, np.float32), np.zeros_like(threshold), np.ones_like(threshold),
    )  # fmt: skip


def bent(mean: Array, square: Array, a: Array) -> tuple[Array, Array]:
    """Return s1 and s2, both at least 0, with which ``v (s1 + s2 v)`` has a mean and a mean square.

    The mean is met exactly; the mean square where that is possible, else as nearly as it is.

    Parameters
    ----------
    mean, square
        Wanted E[x] and E[x^2], of any shape.
    a
        v is ``max(u - a, 0)`` of a standard normal u.
    """
    from scipy.special import ndtr

    # E[v^n] = M_n from the density and the tail of the normal at a.
    density, tail = np.exp(-a * a / 2) / np.sqrt(2 * np.pi), ndtr(-a)
    m1 = density - a * tail
    m2 = (1 + a * a) * tail - a * density
    m3 = (2 + a * a) * density - (a**3 + 3 * a) * tail
    m4 = (a**4 + 6 * a * a + 3) * tail - (a**3 + 5 * a) * density
    # With s1 = (mean - s2 m2) / m1 the mean square is a quadratic of s2; its larger root bends upwards.
    ratio = m2 / m1
    second = m2 * ratio**2 - 2 * m3 * ratio + m4
    first = 2 * mean * (m3 - m2 * ratio) / m1
    rest = mean**2 * m2 / m1**2 - square
    root = np.sqrt(np.maximum(first**2 - 4 * second * rest, 0))
    curve = np.clip((root - first) / (2 * second), 0, mean / m2)
    return (mean - curve * m2) / m1, curve
