"""Every generator in every command that generates: the same rows, or a refusal in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.experiments import methods
from ldmlr.experiments.catalogue import CompareConfig
from ldmlr.experiments.compare import compare
from ldmlr.experiments.methods import draw_rows
from ldmlr.generation import parts
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generate import generate
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.generation.plan import labels_of
from ldmlr.generation.prepare import prepare_from_rows
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.select.choose import Seed, Settings
from ldmlr.select.inner import fill_plan
from ldmlr.store import FeatureStore, SplitData

UNTRAINED = [name for name, entry in GENERATORS.items() if not entry.trains]
SMALL = ("--set", "diffuse.hidden=8", "--set", "diffuse.iterations=5")
TRAINED = ("--hidden", 8, "--iterations", 5)


def make(path, views=True):
    """A store of three classes with two weak and two strong views, held-out and test rows."""
    rng = np.random.default_rng(0)

    def rows(counts):
        labels = np.repeat(np.arange(3), counts)
        return (2 * np.eye(3, 4)[labels] + rng.standard_normal((len(labels), 4))).astype(np.float32), labels

    features, labels = rows((40, 12, 3))
    noisy = features + rng.normal(0, 0.2, (4, *features.shape)).astype(np.float32)
    kinds = {"views": noisy, "view_kinds": ("weak", "weak", "strong", "strong")} if views else {}
    return FeatureStore.write(
        path, train=SplitData(features, labels, **kinds), val=SplitData(*rows((8, 4, 4))),
        test=SplitData(*rows((9, 9, 9))), class_names=("ant", "bee", "cow"), encoder="net",
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make(tmp_path_factory.mktemp("store") / "features.h5")


def rows_of(path):
    return FeatureStore.open(path).train.float32()


@pytest.mark.parametrize("name", UNTRAINED)
def test_generate_augment_run_and_select_draw_the_same_rows(name, store, run_cli, tmp_path):
    drawn = run_cli("generate", store.path, "--generator", name, "--out", tmp_path / "p.h5", "--json")
    assert drawn.returncode == 0, drawn.stderr
    result = json.loads(drawn.stdout)
    assert (result["config"]["generator"], result["rows"]) == (name, 65)
    found = FeatureStore.open(tmp_path / "p.h5")
    assert found.train.counts.tolist() == [0, 28, 37]
    assert (found.train.source == 1).all()
    assert (found.config["generator"], found.encoder, found.class_names) == (
        name, "net", ("ant", "bee", "cow"),
    )  # fmt: skip
    rows = rows_of(tmp_path / "p.h5")

    done = run_cli("augment", store.path, "--generator", name, "--out-dir", tmp_path / "a", "--json")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["features.h5", "result.json"]
    np.testing.assert_array_equal(rows_of(tmp_path / "a" / "features.h5")[55:], rows)

    done = run_cli("run", store.path, "--generator", name, "--seeds", 1, "--out", tmp_path / "r", "--json")
    assert done.returncode == 0, done.stderr
    assert [step["stage"] for step in json.loads(done.stdout)["steps"]] == ["generate", "finetune"]
    pseudo = next((tmp_path / "r").glob("seed-0/generate-*/pseudo.h5"))
    np.testing.assert_array_equal(rows_of(pseudo), rows)

    tables = stage_tables({}, RunConfig(), "")
    chosen = Seed(0, store, None, Settings(tables.diffuse, tables.generate, tables.finetune))
    np.testing.assert_array_equal(chosen.generated(tables.generate, name)[0], rows)


@pytest.mark.parametrize("name", UNTRAINED)
def test_compare_fine_tunes_on_the_rows_of_run(name, store, run_cli, tmp_path):
    """Where the encoder has seen the rows and heads are fine-tuned, both have the same plan and figures."""
    pinned = ("--encoder-trained-on-rows", "--set", "finetune.fit=recipe")
    done = run_cli("run", store.path, "--generator", name, *pinned, "--seeds", 2, "--out", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    config = CompareConfig(methods=(name,), encoder_trained_on_rows=True)
    tables = stage_tables({"finetune": {"fit": "recipe"}}, RunConfig(), "")
    figures = compare(store, config, tables, seeds=2, device="cpu")
    result = json.loads(done.stdout)
    # A run calls them as a comparison does, in its table, its steps and its verdict.
    assert [row["method"] for row in result["rows"]] == ["baseline", "baseline", name, name]
    measured = result["steps"][-1]["figures"]["measured"]
    assert [entry["method"] for entry in measured] == ["baseline", "baseline", name, name]
    assert name in result["verdict"]
    assert "LDMLR" not in result["verdict"]
    theirs = [row["all"] for row in result["rows"] if row["method"] == name]
    ours = [row["all"] for row in figures["rows"] if row["method"] == name]
    assert [row["values"] for row in ours] == [row["values"] for row in theirs]


@pytest.mark.parametrize("name", UNTRAINED)
def test_compare_draws_the_rows_of_generate_up_to_the_filling_it_chose(name, store, monkeypatch):
    drawn = []

    def watched(*args):
        found = draw_rows(*args)
        drawn.append(found)
        return found

    monkeypatch.setattr(methods, "draw_rows", watched)
    config = CompareConfig(methods=(name,), encoder_trained_on_rows=False)
    tables = stage_tables({}, RunConfig(), "")
    (row, *_) = compare(store, config, tables, seeds=[3], device="cpu")["rows"]
    plan = fill_plan(np.array((40, 12, 3)), row["chosen"]["fill"], tables.generate)
    counts = tuple(f"{label}={count}" for label, count in zip(("ant", "bee", "cow"), plan, strict=True))
    wanted = prepare_from_rows(name, store, GenerateConfig(count=counts), seed=3)
    (found,) = drawn
    assert row["generated"] == [len(found.labels)] == [plan.sum()]
    np.testing.assert_array_equal(found.labels, labels_of(wanted.plan, 0, wanted.rows))
    np.testing.assert_array_equal(found.features, wanted.generator.draw(found.labels, 3))


@pytest.mark.parametrize("args", [(), ("--select-on-test",)])
def test_fine_tuning_calls_its_rows_by_the_generator_of_the_store(args, store, run_cli, tmp_path):
    drawn = run_cli("generate", store.path, "--generator", "smote", "--out", tmp_path / "p.h5")
    assert drawn.returncode == 0, drawn.stderr
    assert "(numpy, drawn at " in drawn.stdout
    done = run_cli(
        "finetune", store.path, "--pseudo", tmp_path / "p.h5", "--seeds", 1, "--out", tmp_path / "h",
        "--json", *args,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["method"] for row in rows] == ["baseline", "baseline", "smote", "smote"]


def interrupted(monkeypatch, generation, out):
    """Generate two parts, as if Ctrl-C were pressed then."""
    draw, done = Generator.draw, []

    def stop(self, *arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments)
        return draw(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Generator, "draw", stop)
        with pytest.raises(KeyboardInterrupt):
            generate(generation, out)


@pytest.mark.parametrize("name", UNTRAINED)
def test_shards_and_interrupts_change_no_row(name, store, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "PART_BYTES", 1)
    monkeypatch.setattr(parts, "ROW_MULTIPLE", 10)
    config = GenerateConfig(count=("ant=7", "bee=20", "cow=30"))
    generation = prepare_from_rows(name, store, config, seed=3)
    generate(generation, tmp_path / "whole.h5")
    whole = rows_of(tmp_path / "whole.h5")
    labels = labels_of(generation.plan, 0, generation.rows)
    np.testing.assert_array_equal(whole, generation.generator.draw(labels, 3))
    for index in range(3):
        generate(prepare_from_rows(name, store, config, seed=3), tmp_path / "s.h5", shard=(index, 3))
    np.testing.assert_array_equal(rows_of(tmp_path / "s.json"), whole)
    interrupted(monkeypatch, generation, tmp_path / "out.h5")
    again = prepare_from_rows(name, store, config, seed=3)
    assert generate(again, tmp_path / "out.h5", resume=True)["rows"] == 57
    assert (tmp_path / "out.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert generate(again, tmp_path / "out.h5", resume=True)["finished_before"]


def test_no_generator_takes_the_rows_of_another_for_its_own(store):
    keys = {prepare_from_rows(name, store, GenerateConfig()).key for name in UNTRAINED}
    assert len(keys) == len(UNTRAINED)
    views = DiffusionConfig(weak_views=0)
    for name in UNTRAINED:
        same = prepare_from_rows(name, store, GenerateConfig(), views=views).key in keys
        assert same == (not GENERATORS[name].views)


def test_augmenting_with_a_generator_goes_on_where_it_stopped(store, run_cli, tmp_path):
    args = ("augment", store.path, "--out-dir", tmp_path, "--generator", "smote")
    assert run_cli(*args).returncode == 0
    again = run_cli(*args, "--resume")
    assert "this store is finished; nothing to do" in again.stderr
    other = run_cli("augment", store.path, "--out-dir", tmp_path, "--generator", "adasyn", "--resume")
    assert (other.returncode, "holds the rows of other settings" in other.stderr) == (2, True)


@pytest.mark.parametrize("command", ["generate", "augment", "run"])
@pytest.mark.parametrize("name", ["smote", "adasyn-views"])
def test_remarks_of_a_generator_are_passed_on(name, command, store, run_cli, tmp_path):
    out = ("--out-dir", tmp_path) if command == "augment" else ("--out", tmp_path / "p")
    seeds = ("--seeds", 2) if command == "run" else ()
    done = run_cli(command, store.path, "--generator", name, *out, *seeds)
    assert done.returncode == 0, done.stderr
    note = "1 of 3 classes have fewer than 5 neighbours; all are used"
    assert done.stderr.count(note) == (name == "smote")


REFUSED = [
    (
        "smote",
        ("--scale", "1.2"),
        "--scale: is nothing to smote; leave it out, or use --generator",
    ),
    (
        "smote",
        ("--steps", "5"),
        "--steps: is of the diffusion model; leave it out, or use --generator diffusion",
    ),
    ("views", ("--gate", "head"), "--gate: is of the diffusion model"),
    ("gaussian", ("--guidance", "2"), "--guidance: is of the diffusion model"),
    ("gaussian-wide", ("--weights", "int8"), "--weights: is of the diffusion model"),
    ("adasyn", ("--weak-views", "1"), "--weak-views: is nothing to adasyn"),
    ("oversampling", ("--backend", "native"), "--backend: is of the diffusion model"),
    ("oversampling", ("--device", "cuda"), "--device: is of the diffusion model"),
    ("gaussian", ("--class-scale", "zz=2"), "names the class 'zz', which is not there"),
    ("gausian", (), "gausian"),
]


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize("command", ["generate", "augment"])
@pytest.mark.parametrize(("name", "args", "message"), REFUSED)
def test_what_a_generator_does_not_read_is_refused(
    name, args, message, command, dry, store, run_cli, tmp_path
):
    out = ("--out", tmp_path / "p.h5") if command == "generate" else ("--out-dir", tmp_path / "out")
    done = run_cli(command, store.path, "--generator", name, *out, *args, *dry)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("smote", "generate.scale=1.2", "--set generate.scale: is nothing to smote"),
        ("views", "diffuse.hidden=64", "--set diffuse.hidden: is of the diffusion model"),
        ("adasyn", "diffuse.strong_views=0", "--set diffuse.strong_views: is nothing to adasyn"),
    ],
)
def test_a_run_refuses_what_its_generator_does_not_read(name, key, message, store, run_cli, tmp_path):
    done = run_cli("run", store.path, "--generator", name, "--set", key, "--out", tmp_path / "r")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("command", ["generate", "augment", "run"])
@pytest.mark.parametrize("name", ["views", "smote-views", "adasyn-views"])
def test_a_store_without_views_is_refused_before_any_work(name, command, run_cli, tmp_path):
    bare = make(tmp_path / "bare.h5", views=False).path
    out = ("--out-dir", tmp_path / "o") if command == "augment" else ("--out", tmp_path / "o")
    done = run_cli(command, bare, "--generator", name, *out)
    assert done.returncode == 2
    assert f"--generator {name}: needs augmented views, and {bare} is used without" in done.stderr
    assert not (tmp_path / "o").exists()


def test_images_without_views_are_refused_before_any_work(run_cli, tmp_path):
    args = ("run", "digits-lt", "--generator", "views", "--out", tmp_path / "r", "--dry-run")
    done = run_cli(*args, "--set", "encode.views=0")
    assert (done.returncode, "needs augmented views, and digits-lt is used" in done.stderr) == (2, True)
    assert run_cli(*args).returncode == 0


def test_what_belongs_to_a_model_alone(store, run_cli, tmp_path):
    model = tmp_path / "m.safetensors"
    assert run_cli("diffuse", store.path, "--out", model, *TRAINED).returncode == 0
    done = run_cli("generate", model, "--weak-views", 1, "--dry-run")
    assert (done.returncode, "--weak-views: " in done.stderr, "is trained already" in done.stderr) == (
        2, True, True,
    )  # fmt: skip
    done = run_cli("generate", store.path, "--generator", "smote", "--store", store.path, "--dry-run")
    assert (done.returncode, "--store: rows are planned and drawn for" in done.stderr) == (2, True)


def test_the_generator_may_stand_in_a_file(store, run_cli, tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('[generate]\ngenerator = "smote"\ncount = {cow = 4}\n')
    done = run_cli("generate", store.path, "--config", file, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["config"]["generator"] == "smote"
    file.write_text(f'source = "{store.path}"\ngenerator = "adasyn"\n')
    done = run_cli("run", file, "--dry-run", "--json")
    assert json.loads(done.stdout)["config"]["generator"] == "adasyn"


def test_a_choice_may_try_any_generator(store, run_cli, tmp_path):
    args = ("run", store.path, "--seeds", 1, "--json")
    done = run_cli(
        *args, "--auto", "--generator", "smote", "--out", tmp_path, *SMALL,
        "--set", 'select.generators=["smote", "gaussian-wide", "views"]', "--set", 'select.scales=["1"]',
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    tried = {entry["generator"]: entry["scale"] for entry in result["choice"]["evidence"]["generation"]}
    assert tried == {"smote": None, "gaussian-wide": "1", "views": None}
    assert "diffuse" not in [step["stage"] for step in result["steps"]]
    refit = run_cli(
        "run",
        store.path,
        "--refit",
        tmp_path / "result.json",
        "--seeds",
        1,
        "--out",
        tmp_path / "again",
        "--json",
    )
    assert refit.returncode == 0, refit.stderr
    # The head of the choice itself is what --auto adds to the table, and nothing else.
    auto, rows = result["auto"], json.loads(refit.stdout)["rows"]
    assert rows == result["rows"][: len(rows)]
    assert {row["method"] for row in rows} == {"baseline", result["choice"]["generator"]}
    assert [(row["method"], row["adjustment"]) for row in result["rows"][len(rows) :]] == [
        (auto["method"], auto["adjustment"])
    ]
