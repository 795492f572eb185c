"""``ldmlr compare``: the table, the verdict in words, and bad input."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from ldmlr.experiments.catalogue import METHODS, CompareConfig
from ldmlr.heads.modules import make_head, to_stored
from ldmlr.store import FeatureStore, SplitData, StoredHead
from ldmlr.text import row_name

QUICK = ("--set", "diffuse.iterations=20", "--set", "diffuse.hidden=16", "--set", "finetune.epochs=2")
COUNTS = (130, 40, 12, 1)


def write_store(path: Path, *, views=True, test=True, head: StoredHead | None = None, counts=COUNTS) -> Path:
    rng = np.random.default_rng(0)
    centre = 1.5 * rng.normal(size=(len(counts), 6))

    def rows(labels):
        return (centre[labels] + rng.normal(size=(len(labels), 6))).astype(np.float32)

    labels = np.repeat(np.arange(len(counts)), counts)
    features = rows(labels)
    more = {}
    if views:
        stack = np.stack([features + rng.normal(scale=s, size=features.shape) for s in (0.2, 0.2, 0.6)])
        more = {"views": stack.astype(np.float32), "view_kinds": ("weak", "weak", "strong")}
    held = np.repeat(np.arange(len(counts)), 30)
    FeatureStore.write(
        path, train=SplitData(features, labels, **more), head=head,
        test=SplitData(rows(held), held) if test else None,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    rng = np.random.default_rng(1)
    head = StoredHead(
        "linear", rng.normal(size=(4, 6)).astype(np.float32), np.array([2, 0, -1, -2], np.float32)
    )
    return write_store(tmp_path_factory.mktemp("compare") / "features.h5", head=head)


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """Write a store without a head and without views."""
    return write_store(tmp_path_factory.mktemp("compare") / "bare.h5", views=False)


def figures(rows):
    keep = ("method", "adjustment", "all", "many", "medium", "few")
    return [{key: row[key] for key in keep} for row in rows]


def test_the_whole_comparison_as_a_user_calls_it(run_cli, store, tmp_path):
    out, table = tmp_path / "out", tmp_path / "table.csv"
    done = run_cli("compare", store, "--seeds", 2, *QUICK, "--out", out, "--csv", table, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert json.loads((out / "result.json").read_text()) == result
    assert result["command"] == "compare"
    expected = [
        (name, adjustment)
        for name, entry in METHODS.items()
        for adjustment in ("none", "label-shift")
        if (entry.shifted or adjustment == "none") and not entry.optional
    ]
    assert [(row["method"], row["adjustment"]) for row in result["rows"]] == expected
    for row in result["rows"]:
        for column in ("all", "many", "medium", "few", "seconds"):
            assert len(row[column]["values"]) == 2
            assert row[column]["mean"] == pytest.approx(np.mean(row[column]["values"]))
            assert row[column]["std"] == pytest.approx(np.std(row[column]["values"], ddof=1))
        if row["method"] in ("baseline", "tau-norm", "tau-norm-views", "ncm", "ncm-views"):
            assert row["all"]["std"] == 0
        if row["family"] in ("baseline", "no generation"):
            assert row["generated"] == [0, 0]
        elif row["method"] not in ("ldmlr-paper", "adasyn", "adasyn-views"):
            assert row["generated"] == [4 * 130 - sum(COUNTS)] * 2
    assert result["baseline_head"] == "stored"
    assert result["selection"].startswith("last epoch")
    assert "0.5 x baseline head + 0.5 x new head - 0.75 x log prior" in result["label_shift"]
    assert result["left_out"] == []
    assert result["groups"] == {"many": 1, "medium": 1, "few": 2}
    assert result["backend"] in ("native", "reference", "cuda")
    assert any(note.startswith("smote: 1 of 4 classes have one row") for note in result["notes"])
    assert {entry["adjustment"] for entry in result["verdict"]["comparisons"]} == {
        "none", "label-shift", "any",
    }  # fmt: skip
    assert {entry["question"] for entry in result["verdict"]["comparisons"]} == {
        "best with generation against best without", "won", "best Gaussian", "best without generation",
    }  # fmt: skip
    # The headline is about the best rows of both kinds.
    best = {
        made: max(
            (row for row in result["rows"] if (row["family"] not in ("baseline", "no generation")) == made),
            key=lambda row: row["all"]["mean"],
        )
        for made in (True, False)
    }
    first = result["verdict"]["comparisons"][0]
    assert (first["first"], first["second"]) == (row_name(best[True]), row_name(best[False]))
    assert all(f"({row['all']['mean']:.2f} %)" in result["verdict"]["headline"] for row in best.values())

    lines = list(csv.DictReader(io.StringIO(table.read_text())))
    assert [(line["method"], line["adjustment"]) for line in lines] == expected
    for line, row in zip(lines, result["rows"], strict=True):
        assert float(line["all_mean"]) == pytest.approx(row["all"]["mean"], abs=1e-4)
        assert float(line["few_std"]) == pytest.approx(row["few"]["std"], abs=1e-4)
        assert line["seeds"] == "2"
    assert done.stderr.count("27 methods") == 2


def test_the_same_seeds_give_the_same_figures_whatever_else_is_compared(run_cli, store):
    command = ("compare", store, "--seeds", 1, *QUICK, "--json")
    some = json.loads(run_cli(*command, "--methods", "ldmlr,smote", "--methods", "crt-views").stdout)
    assert some["config"]["methods"] == ["crt-views", "smote", "ldmlr"]
    alone = json.loads(run_cli(*command, "--methods", "smote").stdout)
    assert figures(alone["rows"]) == [row for row in figures(some["rows"]) if row["method"] == "smote"]


def test_baseline_and_ldmlr_are_those_of_a_run(run_cli, store, tmp_path):
    ran = run_cli("run", store, "--seeds", 2, "--out", tmp_path / "run", *QUICK, "--json")
    compared = run_cli("compare", store, "--seeds", 2, *QUICK, "--methods", "baseline,ldmlr", "--json")
    assert compared.returncode == 0, compared.stderr
    found, expected = (figures(json.loads(done.stdout)["rows"]) for done in (compared, ran))
    # A run measures the stored baseline once per seed as well.
    assert found == expected


def test_the_table_for_people_states_the_rules(run_cli, store):
    done = run_cli("compare", store, "--seeds", 2, *QUICK, "--methods", "baseline,tau-norm-views,gaussian")
    assert done.returncode == 0, done.stderr
    names = [line.split("  ")[0] for line in done.stdout.splitlines()[2:7]]
    assert names == [
        "baseline", "baseline + label-shift", "tau-norm-views", "gaussian", "gaussian + label-shift",
    ]  # fmt: skip
    assert "label shift of every fine-tuned head: 0.5 x baseline head + 0.5 x new head" in done.stdout
    assert "cannot tell whether generation helps" in done.stdout.split("Verdict\n")[1].splitlines()[0]
    assert "\n  without label shift: " in done.stdout
    assert "the 5 % are divided by their number (Bonferroni)" in done.stdout
    assert "Note, tau-norm-views: tau " in done.stdout


def test_a_store_without_head_and_views_is_compared_as_far_as_it_goes(run_cli, bare):
    done = run_cli("compare", bare, "--seeds", 1, *QUICK)
    assert done.returncode == 0, done.stderr
    assert "Baseline head: linear, fitted" in done.stdout
    assert (
        "Left out, as the store has no views: balanced-softmax-views, crt-views, tau-norm-views, ncm-views, "
        "views, smote-views, adasyn-views."
    ) in done.stdout
    assert "One seed cannot tell" in done.stdout.split("Verdict\n")[1].splitlines()[0]


def test_a_wcdas_head_is_called_so_and_kept_in_stage_three(run_cli, tmp_path):
    path = write_store(tmp_path / "wcdas.h5", head=to_stored(make_head("wcdas", 6, 4)))
    common = ("compare", path, "--seeds", 1, *QUICK)
    done = run_cli(*common, "--methods", "baseline,balanced-softmax,tau-norm,ncm")
    assert done.returncode == 0, done.stderr
    assert "baseline (WCDAS) + label-shift" in done.stdout
    assert "trained heads: wcdas" in done.stdout
    assert "tau-norm: a wcdas head normalises its weights itself; left out" in done.stdout
    linear = run_cli(*common, "--methods", "crt,ncm", "--set", "finetune.head=linear", "--json")
    result = json.loads(linear.stdout)
    assert result["config"]["finetune"]["head"] == "linear"
    assert {row["head"] for row in result["rows"]} == {"linear"}
    alone = run_cli(*common, "--methods", "tau-norm")
    assert alone.returncode == 2
    assert "a wcdas head normalises its weights itself" in alone.stderr


def test_options_come_from_a_toml_file(run_cli, store, tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text(
        'seeds = 4\n[compare]\nmethods = ["ldmlr"]\n[diffuse]\nhidden = 16\niterations = 20\n'
        "[finetune]\nepochs = 3\n"
    )
    done = run_cli("compare", store, "--config", path, "--seeds", 1, "--set", "finetune.epochs=2", "--json")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert config["methods"] == ["ldmlr"]
    assert (config["seeds"], config["diffuse"]["hidden"], config["finetune"]["epochs"]) == (1, 16, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("diffuse = 3\n", "diffuse: expected a table [diffuse], not 3"),
        ("[diffuse]\nhiden = 8\n", "[diffuse]: unknown key 'hiden'; did you mean 'hidden'?"),
        ("[compare]\nmethod = 8\n", "unknown key 'method'; did you mean 'methods'?"),
        ("[compare]\nmethods = 'smot'\n", "did you mean 'smote'?"),
    ],
)
def test_a_wrong_toml_file_is_one_clear_line(run_cli, bare, tmp_path, text, message):
    path = tmp_path / "experiment.toml"
    path.write_text(text)
    done = run_cli("compare", bare, "--config", path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (("--methods", "smot"), 2, "--methods: unknown value 'smot'; did you mean 'smote'?"),
        (
            ("--methods", "random-oversampling"),
            2,
            "unknown value 'random-oversampling'; it is 'oversampling' now",
        ),
        (("--methods", "ldmlr,duplicated-views"), 2, "unknown value 'duplicated-views'; it is 'views' now"),
        (("--methods", "smote-views"), 2, "smote-views needs augmented views"),
        (("--set", "baseline.epochs=2"), 2, "a comparison has no stage 'baseline'"),
        (("--set", "diffuse.hiden=2"), 2, "did you mean 'hidden'?"),
        (
            ("--set", "generate.gate=prototype"),
            2,
            "gate prototype: ldmlr compare draws rows without",
        ),
        (("--set", "generate.dtype=float16"), 2, "generate.dtype float16"),
        (("--groups", "many"), 2, "--groups: expected two thresholds"),
        (("--seeds", "0"), 2, "--seeds"),
        (("--device", "gpu"), 2, "--device: unknown value 'gpu'"),
        (("--csv", "there.csv"), 2, "there.csv: already exists"),
    ],
)
def test_a_wrong_option_is_one_clear_line(run_cli, bare, tmp_path, monkeypatch, args, status, message):
    monkeypatch.chdir(tmp_path)
    Path("there.csv").write_text("kept")
    done = run_cli("compare", bare, *args, "--out", "out")
    assert done.returncode == status
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["there.csv"]
    assert Path("there.csv").read_text() == "kept"


def test_a_store_that_cannot_be_compared_is_refused(run_cli, tmp_path):
    assert run_cli("compare", tmp_path / "absent.h5").returncode == 1

    gap = write_store(tmp_path / "gap.h5", counts=(10, 0, 5))
    done = run_cli("compare", gap)
    assert done.returncode == 1
    assert "gap.h5: 1 of 3 classes have no encoded row (class 1 first)" in done.stderr


def test_methods_keep_the_order_of_the_table():
    config = CompareConfig.from_mapping({"methods": ["ldmlr, ncm", "baseline"]})
    assert config.methods == ("baseline", "ncm", "ldmlr")
