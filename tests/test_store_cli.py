"""``ldmlr store`` as a user calls it."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from ldmlr.store import FeatureStore, SplitData, StoredHead, shard_name

RNG = np.random.default_rng(0)


@pytest.fixture
def path(tmp_path):
    counts = [150, 30, 6]  # the last three generated
    labels = np.repeat(np.arange(3), counts)
    FeatureStore.write(
        tmp_path / "store.h5", train=SplitData(RNG.random((186, 4)), labels, source=np.arange(186) >= 183),
        test=SplitData(RNG.random((6, 4)), np.arange(6) % 3), class_names=["ant", "bee", "cat"],
        head=StoredHead("linear", RNG.random((3, 4)).astype("f4"), np.zeros(3, "f4")), encoder="resnet32",
    )  # fmt: skip
    return tmp_path / "store.h5"


def fails(outcome, status, *expected):
    assert outcome.returncode == status
    assert outcome.stdout == ""
    assert "Traceback" not in outcome.stderr
    lines = outcome.stderr.strip().splitlines()
    assert lines[-1].startswith("Error: ")
    for text in expected:
        assert text in lines[-1]


def test_inspect_shows_what_a_store_holds(run_cli, path):
    shown = run_cli("store", "inspect", path)
    assert shown.returncode == 0
    for text in (
        "train   186    4  float32            150      30         6          3", "3 (ant, bee, cat)",
        "1 many, 1 medium, 1 few", "imbalance factor  50", "linear 3 x 4", "resnet32",
    ):  # fmt: skip
        assert text in shown.stdout, shown.stdout
    result = json.loads(run_cli("store", "inspect", path, "--json").stdout)
    assert result["command"] == "store inspect"
    assert result["splits"]["train"]["counts"] == [150, 30, 6]
    assert result["groups"] == {"many": 1, "medium": 1, "few": 1}
    assert result["imbalance_factor"] == 50
    assert result["head"] == {"kind": "linear", "shape": [3, 4], "bias": True, "extra": []}


def test_inspect_of_another_layout_and_of_a_bad_file(run_cli, path, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"], file["y"] = np.ones((3, 2)), [0, 2, 2]
    shown = run_cli("store", "inspect", tmp_path / "other.h5", "--features-key", "x", "--labels-key", "y")
    assert shown.returncode == 0
    assert "- (a class has no encoded row)" in shown.stdout
    assert "plain file" in shown.stdout
    fails(run_cli("store", "inspect", tmp_path / "other.h5"), 1, "other.h5", "--features-key")
    fails(
        run_cli("store", "inspect", tmp_path / "gone.h5"), 1, "gone.h5: no such feature store; check the path"
    )
    assert run_cli("store", "inspect").returncode == 2
    assert run_cli("store", "inspekt", path).returncode == 2
    assert run_cli("store", "inspect", path, "--jsn").returncode == 2


def test_verify_names_every_problem_and_exits_with_1(run_cli, path, tmp_path):
    good = run_cli("store", "verify", path)
    assert (good.returncode, good.stderr) == (0, "")
    assert "store.h5: sound, 8 datasets read" in good.stdout
    bad = tmp_path / "bad.h5"
    bad.write_bytes(path.read_bytes())
    with h5py.File(bad, "r+") as file:
        file["train/features"][5, 0] = np.nan
        file["test/labels"][0] = 7
    found = run_cli("store", "verify", path, bad)
    assert found.returncode == 1
    assert "/train/features: rows with NaN or infinity: 1, the first is row 5" in found.stderr
    assert "/test/labels: labels outside 0 .. 2: 1, the first is 7 in row 0" in found.stderr
    assert "store.h5: sound" in found.stdout
    result = json.loads(run_cli("store", "verify", bad, "--json").stdout)
    assert result["ok"] is False
    assert len(result["problems"]) == 4
    fails(run_cli("store", "verify", tmp_path / "gone.h5"), 1, "gone.h5: no such feature store")


def test_import_export_and_merge(run_cli, path, tmp_path):
    np.save(tmp_path / "x.npy", RNG.random((9, 4)))
    np.save(tmp_path / "y.npy", np.arange(9) % 3 + 1)
    out = tmp_path / "imported.h5"
    again = ("store", "import", tmp_path / "x.npy", tmp_path / "y.npy", "--out", out)
    done = run_cli(*again, "--dtype", "float16")
    assert done.returncode == 0
    assert "Note: labels 1, 2, 3 became classes 0 .. 2; the class names hold" in done.stderr
    assert "float16" in done.stdout
    fails(run_cli(*again), 2, "imported.h5: already exists; name another output or pass --overwrite")
    assert run_cli(*again, "--overwrite", "--num-classes", 4, "--encoder", "net").returncode == 0
    assert FeatureStore.open(out).train.counts.tolist() == [0, 3, 3, 3]
    done = run_cli("store", "export", path, "--out", tmp_path / "all.npz", "--json")
    assert json.loads(done.stdout)["files"] == [str(tmp_path / "all.npz")]
    done = run_cli("store", "export", path, "--out", tmp_path / "t.npy", "--split", "test")
    assert done.stdout.split() == [
        "wrote",
        str(tmp_path / "t-features.npy"),
        "wrote",
        str(tmp_path / "t-labels.npy"),
    ]
    fails(run_cli("store", "export", path, "--out", tmp_path / "all.csv"), 2, "names no form")
    done = run_cli("store", "import", tmp_path / "all.npz", "--out", tmp_path / "back.h5", "--json")
    assert json.loads(done.stdout)["splits"]["train"]["rows"] == 186
    done = run_cli("store", "merge", path, tmp_path / "back.h5", "--out", tmp_path / "both.h5")
    assert done.returncode == 0
    assert "Note: /test is the same in 2 stores and is kept once" in done.stderr
    assert len(FeatureStore.open(tmp_path / "both.h5").train) == 372
    fails(run_cli("store", "merge", path, out, "--out", tmp_path / "no.h5"), 1, "num_classes is 4, but 3")
    assert not (tmp_path / "no.h5").exists()


def test_merge_says_how_to_leave_different_heads_out(run_cli, tmp_path):
    data = SplitData(np.ones((3, 2)), np.arange(3))
    for number in (1, 2):
        head = StoredHead("linear", np.full((3, 2), number, np.float32))
        FeatureStore.write(tmp_path / f"{number}.h5", train=data, head=head)
    merge = ("store", "merge", tmp_path / "1.h5", tmp_path / "2.h5", "--out", tmp_path / "both.h5")
    fails(run_cli(*merge), 1, f"differs from that of {tmp_path / '1.h5'}; pass --no-head, or merge stores")
    assert run_cli(*merge, "--no-head").returncode == 0
    assert FeatureStore.open(tmp_path / "both.h5").head is None


def test_merge_writes_a_manifest_of_shards(run_cli, tmp_path):
    for shard in range(2):
        data = SplitData(RNG.random((5, 2)), np.arange(5) % 3)
        FeatureStore.write(shard_name(tmp_path / "pseudo", shard, 2), train=data)
    shards = sorted(tmp_path.glob("pseudo-*"))
    done = run_cli("store", "merge", *shards, "--out", tmp_path / "pseudo.json")
    assert done.returncode == 0, done.stderr
    assert "in 2 shards" in done.stdout
    assert run_cli("store", "verify", tmp_path / "pseudo.json").returncode == 0
    shards[1].unlink()
    fails(run_cli("store", "inspect", tmp_path / "pseudo.json"), 1, "pseudo-00001-of-00002.h5: this shard of")
    assert run_cli("store", "verify", tmp_path / "pseudo.json").returncode == 1
    fails(run_cli("store", "merge", shards[0], "--out", tmp_path / "x.json", "--no-head"), 2, "--no-head")


def test_options_may_come_from_a_file(run_cli, path, tmp_path):
    (tmp_path / "options.toml").write_text('split = "test"\nout = "from-file.npz"\n')
    done = run_cli(
        "store", "export", path, "--config", tmp_path / "options.toml", "--out", tmp_path / "mine.npz"
    )
    assert done.returncode == 0
    with np.load(tmp_path / "mine.npz") as arrays:
        assert "train_features" not in arrays
        assert len(arrays["test_features"]) == 6
    (tmp_path / "options.toml").write_text('spilt = "test"\n')
    done = run_cli(
        "store", "export", path, "--config", tmp_path / "options.toml", "--out", tmp_path / "no.npz"
    )
    fails(done, 2, "unknown key 'spilt'; did you mean 'split'?")


@pytest.mark.parametrize("command", ["inspect", "verify", "import", "export", "merge"])
def test_help_has_an_example(run_cli, command):
    shown = run_cli("store", command, "--help")
    assert shown.returncode == 0
    assert f"ldmlr store {command}" in shown.stdout
    assert "Example:" in shown.stdout


@pytest.mark.data
def test_the_published_stores(run_cli, data_dir, tmp_path):
    source = data_dir / "cifar100-lt-if100-features.h5"
    shown = run_cli("store", "inspect", source)
    assert "100 (apple, aquarium_fish, baby, bear, ...)" in shown.stdout
    assert "35 many, 35 medium, 30 few" in shown.stdout
    assert run_cli("store", "import", source, "--out", tmp_path / "c.h5").returncode == 0
    verified = run_cli("store", "verify", tmp_path / "c.h5")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_verify_goes_on_after_a_file_that_is_missing(run_cli, path, tmp_path):
    gone = tmp_path / "gone.h5"
    done = run_cli("store", "verify", gone, path, tmp_path / "no.h5")
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("Error")] == [
        f"Error: {gone}: no such feature store; check the path",
        f"Error: {tmp_path / 'no.h5'}: no such feature store; check the path",
    ]
    assert done.stdout == f"{path}: sound, 8 datasets read\n"


def test_verify_of_another_layout(run_cli, tmp_path, path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"], file["y"] = np.ones((3, 2), "f4"), [0, 1, 1]
    keys = ("--features-key", "x", "--labels-key", "y")
    for more in ((), ("--untrusted",)):
        done = run_cli("store", "verify", other, *keys, *more)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{other}: sound, 2 datasets read\n"
    with h5py.File(other, "a") as file:
        file["x"][1, 1] = np.nan
    done = run_cli("store", "verify", other, *keys, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["config"]["features_key"] == "x"
    assert len(found["problems"]) == 1
    assert f"{other}: /x: " in found["problems"][0]
    assert run_cli("store", "merge", path, "--out", tmp_path / "all.json").returncode == 0
    done = run_cli("store", "verify", tmp_path / "all.json", "--features-key", "x")
    assert done.returncode == 1
    assert "--features-key: " in done.stderr
    assert "the shards of a manifest are stores; leave it out" in done.stderr
