"""``ldmlr generate`` as a user calls it: the plan, shards, and every mistake in one line."""

from __future__ import annotations

import json

import pytest
from support.models import three_blobs

from ldmlr.errors import InputError
from ldmlr.generation import parts
from ldmlr.sampler import backends as sampling
from ldmlr.store import FeatureStore, shard_name

COUNTS = (200, 60, 9)
NAMES = ("ant", "bee", "cow")


@pytest.fixture(scope="module")
def model():
    return three_blobs(COUNTS, hidden=16, iterations=20, batch_size=64, fit={"class_names": NAMES})


@pytest.fixture(scope="module")
def model_file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    model.save(path)
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "ROW_MULTIPLE", 50)


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_command_writes_a_store_and_a_result(model_file, tmp_path, run_cli):
    out = tmp_path / "pseudo.h5"
    done = run_cli("generate", model_file, "--out", out, "--strategy", "ratio", "--only", "medium", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows"] == 12
    assert result["backend"] in sampling.BACKENDS
    assert [entry["generated"] for entry in result["plan"]] == [0, 12, 0]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert len(FeatureStore.open(out).train) == 12
    again = run_cli("generate", model_file, "--out", out)
    assert again.returncode == 2
    assert "already exists" in again.stderr


def test_a_dry_run_shows_the_plan_and_writes_nothing(model_file, tmp_path, run_cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_cli("generate", model_file, "--dry-run", "--count", "bee=5", "--count", "2=1")
    assert done.returncode == 0, done.stderr
    assert [line.split()[:5] for line in done.stdout.splitlines()[2:5]] == [
        ["ant", "0", "many", "200", "0"],
        ["bee", "1", "medium", "60", "5"],
        ["cow", "2", "few", "9", "1"],
    ]
    assert left_in(tmp_path) == []


def test_a_plan_from_a_file(model_file, tmp_path, run_cli):
    config = tmp_path / "plan.toml"
    config.write_text('[generate]\ncount = ["bee=2", "cow=3"]\nsteps = 4\nsolver = "heun"\n')
    done = run_cli("generate", model_file, "--out", tmp_path / "p.h5", "--config", config)
    assert done.returncode == 0, done.stderr
    store = FeatureStore.open(tmp_path / "p.h5")
    assert store.train.counts.tolist() == [0, 2, 3]
    assert store.config["generate"]["solver"] == "heun"


def test_shards_by_command(model_file, tmp_path, run_cli):
    for index in (0, 1):
        done = run_cli("generate", model_file, "--out", tmp_path / "p.h5", "--shard", f"{index}/2")
        assert done.returncode == 0, done.stderr
        assert ("manifest follows" in done.stderr) == (index == 0)
        assert (f"{tmp_path / 'p.json'}: names all 2 shards" in done.stderr) == (index == 1)
    with pytest.raises(InputError, match=r"p\.h5: no such feature store, but shards of it; .*p\.json"):
        FeatureStore.open(tmp_path / "p.h5")
    assert shard_name(tmp_path / "p.h5", 1, 2).exists()
    assert len(FeatureStore.open(tmp_path / "p.json").train) == 331


def test_a_shard_of_other_settings_keeps_the_manifest_back(model_file, tmp_path, run_cli):
    for index in range(2):
        run_cli("generate", model_file, "--out", tmp_path / "p.h5", "--shard", f"{index}/2")
    assert (tmp_path / "p.json").exists()
    other = ("generate", model_file, "--out", tmp_path / "p.h5", "--seed", 3, "--overwrite", "--shard")
    done = run_cli(*other, "0/2")
    last = shard_name(tmp_path / "p.h5", 1, 2)
    assert f"no manifest, because {last} is of other settings: write it again with --overwrite" in done.stderr
    assert not (tmp_path / "p.json").exists()
    assert "of other settings" not in run_cli(*other, "1/2").stderr
    assert len(FeatureStore.open(tmp_path / "p.json").train) == 331


def test_a_plan_as_a_table_of_a_file(model_file, tmp_path, run_cli):
    config = tmp_path / "plan.toml"
    config.write_text("[generate.count]\nbee = 2\ncow = 3\n")
    done = run_cli("generate", model_file, "--dry-run", "--config", config, "--json")
    assert done.returncode == 0, done.stderr
    assert [entry["generated"] for entry in json.loads(done.stdout)["plan"]] == [0, 2, 3]


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        ((), 2, "--out"),
        (("--out", "p.h5", "--strategy", "blance"), 2, "did you mean 'balance'"),
        (("--out", "p.h5", "--target", "5"), 2, "generates no rows"),
        (("--out", "p.h5", "--count", "dog=5"), 2, "'dog', which is not there"),
        (("--out", "p.h5", "--count", "bee=0"), 2, "--count asks for none; ask for at least one"),
        (("--out", "p.h5", "--count", "bee=1", "--strategy", "few"), 2, "takes the place of --strategy few"),
        (("--out", "p.h5", "--ratio", "0.5"), 2, "--ratio: only --strategy ratio uses it; leave it out"),
        (("--out", "p.h5", "--minimum", "2"), 2, "--minimum: only --strategy ratio uses it; leave it out"),
        (("--out", "p.h5", "--shard", "2/2"), 2, "--shard"),
        (("--out", "p.h5", "--solver", "heun", "--eta", "0.5"), 2, "--eta"),
        (("--out", "p.h5", "--backend", "cuda"), 2, "--backend"),
        (("--out", "p.h5", "--store", "none.h5"), 1, "none.h5: no such"),
    ],
)
def test_the_command_fails_in_one_line(model_file, tmp_path, run_cli, monkeypatch, options, status, message):
    monkeypatch.chdir(tmp_path)
    done = run_cli("generate", model_file, *options)
    assert done.returncode == status
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert left_in(tmp_path) == []


def test_a_file_that_is_no_model(tmp_path, run_cli):
    (tmp_path / "m.safetensors").write_bytes(b"x" * 100)
    done = run_cli("generate", tmp_path / "m.safetensors", "--out", tmp_path / "p.h5")
    assert done.returncode == 1
    assert "not a safetensors file, or damaged" in done.stderr
    assert left_in(tmp_path) == ["m.safetensors"]
    (tmp_path / "trees.csv").write_text("a,b\n1,2\n")
    done = run_cli("generate", tmp_path / "trees.csv", "--out", tmp_path / "p.h5")
    assert done.stderr == (
        f"Error: {tmp_path / 'trees.csv'}: is no model file; a diffusion model is a .safetensors file, and "
        "ldmlr diffuse makes it\n"
    )
    (tmp_path / "trees.csv").unlink()
    done = run_cli("generate", tmp_path, "--out", tmp_path / "p.h5")
    expected = f"Error: {tmp_path}: is a folder where a model file is expected; name the file\n"
    assert (done.returncode, done.stderr) == (1, expected)
