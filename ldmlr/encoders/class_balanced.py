"""The order in which images are drawn when every class is to come equally often."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


def class_balanced(labels: npt.NDArray[np.int64], num_classes: int, generator: np.random.Generator) -> Rows:
    """Return as many rows as there are labels, all classes equally often (give or take one).

    The images of a class follow each other in random order and start again, in another order, when all
    have been drawn: of a frequent class some do not come, of a rare one all come many times.

    Parameters
    ----------
    labels
        Class of each row, ``[N]``; every class has one at least.
    num_classes
        Classes C.
    generator
        Source of the orders.

    Returns
    -------
    numpy.ndarray
        Row numbers ``[N]``, classes mixed.
    """
    total = len(labels)
    # The classes that come once more than others, where C does not divide N, change from call to call.
    share = np.full(num_classes, total // num_classes)
    share[generator.permutation(num_classes)[: total % num_classes]] += 1
    rows = []
    for label, wanted in enumerate(share.tolist()):
        own = np.flatnonzero(labels == label)
        rounds = -(-wanted // len(own))
        rows.append(np.concatenate([generator.permutation(own) for _ in range(rounds)] or [own[:0]])[:wanted])
    drawn: Rows = generator.permutation(np.concatenate(rows))
    return drawn
