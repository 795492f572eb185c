"""`encode` and `augment` by Ray's workers and ranks: the files of one process, nothing lost or twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.blobs import blobs
from support.ranks import end, start

from ldmlr.data import open_image_set
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encode import part_of
from ldmlr.engines import encoding
from ldmlr.engines.encoding import Encoding, shard_count
from ldmlr.engines.ray import all_results, pool_outcomes
from ldmlr.errors import LdmlrError, UsageError
from ldmlr.ownership import owned
from ldmlr.store import FeatureStore, SplitData, shard_name, verify, write_manifest

LDMLR = [sys.executable, "-m", "ldmlr"]
VIEWS = {"views": 2, "mirror": True, "batch_size": 8}
FLAGS = ("--views", 2, "--mirror", "--batch-size", 8, "--seed", 1, "--device", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory, image_set):
    out = tmp_path_factory.mktemp("model")
    config = BaselineConfig(network="small", epochs=1, batch_size=16, precision="float32", augment=("flip",))
    train_baseline(open_image_set(image_set), config, out, device="cpu", threads=1)
    return out


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    import h5py

    path, rng = tmp_path_factory.mktemp("images") / "images.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for split, counts in (("train", (40, 16, 6)), ("test", (10, 10, 10))):
            file[f"{split}/labels"] = labels = np.repeat(np.arange(3), counts)
            pixels = rng.integers(0, 120, (len(labels), 8, 8, 3)) + 100 * np.eye(3)[labels][:, None, None]
            file[f"{split}/images"] = pixels.astype(np.uint8)
    return path


@pytest.fixture
def alone(run_cli, model, image_set, tmp_path):
    """Return what one process encodes, and its figures."""
    (tmp_path / "alone").mkdir()
    out = tmp_path / "alone" / "features.h5"
    done = run_cli("encode", model, image_set, *FLAGS, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def contents(path):
    with FeatureStore.open(path) as store:
        found = [store.head.weight, store.head.bias, store.class_names, store.train.view_kinds]
        for split in (store.train, store.test):
            found += [split.float32(), split.labels[:], split.ids[:]]
        return [*found, *(store.train.float32(view=view) for view in range(2))]


def same(found, expected):
    return all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def left_in(folder):
    return sorted(path.name for path in folder.iterdir() if "result.json" not in path.name)


def shards(count):
    return [shard_name("features", index, count).name for index in range(count)] + ["features.json"]


def test_shards_that_ray_encodes_are_the_file_of_one_process(ray, run_cli, model, image_set, alone, tmp_path):
    (tmp_path / "ray").mkdir()
    command = ("encode", model, image_set, *FLAGS, "--out", tmp_path / "ray" / "features.h5", "--json",
               "--engine", "ray", "--shards", 3)  # fmt: skip
    done = run_cli(*command)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    manifest = tmp_path / "ray" / "features.json"
    assert same(contents(manifest), contents(alone[0]))
    assert figures["store"] == str(manifest)
    assert figures["shards"] == 3
    for name in ("rows", "splits", "dim", "views", "encoder", "images"):
        assert figures[name] == alone[1][name]
    assert not verify(manifest).problems
    assert left_in(tmp_path / "ray") == shards(3)

    # A second start does what is missing, and nothing where nothing is.
    kept, lost = (shard_name(manifest, index, 3) for index in (0, 1))
    before = kept.stat().st_mtime_ns
    lost.unlink()
    assert "already exists" in run_cli(*command).stderr
    again = run_cli(*command, "--resume")
    assert again.returncode == 0, again.stderr
    assert kept.stat().st_mtime_ns == before
    assert same(contents(manifest), contents(alone[0]))
    assert json.loads(again.stdout)["rows"] == alone[1]["rows"]
    nothing = run_cli(*command, "--resume")
    assert "these images are encoded; nothing to do" in nothing.stderr
    assert json.loads(nothing.stdout)["rows"] == alone[1]["rows"]
    other = run_cli(*command, "--resume", "--dtype", "float16")
    assert "holds the rows of other settings" in other.stderr


def test_one_process_does_not_encode_twice(run_cli, model, image_set, alone):
    out, figures = alone
    written = out.stat().st_mtime_ns
    again = run_cli("encode", model, image_set, *FLAGS, "--out", out, "--json", "--resume")
    assert again.returncode == 0, again.stderr
    assert out.stat().st_mtime_ns == written
    assert json.loads(again.stdout)["rows"] == figures["rows"]


def test_a_worker_that_is_killed_in_a_shard_is_made_again(ray, model, image_set, alone, tmp_path):
    (tmp_path / "ray").mkdir()
    out, mark = tmp_path / "ray" / "features.h5", tmp_path / "killed"
    work = Encoding(str(model), str(image_set), {}, EncodeConfig(**VIEWS), 1, "cpu", 1)

    def make(work, out, count, resume, overwrite):
        encode = encoding.shard_encoder(work, out, count, resume, overwrite)

        def encode_or_die(index):
            if index == 1 and not mark.exists():
                mark.touch()
                from ldmlr.store.split_writer import SplitWriter

                SplitWriter.write_view = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            return encode(index)

        return encode_or_die

    outcomes = pool_outcomes(
        ray, make, (work, out, 3, True, False), [(0,), (1,), (2,)], threads=1, on_gpu=False
    )
    assert sorted(number for number, _ in all_results(outcomes)) == [0, 1, 2]
    assert mark.exists()
    write_manifest(out)  # which is the driver's
    assert same(contents(out.with_suffix(".json")), contents(alone[0]))
    assert left_in(out.parent) == shards(3)


def test_a_full_disk_of_one_worker_costs_its_shard_alone(ray, model, image_set, alone, tmp_path):
    (tmp_path / "ray").mkdir()
    out = tmp_path / "ray" / "features.h5"
    work = Encoding(str(model), str(image_set), {}, EncodeConfig(**VIEWS), 1, "cpu", 1)

    def make(full, *arguments):
        encode = encoding.shard_encoder(*arguments)

        def encode_on_a_disk(index):
            import errno

            from ldmlr.store.split_writer import SplitWriter

            whole = SplitWriter.write_view

            def write_view(self, *given):
                if full and index == 1:
                    with self.writer.guard():
                        raise OSError(errno.ENOSPC, "no space")
                whole(self, *given)

            SplitWriter.write_view = write_view
            try:
                return encode(index)
            finally:
                SplitWriter.write_view = whole

        return encode_on_a_disk

    def run(full):
        arguments = (full, work, out, 3, True, False)
        outcomes = pool_outcomes(ray, make, arguments, [(0,), (1,), (2,)], threads=1, on_gpu=False)
        return list(all_results(outcomes))

    with pytest.raises(LdmlrError, match=r"the disk is full.*what was finished is kept: go on with resume"):
        run(full=True)
    assert left_in(out.parent) == [shards(3)[0], shards(3)[2]]
    assert len(run(full=False)) == 3
    write_manifest(out)
    assert same(contents(out.with_suffix(".json")), contents(alone[0]))


def test_a_driver_that_is_killed_and_started_again(ray, model, image_set, alone, tmp_path):
    (tmp_path / "ray").mkdir()
    out = tmp_path / "ray" / "features.h5"
    command = [*LDMLR, "encode", model, image_set, *FLAGS, "--engine", "ray", "--shards", 3, "--out", out]
    first = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(out.parent.glob("features-*.h5")) and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.01)
    first.kill()
    first.wait()
    again = subprocess.run(
        [*map(str, command), "--resume"], capture_output=True, text=True, timeout=240, check=False
    )
    assert again.returncode == 0, again.stderr
    assert same(contents(out.with_suffix(".json")), contents(alone[0]))
    assert left_in(out.parent) == shards(3)


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_share_the_images(model, image_set, alone, tmp_path, size):
    (tmp_path / "ranks").mkdir()
    out = tmp_path / "ranks" / "features.h5"
    found = end(start(size, ["-m", "ldmlr", "encode", model, image_set, *FLAGS, "--out", out, "--json"]))
    assert [status for status, *_ in found] == [0] * size, found
    assert [output for _, output, _ in found[1:]] == [""] * (size - 1)
    figures = json.loads(found[0][1])
    assert (figures["rows"], figures["shards"]) == (alone[1]["rows"], size)
    assert same(contents(out.with_suffix(".json")), contents(alone[0]))
    assert left_in(out.parent) == shards(size)


@pytest.mark.parametrize("command", ["encode", "augment"])
def test_a_second_driver_is_refused(ray, run_cli, model, image_set, tmp_path, command):
    if command == "encode":
        words = ("encode", model, image_set, "--out", tmp_path / "features.h5")
        busy = tmp_path / "features.json"
    else:
        features, labels = blobs()
        FeatureStore.write(tmp_path / "a.h5", train=SplitData(features, labels))
        words = ("augment", tmp_path / "a.h5", "--out-dir", tmp_path / "out", "--iterations", 5)
        busy = tmp_path / "out" / "a.h5"
    # By another thread: a lock is this process's as a whole.
    import threading

    taken, done = threading.Event(), threading.Event()

    def hold():
        with owned(busy):
            taken.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait(60)
    found = run_cli(*words, "--device", "cpu", "--engine", "ray")
    done.set()
    holder.join()
    assert found.returncode == 1
    assert f"{busy.name}: " in found.stderr
    assert "is writing this output" in found.stderr


def test_stores_that_ray_augments_are_those_of_one_process(ray, run_cli, tmp_path):
    stores = []
    for seed, name in enumerate("ab"):
        features, labels = blobs(seed=seed)
        stores.append(tmp_path / f"{name}.h5")
        FeatureStore.write(stores[-1], train=SplitData(features, labels))
    broken = tmp_path / "c.h5"  # found out only when it is trained on
    FeatureStore.write(broken, train=SplitData(np.ones_like(features), labels))
    options = ("--hidden", 16, "--layers", 1, "--iterations", 20, "--batch-size", 32, "--seed", 3,
               "--device", "cpu", "--json")  # fmt: skip
    alone = run_cli("augment", *stores, "--out-dir", tmp_path / "alone", *options, "--threads", 1)
    assert alone.returncode == 0, alone.stderr
    command = ("augment", stores[0], broken, stores[1], "--out-dir", tmp_path / "ray", *options, "--engine",
               "ray")  # fmt: skip
    done = run_cli(*command)
    assert done.returncode != 0
    assert "1 of 3 stores failed, the others are finished" in done.stderr
    for name in ("a.h5", "b.h5", "a.model.safetensors", "b.model.safetensors"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    kept = (tmp_path / "ray" / "a.h5").stat().st_mtime_ns
    (tmp_path / "ray" / "b.h5").unlink()
    again = run_cli(*[word for word in command if word != broken], "--resume")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "ray" / "a.h5").stat().st_mtime_ns == kept
    assert (tmp_path / "ray" / "b.h5").read_bytes() == (tmp_path / "alone" / "b.h5").read_bytes()


def test_shards_have_whole_batches_and_every_row_once():
    for rows, batch, count in ((62, 8, 3), (30, 8, 3), (5, 8, 3), (64, 8, 8)):
        parts = [part_of(rows, batch, (index, count)) for index in range(count)]
        assert [row for part in parts for row in part] == list(range(rows))
        assert all(part.start % batch == 0 for part in parts if part)
    assert part_of(62, 8, None) == range(62)


def test_the_number_of_shards():
    assert shard_count(62, 8, None, 1) == 1
    assert shard_count(62, 8, None, 3) == 3
    assert shard_count(10**6, 256, None, 3) == 63  # as many for every rank
    assert shard_count(10, 8, None, 3) == 2
    assert shard_count(62, 8, 8, 1) == 8
    with pytest.raises(
        UsageError, match="shards: must be from 1 to 8, the batches of training images, not 9"
    ):
        shard_count(62, 8, 9, 1)
