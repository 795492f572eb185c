"""How a learning rate falls: what the trainings of all three stages share."""

from __future__ import annotations

import math


def cosine_decay(done: float, total: float = 1.0) -> float:
    """Return the factor, from one to zero along half a cosine (Loshchilov and Hutter, ICLR 2017).

    Parameters
    ----------
    done, total
        Progress, in steps or epochs: the factor is one at 0 and zero at `total`.

    Examples
    --------
    >>> [round(cosine_decay(step, 4), 3) for step in range(5)]
    [1.0, 0.854, 0.5, 0.146, 0.0]
    """
    return 0.5 * (1 + math.cos(math.pi * done / total))
