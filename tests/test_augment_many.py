"""Many stores side by side: the same files as one after the other, and no store is lost with another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.blobs import blobs
from support.tasks import task

from ldmlr.engines import stores as engine
from ldmlr.engines.processes import run_tasks
from ldmlr.errors import InputError, LdmlrError
from ldmlr.generation.augment import Job
from ldmlr.store import FeatureStore, SplitData

OPTIONS = ("--hidden", 16, "--layers", 1, "--iterations", 20, "--batch-size", 32, "--seed", 3)


def make(path: Path, seed: int) -> Path:
    features, labels = blobs(seed=seed)
    FeatureStore.write(path, train=SplitData(features, labels))
    return path


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [make(tmp_path / f"{name}.h5", seed) for seed, name in enumerate("abc")]


def features(path: Path) -> np.ndarray:
    with FeatureStore.open(path) as store:
        return store.split("train").float32()


def test_side_by_side_is_the_same_as_one_after_the_other(run_cli, tmp_path, three, monkeypatch) -> None:
    together, alone = tmp_path / "together", tmp_path / "alone"
    done = run_cli("augment", *three, "--out-dir", together, "--threads", 2, *OPTIONS, "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert [Path(entry["store"]).name for entry in figures["stores"]] == ["a.h5", "b.h5", "c.h5"]
    assert "failed" not in figures
    done = run_cli("augment", *three, "--out-dir", alone, "--threads", 1, *OPTIONS)
    assert done.returncode == 0, done.stderr
    for store in three:
        assert np.array_equal(features(together / store.name), features(alone / store.name))
        model = f"{store.stem}.model.safetensors"
        assert (together / model).read_bytes() == (alone / model).read_bytes()


def test_a_store_that_fails_is_named_and_the_others_are_finished(run_cli, tmp_path, three) -> None:
    # Nothing is wrong with it before it is trained on: rows that are all alike.
    rows, labels = blobs()
    FeatureStore.write(three[1], train=SplitData(np.ones_like(rows), labels), overwrite=True)
    missing = tmp_path / "missing.h5"
    done = run_cli(
        "augment", *three, missing, "--out-dir", tmp_path / "out", "--threads", 2, *OPTIONS, "--json"
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[-1] == "Error: 2 of 4 stores failed, the others are finished"
    assert any("b.h5" in line and "two different rows" in line for line in lines)
    assert any("missing.h5" in line for line in lines)
    found = json.loads(done.stdout)
    assert [Path(entry["store"]).name for entry in found["stores"]] == ["a.h5", "c.h5"]
    assert sorted(Path(entry["store"]).name for entry in found["failed"]) == ["b.h5", "missing.h5"]
    assert found == json.loads((tmp_path / "out" / "result.json").read_text())
    assert sorted(path.name for path in (tmp_path / "out").glob("*.h5")) == ["a.h5", "c.h5"]


def test_the_error_of_the_only_store_is_the_command_s(run_cli, tmp_path) -> None:
    done = run_cli("augment", tmp_path / "missing.h5", "--out-dir", tmp_path / "out")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "missing.h5" in done.stderr


def test_large_stores_are_not_done_side_by_side(tmp_path, three, monkeypatch) -> None:
    jobs = [Job(store, tmp_path / "out" / store.name) for store in three]
    assert all(map(engine.is_small, jobs))
    monkeypatch.setattr(engine, "SMALL", 4 * 93 * 4 - 1)
    assert not any(map(engine.is_small, jobs))
    assert not engine.is_small(Job(tmp_path / "missing.h5", tmp_path / "out.h5"))


def test_results_errors_and_lost_processes_belong_to_their_tasks() -> None:
    words = ["do", "refuse", "do", "die", "do", "do"]
    found = dict(run_tasks(task, [(word, number) for number, word in enumerate(words)], 2))
    assert {number: found[number] for number in (0, 2, 4, 5)} == {0: 0, 2: 4, 4: 16, 5: 25}
    assert isinstance(found[1], InputError)
    assert str(found[1]) == "not 1"
    assert isinstance(found[3], LdmlrError)
    assert "ended from outside" in str(found[3])


def test_an_error_that_is_none_of_ours_ends_all() -> None:
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        list(run_tasks(task, [("sleep", 0), ("fail", 1)], 2))
    assert time.monotonic() - began < 30


PARENT = """
import sys, os
sys.path.insert(0, sys.argv[1])
from support.tasks import task
from ldmlr.engines.processes import run_tasks
import multiprocessing, threading, time
def tell():
    while len(multiprocessing.active_children()) < 2: time.sleep(0.05)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
if __name__ == "__main__":
    threading.Thread(target=tell, daemon=True).start()
    list(run_tasks(task, [("sleep", 0), ("sleep", 1)], 2))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, script, here],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert parent.stdout is not None
    children = parent.stdout.readline().split()
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30

    def alive(pid: str) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    while any(map(alive, children)):
        assert time.monotonic() < deadline, "a process lives on without its parent"
        time.sleep(0.1)
