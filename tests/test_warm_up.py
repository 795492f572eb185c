"""The time columns of a comparison and an ablation: nothing that is imported once is charged to the first."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.stage3 import write_stores

from ldmlr.experiments import warm
from ldmlr.heads.modules import make_head
from ldmlr.heads.training import train_head

# Prints what a fresh process imports between the clocks of the first method or setting.
SCRIPT = """
import sys
from ldmlr.experiments import ablate as ablation
from ldmlr.experiments.settings import AblateConfig
from ldmlr.experiments import compare as comparison
from ldmlr.experiments.catalogue import CompareConfig
from ldmlr.run.config import RunConfig, stage_tables
from ldmlr.store import FeatureStore

command, path = sys.argv[1:]
tables = stage_tables({"diffuse": {"iterations": 2, "hidden": 8}, "finetune": {"epochs": 1}}, RunConfig())

def watched(make):
    def work(*args):
        before = set(sys.modules)
        made = make(*args)
        print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
        return made
    return work

common = {"seeds": 1, "device": "cpu", "threads": 1}
with FeatureStore.open(path) as store:
    if command == "ablate":
        ablation.MAKERS["ldmlr"] = watched(ablation.MAKERS["ldmlr"])
        ablation.ablate(store, "ratio", AblateConfig(values=("0.1",)), tables, **common)
    else:
        comparison.MAKERS[command] = watched(comparison.MAKERS[command])
        comparison.compare(store, CompareConfig(methods=(command,)), tables, **common)
"""


@pytest.mark.parametrize("first", ["smote", "ablate"])
def test_the_first_to_be_timed_imports_nothing(tmp_path, first):
    path = write_stores(tmp_path) / "features.h5"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, first, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_what_trains_nothing_waits_for_no_optimiser(monkeypatch):
    trained = []

    def watched(head, *args, **more):
        trained.append(head.kind)
        return train_head(head, *args, **more)

    monkeypatch.setattr(warm, "train_head", watched)
    warm.warm_up(["baseline", "ncm", "tau-norm-views"])
    assert trained == []
    warm.warm_up(["ncm", "ldmlr"])
    assert trained == [make_head("linear", 2, 2).kind]
