"""Nearest neighbours by blocks, in float64: what precision, coverage and memorisation are made of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, counted

Floats = npt.NDArray[np.float64]
# Entries of one block of distances: 256 MiB in float64.
BLOCK = 1 << 25


def as_rows(rows: npt.ArrayLike, what: str, dim: int | None = None) -> Floats:
    """Return features ``[n, D]`` in float64, or say what is wrong with them."""
    found: Floats = np.asarray(rows, dtype=np.float64)
    if found.ndim != 2 or not len(found) or (dim is not None and found.shape[1] != dim):
        wanted = "D" if dim is None else dim
        raise InputError(f"{what}: expected features [n, {wanted}] with rows, not {list(found.shape)}")
    if not np.isfinite(found).all():
        raise InputError(f"{what}: features hold NaN or infinity; remove such rows")
    return found


def distance_blocks(queries: Floats, points: Floats) -> Iterator[tuple[slice, Floats]]:
    """Yield slices of `queries` and their squared distances ``[m, len(points)]`` to all points.

    Both are centred on the points' mean first: |q|^2 + |p|^2 - 2 q.p then cancels few digits.
    """
    centre = points.mean(axis=0)
    points = points - centre
    norms = np.einsum("ij,ij->i", points, points)
    step = max(1, BLOCK // len(points))
    for start in range(0, len(queries), step):
        chosen = slice(start, min(start + step, len(queries)))
        block = queries[chosen] - centre
        squared = block @ points.T
        squared *= -2
        squared += norms
        squared += np.einsum("ij,ij->i", block, block)[:, None]
        yield chosen, np.maximum(squared, 0, out=squared)


def nearest(
    queries: Floats, points: Floats, k: int = 1, same: bool = False
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return distances ``[n, k]`` in rising order and indices ``[n, k]`` of the k nearest points.

    Parameters
    ----------
    queries, points
        Rows ``[n, D]`` and ``[m, D]``.
    k
        Neighbours, at most the number of points (less one if `same`).
    same
        Queries are the points themselves; a row is no neighbour of itself.

    Notes
    -----
    scikit-learn finds them. Their distances are computed again from the differences, so that a copy has the
    distance zero exactly.
    """
    # Imported here: it takes a second or two, and most evaluations need none.
    from sklearn.neighbors import NearestNeighbors

    available = len(points) - int(same)
    if not 1 <= k <= available:
        raise InputError(f"nearest neighbours: needs more than {counted(k, 'row')}, there are {len(points)}")
    centre = points.mean(axis=0)
    search = NearestNeighbors(algorithm="brute").fit(points - centre)
    index = search.kneighbors(None if same else queries - centre, k, return_distance=False)
    found = np.empty((len(queries), k))
    for column in range(k):
        found[:, column] = np.linalg.norm(queries - points[index[:, column]], axis=1)
    order = np.argsort(found, axis=1, kind="stable")
    return np.take_along_axis(found, order, 1), np.take_along_axis(index, order, 1)
