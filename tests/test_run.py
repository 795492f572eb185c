"""``ldmlr run``: all stages, reuse, interruption, configuration files and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ldmlr_cli.run_file import read_run_file

from ldmlr.errors import InputError, UsageError
from ldmlr.run import stages
from ldmlr.run.source import kind_of
from ldmlr.store import FeatureStore, SplitData

QUICK = (
    "--set", "baseline.epochs=2", "--set", "diffuse.iterations=20", "--set", "diffuse.hidden=16",
    "--set", "finetune.epochs=2",
)  # fmt: skip


@pytest.fixture
def quick_run(run_cli, tmp_path):
    def run(*args, source="digits-lt", seeds=1):
        return run_cli("run", source, "--seeds", seeds, "--out", tmp_path / "run", *QUICK, *args)

    return run


def write_store(path: Path, test: bool = True, val: bool = False) -> Path:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 12, 4])
    train = SplitData(rng.normal(size=(56, 6)).astype(np.float32) + labels[:, None], labels)
    held = np.repeat([0, 1, 2], 10)
    rows = SplitData(rng.normal(size=(30, 6)).astype(np.float32) + held[:, None], held)
    FeatureStore.write(path, train=train, test=rows if test else None, val=rows if val else None)
    return path


def test_a_run_on_the_built_in_set_gives_the_table_and_is_reused(quick_run, tmp_path):
    first = quick_run("--json", seeds=2)
    assert first.returncode == 0, first.stderr
    result = json.loads(first.stdout)
    assert [(row["method"], row["adjustment"]) for row in result["rows"]] == [
        ("baseline", "none"), ("baseline", "label-shift"), ("ldmlr", "none"), ("ldmlr", "label-shift"),
    ]  # fmt: skip
    for row in result["rows"]:
        for column in ("all", "many", "medium", "few"):
            assert len(row[column]["values"]) == 2
            assert row[column]["mean"] == pytest.approx(np.mean(row[column]["values"]))
    assert result["seeds"] == [0, 1]
    assert result["config"]["baselines"] == "per-seed"
    assert result["config"]["diffuse"]["iterations"] == 20
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == result
    assert {step["stage"] for step in result["steps"]} == {
        "baseline", "encode", "diffuse", "generate", "finetune",
    }  # fmt: skip

    again = quick_run("--json", seeds=2)
    assert json.loads(again.stdout)["rows"] == result["rows"]
    assert again.stderr.count("reused") == 10

    table = quick_run(seeds=2)
    assert [line.split("  ")[0] for line in table.stdout.splitlines()[2:]] == [
        "baseline", "baseline + label-shift", "ldmlr", "ldmlr + label-shift", "", result["verdict"], "",
        f"head: {result['head']}", f"next: ldmlr predict {tmp_path / 'run'} IMAGES --out predictions.csv",
    ]  # fmt: skip
    assert {row["measured_on"] for row in result["rows"]} == {"test"}
    best = max(row["all"]["mean"] for row in result["rows"] if row["method"] == "ldmlr")
    assert f"({best:.2f} %)" in result["verdict"]
    assert result["verdict"].count(". ") == 0


def test_changed_settings_run_only_what_depends_on_them(quick_run):
    assert quick_run().returncode == 0
    changed = quick_run("--set", "generate.guidance=2")
    status = {line.split()[2]: "reused" in line for line in changed.stderr.splitlines() if "seed 0" in line}
    assert status == {
        "baseline": True, "encode": True, "diffuse": True, "generate": False, "finetune": False,
    }  # fmt: skip


@pytest.mark.parametrize("stage", ["encode", "diffuse", "generate", "finetune"])
def test_an_interrupted_run_goes_on_and_ends_the_same(quick_run, monkeypatch, stage, tmp_path, run_cli):
    whole = run_cli("run", "digits-lt", "--seeds", 1, "--out", tmp_path / "whole", *QUICK, "--json")

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, f"run_{stage}", interrupted)
        stopped = quick_run()
    assert stopped.returncode == 130
    assert "Interrupted" in stopped.stderr
    assert not (tmp_path / "run" / "result.json").exists()
    done = quick_run("--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == json.loads(whole.stdout)["rows"]


def test_a_store_needs_no_stage_one(run_cli, tmp_path):
    store = write_store(tmp_path / "features.h5")
    done = run_cli("run", store, "--seed", 3, "--out", tmp_path / "run", *QUICK[2:], "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["seeds"] == [3]
    assert {step["stage"] for step in result["steps"]} == {"diffuse", "generate", "finetune"}
    assert result["rows"][0]["many"] is None
    assert "encode" not in result["config"]

    again = run_cli("run", store, "--seed", 3, "--out", tmp_path / "run", *QUICK[2:])
    assert "is replaced" not in again.stderr
    other = write_store(tmp_path / "other.h5")
    after = run_cli("run", other, "--seed", 3, "--out", tmp_path / "run", *QUICK[2:])
    assert f"had the result of a run of {store}, which is replaced; --out names another" in after.stderr


def test_a_class_without_test_rows_has_no_accuracy(run_cli, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [40, 12, 4])
    rows = rng.normal(size=(56, 6)).astype(np.float32) + labels[:, None]
    held = SplitData(rows[:50], labels[:50])  # class 2 is not in it
    FeatureStore.write(tmp_path / "s.h5", train=SplitData(rows, labels), test=held, num_classes=3)
    for _ in ("computed", "reused"):
        done = run_cli("run", tmp_path / "s.h5", "--seed", 0, "--out", tmp_path / "run", *QUICK[2:])
        assert done.returncode == 0, done.stderr
    [record] = (tmp_path / "run").glob("seed-0/finetune-*/step.json")
    first = json.loads(record.read_text())["figures"]["measured"][0]
    assert [share is None for share in first["per_class"]] == [False, False, True]
    page = run_cli("report", tmp_path / "run", "--out", tmp_path / "page.html")
    assert page.returncode == 0, page.stderr


def test_baselines_shared_by_all_seeds(quick_run):
    planned = quick_run("--baselines", "shared", "--dry-run", "--json", seeds=2)
    steps = [step["stage"] for step in json.loads(planned.stdout)["steps"]]
    assert steps.count("baseline") == 1
    assert steps.count("finetune") == 2


def test_a_dry_run_writes_nothing(quick_run, tmp_path):
    planned = quick_run("--dry-run")
    assert planned.returncode == 0
    assert [line.split()[0] for line in planned.stdout.splitlines()[2:]] == [
        "baseline", "encode", "diffuse", "generate", "finetune",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_a_toml_file_says_it_all(run_cli, tmp_path):
    write_store(tmp_path / "features.h5")
    path = tmp_path / "experiment.toml"
    path.write_text(
        'source = "features.h5"\nout = "here"\nseeds = 2\n'
        "[diffuse]\nhidden = 16\niterations = 20\n[finetune]\nepochs = 2\n"
    )
    done = run_cli("run", path, "--seeds", 1, "--set", "finetune.epochs=3", "--json")
    assert done.returncode == 0, done.stderr
    config = json.loads(done.stdout)["config"]
    assert config["seeds"] == 1
    assert config["diffuse"]["hidden"] == 16
    assert config["finetune"]["epochs"] == 3
    assert (tmp_path / "here" / "result.json").is_file()
    model = tmp_path / "model.safetensors"
    one = run_cli("diffuse", tmp_path / "features.h5", "--config", path, "--out", model, "--json")
    assert one.returncode == 0, one.stderr
    assert json.loads(one.stdout)["config"]["hidden"] == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sedes = 3\n", "unknown key 'sedes'; did you mean 'seeds'?"),
        ("seeds = 0\n", "experiment.toml: seeds: must be at least 1, not 0"),
        ("source = 3\n", "source: expected a text, not 3"),
        ('threads = "two"\n', "threads: expected a whole number of at least 1, not 'two'"),
        ("[difuse]\nhidden = 8\n", "unknown table [difuse]; did you mean 'diffuse'?"),
        ("[diffuse]\nhiden = 8\n", "[diffuse]: unknown key 'hiden'; did you mean 'hidden'?"),
        ('[generate]\nsolver = "dimm"\n', "[generate]: solver: unknown value 'dimm'; did you mean 'ddim'?"),
        ('[diffuse]\nhidden = "a"\n', "[diffuse]: hidden: expected a whole number, not 'a'"),
        ('[generate]\ngenerator = "views"\n', "[generate]: generator belongs to the top level of the file"),
        ("seeds = = 3\n", "not a TOML file"),
    ],
)
def test_a_wrong_key_of_a_toml_file_is_one_clear_line(run_cli, tmp_path, text, message):
    path = tmp_path / "experiment.toml"
    path.write_text(text if text.startswith("source") else 'source = "digits-lt"\n' + text)
    done = run_cli("run", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {path}")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("digit-lt",), "did you mean 'digits-lt'?"),
        (("absent.h5",), "absent.h5: no such file or folder"),
        (("digits-lt", "--set", "diffuse.hiden=3"), "did you mean 'hidden'?"),
        (("digits-lt", "--set", "hidden=3"), "expected STAGE.KEY=VALUE"),
        (("digits-lt", "--set", "difuse.hidden=3"), "did you mean 'diffuse'?"),
        (("digits-lt", "--groups", "many"), "--groups: expected two thresholds"),
        (("digits-lt", "--preset", "cifar"), "--preset: unknown value 'cifar'"),
        (("digits-lt", "--seed", str(2**64)), "--seed: must be at most 18446744073709551615"),
        (("digits-lt", "--set", "generate.strategy=balanced"), "'balanced'; did you mean 'balance'?"),
        (("digits-lt", "--epochs", "3"), "an option of a stage is given as --set STAGE.KEY=VALUE; see"),
        (("digits-lt", "--device", "gpu"), "--device: unknown value 'gpu'"),
        ((), "missing argument 'SOURCE'"),
    ],
)
def test_a_wrong_argument_is_one_clear_line(run_cli, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    done = run_cli("run", *args)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


# What does not fit the rows or the model, found before anything is trained.
UNFIT = [
    (("--set", "generate.only=few", "--groups", "1000,0"), "has room; change --set generate.only"),
    (("--set", "generate.strategy=few", "--groups", "1000,0"), "has room; change --set generate.strategy or"),
    (("--set", "generate.target=1"), "every class is full; raise --set generate.target"),
    (("--set", "generate.strategy=ratio", "--set", "generate.ratio=0", "--set", "generate.minimum=0"),
     "the plan generates no rows; raise --set generate.ratio"),
    (("--set", "generate.count=1=0"), "--set generate.count asks for none"),
    (("--set", "generate.class_scale=zz=2"), "names the class 'zz', which is not there"),
    (("--set", "diffuse.label_dropout=0", "--set", "generate.guidance=2"), "--set diffuse.label_dropout=0"),
    (("--set", "diffuse.transform=standardised", "--set", "generate.gate=prototype"), "of a whitened model"),
    (("--set", "generate.weights=int8", "--backend", "reference"), "it has no int8 weights"),
    (("--set", "diffuse.network=adaln", "--backend", "native"), "AdaLN network"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "message"), UNFIT)
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_what_does_not_fit_images_is_told_before_any_work(run_cli, tmp_path, dry, args, message):
    done = run_cli("run", "digits-lt", "--out", tmp_path / "run", *args, *dry)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--imbalance-factor", 50), "--imbalance-factor: is for images"),
        (("--preset", "cifar-wcdas"), "--preset: is for images"),
        (("--baselines", "per-seed"), "--baselines: is for images"),
        (("--set", "baseline.epochs=2"), "[baseline]: is for images"),
        (("--set", "encode.mirror=true"), "[encode]: is for images"),
        (
            ("--generator", "gaussian", "--set", "generate.gate=head"),
            "--set generate.gate: is of the diffusion model",
        ),
        (
            ("--generator", "gaussian", "--set", "diffuse.hidden=64"),
            "--set diffuse.hidden: is of the diffusion model",
        ),
        (
            ("--generator", "gaussian", "--set", "generate.steps=4"),
            "--set generate.steps: is of the diffusion model",
        ),
        (("--generator", "gaussian", "--backend", "native"), "--backend: is of the diffusion model"),
        (("--set", "generate.gate=head"), "has no head to judge rows by; use --set generate.gate=prototype"),
        *UNFIT,
    ],
)
def test_what_a_run_on_a_store_would_not_look_at_is_refused(run_cli, tmp_path, args, message):
    store = write_store(tmp_path / "features.h5")
    done = run_cli("run", store, "--out", tmp_path / "run", *args)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            ("--set", "diffuse.network=adaln", "--backend", "native"),
            "native cannot run this: its AdaLN network",
        ),
        (("--set", "generate.weights=int8", "--backend", "reference"), "it has no int8 weights"),
        (("--set", "generate.gate=head"), "has no head to judge rows by; use --set generate.gate=prototype"),
        (("--set", "select.gates=head"), "--set select.gates: STORE has no head to judge rows by; leave the"),
    ],
)
@pytest.mark.parametrize("start", ["diffusion", "gaussian"])
def test_what_a_choice_would_run_into_is_told_before_any_work(run_cli, tmp_path, start, args, message):
    store = write_store(tmp_path / "features.h5", val=True)
    done = run_cli("run", store, "--auto", "--generator", start, "--out", tmp_path / "run", *args)
    assert (done.returncode, message.replace("STORE", str(store)) in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "run").exists()
    # Where only Gaussians are tried, no model draws and nothing is in the way.
    gaussians = ("--generator", "gaussian", "--set", "select.generators=gaussian", "--dry-run")
    done = run_cli("run", store, "--auto", *gaussians, "--out", tmp_path / "run", *args)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("counts", "test", "message"),
    [
        ((1, 1), 0, "has no test split, and no class of which a row could be held out"),
        ((20,), 5, "has one class, and nothing to tell apart"),
        ((20, 0, 8), 5, "fewer than 1 training row in class 1"),
    ],
)
def test_a_store_that_cannot_do_is_refused_before_any_work(run_cli, tmp_path, counts, test, message):
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.random.default_rng(0).standard_normal((len(labels), 3)).astype(np.float32)
    FeatureStore.write(
        tmp_path / "s.h5", train=SplitData(rows, labels), test=SplitData(rows[:test], labels[:test]),
        num_classes=len(counts),
    )  # fmt: skip
    done = run_cli("run", tmp_path / "s.h5", "--out", tmp_path / "run", *QUICK[2:])
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert done.stderr.startswith(f"Error: {tmp_path / 's.h5'}: ")
    assert not (tmp_path / "run").exists()


def test_a_file_is_no_folder_for_a_run(run_cli, tmp_path):
    store = write_store(tmp_path / "features.h5")
    done = run_cli("run", store, "--out", store)
    assert (done.returncode, "is a file where the folder of the run is expected" in done.stderr) == (2, True)


def test_a_damaged_record_is_named(quick_run, tmp_path):
    assert quick_run().returncode == 0
    record = next((tmp_path / "run").glob("seed-0/diffuse-*/step.json"))
    record.write_text("{")
    done = quick_run()
    assert done.returncode == 1
    assert f"{record}: damaged; delete this folder and run again" in done.stderr


def test_sources_are_told_apart(tmp_path):
    store = write_store(tmp_path / "features.h5")
    assert kind_of("digits-lt") == "builtin"
    assert kind_of(str(store)) == "store"
    assert kind_of(str(tmp_path)) == "images"
    broken = tmp_path / "broken.h5"
    broken.write_bytes(store.read_bytes()[:100])
    assert kind_of(str(store)) == "store"
    broken.write_text("text")
    with pytest.raises(InputError, match=r"is not an HDF5 file; expected a feature store"):
        kind_of(str(broken))
    (tmp_path / "rows.npz").write_bytes(b"")
    assert kind_of(str(tmp_path / "rows.npz")) == "store"
    with pytest.raises(UsageError, match="nor a built-in set"):
        kind_of("digits")


def test_paths_of_a_toml_file_start_from_its_folder(tmp_path):
    for name in ("images.h5", "choice.json", "first", "teacher"):
        (tmp_path / name).touch()
    path = tmp_path / "run.toml"
    path.write_text(
        'source = "images.h5"\nrefit = "choice.json"\n[baseline]\ninit = "first"\nteacher = "teacher"\n'
    )
    found = read_run_file(path, None)
    paths = (found.source, found.values["refit"], *found.tables["baseline"].values())
    assert paths == tuple(str(tmp_path / name) for name in ("images.h5", "choice.json", "first", "teacher"))


def test_what_a_command_wrote_is_no_source(tmp_path):
    run = tmp_path / "photos"
    run.mkdir()
    (run / "result.json").write_text('{"command": "run"}')
    with pytest.raises(InputError, match=r"photos: is the folder of a run; use ldmlr report"):
        kind_of(str(run))
    with pytest.raises(InputError, match=r"result\.json: is the result of ldmlr run; use ldmlr report"):
        kind_of(str(run / "result.json"))
    # Before it is done, a run has no result yet.
    step = tmp_path / "begun" / "seed-0" / "baseline-0a1b"
    step.mkdir(parents=True)
    (step / "step.json").write_text("{}")
    with pytest.raises(InputError, match=r"begun: is the folder of a run"):
        kind_of(str(tmp_path / "begun"))
    head = Path(__file__).parent / "fixtures" / "head-v1.safetensors"
    with pytest.raises(InputError, match=r"is a head \(safetensors\), not a feature store"):
        kind_of(str(head))


def test_a_toml_file_without_a_source_is_told_so(run_cli, tmp_path):
    path = tmp_path / "experiment.toml"
    path.write_text("seeds = 2\n")
    done = run_cli("run", path, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {path}: has no key source; add one")
