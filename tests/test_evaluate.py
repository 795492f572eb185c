"""``ldmlr evaluate``: the table of heads on a split, and the published baselines on the real stores."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ldmlr
from ldmlr.heads.evaluation import evaluate_store, measure, plain_variants
from ldmlr.heads.modules import from_stored
from ldmlr.store import FeatureStore, SplitData, StoredHead

HEAD = StoredHead(
    kind="linear", weight=np.array([[2, 0], [0, 2], [-1, -1]], np.float32),
    bias=np.array([1.0, 0.2, 0.0], np.float32), extra={},
)  # fmt: skip


def draw(counts, seed=0):
    labels = np.repeat(np.arange(3), counts)
    centres = np.array([[1.5, 0], [0, 1.5], [-1.2, -1.2]])
    features = np.random.default_rng(seed).normal(size=(len(labels), 2)) + centres[labels]
    return features.astype(np.float32), labels


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("evaluate") / "features.h5"
    FeatureStore.write(
        path, train=SplitData(*draw((120, 40, 8))), test=SplitData(*draw((50, 50, 50), seed=1)),
        val=SplitData(*draw((5, 5, 0), seed=2)), head=HEAD, class_names=["dog", "cat", "emu"],
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def head_file(store, tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "tuned.safetensors"
    ldmlr.finetune(FeatureStore.open(store), draw((0, 80, 112), seed=5), epochs=2).save(path)
    return path


def test_table_and_document(run_cli, store, head_file, tmp_path):
    args = ["evaluate", store, "--head", head_file, "--per-class", "--out", tmp_path / "out"]
    outcome = run_cli(*args)
    assert outcome.returncode == 0, outcome.stderr
    header, _, *lines = outcome.stdout.splitlines()
    assert header.split() == [
        "top-1",
        "%",
        *["all", "many", "medium", "few", "balanced", "ece", "nll", "brier"],
    ]
    assert [line.split("  ")[0] for line in lines[:4]] == [
        "stored", "stored + label-shift", "tuned", "tuned + label-shift"
    ]  # fmt: skip
    assert [line.split()[:2] for line in lines[-3:]] == [["dog", "120"], ["cat", "40"], ["emu", "8"]]
    document = json.loads(run_cli(*args, "--json").stdout)
    assert document == json.loads((tmp_path / "out" / "result.json").read_text()) | {
        "created": document["created"]
    }
    features, labels = draw((50, 50, 50), seed=1)
    right = (features @ HEAD.weight.T + HEAD.bias).argmax(axis=1) == labels
    row = document["rows"][0]
    assert row["all"]["mean"] == pytest.approx(100 * right.mean())
    assert row["per_class"] == pytest.approx([100 * right[labels == c].mean() for c in range(3)])
    assert [row[name]["mean"] for name in ("many", "medium", "few")] == pytest.approx(row["per_class"])


def test_label_shift_uses_training_counts_and_tau(run_cli, store):
    features, labels = draw((50, 50, 50), seed=1)
    logits = features @ HEAD.weight.T + HEAD.bias
    for tau in (1.0, 0.3):
        shifted = logits - tau * np.log(np.array([120, 40, 8]) / 168)
        document = json.loads(run_cli("evaluate", store, "--tau", tau, "--json").stdout)
        row = document["rows"][1]
        assert (row["adjustment"], row["tau"]) == ("label-shift", tau)
        assert row["all"]["mean"] == pytest.approx(100 * (shifted.argmax(axis=1) == labels).mean())


def test_splits_and_classes_without_rows(run_cli, store):
    document = json.loads(run_cli("evaluate", store, "--split", "val", "--per-class", "--json").stdout)
    assert document["rows"][0]["few"] is None
    assert document["rows"][0]["per_class"][2] is None
    assert json.loads(run_cli("evaluate", store, "--split", "train", "--json").stdout)["rows"][0]["all"]
    text = run_cli("evaluate", store, "--split", "val", "--per-class").stdout
    assert text.splitlines()[-1].split() == ["emu", "8", "-", "-"]


def test_generated_rows_are_left_out(tmp_path):
    (features, labels), (noise, wrong) = draw((120, 40, 8)), draw((0, 500, 500), seed=3)
    source = np.repeat(np.uint8([0, 1]), [168, 1000])
    FeatureStore.write(
        tmp_path / "balanced.h5", head=HEAD,
        train=SplitData(np.r_[features, noise], np.r_[labels, wrong[::-1]], source=source),
    )  # fmt: skip
    store = FeatureStore.open(tmp_path / "balanced.h5")
    measured, counts = evaluate_store(store, split="train")
    assert counts.tolist() == [120, 40, 8]
    right = (features @ HEAD.weight.T + HEAD.bias).argmax(axis=1) == labels
    assert measured[0][1].figures["all"] == pytest.approx(100 * right.mean())


def test_test_only_store_takes_counts_from_the_head(run_cli, store, head_file, tmp_path):
    test = SplitData(*draw((50, 50, 50), seed=1))
    FeatureStore.write(tmp_path / "test.h5", test=test, num_classes=3)
    document = json.loads(run_cli("evaluate", tmp_path / "test.h5", "--head", head_file, "--json").stdout)
    assert document["counts"] == [120, 40, 8]
    full = json.loads(run_cli("evaluate", store, "--head", head_file, "--json").stdout)
    figures = [{key: row[key] for key in ("all", "nll", "few")} for row in document["rows"]]
    assert figures == [{key: row[key] for key in ("all", "nll", "few")} for row in full["rows"][2:]]


def test_batches_do_not_matter(store, monkeypatch):
    from ldmlr.heads import evaluation

    opened = FeatureStore.open(store)
    variants = plain_variants("baseline", from_stored(opened.head), opened.train.counts)
    whole = measure(variants, opened.test, opened.train.counts)
    monkeypatch.setattr(evaluation, "BATCH", 7)
    for one, many in zip(whole, measure(variants, opened.test, opened.train.counts), strict=True):
        assert one.figures == pytest.approx(many.figures, rel=1e-5)


def test_heads_of_the_same_file_name_are_told_apart(run_cli, store, head_file, tmp_path):
    heads = [tmp_path / part / "tuned.safetensors" for part in ("a/x", "b/x", "c")]
    heads += [tmp_path / "stored.safetensors"]
    for place, path in enumerate(heads):
        path.parent.mkdir(parents=True, exist_ok=True)
        epochs = place + 1
        ldmlr.finetune(FeatureStore.open(store), draw((0, 80, 112), seed=5), epochs=epochs).save(path)
    given = [text for path in heads for text in ("--head", path)]
    done = run_cli("evaluate", store, *given, "--per-class", "--confusion", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "result.json").read_text())["rows"]
    names = ["stored", "a/x/tuned", "b/x/tuned", "c/tuned", f"{tmp_path.name}/stored"]
    assert [row["name"] for row in rows[::2]] == names
    assert [row["head"] for row in rows[2::2]] == [str(path) for path in heads]
    assert all(name in done.stdout for name in names)
    page = run_cli("report", tmp_path / "run", "--json")
    figures = json.loads(page.stdout)["classes"][0]["accuracy"]
    assert list(figures) == [title for name in names for title in (name, f"{name} + label-shift")]
    # A single head goes by its file's name alone.
    one = run_cli("evaluate", store, "--head", head_file, "--json")
    assert json.loads(one.stdout)["rows"][2]["name"] == "tuned"
    twice = run_cli("evaluate", store, "--head", head_file, "--head", head_file)
    assert (twice.returncode, "tuned.safetensors: is given twice" in twice.stderr) == (2, True)


def test_command_names_what_is_wrong(run_cli, store, head_file, tmp_path):
    def failure(*args):
        outcome = run_cli("evaluate", *args)
        assert outcome.stdout == ""
        assert len(outcome.stderr.strip().splitlines()) == 1
        assert outcome.returncode == 1
        return outcome.stderr

    FeatureStore.write(
        tmp_path / "bare.h5", test=SplitData(*draw((5, 5, 5))), train=SplitData(*draw((5, 5, 5)))
    )
    assert "bare.h5: has no head" in failure(tmp_path / "bare.h5")
    assert "has no split 'val'" in failure(tmp_path / "bare.h5", "--head", head_file, "--split", "val")
    FeatureStore.write(tmp_path / "wide.h5", test=SplitData(np.ones((4, 9)), [0, 1, 2, 0]))
    message = failure(tmp_path / "wide.h5", "--head", head_file)
    assert "tuned.safetensors takes 2 dimensions" in message
    assert "wide.h5 has 9" in message
    FeatureStore.write(tmp_path / "four.h5", test=SplitData(np.ones((4, 2)), np.arange(4)))
    message = failure(tmp_path / "four.h5", "--head", head_file)
    assert "tuned.safetensors has 3 classes" in message
    assert "four.h5 has 4" in message
    assert "no such head file" in failure(store, "--head", tmp_path / "absent.safetensors")
    assert "is a feature store (HDF5), not a head" in failure(store, "--head", store)
    FeatureStore.write(tmp_path / "no-train.h5", test=SplitData(*draw((5, 5, 5))), head=HEAD)
    assert "no class counts" in failure(tmp_path / "no-train.h5")


@pytest.mark.parametrize(
    ("name", "plain", "shifted"), [("cifar10", 72.49, 80.86), ("cifar100", 41.28, 48.59)]
)
def test_published_baselines_on_real_features(run_cli, data_dir, name, plain, shifted):
    outcome = run_cli("evaluate", data_dir / f"{name}-lt-if100-features.h5", "--json")
    assert outcome.returncode == 0, outcome.stderr
    rows = json.loads(outcome.stdout)["rows"]
    assert round(rows[0]["all"]["mean"], 2) == plain
    assert round(rows[1]["all"]["mean"], 2) == shifted
    ranges = run_cli("evaluate", data_dir / f"{name}-lt-if100-features.h5", "--groups", "paper", "--json")
    assert json.loads(ranges.stdout)["rows"][0]["few"]["mean"] < plain
