"""Work shared by Ray's workers, by ranks of torchrun and by a loop of the shell: the same rows to the bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.models import three_blobs

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.engines.config import EngineConfig
from ldmlr.engines.ray import all_results, cluster, task_outcomes
from ldmlr.engines.shards import (
    draw_rows,
    draw_shard,
    generate_on_ranks,
    generate_on_ray,
    shard_count,
)
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generate import generate
from ldmlr.generation.prepare import Work
from ldmlr.ownership import owned
from ldmlr.ranks import Ranks, world
from ldmlr.store import FeatureStore, shard_name, verify, write_manifest

SCRIPT = Path(__file__).parent.parent / "examples" / "shards.sh"
LDMLR = [sys.executable, "-m", "ldmlr"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    three_blobs((300, 60, 9), hidden=8, iterations=5).save(path)
    return path


@pytest.fixture(scope="module")
def alone(model, tmp_path_factory):
    """Return the rows of one process."""
    path = tmp_path_factory.mktemp("alone") / "pseudo.h5"
    generate(work_of(model).prepared(), path)
    return rows_of(path)


def work_of(model, **options):
    config = options.pop("config", GenerateConfig())
    return Work(model, "diffusion", None, config, DiffusionConfig(), None, 3, Machine("cpu", 1))


def rows_of(path):
    with FeatureStore.open(path) as store:
        train = store.train
        return train.float32(np.arange(len(train))), train.labels[:], train.ids[:], train.source[:]


def same(found, expected):
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


def run_tasks(*arguments, **options):
    return all_results(task_outcomes(*arguments, **options))


def on_ray(model, out, **options):
    work = work_of(model)
    return generate_on_ray(work, work.prepared(), out, **options)


def test_shards_of_ray_are_the_file_of_one_process(ray, model, alone, tmp_path):
    figures = on_ray(model, tmp_path / "pseudo.h5", shards=3)
    assert same(rows_of(tmp_path / "pseudo.json"), alone)
    assert (figures["rows"], figures["shards"]) == (len(alone[1]), 3)
    assert left_in(tmp_path) == [*(shard_name("pseudo", i, 3).name for i in range(3)), "pseudo.json"]
    assert not verify(tmp_path / "pseudo.json").problems


def test_a_second_start_draws_what_is_missing(ray, model, alone, tmp_path):
    out = tmp_path / "pseudo.h5"
    on_ray(model, out, shards=3)
    kept = shard_name(out, 0, 3).stat().st_mtime_ns
    shard_name(out, 1, 3).unlink()
    with pytest.raises(UsageError, match="exists"):
        on_ray(model, out, shards=3)
    figures = on_ray(model, out, shards=3, resume=True)
    assert shard_name(out, 0, 3).stat().st_mtime_ns == kept
    assert same(rows_of(tmp_path / "pseudo.json"), alone)
    assert not figures["finished_before"]
    assert on_ray(model, out, shards=3, resume=True)["finished_before"]


def test_a_worker_that_is_killed_in_the_middle_of_a_shard_loses_nothing(ray, model, alone, tmp_path):
    out, mark = tmp_path / "pseudo.h5", tmp_path / "killed"

    def killed_once(work, out, index, count, resume, overwrite):
        if index == 1 and not mark.exists():
            mark.touch()
            from ldmlr.generation import parts

            parts.write_text = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # when its folder is there
        return draw_shard(work, out, index, count, resume, overwrite)

    tasks = [(work_of(model), out, index, 3, True, False) for index in range(3)]
    with cluster(None) as found:
        done = sorted(number for number, _ in run_tasks(found, killed_once, tasks, threads=1, on_gpu=False))
    assert done == [0, 1, 2]
    assert mark.exists()
    write_manifest(out)  # which is the driver's
    assert same(rows_of(tmp_path / "pseudo.json"), alone)
    assert not [name for name in left_in(tmp_path) if name.startswith(".")]


def test_an_error_of_one_shard_is_said_when_the_others_are_there(ray, model, tmp_path):
    out = tmp_path / "pseudo.h5"

    def broken(work, out, index, count, resume, overwrite):
        if index == 0:
            raise LdmlrError(f"{out}: the disk is full")
        return draw_shard(work, out, index, count, resume, overwrite)

    tasks = [(work_of(model), out, index, 3, True, False) for index in range(3)]
    with pytest.raises(LdmlrError, match=r"the disk is full; what was finished is kept: go on with resume"):
        list(run_tasks(ray, broken, tasks, threads=1, on_gpu=False))
    assert [shard_name(out, index, 3).exists() for index in range(3)] == [False, True, True]


def test_a_worker_that_dies_every_time_ends_in_a_clear_line(ray):
    def dies(number):
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(LdmlrError, match=r"^the worker of task 0 was lost 6 times"):
        list(run_tasks(ray, dies, [(0,)], threads=1, on_gpu=False))


def test_ray_that_is_not_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(UsageError, match=r"^engine='ray': Ray is not installed; pip install 'ldmlr\[ray\]'"),
        cluster(None),
    ):
        pass


@pytest.mark.parametrize(("rows", "wanted", "count"), [(1, None, 1), (2**20, None, 4), (50, 50, 50)])
def test_the_number_of_shards(rows, wanted, count):
    assert shard_count(rows, wanted) == count


@pytest.mark.parametrize(
    ("engine", "options", "message"),
    [
        ({"shards": 2}, {}, r"^shards: one process writes all rows into one file"),
        ({"engine": "ray"}, {"shard": (0, 2)}, r"^shard: the shards are shared out already"),
        ({"engine": "ray", "shards": 10**6}, {}, r"^shards: must be from 1 to"),
    ],
)
def test_options_that_do_not_fit(model, tmp_path, engine, options, message):
    work = work_of(model)
    with pytest.raises(UsageError, match=message):
        draw_rows(work, work.prepared(), tmp_path / "p.h5", EngineConfig(**engine), **options)
    assert left_in(tmp_path) == []


def test_an_address_is_for_ray_alone():
    with pytest.raises(UsageError, match=r"^address: only engine='ray' has one"):
        EngineConfig(address="head:6379")


def torchrun(size, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={size}",
         "-m", "ldmlr", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_shards(model, alone, tmp_path, size):
    done = torchrun(size, "generate", model, "--seed", 3, "--out", tmp_path / "pseudo.h5", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)  # one rank speaks for all
    assert document["shards"] == size
    assert document["rows"] == len(alone[1])
    assert same(rows_of(tmp_path / "pseudo.json"), alone)


def test_a_rank_that_fails_ends_the_run_with_its_line(model, tmp_path):
    (tmp_path / shard_name("pseudo", 1, 2).name).write_text("in the way")
    done = torchrun(2, "generate", model, "--out", tmp_path / "pseudo.h5")
    assert done.returncode != 0
    assert "pseudo-00001-of-00002.h5: already exists" in done.stderr
    assert not (tmp_path / "pseudo.json").exists()


@pytest.mark.parametrize("engine", ["ray", "ranks"])
def test_a_second_driver_of_an_output_is_refused_before_anything_is_drawn(model, tmp_path, engine):
    command = ("generate", model, "--out", tmp_path / "pseudo.h5", "--overwrite")
    with owned(tmp_path / "pseudo.json"):
        if engine == "ranks":
            done = torchrun(2, *command)
        else:
            command = [*LDMLR, *map(str, command), "--engine", "ray"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert f"pseudo.json: process {os.getpid()} on" in done.stderr
    assert left_in(tmp_path) == []


def test_ranks_replace_no_manifest_unasked(model, tmp_path):
    (tmp_path / "pseudo.json").write_text("mine")
    work = work_of(model)
    with pytest.raises(UsageError, match=r"pseudo\.json: already exists"):
        generate_on_ranks(work, work.prepared(), tmp_path / "pseudo.h5", Ranks(0, 2))
    assert left_in(tmp_path) == ["pseudo.json"]
    assert (tmp_path / "pseudo.json").read_text() == "mine"


def test_variables_of_ranks_that_make_no_sense(monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="expected a rank below the number of ranks"):
        world()


def test_a_loop_of_the_shell_writes_the_same_shards(model, alone, tmp_path):
    environment = {**os.environ, "LDMLR": " ".join(LDMLR), "SEED": "3"}
    for task in (2, 0, 1):  # an array runs its tasks in any order
        subprocess.run(
            ["bash", SCRIPT, model, tmp_path / "pseudo.h5", "3"], check=True, timeout=60,
            env={**environment, "SLURM_ARRAY_TASK_ID": str(task)},
        )  # fmt: skip
    assert same(rows_of(tmp_path / "pseudo.json"), alone)


def test_a_driver_that_is_killed_and_started_again(ray, model, alone, tmp_path):
    out = tmp_path / "pseudo.h5"
    command = [*LDMLR, "generate", model, "--seed", "3", "--engine", "ray", "--shards", "3", "--out", out]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not any(tmp_path.glob("pseudo-*.h5")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.wait()
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 0, again.stderr
    assert same(rows_of(tmp_path / "pseudo.json"), alone)
