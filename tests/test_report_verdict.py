"""The verdict of a report: plain words, and only where the figures carry them."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr.report.figures import row_name
from ldmlr.report.verdict import Duel, verdict


def entry(*values: float) -> dict[str, object]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            "values": list(values)}  # fmt: skip


def test_an_ablation_has_no_verdict_but_names_its_settings():
    figure = {"mean": 1.0, "std": 0.1, "values": [0.9, 1.1]}
    rows = [
        {"method": method, "setting": setting, "adjustment": "none", "all": figure}
        for method, setting in (("baseline", None), ("ldmlr", "ratio 0.2"), ("ldmlr", "balance"))
    ]
    assert verdict({"command": "ablate", "rows": rows}) is None
    assert verdict({"command": "ablate", "rows": rows[:2]}) is None
    assert verdict({"command": "run", "rows": rows[:2]}) is not None
    assert [row_name(row) for row in rows] == ["baseline", "ratio 0.2", "balance"]


def test_the_verdict_says_it_plainly():
    def of(base, shifted, made, both):
        names = [
            ("baseline", "none"),
            ("baseline", "label-shift"),
            ("ldmlr", "none"),
            ("ldmlr", "label-shift"),
        ]
        rows = [
            {
                "method": method,
                "adjustment": adjustment,
                "all": entry(*values),
                "few": entry(*values),
                "many": None,
            }
            for (method, adjustment), values in zip(names, (base, shifted, made, both), strict=True)
        ]
        return verdict({"command": "run", "rows": rows}, 100)

    won = of([70, 71], [80, 81], [82, 83], [84, 85])
    assert won["outcome"] == "ahead"
    assert won["headline"].startswith("Generation helped")
    assert won["comparisons"][0]["deviations"] == pytest.approx(12 / np.sqrt(0.5))
    assert "ahead by 12.00 points (17.0 standard deviations)" in won["lines"][0]
    even = of([70, 71], [80, 81], [80, 81], [80.2, 81])
    assert even["outcome"] == "within noise"
    assert "did not help beyond label shift" in even["headline"]
    assert "it improves the baseline" in even["headline"]
    lost = of([70, 71], [80, 81], [60, 61], [70, 71])
    assert lost["outcome"] == "behind"
    assert lost["headline"].startswith("Generation did not help")
    assert "nor did it help the baseline" in lost["headline"]
    assert of([70], [80], [90], [95])["outcome"] == "undecided"
    assert verdict({"rows": []}) is None


def test_a_difference_without_spread_is_told_apart_from_none():
    alone = Duel(entry(5, 5), entry(4, 4))
    assert alone.outcome == "undecided"
    assert alone.words() == "+1.00 points, nothing varies with the seed: no standard deviation to judge it by"
    assert Duel(entry(4, 4), entry(4, 4)).outcome == "within noise"
    assert Duel(entry(4, 4), entry(4, 4)).deviations is None
