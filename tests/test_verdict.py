"""`ldmlr.experiments.verdict`: plain words, one rule, and only where the figures carry them."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr.experiments.catalogue import METHODS
from ldmlr.experiments.verdict import BEST, Duel, accuracy_error, compare_verdict, run_verdict
from ldmlr.report.words import row_name


def entry(*values: float) -> dict[str, object]:
    return {"mean": float(np.mean(values)), "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
            "values": list(values)}  # fmt: skip


def test_an_ablation_has_no_verdict_but_names_its_settings():
    figure = {"mean": 1.0, "std": 0.1, "values": [0.9, 1.1]}
    rows = [
        {"method": method, "setting": setting, "adjustment": "none", "all": figure}
        for method, setting in (("baseline", None), ("ldmlr", "ratio 0.2"), ("ldmlr", "balance"))
    ]
    assert run_verdict({"command": "ablate", "rows": rows}) is None
    assert run_verdict({"command": "ablate", "rows": rows[:2]}) is None
    assert run_verdict({"command": "run", "rows": rows[:2]}) is not None
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
        return run_verdict({"command": "run", "rows": rows}, 100)

    won = of([70, 71], [80, 81], [82, 83], [84, 85])
    assert won["outcome"] == "ahead"
    assert won["headline"].startswith("Generation helped")
    plain = next(one for one in won["comparisons"] if one["what"] == "LDMLR against the baseline")
    assert plain["deviations"] == pytest.approx(12 / np.sqrt(0.5))
    assert "ahead by 12.00 points (17.0 standard deviations)" in won["lines"][1]
    assert won["lines"][0].startswith(
        "Best with generation (LDMLR with label shift) against best without (label shift alone): ahead by 4"
    )
    # The fixed comparison of the same two rows is not said twice.
    assert len(won["lines"]) == 3
    assert len(won["comparisons"]) == 4 * 2
    even = of([70, 71], [80, 81], [80, 81], [80.2, 81])
    assert even["outcome"] == "within noise"
    assert "No clear gain from generation" in even["headline"]
    assert "it improves the baseline" in even["headline"]
    lost = of([70, 71], [80, 81], [60, 61], [70, 71])
    assert lost["outcome"] == "behind"
    assert lost["headline"].startswith("Generation did not help")
    assert "nor did it help the baseline" in lost["headline"]
    assert of([70], [80], [90], [95])["outcome"] == "undecided"
    assert run_verdict({"rows": []}) is None


def test_a_difference_without_spread_is_told_apart_from_none():
    alone = Duel({"all": entry(5, 5)}, {"all": entry(4, 4)})
    assert alone.outcome == "undecided"
    assert alone.words() == "+1.00 points, undecided: neither varies with the seed"
    same = Duel({"all": entry(4, 4)}, {"all": entry(4, 4)})
    assert same.outcome == "within noise"
    assert same.deviations is None


def of_run(**means):
    """Return a run's document of two seeds; ``ldmlr_shift`` stands for LDMLR with label shift."""
    rows = []
    for name, mean in means.items():
        method, _, shift = name.partition("_")
        figures = entry(mean - 0.1, mean + 0.1)
        rows.append({"method": method, "adjustment": "label-shift" if shift else "none", "all": figures})
    return {"command": "run", "rows": rows}


def test_the_best_rows_decide_and_not_the_two_with_label_shift():
    """LDMLR without shift was ahead, and the page said that generation did not help."""
    found = run_verdict(of_run(baseline=5.0, baseline_shift=8.68, ldmlr=11.54, ldmlr_shift=8.60))
    assert found["outcome"] == "ahead"
    assert found["headline"] == (
        "Generation helped: LDMLR (11.54 %) is ahead of the best row without it, label shift alone (8.68 %)."
    )
    assert "picked by these very test figures" in found["rule"]


@pytest.mark.parametrize(
    ("rows", "outcome", "headline"),
    [
        (
            {"baseline": 70, "ldmlr": 72}, "ahead",
            "Generation helped: LDMLR (72.00 %) is ahead of the best row without it, the baseline (70.00 %).",
        ),
        (
            {"baseline": 70, "ldmlr": 68}, "behind",
            "Generation did not help: LDMLR (68.00 %) is behind the best row without it, the baseline "
            "(70.00 %).",
        ),
        (
            {"baseline": 70, "ldmlr": 70.1}, "within noise",
            "No clear gain from generation: LDMLR (70.10 %) is within noise of the best row without it, the "
            "baseline (70.00 %).",
        ),
        # Label shift makes LDMLR worse than it is, and that is not held against it.
        (
            {"baseline": 75, "baseline_shift": 72, "ldmlr": 73, "ldmlr_shift": 71}, "behind",
            "Generation did not help: LDMLR (73.00 %) is behind the best row without it, the baseline "
            "(75.00 %).",
        ),
        (
            {"baseline": 70, "finetuned_shift": 80, "ldmlr": 69, "ldmlr_shift": 78}, "behind",
            "Generation did not help: LDMLR with label shift (78.00 %) is behind the best row without it, "
            "finetuned with label shift (80.00 %), nor did it help the baseline.",
        ),
    ],
)  # fmt: skip
def test_the_headline_is_one_sentence_that_is_right(rows, outcome, headline):
    found = run_verdict(of_run(**rows))
    assert (found["outcome"], found["headline"]) == (outcome, headline)


def test_without_a_spread_the_headline_decides_nothing():
    rows = of_run(baseline=70, ldmlr=72)["rows"]
    for line in rows:
        line["all"] = entry(line["all"]["mean"])
    assert run_verdict({"command": "run", "rows": rows})["headline"] == (
        "One seed cannot tell a gain from noise; run more seeds before you conclude: LDMLR (72.00 %) against "
        "the best row without generation, the baseline (70.00 %)."
    )
    for line in rows:
        line["all"] = entry(*2 * line["all"]["values"])
    assert run_verdict({"command": "run", "rows": rows})["headline"].startswith("Neither of the two varies")


def test_one_kind_of_row_alone_has_no_verdict():
    assert run_verdict(of_run(baseline=70, finetuned=72)) is None
    assert run_verdict(of_run(ldmlr=70)) is None


def row(method, mean, std=0.1, adjustment="none", seeds=5):
    family = METHODS[method].family
    values = [mean] * seeds
    return {
        "method": method, "adjustment": adjustment, "family": family,
        "all": {"mean": mean, "std": std, "values": values},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "outcome", "deviations"),
    [
        (row("ldmlr", 81.0, 0.3), row("gaussian", 80.0, 0.4), "ahead", 1 / np.sqrt(0.125)),
        (row("ldmlr", 80.0), row("gaussian", 80.3), "behind", -3.0),
        (row("ldmlr", 80.19), row("gaussian", 80.0), "within noise", 1.9),
        (row("ldmlr", 80.0), row("gaussian", 80.0), "within noise", 0.0),
        (row("baseline", 80.0, 0), row("ncm", 79.0, 0), "undecided", None),
        (row("baseline", 80.0, 0), row("ncm", 80.0, 0), "within noise", None),
        (row("ldmlr", 90.0, 0, seeds=1), row("ncm", 80.0, 0, seeds=1), "undecided", None),
    ],
)
def test_two_rows_differ_from_two_pooled_deviations_on(first, second, outcome, deviations):
    duel = Duel(first, second)
    assert duel.outcome == outcome
    assert duel.deviations == (None if deviations is None else pytest.approx(deviations))


def test_the_verdict_says_what_won_and_whether_diffusion_paid():
    rows = [
        row("baseline", 72.5, 0.0), row("crt", 80.0), row("gaussian", 80.5), row("gaussian-wide", 80.9),
        row("ldmlr-plain", 81.5), row("ldmlr", 81.0), row("crt", 82.4, adjustment="label-shift"),
        row("ldmlr", 82.0, adjustment="label-shift"),
    ]  # fmt: skip
    found = compare_verdict(rows, 10_000)
    assert found["lines"] == [
        "without label shift: ldmlr-plain won with 81.50, ahead by 0.50 points (5.0 standard deviations) of "
        "ldmlr",
        "  ldmlr against the best Gaussian (gaussian-wide): within noise (+0.10 points, 1.0 standard "
        "deviations)",
        "  ldmlr against the best without generation (crt): ahead by 1.00 points (10.0 standard deviations)",
        "with label shift: crt won with 82.40, ahead by 0.40 points (4.0 standard deviations) of ldmlr",
        "  ldmlr against the best without generation (crt): behind by 0.40 points (4.0 standard deviations)",
        "each method at its better row: crt + label-shift won with 82.40, ahead by 0.40 points (4.0 standard "
        "deviations) of ldmlr + label-shift",
        "  ldmlr + label-shift against the best Gaussian (gaussian-wide): ahead by 1.10 points (11.0 "
        "standard deviations)",
        "  ldmlr + label-shift against the best without generation (crt + label-shift): behind by 0.40 "
        "points (4.0 standard deviations)",
        "10,000 test rows tell one accuracy to ±0.38 (standard error); seeds do not show that",
    ]
    assert len(found["comparisons"]) == 9
    assert found["comparisons"][0]["question"] == BEST
    assert (found["comparisons"][0]["first"], found["comparisons"][0]["second"]) == (
        "ldmlr + label-shift", "crt + label-shift",
    )  # fmt: skip
    assert found["outcome"] == "behind"
    assert found["headline"] == (
        "Generation did not help: LDMLR with label shift (82.00 %) is behind the best row without it, crt "
        "with label shift (82.40 %), though it improves the baseline without label shift."
    )
    lone = compare_verdict([row("gaussian", 80.0)], 100)
    assert lone["comparisons"] == []
    assert len(lone["lines"]) == 1
    assert "headline" not in lone


def test_a_picked_variant_of_diffusion_is_called_the_best():
    rows = [row("gaussian", 80.0), row("ldmlr-plain", 81.0), row("ldmlr-paper", 79.0)]
    lines = compare_verdict(rows, 100)["lines"]
    assert lines[1].startswith("  the best diffusion (ldmlr-plain) against the best Gaussian (gaussian): ")
    lines = compare_verdict(rows[:2], 100)["lines"]
    assert lines[1].startswith("  ldmlr-plain against the best Gaussian (gaussian): ")


def test_the_error_of_an_accuracy_is_never_nothing():
    assert accuracy_error(80.0, 10_000) == pytest.approx(0.4)
    for certain in (0.0, 100.0):
        assert accuracy_error(certain, 50) == pytest.approx(1.407, abs=1e-3)
