"""`ldmlr.heads.training_rows`, generated rows that a store holds itself: `run` draws its own instead,
`finetune` counts and names them.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.axes import COUNTS, draw
from support.stage3 import write_stores

import ldmlr
from ldmlr.heads.training_rows import gather_rows
from ldmlr.store import FeatureStore, SplitData

QUICK = (
    "--seeds", 1, "--json", "--set", "diffuse.iterations=20", "--set", "diffuse.hidden=16",
    "--set", "finetune.epochs=2",
)  # fmt: skip
AUTO = (
    "--auto", "--set", "select.scales=1.41", "--set", "select.guidances=1.5", "--set", "select.gates=none",
    "--set", "select.taus=1.0", "--set", "select.averages=0.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write ``plain.h5`` and ``own.h5``, which holds the same rows and generated ones of wrong classes."""
    path = write_stores(tmp_path_factory.mktemp("own"))
    natural, wrong = draw(COUNTS), (draw((0, 150, 150), seed=9)[0], np.repeat([2, 1], 150))
    splits = {"test": SplitData(*draw((50, 50, 50), seed=3)), "val": SplitData(*draw((20, 8, 4), seed=4))}
    FeatureStore.write(path / "plain.h5", train=SplitData(*natural), **splits)
    both = [np.concatenate(pair) for pair in zip(natural, wrong, strict=True)]
    source = np.repeat(np.uint8([0, 1]), [len(natural[1]), 300])
    FeatureStore.write(path / "own.h5", train=SplitData(*both, source=source), **splits)
    return path


def figures(done):
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    return result["rows"], None if result["choice"] is None else result["choice"]["evidence"]


@pytest.mark.parametrize("auto", [(), AUTO], ids=["fixed", "auto"])
def test_a_run_leaves_them_out_and_says_so_once(run_cli, folder, tmp_path, auto):
    plain = run_cli("run", folder / "plain.h5", "--out", tmp_path / "plain", *QUICK, *auto)
    own = run_cli("run", folder / "own.h5", "--out", tmp_path / "own", *QUICK, *auto)
    assert figures(own) == figures(plain)
    assert own.stderr.count("own.h5: holds 300 generated rows, which are left out") == 1
    assert "left out" not in plain.stderr
    assert "own_generated" in next((tmp_path / "own").glob("seed-0/finetune-*/step.json")).read_text()
    assert "own_generated" not in next((tmp_path / "plain").glob("seed-0/finetune-*/step.json")).read_text()


def test_a_fine_tuning_says_that_it_counts_them_beside_others(run_cli, folder, tmp_path):
    args = ("finetune", folder / "own.h5", "--seeds", 1, "--epochs", 1, "--json", "--out")
    both = run_cli(*args, tmp_path / "both", "--pseudo", folder / "pseudo.h5")
    assert json.loads(both.stdout)["generated_rows"] == [708]
    assert both.stderr.count("own.h5: holds 300 generated rows itself") == 1
    alone = run_cli(*args, tmp_path / "alone")
    assert json.loads(alone.stdout)["generated_rows"] == [300]
    assert "itself" not in alone.stderr


def test_a_caller_may_leave_them_out(folder):
    store, pseudo = FeatureStore.open(folder / "own.h5"), FeatureStore.open(folder / "pseudo.h5")
    natural, generated = draw(COUNTS), pseudo.train
    rows = gather_rows(store, pseudo, own_generated=False)
    assert (rows.encoded, rows.generated) == (312, 408)
    np.testing.assert_array_equal(rows.features, np.concatenate([natural[0], generated.features]))
    np.testing.assert_array_equal(rows.labels, np.concatenate([natural[1], generated.labels]))
    assert ldmlr.finetune(store, epochs=1, own_generated=False).generated == 0
