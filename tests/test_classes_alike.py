"""Where classes are measured on unlike numbers of rows, heads are compared with all classes weighed alike."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldmlr.experiments.duel import Duel
from ldmlr.experiments.text import ablation_text, comparison_csv
from ldmlr.experiments.verdict import best_row, compare_verdict, run_verdict
from ldmlr.metrics.answers import Answers, pack
from ldmlr.report.ablation import settings_dots
from ldmlr.report.alternatives import accuracy
from ldmlr.report.sections import accuracy as accuracy_section
from ldmlr.report.theme import LIGHT
from ldmlr.results import accuracy_columns, accuracy_rows, fair_column, judged_by
from ldmlr.store import FeatureStore, SplitData
from ldmlr.text import accuracy_table

COUNTS = (400, 60, 24)
SMALL = ("--set", "diffuse.iterations=3", "--set", "diffuse.hidden=8", "--set", "finetune.epochs=2")


def overlapping(counts, seed):
    """Rows of classes that overlap: most are right if all are called frequent."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return (rng.standard_normal((len(labels), 4)) + 0.8 * np.eye(len(counts), 4)[labels]).astype(
        np.float32
    ), labels


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("alike") / "s.h5"
    FeatureStore.write(path, train=SplitData(*overlapping(COUNTS, 0)))
    return path


def table(labels, counts, **heads):
    """Return the rows of a table of one seed, and the answers behind it."""
    entries = []
    for name, right in heads.items():
        shares = [100 * right[labels == label].mean() for label in np.unique(labels)]
        figures = {"all": 100 * right.mean(), "balanced": float(np.mean(shares))} | dict.fromkeys(
            ("many", "medium", "few")
        )
        family = {"baseline": "baseline", "ldmlr": "diffusion"}.get(name, "no generation")
        entries.append(
            {
                "method": name,
                "adjustment": "none",
                "tau": 0.0,
                "figures": figures,
                "right": pack(right),
                "family": family,
            }
        )
    answers = Answers.of([entries], labels, np.asarray(counts))
    rows = [
        {**row, "judged_by": answers.judged_by, "family": entry["family"]}
        for row, entry in zip(accuracy_rows([entries]), entries, strict=True)
    ]
    return rows, answers


def lopsided():
    """A head that is right on the frequent class alone, and one that is right on 80 of 100 rows of each."""
    labels = np.repeat([0, 1, 2], [2000, 200, 100])
    plain, fair = labels == 0, np.ones(len(labels), bool)
    for label in range(3):
        own = np.flatnonzero(labels == label)
        fair[own[: len(own) // 5]] = False
    return labels, plain, fair


def test_classes_of_one_size_are_judged_by_all_rows_others_by_their_mean():
    assert fair_column([5, 0, 5]) == "all"
    assert fair_column([5, 4]) == "balanced"
    even = Answers.of([[]], np.repeat([0, 2], 7), np.array([9, 9, 9]))
    assert even.judged_by == "all"
    assert even.row_count("all") == pytest.approx(even.row_count("balanced")) == pytest.approx(14)
    # What older versions wrote says nothing of it, and keeps its order.
    assert judged_by([{"method": "baseline", "all": None}]) == "all"


def test_the_verdict_weighs_classes_alike():
    labels, plain, fair = lopsided()
    rows, answers = table(labels, COUNTS, baseline=plain, ldmlr=fair)
    assert rows[0]["all"]["mean"] > rows[1]["all"]["mean"]
    assert best_row(rows) == {name: rows[1][name] for name in ("method", "adjustment", "all", "balanced")}
    for found in (
        compare_verdict(rows, len(labels), answers),
        run_verdict({"command": "run", "rows": rows}, len(labels), answers),
    ):
        assert (found["judged_by"], found["outcome"]) == ("balanced", "ahead")
        assert "LDMLR (80.00 % balanced) is ahead of" in found["headline"]
        assert found["rule"].startswith("Compared is the balanced accuracy")
        assert found["comparisons"][0]["difference"] == pytest.approx(80 - 100 / 3)
    # The same answers to classes of one size are judged by all rows, as ever, and say nothing of the mean.
    even = np.repeat([0, 1, 2], 100)
    rows, answers = table(even, COUNTS, baseline=even == 0, ldmlr=np.arange(300) % 5 > 0)
    assert best_row(rows) == {name: rows[1][name] for name in ("method", "adjustment", "all")}
    found = compare_verdict(rows, 300, answers)
    assert found["judged_by"] == "all"
    assert "balanced" not in json.dumps(found["headline"]) + found["rule"]


def test_the_error_of_a_mean_over_classes_is_that_of_rows_drawn_anew():
    """Resampling the rows of each class says the same as the sum over rows that differ."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [900, 300, 60])
    one, other = (rng.random(len(labels)) < share for share in (0.72, 0.7))
    rows, answers = table(labels, COUNTS, ldmlr=one, baseline=other)
    error = Duel(*rows, "balanced", answers).rows_error
    gaps = [(one[labels == label].astype(float) - other[labels == label]) for label in range(3)]
    drawn = [
        100 * np.mean([rng.choice(gap - gap.mean(), len(gap)).mean() for gap in gaps]) for _ in range(3000)
    ]
    assert error == pytest.approx(np.std(drawn), rel=0.1)
    assert Duel(*rows, "all", answers).rows_error < 0.8 * error


def test_one_row_of_a_rare_class_does_not_decide():
    labels = np.repeat([0, 1], [1000, 2])
    second = np.ones(1002, bool)
    second[-1] = False
    rows, answers = table(labels, (1000, 2), ldmlr=np.ones(1002, bool), baseline=second)
    duel = Duel(*rows, "balanced", answers)
    assert duel.difference == pytest.approx(25)
    assert duel.outcome == "level"
    # Neither does it hide what many rows of the frequent class say.
    second[-1], second[:400] = True, False
    rows, answers = table(labels, (1000, 2), ldmlr=np.ones(1002, bool), baseline=second)
    assert Duel(*rows, "balanced", answers).outcome == "ahead"


def test_tables_and_pictures_show_what_is_compared():
    labels, plain, fair = lopsided()
    rows, _ = table(labels, COUNTS, baseline=plain, ldmlr=fair)
    assert accuracy_columns(rows)[0] == "balanced"
    assert accuracy_table(rows).splitlines()[2].split()[:3] == ["baseline", "33.33", "86.96"]
    assert "All classes alike, best first: ldmlr 80.00; baseline 33.33" in accuracy(
        rows, accuracy_columns(rows)
    )
    section = accuracy_section({"rows": rows, "groups": None})
    assert section is not None
    assert "balanced" in section.blocks[0].header
    timed = [row | {"seconds": {"mean": 1.0}} for row in rows]
    assert comparison_csv(timed).splitlines()[0].count("balanced_mean,balanced_std") == 1
    settings = [row | {"setting": name} for row, name in zip(rows, (None, "ratio"), strict=True)]
    ablated = {
        "head": {"baseline": "linear", "trained": "linear"}, "ablation": "ratio", "what": "",
        "seeds": [0], "selection": "", "baseline_head": "fitted", "label_shift": "", "left_out": [],
    }  # fmt: skip
    lines = ablation_text(
        {**ablated, "rows": [row | {"adjustment": a} for row in settings for a in ("none", "label-shift")]}
    )
    assert "33.33" in lines
    axes = settings_dots(settings, "ratio", LIGHT, 700).figure.axes[0]
    assert axes.get_ylabel() == "balanced top-1 %"


def test_compare_by_folds_does_not_call_the_frequent_class_the_winner(run_cli, store):
    """Counted by rows the plain head wins; counted by classes it loses to the head with label shift."""
    done = run_cli(
        "compare", store, "--methods", "baseline,balanced-softmax,smote", "--foreign-encoder", "--folds", 2,
        "--seeds", 1, "--json", *SMALL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = {(row["method"], row["adjustment"]): row for row in found["rows"]}
    plain = rows["baseline", "none"]
    assert plain["all"]["mean"] == max(row["all"]["mean"] for row in rows.values())
    best = max(rows.values(), key=lambda row: row["balanced"]["mean"])
    assert best["balanced"]["mean"] > plain["balanced"]["mean"] + 5
    assert found["best"] == {name: best[name] for name in ("method", "adjustment", "all", "balanced")}
    assert {row["judged_by"] for row in found["rows"]} == {"balanced"}
    assert found["verdict"]["judged_by"] == "balanced"
    assert 'compared by "balanced"' in found["measured"]
    # Each fold has chosen for itself: where they do not agree, all choices stand in the row.
    for (method, _), row in rows.items():
        choices = row.get("choices", [row["chosen"]] * 2)
        assert len(choices) == 2
        assert choices[-1] == row["chosen"]
        assert method == "baseline" or all("weight_decay" in choice for choice in choices)


def test_run_and_finetune_by_folds_and_an_uneven_test_split_are_judged_alike(run_cli, store, tmp_path):
    uneven = tmp_path / "uneven.h5"
    FeatureStore.write(
        uneven, train=SplitData(*overlapping(COUNTS, 0)), test=SplitData(*overlapping(COUNTS, 1))
    )
    for name, line in {
        "run": ("run", store, "--foreign-encoder", "--folds", 2, "--seeds", 1, *SMALL),
        "finetune": ("finetune", store, "--foreign-encoder", "--folds", 2, "--seeds", 1),
        "uneven": ("run", uneven, "--foreign-encoder", "--seeds", 1, *SMALL),
    }.items():
        args = [part for part in line if not (name == "finetune" and part == "--foreign-encoder")]
        done = run_cli(*args, "--out", tmp_path / name, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {row["judged_by"] for row in found["rows"]} == {"balanced"}
        top = max(found["rows"], key=lambda row: row["balanced"]["mean"])
        assert found["best"]["method"], found["best"]["adjustment"] == (top["method"], top["adjustment"])
        assert (top["method"], top["adjustment"]) != ("baseline", "none")
        if name != "finetune":
            assert found["comparison"]["judged_by"] == "balanced"
            assert "% balanced" in found["verdict"]
    done = run_cli("report", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "all classes weigh alike" in (tmp_path / "run" / "report.html").read_text()
