"""How many steps a training takes where nothing is said: a function of the number of rows, written down."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.blobs import blob_store, blobs

from ldmlr import LatentDiffusion
from ldmlr.diffusion.config import FEWEST_STEPS, MOST_STEPS, PASSES, DiffusionConfig
from ldmlr.errors import UsageError

TINY = {"hidden": 8, "layers": 1, "batch_size": 8}


@pytest.mark.parametrize(
    ("rows", "dim", "steps"),
    [
        (1, 3, FEWEST_STEPS), (1000, 64, FEWEST_STEPS), (12_406, 64, 606), (20_480, 9, 1000),
        (115_846, 64, MOST_STEPS), (1000, 65, MOST_STEPS), (12_406, 2048, MOST_STEPS),
    ],
)  # fmt: skip
def test_passes_over_narrow_rows_within_limits(rows: int, dim: int, steps: int) -> None:
    found = DiffusionConfig().for_rows(rows, dim)
    assert found.steps == found.iterations == steps
    assert FEWEST_STEPS <= steps <= MOST_STEPS
    if FEWEST_STEPS < steps < MOST_STEPS:
        assert steps == round(PASSES * rows / found.batch_size)


def test_the_usual_steps_are_those_of_the_batches() -> None:
    """A model shows the steps it took unasked as its default, whatever its batches."""
    config = DiffusionConfig(batch_size=64, hidden=8).for_rows(2000, 4)
    assert config.steps == 781
    assert config.usual(2000, 4) == {**DiffusionConfig().to_dict(), "iterations": 781}


def test_what_is_given_is_kept() -> None:
    given = DiffusionConfig(iterations=7)
    assert given.for_rows(10**6, 64) is given
    with pytest.raises(UsageError, match="iterations"):
        DiffusionConfig(iterations=0)
    with pytest.raises(ValueError, match="not settled"):
        DiffusionConfig().steps  # noqa: B018


def test_every_fit_settles_it_anew_and_the_file_says_it(tmp_path: Path) -> None:
    X, y = blobs()
    model = LatentDiffusion(**TINY)
    assert "iterations" not in repr(model)
    model.fit(X, y, device="cpu")
    assert model.config.iterations == DiffusionConfig(**TINY).for_rows(*X.shape).steps
    assert "iterations" not in repr(model) or model.config.iterations != FEWEST_STEPS
    model.save(tmp_path / "model.safetensors")
    assert LatentDiffusion.load(tmp_path / "model.safetensors").config == model.config
    few = np.concatenate([np.flatnonzero(y == label)[:10] for label in np.unique(y)])
    fewer = model.fit(X[few], y[few], device="cpu").config.iterations
    assert fewer == DiffusionConfig(**TINY).for_rows(*X[few].shape).steps


def test_the_command_says_the_number_and_knows_a_finished_model_again(tmp_path, run_cli) -> None:
    with blob_store(tmp_path / "features.h5") as store:
        steps = DiffusionConfig(**TINY).for_rows(len(store.train.labels), store.dim).steps
    words = (
        "diffuse", tmp_path / "features.h5", "--hidden", 8, "--layers", 1, "--batch-size", 8,
        "--out", tmp_path / "model.safetensors", "--json", "--device", "cpu",
    )  # fmt: skip
    plan = json.loads(run_cli(*words, "--dry-run").stdout)
    assert plan["steps"] == plan["config"]["iterations"] == steps
    done = json.loads(run_cli(*words).stdout)
    assert done["steps"] == done["config"]["iterations"] == steps
    again = json.loads(run_cli(*words, "--resume").stdout)
    assert again["finished_before"]
