"""Stores and models under URLs: what is written there is what is read, and only what is needed is read."""

from __future__ import annotations

import errno
import pickle
import time
import types
from pathlib import Path

import fsspec
import numpy as np
import pytest
from support.objects import FlakyFileSystem

import ldmlr
from ldmlr import connection, lease, objects, spool
from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.files import atomic_path, write_text
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.ownership import owned
from ldmlr.remote import as_path
from ldmlr.store import (
    FeatureStore,
    SplitData,
    find_shards,
    manifest_name,
    shard_name,
    verify,
    write_manifest,
)
from ldmlr.store.convert.importing import import_store
from ldmlr.streamed import BLOCK, Streamed, _blocks

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(0)
X = RNG.normal(size=(600, 24)).astype(np.float32)
Y = np.arange(600) % 5


@pytest.fixture(autouse=True)
def _clean(tmp_path, monkeypatch):
    """Give every test an empty store, and folders of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.0)
    spool._folder_of.clear()
    spool._copies.clear()
    FlakyFileSystem.reset(share=0)
    fsspec.filesystem("memory").store.clear()


def written(url, **more):
    ids = np.array([f"row {number}" for number in range(len(X))])
    return FeatureStore.write(
        url, train=SplitData(X, Y, ids=ids), test=SplitData(X[:50], Y[:50]), config={"of": "a test"}, **more
    )


def check_store(url):
    """Write a store, and read it back in every way."""
    store = written(url)
    assert str(store.path) == url
    np.testing.assert_array_equal(store.train.features, X)
    np.testing.assert_array_equal(store.train.labels, Y)
    order = RNG.permutation(len(X))
    np.testing.assert_array_equal(store.train.float32(order), X[order])
    np.testing.assert_array_equal(store.train.float32(slice(3, 9)), X[3:9])
    assert store.train.ids[7] == "row 7"
    assert store.config == {"of": "a test"}
    again = pickle.loads(pickle.dumps(store.train))
    np.testing.assert_array_equal(again.features[:], X)
    assert verify(url).problems == []
    with pytest.raises(UsageError, match="already exists"):
        written(url)
    written(url, dtype="float16", overwrite=True)
    with pytest.raises(InputError, match="changed after it was opened"):
        store.train.float32(order)


def test_a_store_in_memory(tmp_path):
    check_store("memory://bucket/sets/features.h5")
    written(tmp_path / "local.h5", dtype="float16")
    there = fsspec.filesystem("memory").cat_file("/bucket/sets/features.h5")
    assert there == (tmp_path / "local.h5").read_bytes()
    # Nothing else is left: no temporary object, no lock, no copy.
    assert fsspec.filesystem("memory").find("/") == ["/bucket/sets/features.h5"]
    assert [path.name for path in spool.own_folder().iterdir()] == []


def test_a_store_on_s3(s3):
    check_store(f"{s3}/sets/features.h5")
    assert fsspec.filesystem("s3").find(s3) == [f"{s3[5:]}/sets/features.h5"]


def test_a_file_url_is_a_local_file(tmp_path):
    store = written(f"file://{tmp_path}/features.h5")
    assert store.path == tmp_path / "features.h5"
    assert isinstance(store.train.features, np.memmap)


@pytest.mark.parametrize("base", ["memory://bucket", "s3"])
def test_models_and_heads(base, request):
    base = request.getfixturevalue("s3") if base == "s3" else base
    model = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=20, seed=0).fit(X, Y)
    model.save(f"{base}/model.safetensors")
    again = ldmlr.LatentDiffusion.load(f"{base}/model.safetensors")
    np.testing.assert_array_equal(model.sample(Y[:20], steps=3), again.sample(Y[:20], steps=3))
    with pytest.raises(UsageError, match="already exists"):
        model.save(f"{base}/model.safetensors", overwrite=False)
    head = ldmlr.finetune(written(f"{base}/f.h5"), None, epochs=1)
    head.save(f"{base}/head.safetensors")
    again = FinetunedHead.load(f"{base}/head.safetensors")
    np.testing.assert_array_equal(head.predict(X), again.predict(X))


@pytest.mark.parametrize("base", ["memory://bucket/sets", "s3"])
def test_shards_and_their_manifest(base, request):
    base = request.getfixturevalue("s3") + "/shards" if base == "s3" else base
    out = f"{base}/rows.h5"
    for index, part in enumerate(np.array_split(np.arange(len(X)), 3)):
        FeatureStore.write(shard_name(out, index, 3), train=SplitData(X[part], Y[part]), num_classes=5)
    assert [path.name for path in find_shards(out)] == [f"rows-0000{i}-of-00003.h5" for i in range(3)]
    assert str(write_manifest(out)) == f"{base}/rows.json"
    store = FeatureStore.open(manifest_name(out))
    np.testing.assert_array_equal(store.train.float32(np.arange(len(X))[::-1]), X[::-1])
    assert verify(manifest_name(out)).problems == []
    assert verify(manifest_name(out), untrusted=True).problems == []
    shard_name(out, 1, 3).unlink()
    with pytest.raises(InputError, match=r"rows-00001-of-00003.h5: this shard of rows.json is missing"):
        FeatureStore.open(manifest_name(out))
    assert any("is missing" in line for line in verify(manifest_name(out)).problems)


def test_a_damaged_object_is_found_by_its_checksum():
    written("memory://bucket/features.h5")
    there = fsspec.filesystem("memory")
    data = bytearray(there.cat_file("/bucket/features.h5"))
    place = data.find(X[100].tobytes())
    data[place] ^= 1
    there.pipe_file("/bucket/features.h5", bytes(data))
    for untrusted in (False, True):
        (problem,) = verify("memory://bucket/features.h5", untrusted).problems
        assert problem.startswith("memory://bucket/features.h5: /train/features: its contents differ")
    there.pipe_file("/bucket/features.h5", bytes(data[: len(data) // 2]))
    with pytest.raises(InputError, match=r"^memory://bucket/features.h5: .*truncated"):
        FeatureStore.open("memory://bucket/features.h5")


def test_only_what_is_needed_is_read():
    rows = 40_000
    big = RNG.normal(size=(rows, 256)).astype(np.float32)  # 40 MB
    FeatureStore.write("flaky://bucket/big.h5", train=SplitData(big, np.arange(rows) % 5))
    FlakyFileSystem.bytes_read = 0
    _blocks.kept.clear()
    FlakyFileSystem.done.clear()
    store = FeatureStore.open("flaky://bucket/big.h5")
    assert FlakyFileSystem.bytes_read < 4 * BLOCK
    assert FlakyFileSystem.done["info"] == 1
    FlakyFileSystem.bytes_read = 0
    np.testing.assert_array_equal(store.train.float32([5, 30_000, 30_001]), big[[5, 30_000, 30_001]])
    assert FlakyFileSystem.bytes_read < BLOCK
    few = RNG.choice(rows, 300)
    np.testing.assert_array_equal(store.train.float32(few), big[few])
    assert FlakyFileSystem.bytes_read < big.nbytes / 2
    np.testing.assert_array_equal(store.train.float32(slice(100, 20_000)), big[100:20_000])


def test_reading_at_any_place():
    data = RNG.bytes(3 * BLOCK + 17)
    objects.write("memory://bucket/blob", data)
    with Streamed("memory://bucket/blob") as file:
        for start, count in [
            (0, 1),
            (BLOCK - 3, 7),
            (len(data) - 5, 100),
            (5, 3 * BLOCK),
            (2 * BLOCK, BLOCK),
        ]:
            file.seek(start)
            assert file.read(count) == data[start : start + count]
        file.seek(0)
        assert file.read() == data
        file.seek(-3, 2)
        assert (file.read(), file.read()) == (data[-3:], b"")


def test_large_reads_pass_by_the_kept_blocks(monkeypatch):
    data = RNG.bytes(200_000)
    monkeypatch.setattr("ldmlr.streamed.LARGE", 50_000)
    monkeypatch.setattr("ldmlr.streamed.PIECE", 7_000)
    objects.write("memory://bucket/large", data)
    with Streamed("memory://bucket/large") as file:
        file.seek(11)
        assert file.read(150_001) == data[11 : 11 + 150_001]


def test_importing_from_and_to_elsewhere(tmp_path):
    np.savez(tmp_path / "rows.npz", features=X, labels=Y, more=Y)
    objects.upload(tmp_path / "rows.npz", "memory://bucket/rows.npz", False)
    done = import_store("memory://bucket/rows.npz", "memory://bucket/out.h5")
    np.testing.assert_array_equal(done.store.train.features, X)
    assert done.store.config["imported_from"] == "rows.npz"
    assert done.notes == ["memory://bucket/rows.npz: not used: more"]
    for name, values in (("X.npy", X), ("y.npy", Y)):
        np.save(tmp_path / name, values)
        objects.upload(tmp_path / name, f"memory://bucket/{name}", False)
    done = import_store("memory://bucket/X.npy", tmp_path / "here.h5")
    np.testing.assert_array_equal(done.store.train.features, X)
    write_text(as_path("memory://bucket/bad.npz"), "PK no")
    with pytest.raises(InputError, match=r"^memory://bucket/bad.npz: "):
        import_store("memory://bucket/bad.npz", "memory://bucket/bad.h5")
    with pytest.raises(InputError, match=r"^memory://bucket/none.npz: no such file"):
        import_store("memory://bucket/none.npz", tmp_path / "none.h5")
    assert not as_path("memory://bucket/bad.h5").exists()


def test_hdf5_without_checksums_is_read_from_a_copy_with_limits(tmp_path):
    import h5py

    with h5py.File(tmp_path / "old.h5", "w", libver="earliest") as file:
        file["train/features"], file["train/labels"] = X, Y
    objects.upload(tmp_path / "old.h5", "memory://bucket/old.h5", False)
    store = FeatureStore.open("memory://bucket/old.h5")
    np.testing.assert_array_equal(store.train.features, X)
    assert str(store.path) == "memory://bucket/old.h5"
    assert verify("memory://bucket/old.h5").problems == []


def test_two_writers_of_one_output():
    url = "memory://bucket/out.h5"
    with owned(as_path(url)):
        lock = "memory://bucket/.out.h5.lock"
        assert objects.info(lock) is not None
        # As another process of this machine that is alive would find it.
        with pytest.raises(LdmlrError, match=r"is writing this output; .* if it is dead, remove memory://"):
            lease._take(url, lock, "another")
    assert objects.info(lock) is None


def test_a_lock_that_was_left_behind_is_taken_over(monkeypatch):
    url, lock = "memory://bucket/out.h5", "memory://bucket/.out.h5.lock"
    objects.write(lock, lease._content("dead"))
    monkeypatch.setattr(lease, "is_dead", lambda process: True)
    with owned(as_path(url)):
        assert lease._holder(lock)["mark"] != "dead"
    assert objects.info(lock) is None
    # Of another machine: after a while.
    monkeypatch.setattr(lease, "machine_mark", lambda: "elsewhere")
    objects.write(lock, lease._content("dead"))
    monkeypatch.setattr(lease, "machine_mark", lambda: "here")
    with pytest.raises(LdmlrError, match="is writing this output"), owned(as_path(url)):
        pass
    monkeypatch.setattr(lease, "LEFT", -1.0)
    with owned(as_path(url)):
        assert lease._holder(lock)["machine"] == "here"


def put(path, text, meanwhile=lambda: None, overwrite=False):
    with atomic_path(path, overwrite) as place:
        place.write_text(text)
        meanwhile()
    return place


def test_who_has_lost_the_lock_writes_nothing():
    path, lock = as_path("memory://bucket/out.txt"), "memory://bucket/.out.txt.lock"
    with owned(path), pytest.raises(LdmlrError, match=r"took this output over.*nothing was written"):
        put(path, "late", lambda: objects.write(lock, lease._content("another")))
    assert not path.exists()
    assert lease._holder(lock)["mark"] == "another"


def test_a_lock_is_renewed_while_it_is_held(monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.01)
    lock = "memory://bucket/.out.h5.lock"
    with owned(as_path("memory://bucket/out.h5")):
        first = lease._holder(lock)["renewed"]
        until = time.monotonic() + 60
        while lease._holder(lock).get("renewed", first) == first:
            assert time.monotonic() < until, "the lock was not renewed"
            time.sleep(0.01)


def test_a_lock_on_s3(s3):
    assert objects.create(f"{s3}/.lock", b"one")
    assert not objects.create(f"{s3}/.lock", b"two")
    assert objects.read(f"{s3}/.lock") == b"one"
    objects.remove(f"{s3}/.lock")
    with pytest.raises(FileNotFoundError):
        objects.remove(f"{s3}/.lock")


def test_a_write_that_fails_leaves_nothing():
    places = []

    def fail():
        places.extend(spool.own_folder().iterdir())
        raise RuntimeError

    with pytest.raises(RuntimeError):
        put(as_path("memory://bucket/out.txt"), "half", fail)
    assert fsspec.filesystem("memory").find("/") == []
    assert len(places) == 1
    assert not places[0].exists()


def test_an_output_that_came_meanwhile_is_not_replaced():
    path = as_path("memory://bucket/out.txt")
    with pytest.raises(UsageError, match="another process wrote it meanwhile"):
        put(path, "mine", lambda: write_text(path, "theirs"))
    assert path.read_text() == "theirs"
    put(path, "mine", lambda: write_text(path, "theirs"), overwrite=True)
    assert path.read_text() == "mine"


def test_a_bucket_that_is_not_there_is_one_line(s3, run_cli, tmp_path):
    written(tmp_path / "features.h5")
    command = ("generate", tmp_path / "features.h5", "--generator", "gaussian", "--strategy", "ratio")
    outcome = run_cli(*command, "--out", "s3://no-such-bucket/rows.h5")
    assert outcome.returncode == 1
    last = outcome.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: s3://no-such-bucket/")
    assert last.endswith("there is no such bucket; make it, or name another")


def test_a_disk_that_is_full_is_that_of_this_machine(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool, "_new", full)
        with pytest.raises(LdmlrError, match=r"^memory://bucket/x: No space left.*set TMPDIR to another"):
            write_text(as_path("memory://bucket/x"), "x")
    monkeypatch.setattr("shutil.disk_usage", lambda _: types.SimpleNamespace(free=1000))
    with pytest.raises(LdmlrError, match=r"needs .* but .* are free; it is made in .*set TMPDIR"):
        written("memory://bucket/features.h5")
    assert fsspec.filesystem("memory").find("/") == []
