"""Without a test split: stratified folds or a drawn split, no leak from them, and a head from all rows."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from ldmlr.errors import InputError, UsageError
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.store import FeatureStore, SplitData, StoredHead
from ldmlr.store.heldout import HeldOutConfig, Measuring, drawn_rows, fold_numbers

COUNTS = (30, 12, 3, 1)
QUICK = ("--generator", "gaussian", "--set", "finetune.epochs=2", "--device", "cpu", "--threads", "1")


def blobs(counts=COUNTS, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    centres = 4 * rng.standard_normal((len(counts), dim))
    return (centres[labels] + rng.standard_normal((len(labels), dim))).astype(np.float32), labels


def write(path, counts=COUNTS, **more):
    features, labels = blobs(counts)
    return FeatureStore.write(path, train=SplitData(features, labels, **more))


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_every_row_is_held_out_once_and_the_only_row_of_a_class_never(folds):
    _, labels = blobs()
    numbers = fold_numbers(labels, folds, seed=3)
    assert (numbers[labels == 3] == -1).all()
    for label, count in enumerate(COUNTS[:3]):
        sizes = np.bincount(numbers[labels == label], minlength=folds)
        assert sizes.sum() == count
        assert sizes.max() - sizes.min() <= 1
    sizes = np.bincount(numbers[numbers >= 0], minlength=folds)
    assert sizes.max() - sizes.min() <= 1
    assert (fold_numbers(labels, folds, seed=3) == numbers).all()
    assert (fold_numbers(labels, folds, seed=4) != numbers).any()


def test_a_drawn_split_has_its_share_of_every_class_and_is_the_same_for_every_seed(tmp_path):
    _, labels = blobs()
    held = drawn_rows(labels, 0.25)
    assert np.bincount(labels[held], minlength=4).tolist() == [8, 3, 1, 0]
    # Something of every class is left to train on.
    assert np.bincount(labels[~drawn_rows(labels, 0.9)], minlength=4).tolist() == [3, 1, 1, 1]
    store = write(tmp_path / "s.h5")
    measuring = Measuring.of(store, HeldOutConfig(test_fraction=0.25))
    parts = [next(measuring.parts(store, seed)) for seed in (0, 7)]
    np.testing.assert_array_equal(parts[0].test.float32(), parts[1].test.float32())
    assert measuring.measured_on == "test"


def test_a_part_holds_the_rows_it_says_and_nothing_that_knows_the_others(tmp_path):
    features, labels = blobs()
    views = np.stack([features + 1, features + 2])
    source = np.zeros(len(labels), np.uint8)
    source[5:9] = 1
    head = StoredHead("linear", np.zeros((4, 5), np.float32), np.zeros(4, np.float32))
    store = FeatureStore.write(
        tmp_path / "s.h5", head=head,
        train=SplitData(features, labels, source=source, views=views, view_kinds=("weak", "strong")),
    )  # fmt: skip
    measuring = Measuring(folds=3)
    seen = []
    for part in measuring.parts(store, 1):
        assert part.head is None
        assert part.train.source is None
        held = measuring.held(part)
        seen.append(held)
        np.testing.assert_array_equal(part.test.float32(), features[held])
        np.testing.assert_array_equal(part.test.labels, labels[held])
        assert not set(held) & set(range(5, 9))
        kept = np.setdiff1d(np.flatnonzero(source == 0), held)
        np.testing.assert_array_equal(part.train.float32(), features[kept])
        np.testing.assert_array_equal(np.asarray(part.train.views), views[:, kept])
        np.testing.assert_array_equal(part.train.float32([1, 0]), features[kept[[1, 0]]])
        again = pickle.loads(pickle.dumps(part))
        np.testing.assert_array_equal(again.test.float32(), part.test.float32())
    assert len({part.fingerprint() for part in measuring.parts(store, 1)}) == 3
    assert len({part.dataset_sha256("/train/features") for part in measuring.parts(store, 1)}) == 3
    everything = np.sort(np.concatenate(seen))
    single = np.flatnonzero((labels == 3) & (source == 0))
    np.testing.assert_array_equal(everything, np.setdiff1d(np.flatnonzero(source == 0), single))
    np.testing.assert_array_equal(measuring.measured_rows(store), labels[everything])


@pytest.mark.parametrize("options", [{"folds": 3}, {"test_fraction": 0.2}])
def test_a_test_split_is_not_drawn_beside_another(tmp_path, options):
    features, labels = blobs()
    rows = SplitData(features, labels)
    store = FeatureStore.write(tmp_path / "s.h5", train=rows, test=rows)
    with pytest.raises(UsageError, match="has a test split of its own; leave it out"):
        Measuring.of(store, HeldOutConfig(**options))
    assert Measuring.of(store, HeldOutConfig()).whole
    with pytest.raises(UsageError, match="folds, test_fraction: give one of the two"):
        HeldOutConfig(folds=3, test_fraction=0.2)


def test_rows_of_which_none_can_be_held_out(tmp_path):
    store = write(tmp_path / "s.h5", (1, 1, 1))
    with pytest.raises(InputError, match="no class of which a row could be held out"):
        Measuring.of(store, HeldOutConfig())


def run_npz(run_cli, tmp_path, *args, counts=COUNTS, status=0):
    features, labels = blobs(counts)
    np.savez(tmp_path / "emb.npz", X=features, y=labels)
    done = run_cli("run", tmp_path / "emb.npz", "--out", tmp_path / "run", "--json", *QUICK, *args)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if not status else done


def test_a_run_measures_by_folds_and_keeps_a_head_of_all_rows(run_cli, tmp_path):
    result = run_npz(run_cli, tmp_path, "--folds", "4", "--seeds", "2")
    assert {row["measured_on"] for row in result["rows"]} == {"folds"}
    assert result["unmeasured"] == ["3"]
    assert result["test_rows"] == sum(COUNTS) - 1
    assert isinstance(result["verdict"], str)
    assert result["verdict"]
    assert set(result["best"]) >= {"method", "adjustment", "all"}
    head = FinetunedHead.load(result["head"])
    assert head.counts.tolist() == list(COUNTS)
    rows = {(row["method"], row["adjustment"]): row for row in result["rows"]}
    assert rows["baseline", "none"]["all"]["mean"] > 80
    assert len(rows["baseline", "none"]["all"]["values"]) == 2
    # Nothing of the folds stays but their figures, and the same command finds all of it.
    assert not list((tmp_path / "run").glob("seed-*/measure-*/*.safetensors"))
    again = run_npz(run_cli, tmp_path, "--folds", "4", "--seeds", "2")
    assert again["rows"] == result["rows"]


def test_folds_tell_nothing_of_labels_without_meaning(run_cli, tmp_path):
    """Labels that are noise are guessed no better than by chance: no fold knows what it is tested on."""
    rng = np.random.default_rng(0)
    features, labels = (
        rng.standard_normal((120, 40)).astype(np.float32),
        np.repeat(np.arange(4), (34, 30, 30, 26)),
    )
    np.savez(tmp_path / "noise.npz", X=features, y=labels)
    done = run_cli(
        "run",
        tmp_path / "noise.npz",
        "--out",
        tmp_path / "run",
        "--json",
        *QUICK,
        "--seeds",
        "1",
        "--folds",
        "3",
    )
    assert done.returncode == 0, done.stderr
    for row in json.loads(done.stdout)["rows"]:
        assert row["all"]["mean"] < 45


def test_a_run_with_diffusion_on_a_drawn_split(run_cli, tmp_path):
    model = ("--set", "diffuse.iterations=5", "--set", "diffuse.hidden=8", "--set", "diffuse.layers=1")
    result = run_npz(
        run_cli, tmp_path, "--generator", "diffusion", "--test-fraction", "0.3", "--seeds", "1", *model
    )
    assert {row["measured_on"] for row in result["rows"]} == {"test"}
    assert result["test_rows"] == 9 + 4 + 1
    assert FinetunedHead.load(result["head"]).counts.tolist() == list(COUNTS)


def test_a_fold_that_is_balanced_itself_generates_nothing(run_cli, tmp_path):
    # Of nine and eight rows, one of two folds is left with four of each.
    result = run_npz(run_cli, tmp_path, "--folds", "2", "--seeds", "1", counts=(9, 8))
    assert [row["method"] for row in result["rows"]] == ["baseline", "baseline", "gaussian", "gaussian"]
    assert result["test_rows"] == 17


def test_a_dry_run_without_a_test_split_writes_nothing(run_cli, tmp_path):
    result = run_npz(run_cli, tmp_path, "--dry-run")
    assert [step["stage"] for step in result["steps"]] == ["measure", "measure", "generate", "finetune"]
    assert [path.name for path in tmp_path.iterdir()] == ["emb.npz"]


def test_the_text_of_a_run_says_what_was_measured_and_what_to_do_next(run_cli, tmp_path):
    write(tmp_path / "s.h5")
    done = run_cli(
        "run", tmp_path / "s.h5", "--out", tmp_path / "run", *QUICK, "--folds", "2", "--seeds", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "measured by 2 stratified folds" in done.stdout
    assert "not measured, and in no mean, as no row of them is tested: 3" in done.stdout
    *_, head, following = done.stdout.strip().split("\n")
    assert head.startswith(f"head: {tmp_path / 'run'}")
    assert following == f"next: ldmlr predict {tmp_path / 'run'} FEATURES --out predictions.csv"


def test_the_text_of_a_run_says_that_its_test_split_was_drawn(run_cli, tmp_path):
    write(tmp_path / "s.h5")
    done = run_cli(
        "run", tmp_path / "s.h5", "--out", tmp_path / "run", *QUICK, "--test-fraction", "0.3", "--seeds", "1"
    )
    assert done.returncode == 0, done.stderr
    assert "measured on 0.3 of the rows of every class, drawn as a test split" in done.stdout


def test_compare_and_ablate_measure_by_folds(run_cli, tmp_path):
    features, labels = blobs()
    np.savez(tmp_path / "emb.npz", X=features, y=labels)
    done = run_cli(
        "compare", tmp_path / "emb.npz", "--methods", "baseline,balanced-softmax,gaussian", "--folds", "3",
        "--seeds", "2", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {row["measured_on"] for row in result["rows"]} == {"folds"}
    assert result["test_rows"] == sum(COUNTS) - 1
    assert result["unmeasured"] == ["3"]
    assert all(len(row["all"]["values"]) == len(row["generated"]) == 2 for row in result["rows"])
    assert result["encoded_rows"] == sum(COUNTS)
    done = run_cli(
        "ablate", "ratio", tmp_path / "emb.npz", "--values", "0.5", "--folds", "2", "--seeds", "1", "--json",
        "--set", "diffuse.iterations=3", "--set", "diffuse.hidden=8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {row["measured_on"] for row in json.loads(done.stdout)["rows"]} == {"folds"}


def test_a_head_for_use_needs_no_test_split(run_cli, tmp_path):
    write(tmp_path / "s.h5")
    done = run_cli("finetune", tmp_path / "s.h5", "--out", tmp_path / "head", "--seeds", "2", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows"] == []
    assert FinetunedHead.load(tmp_path / "head" / "head-seed1.safetensors").counts.tolist() == list(COUNTS)


def test_classes_without_test_rows_are_named_where_means_leave_them_out(run_cli, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [30, 12, 6])
    rows = (2 * np.eye(3, 5)[labels] + rng.standard_normal((48, 5))).astype(np.float32)
    tested = labels < 2
    path = tmp_path / "s.h5"
    FeatureStore.write(
        path, train=SplitData(rows, labels), test=SplitData(rows[tested], labels[tested]),
        class_names=("ant", "bee", "cat"),
    )  # fmt: skip
    said = f"{path}: not measured, and in no mean, as no row of them is tested: cat"
    small = ("--set", "diffuse.iterations=3", "--set", "diffuse.hidden=8", "--set", "finetune.epochs=1")
    for command, more in {
        "finetune": ("--seeds", 1, "--epochs", 1),
        "compare": ("--seeds", 1, "--methods", "baseline,smote", *small),
        "run": ("--seeds", 1, *small),
    }.items():
        done = run_cli(command, path, *more, "--out", tmp_path / command, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["unmeasured"] == ["cat"]
        assert command == "run" or said in done.stderr
    head = tmp_path / "finetune" / "head-seed0.safetensors"
    done = run_cli("evaluate", path, "--head", head, "--json")
    assert json.loads(done.stdout)["unmeasured"] == ["cat"]
    assert said in done.stderr
    done = run_cli("run", path, "--seeds", 1, *small, "--out", tmp_path / "run")
    assert "measured on the test split" in done.stdout
    assert "not measured, and in no mean, as no row of them is tested: cat" in done.stdout
