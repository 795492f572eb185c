"""``ldmlr report``: a well-formed page that loads nothing and shows the figures of the run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.page import Page, check_page

from ldmlr.metrics.accuracy import confused_pairs
from ldmlr.metrics.generated_store import store_quality
from ldmlr.report.blocks import Section, Table
from ldmlr.report.page import render, write_report
from ldmlr.store import FeatureStore, SplitData, StoredHead
from ldmlr.store import split as split_module
from ldmlr.store.split import sample_index

HOSTILE = "<script>alert('&\"')</script>"
QUICK = (
    "--set", "baseline.epochs=2", "--set", "diffuse.iterations=60", "--set", "diffuse.hidden=16",
    "--set", "finetune.epochs=2", "--threads", 1,
)  # fmt: skip


@pytest.fixture
def run_copy(whole_run, tmp_path):
    """Return a copy of the run that a test may damage."""
    return Path(shutil.copytree(whole_run, tmp_path / "run"))


def section_names(page: Page) -> list[str]:
    return [str(attrs["id"]) for attrs in page.named("section")]


def test_a_run_has_a_page_with_every_section(run_cli, whole_run, tmp_path):
    done = run_cli("report", whole_run, "--out", tmp_path / "page.html", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    page = check_page(tmp_path / "page.html")
    assert section_names(page) == [
        "answer", "verdict", "accuracy", "classes", "plan", "training", "learned", "quality", "rows",
        "calibration", "confusion", "times", "about",
    ]  # fmt: skip
    assert figures["missing"] == []
    assert figures["bytes"] == (tmp_path / "page.html").stat().st_size
    assert sorted(path.name for path in whole_run.iterdir()) == ["result.json", "seed-0", "seed-1"]


def test_figures_are_those_of_the_result(run_cli, whole_run, tmp_path):
    figures = json.loads(run_cli("report", whole_run, "--out", tmp_path / "page.html", "--json").stdout)
    result = json.loads((whole_run / "result.json").read_text())
    page = check_page(tmp_path / "page.html")
    assert figures["rows"] == result["rows"]
    for row in result["rows"]:
        for group in ("all", "many", "medium", "few"):
            assert f"{row[group]['mean']:.2f} ± {row[group]['std']:.2f}" in page.text
    steps = [step["figures"] for step in result["steps"] if step["stage"] == "finetune"]
    for number, name in enumerate(("baseline", "baseline + label-shift", "ldmlr", "ldmlr + label-shift")):
        mean = np.mean([step["measured"][number]["per_class"] for step in steps], axis=0)
        assert [entry["accuracy"][name] for entry in figures["classes"]] == pytest.approx(list(mean))
    drawn = next(step["figures"]["per_class"] for step in result["steps"] if step["stage"] == "generate")
    assert [entry["generated_rows"] for entry in figures["classes"]] == drawn
    for entry, row in zip(figures["measured"]["entries"], result["rows"], strict=True):
        matrix = np.array(entry["confusion"])
        assert matrix.sum() == 2 * figures["measured"]["test_rows"]
        assert 100 * np.trace(matrix) / matrix.sum() == pytest.approx(row["all"]["mean"])
        assert sum(found["rows"] for found in entry["reliability"]) == matrix.sum()
    assert len(figures["training"]["diffuse"]) == 2
    assert figures["training"]["diffuse"][0][-1][0] == 60
    assert len(figures["training"]["finetune"][0]) == 2
    assert figures["measured"]["note"] == ""


def test_the_page_is_the_same_every_time(whole_run, tmp_path):
    for name in ("a.html", "b.html"):
        write_report(whole_run, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_missing_files_cost_their_sections_only(run_cli, run_copy):
    for path in [*run_copy.rglob("pseudo.h5"), *run_copy.rglob("train.jsonl")]:
        path.unlink()
    done = run_cli("report", run_copy)
    assert done.returncode == 0, done.stderr
    page = check_page(run_copy / "report.html")
    assert {"quality", "rows"}.isdisjoint(section_names(page))
    assert {"accuracy", "calibration", "training", "left-out"} <= set(section_names(page))
    assert "ldmlr evaluate STORE --generated pseudo.h5" in page.text
    assert "left out: quality" in done.stdout
    for path in run_copy.glob("seed-*"):
        shutil.rmtree(path)
    assert run_cli("report", run_copy, "--overwrite").returncode == 0
    page = check_page(run_copy / "report.html")
    assert section_names(page) == [
        "answer", "verdict", "accuracy", "learned", "calibration", "times", "about", "left-out",
    ]  # fmt: skip


def test_a_damaged_file_is_named_on_the_page(run_cli, run_copy):
    next(run_copy.rglob("pseudo.h5")).write_bytes(b"no store")
    head = next(run_copy.rglob("head.safetensors"))
    head.write_bytes(b"no head")
    done = run_cli("report", run_copy, "--json")
    assert done.returncode == 0, done.stderr
    reasons = {entry["section"]: entry["why"] for entry in json.loads(done.stdout)["missing"]}
    assert {"measured", "training", "quality"} <= set(reasons)
    assert str(head) in reasons["measured"]
    check_page(run_copy / "report.html")


def test_a_changed_head_is_noticed(run_copy):
    heads = sorted(run_copy.rglob("head.safetensors"))
    shutil.copy(heads[1], heads[0])
    figures = write_report(run_copy)
    assert "other figures than result.json" in figures["measured"]["note"]
    assert "other figures than result.json" in check_page(run_copy / "report.html").text


def toy_store(path: Path, names: list[str], generated: int = 0, seed: int = 0) -> Path:
    """Write a store of three classes in the plane; with `generated`, only so many drawn rows of each."""
    rng = np.random.default_rng(seed)
    counts = [generated] * 3 if generated else [120, 40, 8]
    labels = np.repeat([0, 1, 2], counts)
    centres = np.array([[3.0, 0], [0, 3], [-3, -3]])

    def rows(labels):
        return (rng.normal(size=(len(labels), 2)) + centres[labels]).astype(np.float32)

    held = np.repeat([0, 1, 2], 30)
    FeatureStore.write(
        path, train=SplitData(rows(labels), labels, source=np.full(len(labels), generated > 0, np.uint8)),
        test=None if generated else SplitData(rows(held), held), class_names=names,
        head=StoredHead(kind="linear", weight=centres.astype(np.float32), bias=None, extra={}),
    )  # fmt: skip
    return path


def test_hostile_names_are_only_words(run_cli, tmp_path):
    store = toy_store(tmp_path / "<b>features.h5", [HOSTILE, "a&b", "\"'>"])
    args = ("--seed", 0, "--out", tmp_path / "run", *QUICK[2:])
    assert run_cli("run", store, *args).returncode == 0
    done = run_cli("report", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["missing"] == []
    page = check_page(tmp_path / "run" / "report.html")
    assert HOSTILE in page.text
    assert "<b>features.h5" in page.text
    assert "One seed cannot tell a gain from noise" in page.text or "one seed." in page.text


@given(st.lists(st.lists(st.text(max_size=8), min_size=2, max_size=2), max_size=3))
def test_any_words_make_a_well_formed_table(rows):
    bare, filled = (
        Page(render("<title>", "a & b", [Section("s", "<i>S</i>", blocks)], {}))
        for blocks in ([], [Table(["<a>", "b"], rows, "a <caption> & more")])
    )
    assert len(filled.named("tr")) == len(rows) + 1
    more = {name for name, _ in filled.tags} - {name for name, _ in bare.tags}
    assert more <= {"div", "table", "caption", "span", "thead", "tbody", "tr", "th", "td"}
    assert {"<title>", "a & b", "<i>S</i>", "a <caption> & more", "<a>"} <= set(filled.words)


def test_documents_of_other_commands_have_pages(run_cli, tmp_path):
    store = toy_store(tmp_path / "features.h5", ["dog", "cat", "emu"])
    pseudo = toy_store(tmp_path / "pseudo.h5", ["dog", "cat", "emu"], generated=40, seed=1)
    heads, checked = tmp_path / "heads", tmp_path / "checked"
    assert run_cli(
        "finetune", store, "--pseudo", pseudo, "--seeds", 2, "--epochs", 2, "--out", heads
    ).returncode == 0  # fmt: skip
    assert run_cli(
        "evaluate", store, "--head", heads / "head-seed0.safetensors", "--per-class", "--confusion",
        "--generated", pseudo, "--out", checked,
    ).returncode == 0  # fmt: skip
    made = write_report(heads)
    assert made["missing"] == []
    page = check_page(heads / "report.html")
    assert {"quality", "confusion", "training", "verdict"} <= set(section_names(page))
    # A stored baseline is the same for both seeds, which is no want of seeds.
    assert "One seed cannot tell" not in (heads / "report.html").read_text()
    made = write_report(checked / "result.json", tmp_path / "evaluation.html")
    names = section_names(check_page(tmp_path / "evaluation.html"))
    assert {"accuracy", "classes", "quality", "calibration", "confusion"} <= set(names)


def test_an_unknown_document_gets_its_tables(tmp_path):
    document = {
        "command": "ablate", "rows": [{"ratio": 0.2, "all": {"mean": 70.5, "std": 0.5, "values": [70, 71]}}],
        "sizes": {"small": 3, HOSTILE: 4}, "comment": "plain words", "deep": {"a": [1, {"b": None}]},
        "config": {"width": [64, 128]}, "versions": {"ldmlr": "9"},
    }  # fmt: skip
    (tmp_path / "result.json").write_text(json.dumps(document))
    write_report(tmp_path)
    page = check_page(tmp_path / "report.html")
    assert {"figures", "about"} <= set(section_names(page))
    for words in ("70.50 ± 0.50", "ratio", HOSTILE, "plain words"):
        assert words in page.text


@pytest.mark.parametrize(
    "document",
    [
        {"command": "run", "rows": [{"method": "baseline", "adjustment": "none", "all": 3}], "steps": [4]},
        {"command": "run", "rows": 7, "steps": [{"stage": "finetune", "seed": 0, "key": "k"}], "seeds": "x"},
        {"command": "evaluate", "rows": [{"head": "h", "confusion": [[1]]}], "counts": None},
        {"command": "finetune", "config": 5, "versions": [], "hardware": 3, "history": {"a": 1}},
        {"command": "compare", "verdict": {"lines": 3}, "rows": []},
    ],
)
def test_a_document_of_another_shape_is_no_traceback(run_cli, tmp_path, document):
    (tmp_path / "result.json").write_text(json.dumps(document))
    done = run_cli("report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left-out" in section_names(check_page(tmp_path / "report.html"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no result.json"),
        ("{", "not JSON, or cut short"),
        ("[1, 2]", "not a result document"),
        ('{"rows": []}', "not a result document"),
    ],
)
def test_wrong_input_is_one_clear_line(run_cli, tmp_path, content, message):
    if content is not None:
        (tmp_path / "result.json").write_text(content)
    done = run_cli("report", tmp_path)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "report.html").exists()


def test_an_existing_page_is_kept(run_cli, tmp_path):
    (tmp_path / "result.json").write_text('{"command": "info"}')
    assert "no such run folder" in run_cli("report", tmp_path / "absent").stderr
    (tmp_path / "report.html").write_text("mine")
    done = run_cli("report", tmp_path)
    assert done.returncode == 2
    assert "already exists" in done.stderr
    assert (tmp_path / "report.html").read_text() == "mine"
    assert run_cli("report", tmp_path, "--overwrite").returncode == 0
    check_page(tmp_path / "report.html")


def test_a_sample_is_even_seeded_and_independent_of_blocks(tmp_path, monkeypatch):
    path = toy_store(tmp_path / "features.h5", ["a", "b", "c"])
    split = FeatureStore.open(path).split("train")
    index = sample_index(split, 10, seed=3)
    assert np.bincount(split.labels[index]).tolist() == [10, 10, 8]
    assert (np.diff(index) > 0).all()
    monkeypatch.setattr(split_module, "BLOCK", 7)
    assert sample_index(split, 10, seed=3).tolist() == index.tolist()
    assert sample_index(split, 10, seed=4).tolist() != index.tolist()
    assert np.bincount(split.labels[sample_index(split, [0, 5, 1])], minlength=3).tolist() == [0, 5, 1]
    assert len(sample_index(split, 10, source=1)) == 0
    picked = np.concatenate([sample_index(split, 12, seed=seed) for seed in range(300)])
    hits = np.bincount(picked[picked < 120], minlength=120)
    assert hits.min() > 10
    assert hits.max() < 60


def test_quality_of_a_store(run_cli, tmp_path):
    store = FeatureStore.open(toy_store(tmp_path / "features.h5", ["a", "b", "c"]))
    good = FeatureStore.open(toy_store(tmp_path / "good.h5", ["a", "b", "c"], generated=50, seed=1))
    found = store_quality(store, good)
    assert found["sampled"] == {"encoded": 168, "generated": 90, "test": 90}
    assert found["generated"]["precision"] == pytest.approx(found["test"]["precision"], abs=0.1)
    assert found["generated"]["duplicates"] == 0
    train = store.split("train")
    FeatureStore.write(
        tmp_path / "copies.h5", train=SplitData(train.float32(), train.labels, source=np.ones(168, np.uint8)),
        num_classes=3,
    )  # fmt: skip
    copied = store_quality(store, FeatureStore.open(tmp_path / "copies.h5"))
    assert copied["generated"]["duplicates"] == 1
    assert copied["generated"]["distance_ratio"] == 0
    done = run_cli("evaluate", store.path, "--generated", tmp_path / "copies.h5")
    assert done.returncode == 0, done.stderr
    assert re.search(r"duplicates +1\.000 +0\.000", done.stdout)
    bare = run_cli("evaluate", tmp_path / "good.h5", "--generated", good.path)
    assert bare.returncode == 1  # its rows are all generated: there is nothing to compare them with
    FeatureStore.write(tmp_path / "bare.h5", train=store.train, class_names=["a", "b", "c"])
    bare = run_cli("evaluate", tmp_path / "bare.h5", "--generated", good.path)
    assert bare.returncode == 0, bare.stderr  # a store without a head has no accuracy, but has rows
    assert bare.stdout.startswith("150 of 150 generated rows beside 168 training rows")
    document = json.loads(run_cli("evaluate", store.path, "--generated", good.path, "--json").stdout)
    assert document["generated_quality"] == json.loads(json.dumps(found))


def test_quality_refuses_what_does_not_fit(run_cli, tmp_path):
    store = toy_store(tmp_path / "features.h5", ["a", "b", "c"])
    FeatureStore.write(
        tmp_path / "wide.h5", train=SplitData(np.ones((9, 4)), np.zeros(9, int)), num_classes=3
    )
    failed = run_cli("evaluate", store, "--generated", tmp_path / "wide.h5")
    assert failed.returncode == 1
    assert "give rows generated for this store" in failed.stderr
    failed = run_cli("evaluate", store, "--generated", store)
    assert failed.returncode == 1
    assert "has no generated row" in failed.stderr
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["train/features"], file["train/labels"] = np.ones((9, 4)), np.arange(9) % 3
        file["head/weight"] = np.ones((3, 4), np.float32)
    failed = run_cli(
        "evaluate", tmp_path / "plain.h5", "--split", "train", "--generated", tmp_path / "plain.h5"
    )
    assert failed.returncode == 1
    assert "plain.h5: holds encoded rows (no /train/source)" in failed.stderr


def test_confusion_of_evaluate(run_cli, tmp_path):
    store = toy_store(tmp_path / "features.h5", ["dog", "cat", "emu"])
    document = json.loads(run_cli("evaluate", store, "--confusion", "--json").stdout)
    for row in document["rows"]:
        matrix = np.array(row["confusion"])
        assert matrix.sum(axis=1).tolist() == [30, 30, 30]
        assert 100 * np.trace(matrix) / 90 == pytest.approx(row["all"]["mean"])
    assert "confusion" not in json.loads(run_cli("evaluate", store, "--json").stdout)["rows"][0]
    pairs = confused_pairs(np.array([[8, 2, 0], [0, 5, 5], [0, 0, 0]]))
    assert [(pair["label"], pair["predicted"], pair["share"]) for pair in pairs] == [
        (1, 2, 50.0),
        (0, 1, 20.0),
    ]
