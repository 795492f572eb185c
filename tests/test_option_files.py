"""Options from a TOML file: every option is a key, and a value of another type is refused."""

from __future__ import annotations

import importlib
import json
import shlex

import numpy as np
import pytest

from ldmlr.store import FeatureStore, SplitData


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("store") / "rows.h5"
    labels = np.repeat([0, 1], [30, 12])
    train = SplitData(rng.standard_normal((42, 4)).astype(np.float32) + labels[:, None], labels)
    FeatureStore.write(path, train=train, test=train)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden = 8.5", "hidden: expected a whole number, not 8.5"),
        ("hidden = true", "hidden: expected a whole number, not True"),
        ("hidden = '8'", "hidden: expected a whole number, not '8'"),
        ("lr = false", "lr: expected a number, not False"),
        ("out = 3", "out: expected a text, not 3"),
        ("network = 3", "network: expected a text, not 3"),
        ("resume = 1", "resume: expected true or false, not 1"),
        ("device = true", "device: expected a text or a number, not True"),
        ("hidden = [8, 16]", "hidden: expected a whole number, not [8, 16]"),
        ("config = 'other.toml'", "unknown key 'config'"),
    ],
)
@pytest.mark.parametrize("table", ["", "[diffuse]\n"])
def test_a_value_of_another_type_is_refused(run_cli, store, tmp_path, text, message, table):
    file = tmp_path / "options.toml"
    file.write_text(table + text)
    done = run_cli("diffuse", store, "--out", tmp_path / "m.safetensors", "--config", file)
    where = f"Error: {file}: {'[diffuse] ' if table else ''}"
    assert done.returncode == 2
    assert done.stderr.startswith(where + message), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["options.toml"]


def test_a_stage_that_is_no_table_is_refused(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("diffuse = 3")
    done = run_cli("diffuse", store, "--out", tmp_path / "m.safetensors", "--config", file)
    assert (done.returncode, done.stderr) == (2, f"Error: {file}: diffuse: expected a table, not 3\n")


def test_augment_reads_the_tables_of_its_stages(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text(
        "seed = 3\nhidden = 4\n[diffuse]\nhidden = 8\niterations = 5\nout = 'm.safetensors'\nseed = 9\n"
        "[generate]\ntarget = 35\nsteps = 3\n[augment]\nsteps = 4\n"
    )
    done = run_cli("augment", store, "--out-dir", tmp_path / "out", "--config", file, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["config"]["diffuse"]["hidden"], result["config"]["diffuse"]["iterations"]) == (8, 5)
    assert (result["config"]["generate"]["target"], result["config"]["generate"]["steps"]) == (35, 4)
    assert (result["config"]["seed"], result["stores"][0]["generated"]) == (3, 28)
    for text, message in (
        ("[diffuse]\nhiden = 8", "[diffuse] unknown key 'hiden'; did you mean 'hidden'?"),
        ("[generate]\nhidden = 8", "[generate] unknown key 'hidden'"),
        ("[generate]\nsteps = 8.5", "[generate] steps: expected a whole number, not 8.5"),
        ("generate = 3", "generate: expected a table, not 3"),
    ):
        file.write_text(text)
        refused = run_cli("augment", store, "--out-dir", tmp_path / "no", "--config", file)
        assert (refused.returncode, refused.stderr.startswith(f"Error: {file}: {message}")) == (2, True)


def test_every_command_may_have_a_table_of_its_own(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("[import]\nencoder = 'some network'\n")
    done = run_cli("store", "import", store, "--out", tmp_path / "new.h5", "--config", file)
    assert done.returncode == 0, done.stderr
    assert FeatureStore.open(tmp_path / "new.h5").encoder == "some network"
    wrong = run_cli("store", "merge", store, "--out", tmp_path / "other.h5", "--config", file)
    assert (wrong.returncode, "unknown table [import]" in wrong.stderr) == (2, True), wrong.stderr


def test_a_whole_number_may_be_written_with_a_point(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("hidden = 16.0\nlr = 1\njson = true\ndry-run = true\n")
    done = run_cli("diffuse", store, "--out", tmp_path / "m.safetensors", "--config", file)
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert (config["hidden"], config["lr"]) == (16, 1.0)


def test_flags_are_the_keys_whatever_the_parameter_is_called(run_cli, store, tmp_path):
    table = tmp_path / "table.csv"
    file = tmp_path / "options.toml"
    file.write_text(
        f"methods = 'baseline,balanced-softmax'\nseeds = 1\ncsv = '{table}'\n"
        "set = 'finetune.epochs=1'\njson = true\n"
    )
    done = run_cli("compare", store, "--config", file)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["config"]["finetune"]["epochs"] == 1
    assert table.read_text().startswith("method,")


def test_a_list_may_be_one_value_a_list_or_a_table(run_cli, store, tmp_path):
    model = tmp_path / "m.safetensors"
    done = run_cli("diffuse", store, "--out", model, "--hidden", 8, "--layers", 1, "--iterations", 2)
    assert done.returncode == 0, done.stderr
    for text in ("count = '1=5'", "count = ['1=5']", "[count]\n1 = 5"):
        (tmp_path / "plan.toml").write_text(text)
        shown = run_cli("generate", model, "--dry-run", "--json", "--config", tmp_path / "plan.toml")
        assert shown.returncode == 0, shown.stderr
        assert [entry["generated"] for entry in json.loads(shown.stdout)["plan"]] == [0, 5]


def test_a_run_file_has_the_flags_of_the_command(run_cli, store, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text(f"source = '{store}'\nout = 'run'\nseeds = 1\njson = true\ndry-run = true\n")
    done = run_cli("run", file)
    assert done.returncode == 0, done.stderr
    assert [step["stage"] for step in json.loads(done.stdout)["steps"]] == ["diffuse", "generate", "finetune"]
    file.write_text(f"source = '{store}'\njson = 1\n")
    refused = run_cli("run", file)
    assert (refused.returncode, refused.stderr) == (
        2,
        f"Error: {file}: json: expected true or false, not 1\n",
    )
    # A file of a run serves the commands of its stages, which have the same flags.
    file.write_text("json = true\ndry-run = true\nseeds = 1\n")
    assert json.loads(run_cli("diffuse", store, "--out", tmp_path / "m", "--config", file).stdout)["dry_run"]


@pytest.mark.parametrize("command", [("run",), ("compare",), ("ablate", "ratio")])
@pytest.mark.parametrize(
    ("text", "assigned", "where", "message"),
    [
        ("[diffuse]\nhidden = 8", "diffuse.hiden=9", "--set", "[diffuse]: unknown key 'hiden'; did you"),
        ("[diffuse]\nhidden = 8", "diffuse.hidden=0", "--set", "[diffuse]: hidden: must be at least 1"),
        ("[finetune]\ntau = 2.0\nloss = 'logit-adjustment'", "finetune.loss=ldam", "--set", "[finetune]: "),
        ("[generate]\ngate_confidence = 0", "diffuse.layers=1", "FILE", "[generate]: gate_confidence: "),
        ("[diffuse]\nhiden = 8", "diffuse.layers=1", "FILE", "[diffuse]: unknown key 'hiden'; did you mean"),
        ("[diffuse]\nhidden = 0", "diffuse.hiden=1", "--set", "[diffuse]: unknown key 'hiden'; did you mean"),
        ("", "diffuse.hiden=9", "--set", "[diffuse]: unknown key 'hiden'; did you mean 'hidden'?"),
        (None, "diffuse.hiden=9", "--set", "[diffuse]: unknown key 'hiden'; did you mean 'hidden'?"),
    ],
)
def test_what_set_gets_wrong_is_not_blamed_on_the_file(
    run_cli, store, tmp_path, command, text, assigned, where, message
):
    file = tmp_path / "options.toml"
    options = ()
    if text is not None:
        file.write_text(text)
        options = ("--config", file)
    done = run_cli(*command, store, *options, "--set", assigned, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith(f"Error: {file if where == 'FILE' else where}: {message}"), done.stderr
    assert not (tmp_path / "out").exists()


def test_set_may_put_right_what_a_file_has_wrong(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("[finetune]\nepochs = 0\n")
    done = run_cli("run", store, "--config", file, "--set", "finetune.epochs=1", "--dry-run")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr = 0", "lr: must be above 0, not 0.0"),
        ("[diffuse]\nlabel_dropout = 2", "label_dropout: must be at most 1, not 2.0"),
        ("[diffuse]\nnetwork = 'adlan'", "unknown value 'adlan'; did you mean 'adaln'?"),
        ("threads = 0", "invalid value for '--threads': 0 is not in the range x>=1"),
        ("ema = 1", "ema: must be below 1, not 1.0"),
        ("latent = 3\nbasis = 'cholesky'", 'latent = "3": only a whitened space'),
        ("device = 'gpu'", "device"),
    ],
)
def test_a_value_out_of_range_is_that_of_the_file(run_cli, store, tmp_path, text, message):
    file = tmp_path / "Options.toml"
    file.write_text(text)
    done = run_cli("diffuse", store, "--out", tmp_path / "m.safetensors", "--config", file)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"Error: {file}: "), done.stderr
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_file_is_not_blamed_for_the_command_line(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    file.write_text("lr = 0.1\nhidden = 0")
    common = ("diffuse", store, "--out", tmp_path / "m.safetensors", "--config", file)
    done = run_cli(*common, "--hidden", 8, "--lr", 0)
    assert done.returncode == 2
    assert done.stderr == "Error: --lr: must be above 0, not 0.0\n"
    done = run_cli(*common, "--hidden", 8, "--lr", 0.1, "--network", "adlan")
    assert done.stderr.startswith("Error: --network: unknown value 'adlan'")


def test_finetune_compare_and_ablate_keep_every_option_and_the_whole_command(run_cli, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [30, 12])
    rows = rng.standard_normal((42, 4)).astype(np.float32) + labels[:, None]
    source = tmp_path / "rows.npz"
    np.savez(source, a=rows, b=labels, c=rows)
    keys = ("--features-key", "a", "--labels-key", "b")
    model = ("--set", "diffuse.iterations=3", "--set", "diffuse.hidden=8", "--set", "finetune.epochs=1")
    commands = {
        "finetune": ("--seeds", 1, "--epochs", 1),
        "compare": ("--seeds", 1, "--methods", "baseline,smote", "--folds", 2, "--head", "cosine", *model),
        "ablate": ("--seeds", 1, "--values", "0.5", "--folds", 2, *model),
    }
    for command, more in commands.items():
        words = (command, *(("ratio",) if command == "ablate" else ()), source, *keys, *more)
        words = (*words, "--threads", 1, "--out", tmp_path / command)
        done = run_cli(*words, "--json")
        assert done.returncode == 0, done.stderr
        result = json.loads((tmp_path / command / "result.json").read_text())
        assert result["command_line"] == shlex.join(map(str, ("ldmlr", *words)))
        config = result["config"]
        assert (config["features_key"], config["labels_key"], config["threads"]) == ("a", "b", 1)
        said = {*config, *(key for table in config.values() if isinstance(table, dict) for key in table)}
        # What says where results go, not what they are.
        params = importlib.import_module(f"ldmlr_cli.{command}").command.params
        options = {flag[2:].replace("-", "_") for one in params for flag in one.opts if flag.startswith("--")}
        assert options - said <= {
            "out",
            "csv",
            "plot",
            "overwrite",
            "json",
            "quiet",
            "config",
            "set",
            "batch",
        }


def test_one_seed_is_that_of_several(run_cli, store, tmp_path):
    one = run_cli("finetune", store, "--seed", 1, "--epochs", 1, "--out", tmp_path / "one", "--json")
    assert one.returncode == 0, one.stderr
    two = run_cli("finetune", store, "--seeds", 2, "--epochs", 1, "--out", tmp_path / "two", "--json")
    first, second = json.loads(one.stdout), json.loads(two.stdout)
    assert (first["seeds"], second["seeds"]) == ([1], [0, 1])
    assert [row["all"]["values"] for row in first["rows"]] == [
        row["all"]["values"][1:] for row in second["rows"]
    ]
    names = [path.name for path in (tmp_path / "one").glob("head*")]
    assert names == ["head-seed1.safetensors"]
    assert (tmp_path / "one" / names[0]).read_bytes() == (tmp_path / "two" / names[0]).read_bytes()
    words = ("compare", store, "--methods", "baseline,smote", "--seed", 7, "--json")
    found = json.loads(run_cli(*words).stdout)
    assert (found["seeds"], found["config"]["seed"]) == ([7], 7)


@pytest.mark.parametrize("command", ["finetune", "compare", "ablate", "run"])
def test_one_seed_or_several(run_cli, store, tmp_path, command):
    words = (command, *(("ratio",) if command == "ablate" else ()), store, "--out", tmp_path / "out")
    said = "seed{0}, {1}seeds: one seed or several; leave one out\n"
    done = run_cli(*words, "--seed", 1, "--seeds", 3)
    assert (done.returncode, done.stderr) == (2, "Error: --" + said.format("", "--"))
    file = tmp_path / "options.toml"
    file.write_text("seed = 1\nseeds = 3\n")
    done = run_cli(*words, "--config", file)
    assert (done.returncode, done.stderr.startswith(f"Error: {file}: ")) == (2, True), done.stderr
    assert "one seed or several" in done.stderr
    assert not (tmp_path / "out").exists()


def test_seeds_of_the_command_line_go_before_the_seed_of_a_file(run_cli, store, tmp_path):
    file = tmp_path / "options.toml"
    small = "\n[diffuse]\niterations = 3\nhidden = 8\n[finetune]\nepochs = 1\n"
    file.write_text(f"seed = 5\n{small}")
    for command in ("finetune", "run"):
        words = (command, store, "--config", file, "--out", tmp_path / command, "--json")
        found = json.loads(run_cli(*words, "--seeds", 2).stdout)
        assert found["seeds"] == [0, 1]
    file.write_text(f"seeds = 2\n{small}")
    for command in ("finetune", "run"):
        words = (command, store, "--config", file, "--out", tmp_path / f"{command}-5", "--json")
        assert json.loads(run_cli(*words, "--seed", 5).stdout)["seeds"] == [5]
