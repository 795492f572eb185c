"""``ldmlr finetune``: heads, table and result, and one line for what is wrong."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from support.axes import COUNTS, draw
from support.stage3 import accuracy_of, write_stores

import ldmlr
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.store import FeatureStore, SplitData


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_stores(tmp_path_factory.mktemp("stores"))


def test_generated_rows_that_are_missing_leave_no_copy_of_the_features(run_cli, tmp_path):
    source = tmp_path / "rows.npz"
    np.savez(source, features=np.eye(6, 3, dtype=np.float32), labels=[0, 0, 0, 0, 1, 1])
    done = run_cli("finetune", source, "--pseudo", tmp_path / "gone.h5", "--out", tmp_path / "heads")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error: {tmp_path / 'gone.h5'}: no such feature store; check the path\n"
    assert not (tmp_path / "heads").exists()


def test_command_writes_heads_table_and_result(run_cli, folder, tmp_path):
    out = tmp_path / "run"
    args = [
        "finetune", folder / "features.h5", "--pseudo", folder / "pseudo.h5",
        "--seeds", 2, "--epochs", 3, "--out", out,
    ]  # fmt: skip
    outcome = run_cli(*args)
    assert outcome.returncode == 0, outcome.stderr
    titles = [line.split("  ")[0] for line in outcome.stdout.splitlines()[2:]]
    assert titles == ["baseline", "baseline + label-shift", "ldmlr", "ldmlr + label-shift"]
    result = json.loads((out / "result.json").read_text())
    assert [(row["method"], row["adjustment"]) for row in result["rows"]] == [
        ("baseline", "none"), ("baseline", "label-shift"), ("ldmlr", "none"), ("ldmlr", "label-shift")
    ]  # fmt: skip
    ldmlr_row = result["rows"][2]
    assert len(ldmlr_row["all"]["values"]) == 2
    assert ldmlr_row["all"]["mean"] == pytest.approx(np.mean(ldmlr_row["all"]["values"]))
    assert ldmlr_row["all"]["std"] == pytest.approx(np.std(ldmlr_row["all"]["values"], ddof=1))
    assert result["selection"] == "last epoch"
    assert result["seeds"] == [0, 1]
    assert result["config"]["epochs"] == 3
    assert result["groups"] == {"many": 1, "medium": 1, "few": 1}
    features, labels = draw((100, 100, 100), seed=3)
    tuned = FinetunedHead.load(out / "head-seed1.safetensors")
    assert 100 * accuracy_of(tuned.logits(features), labels) == pytest.approx(ldmlr_row["all"]["values"][1])
    refused = run_cli(*args)
    assert refused.returncode == 2
    assert "already exists" in refused.stderr
    assert run_cli(*args, "--overwrite").returncode == 0


@pytest.mark.parametrize(("name", "mix"), [("features.h5", 0.5), ("headless.h5", 1.0)])
def test_rows_of_a_foreign_encoder_are_not_mixed(run_cli, folder, tmp_path, name, mix):
    outcome = run_cli(
        "finetune", folder / name, "--pseudo", folder / "pseudo.h5", "--seeds", 1, "--epochs", 1,
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    assert [head["mix"] for head in json.loads(outcome.stdout)["heads"]] == [mix]
    own = ldmlr.finetune(folder / name, folder / "pseudo.h5", epochs=1)
    assert own.config == FinetunedHead.load(tmp_path / "run" / "head-seed0.safetensors").config


def test_command_prints_the_document_and_takes_groups(run_cli, folder, tmp_path):
    outcome = run_cli(
        "finetune", folder / "balanced.h5", "--seeds", 1, "--epochs", 1, "--groups", "300,100",
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stderr
    document = json.loads(outcome.stdout)
    assert document["rows"][0]["many"] is None
    assert document["rows"][0]["few"]["mean"] >= 0
    assert document["generated_rows"] == [408]
    assert document == json.loads((tmp_path / "run" / "result.json").read_text())


def test_command_without_head_and_without_generated_rows_says_so(run_cli, folder, tmp_path):
    outcome = run_cli(
        "finetune", folder / "headless.h5", "--seeds", 2, "--epochs", 1, "--out", tmp_path / "run", "--json"
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "no generated rows" in outcome.stderr
    assert "has no head" in outcome.stderr
    document = json.loads(outcome.stdout)
    assert [row["method"] for row in document["rows"]] == ["baseline"] * 2 + ["finetuned"] * 2
    assert document["baseline_head"] == "fitted"
    assert len(document["rows"][0]["all"]["values"]) == 2


def test_select_on_test_says_so_everywhere(run_cli, folder, tmp_path):
    base = ["finetune", folder / "balanced.h5", "--seeds", 1, "--epochs", 6, "--out"]
    last = json.loads(run_cli(*base, tmp_path / "last", "--json").stdout)
    best = run_cli(*base, tmp_path / "best", "--select-on-test")
    assert best.stdout.startswith("Selection: best epoch on the test set")
    document = json.loads((tmp_path / "best" / "result.json").read_text())
    assert "only to compare" in document["selection"]
    for at in (2, 3):
        assert document["rows"][at]["all"]["mean"] >= last["rows"][at]["all"]["mean"]
        assert 1 <= document["rows"][at]["epochs"][0] <= 6
    tuned = FinetunedHead.load(tmp_path / "best" / "head-seed0.safetensors")
    assert "test set" in tuned.selection
    features, labels = draw((100, 100, 100), seed=3)
    mean = document["rows"][2]["all"]["mean"]
    assert 100 * accuracy_of(tuned.logits(features), labels) == pytest.approx(mean)
    page = run_cli("report", tmp_path / "best", "--json")
    assert page.returncode == 0, page.stderr
    assert "has changed since" not in page.stdout
    shown = run_cli(
        "evaluate", folder / "balanced.h5", "--head", tmp_path / "best" / "head-seed0.safetensors"
    )
    assert "best epoch on the test set" in shown.stdout


def test_command_names_what_is_wrong(run_cli, folder, tmp_path):
    def failure(*args):
        outcome = run_cli("finetune", *args, "--out", tmp_path / "run")
        assert not list(tmp_path.glob("run/*")), "something was left behind"
        assert outcome.stdout == ""
        assert len(outcome.stderr.strip().splitlines()) == 1
        return outcome.returncode, outcome.stderr

    status, message = failure(folder / "no-test.h5", "--select-on-test")
    assert (status, "has no split 'test'" in message, "no-test.h5" in message) == (1, True, True)
    wide = SplitData(np.ones((4, 9)), np.arange(4), source=np.ones(4, np.uint8))
    FeatureStore.write(tmp_path / "wide.h5", train=wide, num_classes=4)
    status, message = failure(folder / "features.h5", "--pseudo", tmp_path / "wide.h5")
    assert status == 1
    assert "wide.h5: features have 9 dimensions" in message
    assert "features.h5 has 6" in message
    four = SplitData(np.ones((4, 6)), np.arange(4), source=np.ones(4, np.uint8))
    FeatureStore.write(tmp_path / "four.h5", train=four, num_classes=4)
    status, message = failure(folder / "features.h5", "--pseudo", tmp_path / "four.h5")
    assert status == 1
    assert "four.h5: has 4 classes" in message
    assert "features.h5 has 3" in message
    plain = SplitData(*draw(COUNTS), source=np.zeros(312, np.uint8))
    FeatureStore.write(tmp_path / "plain.h5", train=plain)
    status, message = failure(folder / "features.h5", "--pseudo", tmp_path / "plain.h5")
    assert (status, "has no generated row" in message) == (1, True)
    # The same file twice, generated rows or a plain file without a source: its rows would count twice.
    (tmp_path / "link.h5").symlink_to(folder / "balanced.h5")
    status, message = failure(folder / "balanced.h5", "--pseudo", tmp_path / "link.h5")
    assert (status, "link.h5: is the store itself; give the output of generate" in message) == (1, True)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        for split in ("train", "test"):
            file[f"{split}/features"], file[f"{split}/labels"] = draw(COUNTS)
    status, message = failure(tmp_path / "bare.h5", "--pseudo", tmp_path / "bare.h5")
    assert (status, "bare.h5: is the store itself" in message) == (1, True)
    pseudo = ["--pseudo", folder / "pseudo.h5"]
    status, message = failure(folder / "features.h5", *pseudo, *pseudo, "--seeds", 3)
    assert (status, "one per seed (3), not 2" in message) == (2, True)
    status, message = failure(tmp_path / "absent.h5")
    assert (status, "absent.h5" in message) == (1, True)
    assert failure(folder / "features.h5", "--groups", "paper")[0] == 2


def test_options_come_from_a_file(run_cli, folder, tmp_path):
    toml = tmp_path / "run.toml"
    toml.write_text('[finetune]\nepochs = 2\nhead = "cosine"\nseeds = 1\n')
    out = tmp_path / "run"
    outcome = run_cli("finetune", folder / "balanced.h5", "--config", toml, "--out", out, "--json")
    assert outcome.returncode == 0, outcome.stderr
    config = json.loads(outcome.stdout)["config"]
    assert (config["epochs"], config["head"], config["seeds"]) == (2, "cosine", 1)
    toml.write_text("[finetune]\nepoch = 2\n")
    outcome = run_cli("finetune", folder / "balanced.h5", "--config", toml, "--out", tmp_path / "other")
    assert outcome.returncode == 2
    assert "did you mean 'epochs'" in outcome.stderr


def test_the_size_of_a_batch_has_the_name_it_has_everywhere(run_cli):
    assert FinetuneConfig.from_mapping({"batch": 64}) == FinetuneConfig(batch_size=64)
    text = run_cli("finetune", "--help").stdout
    assert "--batch-size" in text
    assert "--batch " not in text
    # Commands of before go on to work: what is missing is the store, not the option.
    done = run_cli("finetune", "nowhere.h5", "--batch", 64, "--out", "nowhere")
    assert "nowhere.h5" in done.stderr
    assert "--batch" not in done.stderr
