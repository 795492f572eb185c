"""Shot groups: classes with many, medium and few training rows.

Many has more than 100 rows, medium 20 to 100, few fewer than 20 (Liu et al., "Large-Scale
Long-Tailed Recognition in an Open World", CVPR 2019). Thresholds can be set.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, UsageError, opt

GROUPS = ("many", "medium", "few")
Masks = dict[str, npt.NDArray[np.bool_]]


class ClassGroups(Protocol):
    """Anything that sorts classes into many, medium and few by their training rows."""

    def masks(self, counts: npt.ArrayLike) -> Masks:
        """Return one boolean mask over classes ``[C]`` per group."""


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
                f"{opt('groups')}: the few threshold ({self.few_below}) must not exceed the many threshold "
                f"({self.many_above}) + 1"
            )

    def masks(self, counts: npt.ArrayLike) -> Masks:
        """Return one boolean mask over classes ``[C]`` per group.

        Parameters
        ----------
        counts
            Training rows per class, ``[C]``.
        """
        count = np.asarray(counts)
        many, few = count > self.many_above, count < self.few_below
        return {"many": many, "medium": ~many & ~few, "few": few}


@dataclasses.dataclass(frozen=True)
class PaperRanges:
    """Groups by fixed class index ranges, as published code does for CIFAR-LT.

    Many, medium and few are classes 0-2, 3-6 and 7-9 of CIFAR-10-LT and 0-35, 36-70 and 71-99 of
    CIFAR-100-LT, whatever the imbalance factor (``head_class_idx``, ``med_class_idx`` and
    ``tail_class_idx`` of MiSLAS, Zhong et al., CVPR 2021, and of the code built on it). They suppose classes
    in the order of falling counts. The code published with LDMLR counts rows instead, many from 100 rows on:
    thresholds ``99,20``.
    """

    def masks(self, counts: npt.ArrayLike) -> Masks:
        """Return one boolean mask over classes ``[C]`` per group, for 10 or 100 classes."""
        count = np.asarray(counts)
        starts = {10: (3, 7), 100: (36, 71)}
        if len(count) not in starts:
            raise UsageError(
                f"{opt('groups', 'paper')}: is defined for 10 and 100 classes, not {len(count)}; give "
                "thresholds "
                f"such as {opt('groups', '100,20')}"
            )
        if np.any(np.diff(count) > 0):
            raise InputError(
                f"{opt('groups', 'paper')}: needs classes in the order of falling counts; give thresholds "
                "such as "
                f"{opt('groups', '100,20')}"
            )
        index = np.arange(len(count))
        medium, few = starts[len(count)]
        return {"many": index < medium, "medium": (index >= medium) & (index < few), "few": index >= few}


def parse_groups(text: str) -> ClassGroups:
    """Return the groups that ``MANY,FEW`` (such as ``100,20``) or ``paper`` stands for."""
    if text == "paper":
        return PaperRanges()
    thresholds = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if thresholds is None:
        raise UsageError(f"{opt('groups')}: expected two thresholds such as 100,20, or paper, not {text!r}")
    return ShotGroups(many_above=int(thresholds[1]), few_below=int(thresholds[2]))
