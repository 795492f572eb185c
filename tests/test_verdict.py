"""`ldmlr.experiments.verdict`: plain words, one rule, and only where the figures carry them."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

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

    won = of([70, 71], [80, 81], [82, 83.5], [84, 85])
    assert won["outcome"] == "ahead"
    assert won["headline"].startswith("Generation helped")
    plain = next(one for one in won["comparisons"] if one["what"] == "LDMLR against the baseline")
    assert plain["difference_std"] == pytest.approx(np.std([12, 12.5], ddof=1))
    assert plain["deviations"] == pytest.approx(12.25 / np.std([12, 12.5], ddof=1))
    assert "ahead by 12.25 points (34.6 standard deviations of the difference)" in won["lines"][1]
    assert won["lines"][0].startswith(
        "Best with generation (LDMLR with label shift) against best without (label shift alone): ahead by "
        "4.00 points (the same for every seed)"
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
    assert same.words() == "equal"


def test_rows_are_compared_seed_by_seed():
    """A gain at every seed was called noise, as the seeds' baselines spread more than that."""
    baseline = [70.0, 74.0, 71.5, 76.0, 72.0]
    gains = [4.26, 3.89, 2.59, 1.85, 3.33]
    duel = Duel({"all": entry(*np.add(baseline, gains))}, {"all": entry(*baseline)})
    assert duel.outcome == "ahead"
    assert duel.deviations == pytest.approx(np.mean(gains) / np.std(gains, ddof=1))
    assert duel.words() == "ahead by 3.18 points (3.3 standard deviations of the difference)"
    # Without a partner for every seed, the spread of the rows themselves decides.
    fewer = Duel({"all": entry(*np.add(baseline, gains))}, {"all": entry(*baseline[:4])})
    assert fewer.outcome == "within noise"
    assert fewer.words().endswith(" standard deviations over the seeds)")


def test_equal_means_are_called_so():
    found = run_verdict(of_run(baseline=70.0, ldmlr=70.0))
    assert found["outcome"] == "within noise"
    assert found["headline"].endswith(
        "LDMLR (70.00 %) is equal to the best row without it, the baseline (70.00 %)."
    )
    assert "): equal." in found["lines"][0]


def of_run(**means):
    """Return a run's document of two seeds; ``ldmlr_shift`` stands for LDMLR with label shift.

    What is generated rises from seed to seed where the other falls: the difference spreads by 0.28.
    """
    rows = []
    for name, mean in means.items():
        method, _, shift = name.partition("_")
        step = 0.1 if method == "ldmlr" else -0.1
        figures = entry(mean - step, mean + step)
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


def test_the_rows_of_another_generator_have_a_verdict_of_their_own():
    document = of_run(baseline=70.0, baseline_shift=71.0, smote=72.0, smote_shift=74.0)
    document["config"] = {"finetune": {"average": 0.5, "tau_shift": 1.0}}
    found = run_verdict(document)
    assert found["headline"].startswith("Generation helped: smote with label shift (74.00 %)")
    assert "smote against the baseline" in {entry["what"] for entry in found["comparisons"]}
    assert found["notes"][0].startswith("The label-shift row of smote averages")
    assert "LDMLR" not in " ".join([found["headline"], *found["lines"], *found["notes"]])


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


# Seven patterns over eight seeds, each with mean zero and deviation one, no two alike: the deviation of the
# difference of two rows is the root of the sum of their variances.
PATTERNS = scipy.linalg.hadamard(8)[1:] * np.sqrt(7 / 8)
ORDER = ("crt", "gaussian", "gaussian-wide", "ldmlr-plain", "ldmlr")


def row(method, mean, std=0.1, adjustment="none", seeds=8):
    pattern = ORDER.index(method) if method in ORDER else 0
    if adjustment != "none":
        pattern = {"crt": 5, "ldmlr": 6}[method]
    return {
        "method": method, "adjustment": adjustment, "family": METHODS[method].family,
        "all": entry(*(mean + std * PATTERNS[pattern])[:seeds]),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("first", "second", "outcome", "deviations"),
    [
        (row("ldmlr", 81.0, 0.3), row("gaussian", 80.0, 0.4), "ahead", 2.0),
        (row("ldmlr", 80.0), row("gaussian", 80.3), "behind", -0.3 / np.sqrt(0.02)),
        (row("ldmlr", 80.19), row("gaussian", 80.0), "within noise", 0.19 / np.sqrt(0.02)),
        (row("ldmlr", 80.0), row("gaussian", 80.0), "within noise", 0.0),
        (row("baseline", 80.0, 0), row("ncm", 79.0, 0), "undecided", None),
        (row("baseline", 80.0, 0), row("ncm", 80.0, 0), "within noise", None),
        (row("ldmlr", 90.0, 0, seeds=1), row("ncm", 80.0, 0, seeds=1), "undecided", None),
    ],
)
def test_two_rows_differ_from_two_deviations_of_their_difference_on(first, second, outcome, deviations):
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
    clear = "standard deviations of the difference"
    any_row = "each method at its better row"
    assert found["lines"] == [
        f"without label shift: ldmlr-plain won with 81.50, ahead by 0.50 points (3.5 {clear}) of ldmlr",
        f"  ldmlr against the best Gaussian (gaussian-wide): within noise (+0.10 points, 0.7 {clear})",
        f"  ldmlr against the best without generation (crt): ahead by 1.00 points (7.1 {clear})",
        f"with label shift: crt won with 82.40, ahead by 0.40 points (2.8 {clear}) of ldmlr",
        f"  ldmlr against the best without generation (crt): behind by 0.40 points (2.8 {clear})",
        f"{any_row}: crt + label-shift won with 82.40, ahead by 0.40 points (2.8 {clear}) "
        "of ldmlr + label-shift",
        "  ldmlr + label-shift against the best Gaussian (gaussian-wide): ahead by 1.10 points "
        f"(7.8 {clear})",
        "  ldmlr + label-shift against the best without generation (crt + label-shift): behind by 0.40 "
        f"points (2.8 {clear})",
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


def test_a_minus_is_one_that_stays_with_its_number():
    duel = Duel({"all": entry(3.0, 4.5)}, {"all": entry(4.0, 4.5)})
    assert (
        duel.words() == "within noise (\N{MINUS SIGN}0.50 points, 0.7 standard deviations of the difference)"
    )
    groups = {"many": entry(3.0, 4.5), "few": entry(6.0, 6.5), "all": entry(5.0, 5.5)}
    rows = [
        {"method": "baseline", "adjustment": "none", **dict.fromkeys(groups, entry(4.0, 4.6))},
        {"method": "ldmlr", "adjustment": "none", **groups},
    ]
    found = run_verdict({"command": "run", "rows": rows})
    assert found["lines"][0].endswith("; by group: many \N{MINUS SIGN}0.55, few +1.95.")
