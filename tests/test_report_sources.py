"""``ldmlr report``: which stores a page is made of, and what it says without generated rows."""

from __future__ import annotations

import html
import json
import shutil

import numpy as np
import pytest
from support.axes import draw
from support.stage3 import write_stores

from ldmlr.store import FeatureStore, SplitData

pytestmark = pytest.mark.usefixtures("one_drawing")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stores(tmp_path_factory.mktemp("stores"))


def sections(run_cli, *args):
    """Return the sections left out, with the reason."""
    done = run_cli("report", *args, "--overwrite", "--json")
    assert done.returncode == 0, done.stderr
    return {entry["section"]: entry["why"] for entry in json.loads(done.stdout)["missing"]}


def test_without_generation_nothing_is_shown_as_generated(run_cli, folder, tmp_path):
    args = ["finetune", folder / "headless.h5", "--seeds", 1, "--epochs", 1, "--out", tmp_path / "run"]
    assert run_cli(*args).returncode == 0
    left_out = sections(run_cli, tmp_path / "run")
    assert left_out["quality"] == "nothing was generated"
    assert "projection" in left_out
    assert "measured" not in left_out
    # A balanced store has both kinds of rows in one file.
    args[1], args[-1] = folder / "balanced.h5", tmp_path / "balanced"
    assert run_cli(*args).returncode == 0
    assert "quality" not in sections(run_cli, tmp_path / "balanced")


def test_a_store_of_the_same_name_elsewhere_is_not_taken(run_cli, folder, tmp_path, monkeypatch):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    for name in ("features.h5", "pseudo.h5"):
        shutil.copy(folder / name, here)
    monkeypatch.chdir(here)
    done = run_cli(
        "finetune", "features.h5", "--pseudo", "pseudo.h5", "--seeds", 1, "--epochs", 1, "--out", "run"
    )
    assert done.returncode == 0, done.stderr
    assert "measured" not in sections(run_cli, "run")
    inputs = json.loads((here / "run" / "result.json").read_text())["inputs"]
    assert inputs == {
        name: FeatureStore.open(here / name).fingerprint() for name in ("features.h5", "pseudo.h5")
    }
    FeatureStore.write(
        there / "features.h5", train=SplitData(*draw((40, 40, 40), seed=8)), test=SplitData(*draw((9, 9, 9)))
    )
    monkeypatch.chdir(there)
    assert "is another store than the one of" in sections(run_cli, here / "run")["measured"]
    # The right one beside the run is found, whatever lies in the working folder.
    for name in inputs:
        shutil.copy(here / name, here / "run")
    assert "measured" not in sections(run_cli, here / "run")


def test_a_run_notices_another_store_too(run_cli, folder, tmp_path, monkeypatch):
    shutil.copy(folder / "features.h5", tmp_path)
    monkeypatch.chdir(tmp_path)
    done = run_cli(
        "run", "features.h5", "--seed", 0, "--out", "run", "--set", "diffuse.iterations=5",
        "--set", "diffuse.hidden=8", "--set", "finetune.epochs=1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not {"measured", "quality"} & set(sections(run_cli, "run"))
    shutil.copy(folder / "balanced.h5", tmp_path / "features.h5")
    left_out = sections(run_cli, "run")
    assert all("features.h5: is another store" in left_out[name] for name in ("measured", "quality"))


def test_a_run_by_folds_says_so_and_names_the_head(run_cli, tmp_path, monkeypatch):
    features, labels = draw((30, 12, 6), seed=1)
    monkeypatch.chdir(tmp_path)
    np.savez("emb.npz", features=features, labels=np.array(["ant", "bee", "cat"])[labels])
    done = run_cli(
        "run", "emb.npz", "--seeds", 2, "--folds", 2, "--auto", "--foreign-encoder", "--out", "run", "--json",
        "--set", "diffuse.iterations=5", "--set", "diffuse.hidden=8",
        "--set", "select.methods=ncm,balanced-softmax",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    # The folder may move: the copy of the features lies in it.
    (tmp_path / "run").rename(tmp_path / "moved")
    done = run_cli("report", "moved", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [entry["section"] for entry in found["missing"]] == ["measured"]
    assert [entry["name"] for entry in found["classes"]] == ["ant", "bee", "cat"]
    for row in result["rows"]:
        name = row["method"] if row["adjustment"] == "none" else f"{row['method']} + {row['adjustment']}"
        share = sum(entry["accuracy"][name] * entry["train_rows"] for entry in found["classes"]) / 48
        assert share == pytest.approx(row["all"]["mean"])
    page = html.unescape((tmp_path / "moved" / "report.html").read_text())
    for said in (
        result["auto"]["headline"], result["head"], result["verdict"], "2 stratified folds",
        "ldmlr predict moved FEATURES --out predictions.csv",
    ):  # fmt: skip
        assert said in page


def test_a_head_of_features_in_another_form_is_measured_again(run_cli, tmp_path, monkeypatch):
    parts = {"train": draw((30, 12, 6), seed=1), "test": draw((9, 9, 9), seed=2)}
    monkeypatch.chdir(tmp_path)
    np.savez("emb.npz", **{f"{name}_{what}": array for name, pair in parts.items()
                           for what, array in zip(("features", "labels"), pair, strict=True)})  # fmt: skip
    done = run_cli("finetune", "emb.npz", "--seeds", 1, "--epochs", 1, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / json.loads(done.stdout)["config"]["converted"]).is_file()
    assert "measured" not in sections(run_cli, "run")
