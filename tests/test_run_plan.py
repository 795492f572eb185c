"""The plan of a run: which steps, and keys that make wrong reuse impossible. Nothing is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from ldmlr.encoders.config import BaselineConfig
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.run.plan import Facts, RunPlan

STORE = Facts("rows.h5", {0: ("print",)})
IMAGES = Facts("images", {0: ("first",), 1: ("second",)}, BaselineConfig(), "cifar", per_seed=True)


def plan_of(facts=STORE, tables=None, **run):
    config = RunConfig(seeds=2, **run)
    return RunPlan(facts, config, stage_tables(tables or {}, config), Path("root"))


def stages(plan, seed=0):
    return [step.stage for step in plan.steps(seed)]


def test_the_steps_of_a_store_and_of_images():
    assert stages(plan_of()) == ["diffuse", "generate", "finetune"]
    assert stages(plan_of(generator="smote")) == ["generate", "finetune"]
    assert stages(plan_of(IMAGES)) == ["baseline", "encode", "diffuse", "generate", "finetune"]
    assert plan_of().steps(0).store.path == Path("rows.h5")
    steps = plan_of(IMAGES).steps(1)
    assert steps.store.path == steps.encode.output
    assert [step.seed for step in steps] == [1] * 5


def test_a_shared_baseline_is_one_for_all_seeds():
    one = plan_of(Facts("images", {0: ("first",)}, BaselineConfig(), "cifar"))
    assert one.steps(1).encode == one.steps(0).encode
    assert one.steps(1).diffuse.seed == 1
    assert plan_of(IMAGES).steps(1).encode.key != plan_of(IMAGES).steps(0).encode.key


def test_every_step_depends_on_those_before_it():
    before, after = (list(plan_of(IMAGES, tables).steps(0)) for tables in ({}, {"encode": {"mirror": True}}))
    same = [one.key == other.key for one, other in zip(before, after, strict=True)]
    assert same == [True, False, False, False, False]
    other = plan_of(Facts("rows.h5", {0: ("other",)}))
    assert not {step.key for step in other.steps(0)} & {step.key for step in plan_of().steps(0)}


def test_no_generator_reuses_the_rows_of_another():
    keys = {plan_of(generator=name).steps(0).generate.key for name in GENERATORS}
    assert len(keys) == len(GENERATORS)


@pytest.mark.parametrize(
    ("name", "tables", "new"),
    [
        ("smote", {"diffuse": {"weak_views": 0}}, False),
        ("smote-views", {"diffuse": {"weak_views": 0}}, True),
        ("smote", {"generate": {"target": 90}}, True),
        ("gaussian", {"generate": {"scale": 1.41}}, True),
        ("gaussian", {"generate": {"scale": 1.0}}, False),
        ("gaussian-wide", {"generate": {"scale": 1.41}}, False),
        ("diffusion", {"generate": {"guidance": 2.0}}, True),
    ],
)
def test_rows_are_drawn_anew_where_a_setting_changes_them(name, tables, new):
    before, after = plan_of(generator=name).steps(0), plan_of(tables=tables, generator=name).steps(0)
    assert (before.generate.key != after.generate.key) == new
    assert (before.finetune.key != after.finetune.key) == new


def test_a_choice_comes_after_stage_1_and_the_model_where_one_is_tried():
    auto = plan_of(IMAGES, auto=True)
    assert [step.stage for step in auto.before_choice(0)] == ["baseline", "encode", "diffuse"]
    assert auto.selection().inputs == tuple(auto.before_choice(seed).diffuse.key for seed in (0, 1))
    tables = {"select": {"generators": ["gaussian"]}}
    without = plan_of(tables=tables, auto=True, generator="gaussian")
    assert list(without.before_choice(0)) == []
    assert without.selection().inputs == ("print", "print")


def test_generated_rows_that_are_left_out_are_part_of_the_keys():
    left = plan_of(Facts("rows.h5", {0: ("print",)}, own_generated=7))
    assert left.steps(0).generate.key == plan_of().steps(0).generate.key
    assert left.steps(0).finetune.key != plan_of().steps(0).finetune.key


def test_the_settings_say_it_all():
    found = plan_of(IMAGES).settings()
    assert (found["source"], found["baselines"], found["preset"]) == ("images", "per-seed", "cifar")
    assert {"baseline", "encode", "diffuse", "generate", "finetune"} <= set(found)
    assert not {"baseline", "encode"} & set(plan_of().settings())


def test_one_seed_and_several_at_once_are_refused(run_cli, tmp_path):
    done = run_cli("run", "digits-lt", "--seed", 1, "--seeds", 3, "--out", tmp_path / "run", "--dry-run")
    assert (done.returncode, done.stderr) == (
        2, "Error: --seed, --seeds: one seed or several; leave one out\n"
    )  # fmt: skip
    file = tmp_path / "run.toml"
    file.write_text('source = "digits-lt"\nseed = 1\nseeds = 3\n')
    done = run_cli("run", file, "--dry-run")
    assert (done.returncode, done.stderr) == (
        2, f"Error: {file}: --seed, --seeds: one seed or several; leave one out\n"
    )  # fmt: skip
    file.write_text('source = "digits-lt"\nseeds = 3\n')
    # The command line goes before the file.
    assert run_cli("run", file, "--seed", 1, "--out", tmp_path / "run", "--dry-run").returncode == 0
