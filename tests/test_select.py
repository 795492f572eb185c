"""Selection on held-out rows: the estimator, the rule, the choice, and that no test row has a say in it."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ldmlr
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import InputError, UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.heads.config import FinetuneConfig
from ldmlr.metrics import generated
from ldmlr.metrics.scatter import PRIOR_ROWS, Squares, scatter_ratio, squares
from ldmlr.select.candidates import Candidate, base_candidate, grid
from ldmlr.select.choice import Choice
from ldmlr.select.choose import Settings, select
from ldmlr.select.config import SelectConfig
from ldmlr.store import FeatureStore, SplitData

COUNTS = (60, 24, 6)
QUICK = DiffusionConfig(hidden=16, layers=1, iterations=20, batch_size=64)
SMALL_GRID = SelectConfig(scales=("1.41", "class"), guidances=(1.5,), taus=(0.75, 1.0), averages=(0.5,))
SET = (
    "--set", "diffuse.hidden=16", "--set", "diffuse.iterations=20", "--set", "finetune.epochs=2",
    "--set", 'select.scales=["1.41", "class"]', "--set", "select.guidances=[1.5]",
    "--set", "select.taus=[0.75, 1.0]", "--set", "select.averages=[0.5]",
)  # fmt: skip


def rows(counts, seed, wide=1.0):
    """Return rows around one corner per class, `wide` times as wide."""
    labels = np.repeat(np.arange(len(counts)), counts)
    noise = np.random.default_rng(seed).standard_normal((len(labels), 5))
    return SplitData((3 * np.eye(3, 5)[labels] + wide * noise).astype(np.float32), labels)


def write(path, val=True, test=None):
    FeatureStore.write(
        path, train=rows(COUNTS, 0), val=rows((8, 4, 2), 1, 1.5) if val else None,
        test=rows((10, 10, 10), 2) if test is None else test, num_classes=3, overwrite=True,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("select")
    write(path / "val.h5")
    ldmlr.LatentDiffusion(QUICK).fit_store(FeatureStore.open(path / "val.h5")).save(
        path / "model.safetensors"
    )
    return path


SETTINGS = Settings(QUICK, GenerateConfig(), FinetuneConfig(epochs=2))


@pytest.fixture(scope="module")
def choice(folder):
    return select([(0, folder / "val.h5", folder / "model.safetensors")], SETTINGS, SMALL_GRID)


# --- the scatter ratio -------------------------------------------------------------------------


def test_without_views_the_raw_ratio_is_that_of_the_metrics():
    train, val = rows(COUNTS, 0), rows((8, 4, 2), 1, 1.5)
    found = scatter_ratio(squares([(train.features, train.labels)], val.features, val.labels, 3), COUNTS)
    expected = generated.scatter_ratio(
        train.features, train.labels, val.features, val.labels, 3, around_real=True
    )
    np.testing.assert_allclose(found.raw, expected, rtol=1e-5)
    np.testing.assert_allclose(found.clean, found.raw, rtol=1e-12)
    assert found.rows.tolist() == [8, 4, 2]


@pytest.mark.parametrize("wide", [0.7, 1.0, 1.6])
def test_many_rows_recover_the_true_width(wide):
    train, val = rows((4000,) * 3, 0), rows((4000,) * 3, 1, wide)
    found = scatter_ratio(squares([(train.features, train.labels)], val.features, val.labels, 3), (4000,) * 3)
    np.testing.assert_allclose(found.k, wide, rtol=0.03)


def test_views_widen_what_held_out_rows_are_compared_with():
    train, view, val = rows(COUNTS, 0), rows(COUNTS, 5, 2.0), rows((8, 4, 2), 1, 1.5)
    found = scatter_ratio(
        squares([(train.features, train.labels), (view.features, view.labels)], val.features, val.labels, 3),
        COUNTS,
    )
    assert (found.raw < found.clean).all()


@given(
    total=hnp.arrays(float, 6, elements=st.floats(0.1, 50)),
    held=hnp.arrays(np.int64, 6, elements=st.integers(0, 40)),
    factor=st.floats(0.5, 4),
)
def test_a_shrunken_ratio_lies_between_its_own_and_that_of_its_group(total, held, factor):
    counts = [500, 200, 60, 30, 10, 5]
    if not held.sum():
        held[0] = 1
    total = np.where(held > 0, total, 0.0)
    found = scatter_ratio(Squares(total, held, total), counts)
    group = np.repeat([found.groups[name] for name in ("many", "medium", "few")], 2)
    own = np.where(held > 0, found.raw, group)
    low, high = np.minimum(own, group), np.maximum(own, group)
    assert (low - 1e-9 <= found.shrunk).all()
    assert (found.shrunk <= high + 1e-9).all()
    # The more rows, the more the class's own ratio counts.
    np.testing.assert_allclose(found.shrunk, (held * own + PRIOR_ROWS * group) / (held + PRIOR_ROWS))
    # A group lies between its own mean and that of all rows.
    for index, name in enumerate(("many", "medium", "few")):
        part = slice(2 * index, 2 * index + 2)
        mean = total[part].sum() / held[part].sum() if held[part].sum() else found.overall
        assert min(mean, found.overall) - 1e-9 <= found.groups[name] <= max(mean, found.overall) + 1e-9
    # Ratios scale with the squared distances.
    scaled = scatter_ratio(Squares(factor * total, held, total), counts)
    np.testing.assert_allclose(scaled.shrunk, factor * found.shrunk)


def test_squares_of_several_draws_add_up():
    train, val = rows(COUNTS, 0), rows((8, 4, 2), 1)
    blocks = [(train.features, train.labels)]
    whole = squares(blocks, val.features, val.labels, 3)
    halves = [squares(blocks, val.features[part::2], val.labels[part::2], 3) for part in (0, 1)]
    np.testing.assert_allclose((halves[0] + halves[1]).total, whole.total)
    assert (halves[0] + halves[1]).rows.tolist() == whole.rows.tolist()


def test_a_class_of_one_row_has_no_width_of_its_own():
    train, val = rows((60, 24, 1), 0), rows((4, 2, 0), 1)
    found = scatter_ratio(squares([(train.features, train.labels)], val.features, val.labels, 3), (60, 24, 1))
    assert np.isnan(found.raw[2])
    assert np.isfinite(found.k).all()
    assert found.to_dict()["ratio"][2] is None


def test_rows_that_cannot_be_measured_are_told():
    train = rows(COUNTS, 0)
    with pytest.raises(InputError, match="no held-out rows"):
        squares([(train.features, train.labels)], train.features[:0], train.labels[:0], 3)
    flat = np.zeros_like(train.features)
    with pytest.raises(InputError, match="no spread"):
        squares([(flat, train.labels)], train.features, train.labels, 3)


def test_the_runs_own_settings_come_first_and_change_nothing():
    model, plain = DiffusionConfig(), DiffusionConfig(transform="standardised")
    base = base_candidate(GenerateConfig(), "diffusion", model)
    found = grid(base, SelectConfig(), model)
    assert found[0] == base == Candidate("diffusion", "1.41", 1.5)
    assert [candidate.changes(base) for candidate in found].count(0) == 1
    assert len(found) == len(set(found)) == 20
    assert all(candidate.scale != "class" for candidate in grid(base, SelectConfig(), plain))
    own = base_candidate(GenerateConfig(scale=1.3), "gaussian", model)
    assert grid(own, SelectConfig(), model)[0] == Candidate("gaussian", "1.3", None)


def test_a_model_without_label_dropout_is_not_guided():
    model = DiffusionConfig(label_dropout=0.0)
    base = base_candidate(GenerateConfig(), "diffusion", model)
    assert base.guidance == 1
    assert {candidate.guidance for candidate in grid(base, SelectConfig(), model)} == {1.0, None}
    with pytest.raises(UsageError, match=r"guidance 1\.5: the model was trained with label_dropout=0"):
        base_candidate(GenerateConfig(guidance=1.5), "diffusion", model)


def test_other_gates_than_the_runs_own_drop_its_threshold():
    own = GenerateConfig(gate="head", gate_confidence=0.3)
    base = base_candidate(own, "diffusion", DiffusionConfig())
    for gate in ("none", "prototype"):
        other = dataclasses.replace(base, gate=gate)
        changed = own.changed(other.settings(np.ones(3), None))
        assert (changed.gate, changed.gate_confidence) == (gate, 0.1)
    assert own.changed(base.settings(np.ones(3), None)).gate_confidence == 0.3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scales": ("wide",)}, "scales: expected numbers above 0 or the word class, not 'wide'"),
        ({"scales": (0,)}, "scales"),
        ({"generators": ("gausian",)}, "did you mean 'gaussian'"),
        ({"gates": ("prototip",)}, "did you mean 'prototype'"),
        ({"averages": (2.0,)}, "averages: must be at most 1"),
        ({"taus": (-1.0,)}, "taus: must be at least 0"),
    ],
)
def test_a_grid_that_makes_no_sense_is_told(values, message):
    with pytest.raises(UsageError, match=message):
        SelectConfig(**values)


def test_numbers_in_a_grid_may_be_numbers():
    assert SelectConfig(scales=[1, 1.41, "class"]).scales == ("1", "1.41", "class")


# --- the choice --------------------------------------------------------------------------------


def test_the_choice_holds_its_evidence(choice):
    document = choice.document
    generation = document["evidence"]["generation"]
    assert [entry["chosen"] for entry in generation].count(True) == 1
    assert [entry["best"] for entry in generation].count(True) == 1
    assert len(generation) == 4
    assert all(0 <= entry["val"] <= 100 and len(entry["values"]) == 1 for entry in generation)
    assert {entry["gate"] for entry in document["evidence"]["gate"]} <= {"none", "prototype"}
    assert document["evidence"]["scatter"]["val_rows"] == [8, 4, 2]
    assert document["stores"][0]["val_rows"] == 14
    assert choice.settings["finetune"]["tau_shift"] in (0.75, 1.0)
    assert json.loads(json.dumps(document)) == document


def test_the_test_split_has_no_say(folder, choice, tmp_path):
    """With other test rows, wrong test labels, or none at all, the choice is the same to the last figure."""
    poisons = [
        SplitData(np.full((30, 5), 1e6, np.float32), np.zeros(30, np.int64)),
        SplitData(-50 * rows((10, 10, 10), 2).features, np.repeat([2, 0, 1], 10)),
    ]
    for number, poison in enumerate(poisons):
        path = write(tmp_path / f"{number}.h5", test=poison)
        again = select([(0, path, folder / "model.safetensors")], SETTINGS, SMALL_GRID)
        assert again.settings == choice.settings
        assert again.document["evidence"] == choice.document["evidence"]
    bare = FeatureStore.open(folder / "val.h5")
    FeatureStore.write(tmp_path / "bare.h5", train=bare.train, val=bare.val)
    again = select([(0, tmp_path / "bare.h5", folder / "model.safetensors")], SETTINGS, SMALL_GRID)
    assert again.document["evidence"] == choice.document["evidence"]


def test_the_held_out_rows_do_have_a_say(folder, choice, tmp_path):
    path = tmp_path / "other.h5"
    store = FeatureStore.open(folder / "val.h5")
    FeatureStore.write(path, train=store.train, val=rows((8, 4, 2), 9, 4.0), test=store.test)
    other = select([(0, path, folder / "model.safetensors")], SETTINGS, SMALL_GRID)
    assert other.document["evidence"]["generation"] != choice.document["evidence"]["generation"]
    assert (
        other.document["evidence"]["scatter"]["overall"] > choice.document["evidence"]["scatter"]["overall"]
    )


def test_a_grid_of_gaussians_needs_no_model(folder):
    settings = dataclasses.replace(SETTINGS, generator="gaussian")
    small = SelectConfig(generators=("gaussian",), scales=("1", "class"), taus=(1.0,), averages=(0.5,))
    found = select([(0, folder / "val.h5", None), (1, folder / "val.h5", None)], settings, small)
    assert found.generator == "gaussian"
    assert found.document["seeds"] == [0, 1]
    assert len(found.document["stores"]) == 1


def test_generated_rows_in_val_are_left_out(folder, choice, tmp_path):
    store = FeatureStore.open(folder / "val.h5")
    more = SplitData(
        np.concatenate([store.val.float32(), np.full((5, 5), 99, np.float32)]),
        np.concatenate([store.val.labels, np.zeros(5, np.int64)]),
        source=np.repeat([0, 1], (14, 5)).astype(np.uint8),
    )
    FeatureStore.write(tmp_path / "more.h5", train=store.train, val=more, test=store.test)
    found = select([(0, tmp_path / "more.h5", folder / "model.safetensors")], SETTINGS, SMALL_GRID)
    assert found.document["evidence"] == choice.document["evidence"]


# --- ldmlr run ---------------------------------------------------------------------------------


def test_auto_and_refit(run_cli, folder, tmp_path):
    out = tmp_path / "auto"
    done = run_cli("run", folder / "val.h5", "--auto", "--seeds", 2, "--out", out, *SET, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    choice = result["choice"]
    assert choice["seeds"] == [0, 1]
    for key, value in choice["settings"]["generate"].items():
        assert result["config"]["generate"][key] == value
    assert result["config"]["finetune"]["tau_shift"] == choice["settings"]["finetune"]["tau_shift"]
    assert [step["stage"] for step in result["steps"]].count("select") == 1
    shown = run_cli("run", folder / "val.h5", "--auto", "--seeds", 2, "--out", out, *SET)
    assert "reused" in shown.stderr
    assert "class-balanced accuracy on 14 held-out rows" in shown.stdout
    assert "chosen (one standard error" in shown.stdout

    full = write(tmp_path / "full.h5", val=False)
    refit = run_cli(
        "run", full, "--refit", out / "result.json", "--seeds", 1, "--out", tmp_path / "refit", "--json"
    )
    assert refit.returncode == 0, refit.stderr
    taken = json.loads(refit.stdout)
    assert taken["choice"] == choice
    assert taken["config"]["generator"] == choice["generator"]
    for stage in ("diffuse", "generate", "finetune"):
        assert taken["config"][stage] == {**choice["base"][stage], **choice["settings"].get(stage, {}), **(
            {"groups": "100,20"} if stage == "generate" else {})}  # fmt: skip


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "generate.guidance=7"], "--refit: generate.guidance was chosen ("),
        (["--set", "finetune.tau_shift=9"], ", and 9 is given; leave one of the two out"),
        (["--generator", "OTHER"], "leave one of the two out"),
    ],
)
def test_a_choice_is_not_overruled_silently(run_cli, choice, tmp_path, args, message):
    (tmp_path / "choice.json").write_text(json.dumps(choice.document))
    other = {"gaussian": "diffusion", "diffusion": "gaussian"}[choice.generator]
    args = [other if arg == "OTHER" else arg for arg in args]
    store = write(tmp_path / "full.h5", val=False)
    done = run_cli("run", store, "--refit", tmp_path / "choice.json", *args, "--out", tmp_path / "run")
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "run").exists()


def test_a_choice_may_be_repeated_and_added_to(choice):
    settings = {name: dict(table) for name, table in choice.settings.items()}
    tables = choice.tables({**settings, "diffuse": {"hidden": 32}})
    assert tables["generate"].items() >= settings["generate"].items()
    assert tables["diffuse"]["hidden"] == 32


def test_the_gaussian_generator_runs_alone(run_cli, folder, tmp_path):
    done = run_cli(
        "run", folder / "val.h5", "--generator", "gaussian", "--seeds", 1, "--out", tmp_path, "--json",
        "--set", "finetune.epochs=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    stages = [step["stage"] for step in json.loads(done.stdout)["steps"]]
    assert stages == ["generate", "finetune"]
    refused = run_cli(
        "run", folder / "val.h5", "--generator", "gaussian", "--seeds", 1, "--out", tmp_path,
        "--set", "generate.gate=head",
    )  # fmt: skip
    assert refused.returncode == 2
    assert "--set generate.gate: is of the diffusion model" in refused.stderr


def test_images_with_a_held_out_part_choose_settings_too(run_cli, tmp_path):
    planned = run_cli(
        "run", "digits-lt", "--auto", "--seeds", 1, "--out", tmp_path / "run", "--dry-run", "--json"
    )
    stages = [step["stage"] for step in json.loads(planned.stdout)["steps"]]
    assert stages == ["baseline", "encode", "diffuse", "generate", "finetune", "auto"]
    planned = run_cli(
        "run", "digits-lt", "--auto", "--set", "baseline.val_fraction=0.1", "--seeds", 1,
        "--out", tmp_path / "run", "--dry-run", "--json",
    )  # fmt: skip
    stages = [step["stage"] for step in json.loads(planned.stdout)["steps"]]
    assert stages == ["baseline", "encode", "diffuse", "select", "generate", "finetune", "auto"]


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["--auto", "--refit", "x.json"], 2, "give one of the two"),
        (["--refit", "missing.json"], 1, "no such choice"),
        (["--set", "select.scales=wide"], 2, "scales: expected"),
    ],
)  # fmt: skip
def test_what_cannot_be_chosen_is_told(run_cli, tmp_path, args, status, message):
    store = write(tmp_path / "plain.h5", val=False)
    done = run_cli("run", store, *args, "--seeds", 1, "--out", tmp_path / "run")
    assert (done.returncode, message in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_widening_per_class_of_ones_own_stays_ones_own(run_cli, folder, tmp_path):
    done = run_cli(
        "run", folder / "val.h5", "--auto", "--seeds", 1, "--out", tmp_path, *SET,
        "--set", 'generate.class_scale=["0=2"]',
    )  # fmt: skip
    assert done.returncode == 2
    assert "leave class_scale out" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', '{"choice": null}'])
def test_a_damaged_choice_is_named(run_cli, folder, tmp_path, text):
    (tmp_path / "choice.json").write_text(text)
    done = run_cli("run", folder / "val.h5", "--refit", tmp_path / "choice.json", "--out", tmp_path / "run")
    assert done.returncode == 1
    assert "choice.json: not a" in done.stderr


def test_a_choice_for_other_classes_is_refused(run_cli, choice, tmp_path):
    (tmp_path / "choice.json").write_text(json.dumps({**choice.document, "num_classes": 4}))
    store = write(tmp_path / "plain.h5", val=False)
    done = run_cli("run", store, "--refit", tmp_path / "choice.json", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "was chosen for 4 classes" in done.stderr
    assert Choice.load(tmp_path / "choice.json").num_classes == 4
