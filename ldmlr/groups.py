"""Shot groups: classes with many, medium and few training rows.

Many has more than 100 rows, medium 20 to 100, few fewer than 20 (Liu et al., "Large-Scale
Long-Tailed Recognition in an Open World", CVPR 2019). Thresholds can be set.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from ldmlr.errors import UsageError

GROUPS = ("many", "medium", "few")


@dataclasses.dataclass(frozen=True)
class ShotGroups:
    """Thresholds on the training rows of a class.

    Parameters
    ----------
    many_above
        A class with more rows belongs to ``many``.
    few_below
        A class with fewer rows belongs to ``few``; the rest is ``medium``.
    """

    many_above: int = 100
    few_below: int = 20

    def __post_init__(self) -> None:
        if not 0 <= self.few_below <= self.many_above + 1:
            raise UsageError(
                f"--groups: the few threshold ({self.few_below}) must not exceed the many threshold "
                f"({self.many_above}) + 1"
            )

    def masks(self, counts: npt.ArrayLike) -> dict[str, npt.NDArray[np.bool_]]:
        """Return one boolean mask over classes ``[C]`` per group.

        Parameters
        ----------
        counts
            Training rows per class, ``[C]``.
        """
        count = np.asarray(counts)
        many, few = count > self.many_above, count < self.few_below
        return {"many": many, "medium": ~many & ~few, "few": few}
