"""`ldmlr.experiments.verdict` and `duel`: plain words, one rule, and only where the figures carry them."""

from __future__ import annotations

import numpy as np
import pytest

from ldmlr.experiments.catalogue import METHODS
from ldmlr.experiments.duel import Duel, accuracy_error
from ldmlr.experiments.verdict import BEST, best_row, compare_verdict, run_verdict
from ldmlr.groups import ShotGroups
from ldmlr.metrics.answers import Answers, pack, unpack
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


ROWS = 2500
COUNTS = np.array([500, 150, 60, 10, 5])
LABELS = np.repeat(np.arange(5), ROWS // 5)


def predictions(wrong, seeds=5, noise=0, start=0):
    """Return bits ``[S, N]``: the first rows from `start` on wrong, of which seeds differ by `noise` rows."""
    right = np.ones((seeds, ROWS), bool)
    order = np.random.default_rng(0).permutation(ROWS)
    for seed in range(seeds):
        right[seed, order[start : start + wrong + noise * (seed - seeds // 2)]] = False
    return right


def measured(command="run", **heads):
    """Return a document and the answers behind it; ``ldmlr_shift`` stands for LDMLR with label shift."""
    runs, rows = [], []
    for name, right in heads.items():
        method, _, shift = name.partition("_")
        row = {"method": method, "adjustment": "label-shift" if shift else "none"}
        rows.append({**row, "all": entry(*(100 * right.mean(axis=1))), "few": None, "many": None})
        runs.append([{**row, "right": pack(bits)} for bits in right])
    answers = Answers.of(list(zip(*runs, strict=True)), LABELS, COUNTS)
    return {"command": command, "rows": rows}, answers


def judged(**heads):
    document, answers = measured(**heads)
    return run_verdict(document, ROWS, answers)


def test_a_clear_gain_is_called_one():
    """2.9 points ahead of the best row without, on 2,500 rows: the page said that it did not help."""
    found = judged(
        baseline=predictions(800), baseline_shift=predictions(500, noise=1),
        ldmlr=predictions(428, noise=2), ldmlr_shift=predictions(510, noise=2),
    )  # fmt: skip
    assert found["outcome"] == "ahead"
    assert found["headline"] == (
        "Generation helped: LDMLR (82.88 %) is ahead of the best row without it, label shift alone (80.00 "
        "%), by 2.88 points, standard error 0.33."
    )
    best = found["comparisons"][0]
    assert (best["what"], best["group"], best["picked_from"]) == (BEST, "all", [2, 2])
    assert best["chance"] < 1e-6
    assert found["lines"][0].startswith(
        "Best with generation (LDMLR) against best without (label shift alone): ahead by 2.88 points "
        "(standard error 0.33: test rows 0.33, seeds 0.03)"
    )


def test_a_gain_that_the_test_rows_cannot_tell_is_level():
    """+0.36 points, alike for all seeds, with rows that tell the difference to +-0.66 at best."""
    found = judged(
        baseline=predictions(800), baseline_shift=predictions(500),
        ldmlr=predictions(600), ldmlr_shift=predictions(491, start=132),
    )  # fmt: skip
    best = found["comparisons"][0]
    assert best["difference"] == pytest.approx(0.36)
    assert best["difference_std"] == 0.0
    assert best["rows_error"] == pytest.approx(0.64, abs=0.02)
    assert found["outcome"] == "level"
    assert found["headline"] == (
        "These figures cannot tell whether generation helps: LDMLR with label shift (80.36 %) against the "
        "best row without generation, label shift alone (80.00 %), +0.36 points, standard error 0.64; more "
        "seeds or more measured rows would tell."
    )


def test_one_seed_says_little_and_is_said_to():
    """It may still show a gain that the test rows carry; a tie on one seed shows nothing."""
    found = judged(baseline=predictions(500, seeds=1), ldmlr=predictions(499, seeds=1))
    assert found["outcome"] == "level"
    assert found["headline"] == (
        "One seed cannot tell a gain from noise; run more seeds before you conclude: LDMLR (80.04 %) against "
        "the best row without generation, the baseline (80.00 %), standard error 0.04."
    )


def test_a_small_difference_is_level_however_little_the_seeds_spread():
    """0.18 points are 4.5 of 2,500 images: three standard deviations over the seeds, and yet nothing."""
    baseline, made = predictions(500), predictions(504)
    made[2:, np.flatnonzero(made.all(axis=0))[0]] = False
    found = judged(baseline=baseline, ldmlr=made)
    best = found["comparisons"][0]
    assert best["difference"] / best["difference_std"] < -5
    assert found["outcome"] == "level"
    assert "generation adds nothing here" in found["headline"]


def test_what_lags_behind_is_said_to():
    found = judged(baseline=predictions(700), finetuned_shift=predictions(500), ldmlr=predictions(560))
    assert found["outcome"] == "behind"
    assert found["headline"].startswith(
        "Generation did not help: finetuned with label shift (80.00 %) is ahead of the best row with it, "
        "LDMLR (77.60 %), by 2.40 points"
    )


def test_equal_rows_are_called_so():
    found = judged(baseline=predictions(500), ldmlr=predictions(500))
    assert found["outcome"] == "level"
    assert found["headline"].endswith("LDMLR (80.00 %), the same.")
    assert "): equal" in found["lines"][0]


def test_the_more_rows_to_pick_from_the_more_is_asked_of_the_best():
    first, second = predictions(488), predictions(500, start=6)
    document, answers = measured(ldmlr=first, baseline=second)
    one, other = document["rows"]
    alone = Duel(one, other, answers=answers, test_rows=ROWS)
    assert alone.outcome == "ahead"
    assert Duel(one, other, answers=answers, test_rows=ROWS, picked=(40, 1)).outcome == "level"
    # What trails was not favoured by the choice.
    assert Duel(one, other, answers=answers, test_rows=ROWS, picked=(1, 40)).chance == alone.chance
    assert Duel(other, one, answers=answers, test_rows=ROWS, picked=(1, 1)).outcome == "behind"


def test_seeds_that_scatter_count_too():
    steady, wild = predictions(430), predictions(430, noise=80)
    base = predictions(500)
    assert judged(baseline=base, ldmlr=steady)["outcome"] == "ahead"
    assert judged(baseline=base, ldmlr=wild)["outcome"] == "level"


def test_few_seeds_are_worth_less_than_many():
    """Two seeds that happen to agree do not measure a deviation: Student's t knows it."""

    def duel(*gains):
        return Duel({"all": entry(*(80 + np.array(gains)))}, {"all": entry(*([80.0] * len(gains)))})

    assert duel(0.9, 1.1).error == pytest.approx(0.1)
    assert duel(0.9, 1.1).outcome == "level"  # t = 10 with one degree of freedom
    assert duel(0.9, 1.1, 0.9, 1.1, 0.9, 1.1).outcome == "ahead"


def test_one_seed_is_judged_by_the_rows_and_the_sentence_says_so():
    found = judged(baseline=predictions(500, 1), ldmlr=predictions(430, 1))
    assert found["outcome"] == "ahead"
    assert found["headline"].endswith(", one seed.")


def test_a_group_is_judged_by_its_classes():
    first, second = predictions(0, 2), predictions(0, 2)
    second[:, LABELS == 4] = False
    _, answers = measured(ldmlr=first, baseline=second)
    names = ("ldmlr", "none"), ("baseline", "none")
    # One of the two rare classes, 500 rows that weigh a thousandth each.
    assert answers.error(*names, "few") == pytest.approx((100 * 500**0.5 / 1000, 0.1))
    assert answers.error(*names, "all") == pytest.approx((100 * 500**0.5 / 2500, 0.04))
    # Where no row tells them apart, the error is that of one row.
    assert answers.error(*names, "many") == pytest.approx((0.1, 0.1))


def test_rows_without_answers_are_judged_by_the_size_of_the_test_split():
    """A result that an earlier version wrote: the two accuracies err as if on rows of their own."""
    document, _ = measured(baseline=predictions(500), ldmlr=predictions(480))
    assert run_verdict(document, ROWS)["outcome"] == "level"
    assert run_verdict(document, ROWS)["comparisons"][0]["rows_error"] == pytest.approx(1.12, abs=0.01)
    assert run_verdict(document, 250 * ROWS)["outcome"] == "ahead"


def test_nothing_is_decided_where_nothing_tells_the_error():
    document, _ = measured(baseline=predictions(500, 1), ldmlr=predictions(430, 1))
    assert run_verdict(document)["outcome"] == "undecided"
    assert run_verdict(document)["headline"].startswith("One seed cannot tell a gain from noise")
    document, _ = measured(baseline=predictions(500), ldmlr=predictions(430))
    assert run_verdict(document)["headline"].startswith("Neither of the two varies")
    duel = Duel(*reversed(document["rows"]))
    assert duel.words() == (
        "+2.80 points, undecided: neither varies with the seed, and the test rows are not known"
    )
    assert run_verdict({"rows": []}) is None


def test_answers_are_kept_as_text_and_come_back():
    right = np.random.default_rng(0).random(1001) < 0.7
    assert (unpack(pack(right), 1001) == right).all()
    assert unpack(pack(right), 900) is None
    assert unpack("no bits", 5) is None
    assert ShotGroups().masks(COUNTS)["few"].tolist() == [False, False, False, True, True]


def test_the_rows_of_another_generator_have_a_verdict_of_their_own():
    document, answers = measured(
        baseline=predictions(700), baseline_shift=predictions(600), smote=predictions(550),
        smote_shift=predictions(500),
    )  # fmt: skip
    document["config"] = {"finetune": {"average": 0.5, "tau_shift": 1.0}}
    found = run_verdict(document, ROWS, answers)
    assert found["headline"].startswith("Generation helped: smote with label shift (80.00 %)")
    assert "smote against the baseline" in {entry["what"] for entry in found["comparisons"]}
    assert found["notes"][0].startswith("The label-shift row of smote averages")
    assert "LDMLR" not in " ".join([found["headline"], *found["lines"], *found["notes"]])


def test_one_kind_of_row_alone_has_no_verdict():
    assert run_verdict(measured(baseline=predictions(1), finetuned=predictions(2))[0]) is None
    assert run_verdict(measured(ldmlr=predictions(1))[0]) is None


def test_the_best_row_is_named_with_its_figures():
    rows = measured(baseline=predictions(10), ldmlr_shift=predictions(5), ldmlr=predictions(8))[0]["rows"]
    assert best_row(rows) == {"method": "ldmlr", "adjustment": "label-shift", "all": rows[1]["all"]}
    assert best_row([]) is None


def test_a_minus_is_one_that_stays_with_its_number():
    duel = Duel({"all": entry(3.0, 4.5)}, {"all": entry(4.0, 4.5)})
    assert duel.words() == "level (\N{MINUS SIGN}0.50 points, standard error 0.50 over the seeds)"
    groups = {"many": entry(3.0, 4.5), "few": entry(6.0, 6.5), "all": entry(5.0, 5.5)}
    rows = [
        {"method": "baseline", "adjustment": "none", **dict.fromkeys(groups, entry(4.0, 4.6))},
        {"method": "ldmlr", "adjustment": "none", **groups},
    ]
    found = run_verdict({"command": "run", "rows": rows})
    assert found["lines"][0].endswith("; by group: many \N{MINUS SIGN}0.55, few +1.95.")


def test_the_error_of_an_accuracy_is_never_nothing():
    assert accuracy_error(80.0, 10_000) == pytest.approx(0.4)
    for certain in (0.0, 100.0):
        assert accuracy_error(certain, 50) == pytest.approx(1.407, abs=1e-3)


def test_the_verdict_says_what_won_and_whether_diffusion_paid():
    heads = {
        "baseline": predictions(687), "crt": predictions(500), "gaussian": predictions(488),
        "gaussian-wide": predictions(477), "ldmlr-plain": predictions(450), "ldmlr": predictions(475),
        "crt_shift": predictions(440), "ldmlr_shift": predictions(452, noise=1),
    }  # fmt: skip
    document, answers = measured("compare", **heads)
    rows = [{**row, "family": METHODS[row["method"]].family} for row in document["rows"]]
    found = compare_verdict(rows, ROWS, answers)
    assert found["lines"] == [
        "without label shift: ldmlr-plain won with 82.00, ahead by 1.00 points (standard error 0.20) of "
        "ldmlr",
        "  ldmlr against the best Gaussian (gaussian-wide): level (+0.08 points, standard error 0.06)",
        "  ldmlr against the best without generation (crt): ahead by 1.00 points (standard error 0.20)",
        "with label shift: crt won with 82.40, ahead by 0.48 points (standard error 0.14: test rows 0.13, "
        "seeds 0.03) of ldmlr",
        "  ldmlr against the best without generation (crt): behind by 0.48 points (standard error 0.14: test "
        "rows 0.13, seeds 0.03)",
        "each method at its better row: crt + label-shift won with 82.40, ahead by 0.40 points (standard "
        "error 0.13) of ldmlr-plain",
        "  ldmlr + label-shift against the best Gaussian (gaussian-wide): ahead by 1.00 points (standard "
        "error 0.20: test rows 0.20, seeds 0.03)",
        "  ldmlr + label-shift against the best without generation (crt + label-shift): behind by 0.48 "
        "points (standard error 0.14: test rows 0.13, seeds 0.03)",
        "2,500 test rows tell one accuracy by itself to \N{PLUS-MINUS SIGN}0.76 (standard error)",
    ]
    assert len(found["comparisons"]) == 9
    assert found["comparisons"][0]["question"] == BEST
    assert (found["comparisons"][0]["first"], found["comparisons"][0]["second"]) == (
        "ldmlr-plain", "crt + label-shift",
    )  # fmt: skip
    assert found["comparisons"][0]["picked_from"] == [5, 3]
    lone = compare_verdict(rows[2:3], ROWS, answers)
    assert lone["comparisons"] == []
    assert len(lone["lines"]) == 1
    assert "headline" not in lone


def test_a_picked_variant_of_diffusion_is_called_the_best():
    heads = {"gaussian": predictions(500), "ldmlr-plain": predictions(450), "ldmlr-paper": predictions(520)}
    document, answers = measured("compare", **heads)
    rows = [{**row, "family": METHODS[row["method"]].family} for row in document["rows"]]
    lines = compare_verdict(rows, ROWS, answers)["lines"]
    assert lines[1].startswith("  the best diffusion (ldmlr-plain) against the best Gaussian (gaussian): ")
    lines = compare_verdict(rows[:2], ROWS, answers)["lines"]
    assert lines[1].startswith("  ldmlr-plain against the best Gaussian (gaussian): ")
