"""What training added to the class Gaussian, as plain data and in words: it goes into every result document.

``{"loss_over_gaussian": x, "bands": [...], "groups": {...}, "rows": n}``: the loss of what is drawn on n
held-out rows over that of the class Gaussian (1: nothing beyond it, None: nothing to measure), the same per
band of noise, from hardly any to nothing else, and per shot group. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# The document where nothing was held out.
NOTHING: dict[str, Any] = {"loss_over_gaussian": None, "bands": [], "groups": {}, "rows": 0}
# A ratio from here on is shown as level: the figure itself is known to about so much.
SHOWN = 0.9995


def in_words(document: Mapping[str, Any]) -> str:
    """Return the finding in words."""
    ratio = document.get("loss_over_gaussian")
    if ratio is None:
        return "no row was held out, so whether it adds to the class Gaussian is not known"
    if ratio >= 1:
        return "on held-out rows no better than the class Gaussian, which is drawn instead"
    return f"on held-out rows {100 * (1 - ratio):.1f} % below the class Gaussian"


def part_in_words(ratio: float | None) -> str:
    """Return the finding for one band of noise or one shot group in words."""
    if ratio is None:
        return "no rows held out"
    if ratio > SHOWN:
        return "no better than the class Gaussian, which is drawn instead"
    return f"{100 * (1 - ratio):.1f} % below the class Gaussian"


def mean_of(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the mean over models of several seeds, None without any; what is None in one is left out."""
    if not documents:
        return None
    bands = [list(found.get("bands", ())) for found in documents]
    width = max(map(len, bands))
    names = dict.fromkeys(name for found in documents for name in found.get("groups", {}))
    return {
        "loss_over_gaussian": _mean([found.get("loss_over_gaussian") for found in documents]),
        "bands": [_mean([band[at] for band in bands if len(band) == width]) for at in range(width)],
        "groups": {name: _mean([found.get("groups", {}).get(name) for found in documents]) for name in names},
        "rows": sum(int(found.get("rows", 0)) for found in documents),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
