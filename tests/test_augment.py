"""Stores in, balanced stores out."""

from __future__ import annotations

import json

import numpy as np
import pytest

import ldmlr
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError
from ldmlr.generation.augment import Job, augment, jobs
from ldmlr.generation.config import GenerateConfig
from ldmlr.sampler import backends as sampling
from ldmlr.store import FeatureStore, SplitData, StoredHead, verify

SMALL = DiffusionConfig(hidden=16, layers=1, iterations=20, batch_size=32)
OPTIONS = ("--hidden", 16, "--layers", 1, "--iterations", 20, "--batch-size", 32)


def make(path, counts=(40, 12, 5), ids=None, seed=0):
    """Write a store with every part a store can have."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    labels = generator.permutation(labels)
    features = (generator.standard_normal((len(labels), 4)) + 5 * labels[:, None]).astype(np.float32)
    names = {
        None: None,
        "int": np.arange(len(labels)) + 1000,
        "text": [f"img{i}" for i in range(len(labels))],
    }
    test = SplitData(generator.standard_normal((6, 4)), np.arange(6) % 3, ids=[f"t{i}" for i in range(6)])
    return FeatureStore.write(
        path,
        train=SplitData(
            features, labels, ids=names[ids], views=np.stack([features] * 2), view_kinds=("weak", "strong")
        ),
        test=test,
        val=SplitData(np.ones((2, 4)), np.array([0, 1])),
        head=StoredHead("linear", np.ones((3, 4), np.float32), np.zeros(3, np.float32)),
        class_names=("ant", "bee", "cow"),
        encoder="some network",
        config={"made": "by hand"},
    )


@pytest.mark.parametrize("ids", [None, "int", "text"])
def test_the_balanced_store_holds_everything(tmp_path, ids):
    store = make(tmp_path / "in.h5", ids=ids)
    figures = augment(Job(store.path, tmp_path / "out" / "in.h5"), SMALL, GenerateConfig(), seed=2)
    found = FeatureStore.open(tmp_path / "out" / "in.h5")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["in.h5", "in.model.safetensors"]
    assert (figures["rows"], figures["generated"]) == (57, 63)
    assert found.train.counts.tolist() == [40, 40, 40]
    assert np.array_equal(found.train.float32(slice(0, 57)), store.train.float32())
    assert np.array_equal(found.train.labels[:57], store.train.labels)
    assert found.train.source.tolist() == [0] * 57 + [1] * 63
    model = ldmlr.LatentDiffusion.load(figures["model"])
    expected = model.sample(found.train.labels[57:], seed=2, backend=figures["backend"])
    assert np.array_equal(found.train.float32(slice(57, None)), expected)
    for name in ("test", "val"):
        assert np.array_equal(found.split(name).float32(), store.split(name).float32())
        assert np.array_equal(found.split(name).labels, store.split(name).labels)
    assert list(found.test.ids) == list(store.test.ids)
    assert np.array_equal(found.head.weight, store.head.weight)
    assert (found.class_names, found.encoder) == (store.class_names, "some network")
    assert found.config["source"]["config"] == {"made": "by hand"}
    assert verify(found.path).problems == []
    expected_ids = {
        None: None,
        "int": [*range(1000, 1057), *range(1057, 1120)],
        "text": [*(f"img{i}" for i in range(57)), *(f"generated/{i}" for i in range(63))],
    }[ids]
    assert (found.train.ids is None) if expected_ids is None else list(found.train.ids) == expected_ids


def test_an_augmented_store_is_augmented_from_its_encoded_rows(tmp_path):
    store = make(tmp_path / "in.h5")
    augment(
        Job(store.path, tmp_path / "a" / "in.h5"),
        SMALL.replace(weak_views=0, strong_views=0),
        GenerateConfig(),
    )
    again = Job(tmp_path / "a" / "in.h5", tmp_path / "b" / "in.h5")
    figures = augment(again, SMALL.replace(weak_views=0, strong_views=0), GenerateConfig())
    assert (figures["rows"], figures["generated"]) == (57, 63)
    first, second = (FeatureStore.open(tmp_path / name / "in.h5") for name in "ab")
    assert np.array_equal(first.train.float32(), second.train.float32())


def test_a_full_store_is_copied(tmp_path):
    store = make(tmp_path / "in.h5", counts=(20, 20, 20))
    figures = augment(Job(store.path, tmp_path / "out" / "in.h5"), SMALL, GenerateConfig())
    assert figures["generated"] == 0
    assert FeatureStore.open(tmp_path / "out" / "in.h5").train.counts.tolist() == [20, 20, 20]


def test_resume_takes_up_where_it_stopped(tmp_path, monkeypatch):
    store = make(tmp_path / "in.h5")
    whole = Job(store.path, tmp_path / "whole" / "in.h5")
    augment(whole, SMALL, GenerateConfig())
    job = Job(store.path, tmp_path / "out" / "in.h5")

    def stop(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sampling.Sampler, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            augment(job, SMALL, GenerateConfig())
    assert job.model.exists()
    assert not job.out.exists()
    with monkeypatch.context() as patch:
        patch.setattr("ldmlr.generation.training.train", stop)  # the model is not trained again
        augment(job, SMALL, GenerateConfig(), resume=True)
    assert job.out.read_bytes() == whole.out.read_bytes()
    assert job.model.read_bytes() == whole.model.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(sampling.Sampler, "__call__", stop)
        assert augment(job, SMALL, GenerateConfig(), resume=True)["finished_before"]


def test_what_an_interrupt_left_is_not_dropped_unasked(tmp_path, run_cli):
    stores = [make(tmp_path / f"{name}.h5").path for name in "ab"]
    state = tmp_path / "out" / ".b.model.safetensors.checkpoint"
    state.parent.mkdir()
    state.write_bytes(b"of an interrupted run")
    done = run_cli("augment", *stores, "--out-dir", tmp_path / "out", *OPTIONS)
    assert done.returncode == 2
    assert f"{state}: an interrupted run left its work here" in done.stderr
    assert [path.name for path in state.parent.iterdir()] == [state.name]
    done = run_cli("augment", *stores, "--out-dir", tmp_path / "out", *OPTIONS, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert not state.exists()


def test_names_must_not_collide(tmp_path):
    with pytest.raises(UsageError, match="has the same name as"):
        jobs([tmp_path / "a" / "x.h5", tmp_path / "b" / "x.h5"], tmp_path / "out")
    with pytest.raises(UsageError, match="would be its own output"):
        jobs([tmp_path / "x.h5"], tmp_path)


# The command


def test_several_stores_in_one_call(tmp_path, run_cli):
    stores = [make(tmp_path / f"{name}.h5", seed=n).path for n, name in enumerate("ab")]
    out = tmp_path / "out"
    done = run_cli("augment", *stores, "--out-dir", out, *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [entry["generated"] for entry in result["stores"]] == [63, 63]
    assert json.loads((out / "result.json").read_text()) == result
    for name in "ab":
        assert FeatureStore.open(out / f"{name}.h5").train.counts.tolist() == [40, 40, 40]
    (out / "b.h5").unlink()
    stamp = (out / "a.h5").stat().st_mtime_ns
    again = run_cli("augment", *stores, "--out-dir", out, *OPTIONS, "--resume")
    assert again.returncode == 0, again.stderr
    assert "a.h5: this store is finished" in again.stderr
    assert "b.h5: this store is finished" not in again.stderr
    assert (out / "a.h5").stat().st_mtime_ns == stamp
    assert FeatureStore.open(out / "b.h5").train.counts.tolist() == [40, 40, 40]
    # What the first store took is still known.
    before, after = result["stores"][0], json.loads((out / "result.json").read_text())["stores"][0]
    assert after == {**before, "finished_before": True}
    assert after["train_seconds"] > 0


def test_nothing_is_started_if_one_output_exists(tmp_path, run_cli):
    stores = [make(tmp_path / f"{name}.h5").path for name in "ab"]
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.h5").write_text("mine")
    done = run_cli("augment", *stores, "--out-dir", out, *OPTIONS)
    assert done.returncode == 2
    assert "b.h5: already exists" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["b.h5"]
    done = run_cli("augment", *stores, "--out-dir", out, *OPTIONS, "--overwrite")
    assert done.returncode == 0, done.stderr


def test_a_dry_run_shows_every_plan(tmp_path, run_cli):
    stores = [make(tmp_path / f"{name}.h5").path for name in "ab"]
    done = run_cli("augment", *stores, "--out-dir", tmp_path / "out", "--dry-run", "--strategy", "few")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("cow") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--gate", "prototype", "--transform", "standardised"), "of a whitened model"),
        (("--class-scale", "zz=2"), "names the class 'zz', which is not there"),
        (("--label-dropout", 0, "--guidance", 2), "with --label-dropout 0"),
        (("--weights", "int8", "--backend", "reference"), "it has no int8 weights"),
    ],
)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_does_not_fit_is_told_before_the_training(tmp_path, run_cli, args, message, dry):
    store = make(tmp_path / "a.h5").path
    done = run_cli("augment", store, "--out-dir", tmp_path / "out", *args, *dry)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_judge_and_rows_of_every_class_are_needed_before_the_training(tmp_path, run_cli):
    store = FeatureStore.open(make(tmp_path / "a.h5").path)
    train = SplitData(store.train.float32(), store.train.labels)
    FeatureStore.write(tmp_path / "bare.h5", train=train)
    FeatureStore.write(tmp_path / "gap.h5", train=train, num_classes=4)
    done = run_cli("augment", tmp_path / "bare.h5", "--gate", "head", "--out-dir", tmp_path / "out")
    assert "has no head to judge rows by; use --gate prototype" in done.stderr
    for dry in ((), ("--dry-run",)):
        done = run_cli("augment", tmp_path / "gap.h5", "--out-dir", tmp_path / "out", *dry)
        assert (done.returncode, "1 of 4 classes have no encoded row" in done.stderr) == (1, True)
    assert not (tmp_path / "out").exists()


def test_a_store_that_cannot_be_read_does_not_stop_the_others(tmp_path, run_cli):
    good = make(tmp_path / "a.h5").path
    (tmp_path / "b.h5").write_bytes(b"not HDF5")
    done = run_cli("augment", good, tmp_path / "b.h5", "--out-dir", tmp_path / "out", *OPTIONS)
    assert done.returncode == 1
    assert "b.h5" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "Error: 1 of 2 stores failed, the others are finished"
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5")) == ["a.h5"]


def test_a_class_with_one_row_is_filled_too(tmp_path, run_cli):
    store = make(tmp_path / "a.h5", counts=(30, 10, 1)).path
    done = run_cli("augment", store, "--out-dir", tmp_path / "out", *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert FeatureStore.open(tmp_path / "out" / "a.h5").train.counts.tolist() == [30, 30, 30]
