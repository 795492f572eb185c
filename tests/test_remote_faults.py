"""An object store that fails, one request in five or all of them, and commands that are killed."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import fsspec
import numpy as np
import pytest
from support.objects import FlakyFileSystem

import ldmlr
from ldmlr import connection, lease, objects, spool
from ldmlr.encoders.checkpoint import load_checkpoint, save_checkpoint
from ldmlr.errors import LdmlrError
from ldmlr.remote import as_path
from ldmlr.store import FeatureStore, SplitData, verify
from ldmlr.streamed import _blocks

RNG = np.random.default_rng(2)
LABELS = np.repeat(np.arange(4), (600, 300, 120, 60))
X = (RNG.normal(size=(4, 16))[LABELS] * 2 + RNG.normal(size=(len(LABELS), 16))).astype(np.float32)
GAUSSIAN = ("--generator", "gaussian", "--threads", "1")


@pytest.fixture(autouse=True)
def _store(tmp_path, monkeypatch):
    """Give every test an empty store that fails one time in five, and no pauses."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(connection, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(connection, "LONGEST_PAUSE", 0.0)
    spool._folder_of.clear()
    spool._copies.clear()
    _blocks.kept.clear()
    FlakyFileSystem.reset()


def objects_there():
    return sorted(FlakyFileSystem.store)


@pytest.mark.parametrize("seed", range(3))
def test_one_request_in_five_fails(seed):
    FlakyFileSystem.draw.seed(seed)
    store = FeatureStore.write("flaky://bucket/features.h5", train=SplitData(X, LABELS))
    order = RNG.permutation(len(X))
    np.testing.assert_array_equal(store.train.float32(order), X[order])
    assert verify("flaky://bucket/features.h5").problems == []
    model = ldmlr.LatentDiffusion(hidden=16, layers=1, iterations=5, seed=0).fit(X, LABELS)
    model.save("flaky://bucket/model.safetensors")
    again = ldmlr.LatentDiffusion.load("flaky://bucket/model.safetensors")
    np.testing.assert_array_equal(model.sample(LABELS[:9], steps=2), again.sample(LABELS[:9], steps=2))
    assert sum(FlakyFileSystem.failed.values()) > 5
    assert objects_there() == ["/bucket/features.h5", "/bucket/model.safetensors"]


def test_shards_drawn_through_failures_are_those_of_one_process(run_cli, tmp_path):
    FeatureStore.write(tmp_path / "features.h5", train=SplitData(X, LABELS))
    FeatureStore.write("flaky://bucket/features.h5", train=SplitData(X, LABELS))
    run_cli("generate", tmp_path / "features.h5", *GAUSSIAN, "--out", tmp_path / "whole.h5")
    for index in range(4):
        outcome = run_cli(
            "generate", "flaky://bucket/features.h5", *GAUSSIAN, "--out", "flaky://bucket/out/rows.h5",
            "--shard", f"{index}/4",
        )  # fmt: skip
        assert outcome.returncode == 0, outcome.stderr
    whole, parts = FeatureStore.open(tmp_path / "whole.h5"), FeatureStore.open("flaky://bucket/out/rows.json")
    np.testing.assert_array_equal(parts.train.float32(), whole.train.float32())
    np.testing.assert_array_equal(parts.train.labels, whole.train.labels)
    assert sum(FlakyFileSystem.failed.values()) > 20
    shards = [f"/bucket/out/rows-0000{index}-of-00004.h5" for index in range(4)]
    results = [f"{name}.result.json" for name in shards]
    assert objects_there() == sorted(
        ["/bucket/features.h5", *shards, *results, "/bucket/out/result.json", "/bucket/out/rows.json"]
    )


def test_a_store_that_fails_for_good_is_one_line(run_cli, tmp_path):
    FeatureStore.write(tmp_path / "features.h5", train=SplitData(X, LABELS))
    FlakyFileSystem.broken = True
    for command in (
        ("generate", tmp_path / "features.h5", *GAUSSIAN, "--out", "flaky://bucket/rows.h5"),
        ("store", "inspect", "flaky://bucket/features.h5"),
        ("generate", "flaky://bucket/model.safetensors", "--out", tmp_path / "rows.h5"),
    ):
        outcome = run_cli(*command)
        assert outcome.returncode == 1
        assert "Traceback" not in outcome.stderr
        last = outcome.stderr.strip().splitlines()[-1]
        assert last.startswith("Error: flaky://bucket/")
        assert f"the object store failed {connection.TRIES} times (" in last
    FlakyFileSystem.broken = False
    assert objects_there() == []
    assert not (tmp_path / "rows.h5").exists()


@pytest.fixture
def web():
    """Serve ``/CODE/...`` with that status, as a web server does."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(int(self.path.split("/")[1]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_address_that_does_not_answer_is_no_file_that_is_missing(web):
    """The file system for the web calls whatever goes wrong "not found"."""
    pytest.importorskip("aiohttp")
    assert objects.info(f"{web}/404/x.h5") is None
    with pytest.raises(LdmlrError, match=r"x\.h5: permission denied; check the credentials"):
        objects.info(f"{web}/403/x.h5")
    with pytest.raises(LdmlrError, match=r"the object store failed 8 times .*500"):
        objects.info(f"{web}/500/x.h5")
    with socket.socket() as closed:  # bound and not listened on: connections are refused
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/x.h5"
        with pytest.raises(
            LdmlrError, match=rf"{url}: the address did not answer in 8 tries \(Cannot connect"
        ):
            objects.info(url)


def test_a_store_that_does_not_answer_is_not_waited_for_without_end(monkeypatch):
    FlakyFileSystem.broken = True
    monkeypatch.setattr(connection, "PATIENCE", -1.0)
    with pytest.raises(LdmlrError, match="failed 1 times"):
        FeatureStore.open("flaky://bucket/features.h5")
    assert sum(FlakyFileSystem.failed.values()) == 1


def test_rows_that_could_not_be_uploaded_are_kept_for_another_start(run_cli, tmp_path, monkeypatch):
    FeatureStore.write(tmp_path / "features.h5", train=SplitData(X, LABELS))
    FlakyFileSystem.share = 0
    out = "flaky://bucket/rows.h5"
    command = ("generate", tmp_path / "features.h5", *GAUSSIAN, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(objects, "upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run_cli(*command).returncode != 0
    assert objects_there() == []
    refused = run_cli(*command)
    assert refused.returncode == 2
    assert "an interrupted run left its work here; go on with --resume" in refused.stderr
    assert run_cli(*command, "--resume").returncode == 0
    run_cli("generate", tmp_path / "features.h5", *GAUSSIAN, "--out", tmp_path / "whole.h5")
    np.testing.assert_array_equal(
        FeatureStore.open(out).train.float32(), FeatureStore.open(tmp_path / "whole.h5").train.float32()
    )


def test_a_checkpoint_elsewhere(monkeypatch):
    torch = pytest.importorskip("torch")
    path, run = as_path("flaky://bucket/checkpoint.pt"), {"seed": 1}
    save_checkpoint(path, run, {"weight": torch.arange(3.0)})
    assert load_checkpoint(path, run)["weight"].tolist() == [0, 1, 2]
    FlakyFileSystem.broken = True
    with pytest.raises(LdmlrError, match="the object store failed"):  # and not: damaged
        load_checkpoint(path, run)


def test_what_arrives_too_short_is_asked_for_again():
    FlakyFileSystem.share = 0
    FlakyFileSystem.short = 3
    store = FeatureStore.write("flaky://bucket/features.h5", train=SplitData(X, LABELS))
    assert FlakyFileSystem.short == 0
    FlakyFileSystem.short = 3
    _blocks.kept.clear()
    np.testing.assert_array_equal(store.train.float32(), X)
    assert FlakyFileSystem.short == 0


def test_the_last_answer_of_a_request_that_was_done_is_lost():
    # A removal and a creation are asked for again although they were done.
    FlakyFileSystem.share = 0
    for seed in range(30):
        FlakyFileSystem.draw.seed(seed)
        FlakyFileSystem.share = 0.3
        assert objects.create("flaky://bucket/lock", b"mine")
        assert not objects.create("flaky://bucket/lock", b"yours")
        assert objects.read("flaky://bucket/lock") == b"mine"
        objects.remove("flaky://bucket/lock")
        FlakyFileSystem.share = 0
        assert objects_there() == []


def test_two_drivers_of_one_output(run_cli, tmp_path):
    """A lock of a process that is alive refuses the second, also where that would overwrite."""
    FlakyFileSystem.share = 0
    FeatureStore.write("flaky://bucket/features.h5", train=SplitData(X, LABELS))
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        content = lease._content("other").replace(str(os.getpid()).encode(), str(other.pid).encode())
        objects.write("flaky://bucket/.rows.h5.lock", content)
        command = ("generate", "flaky://bucket/features.h5", *GAUSSIAN, "--out", "flaky://bucket/rows.h5")
        outcome = run_cli(*command, "--overwrite")
        assert outcome.returncode == 1
        assert f"rows.h5: process {other.pid} on " in outcome.stderr
        assert "is writing this output; wait until that has ended" in outcome.stderr
    finally:
        other.communicate(b"\n")
    # It is dead now: its lock is no hindrance.
    assert run_cli(*command).returncode == 0
    assert "/bucket/.rows.h5.lock" not in objects_there()


def test_a_copy_that_does_not_fit_is_refused(monkeypatch, tmp_path):
    FlakyFileSystem.share = 0
    objects.write("flaky://bucket/large.safetensors", b"x" * 10_000)
    monkeypatch.setattr("shutil.disk_usage", lambda _: os.statvfs_result((0,) * 10) and _Disk(5_000))
    with pytest.raises(LdmlrError, match=r"^flaky://bucket/large.safetensors: .*do not fit.*set TMPDIR"):
        spool.fetched(as_path("flaky://bucket/large.safetensors"))


class _Disk:
    def __init__(self, free):
        self.free = free


def test_folders_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = spool.base() / f"{dead.pid}-{spool.machine_mark()}-00000000"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"x")
    assert spool.own_folder().is_dir()
    assert not left.exists()


def test_the_folder_of_another_user_is_not_used(tmp_path):
    spool.base().chmod(0o777)
    with pytest.raises(LdmlrError, match="must be a folder of this user alone"):
        spool.base()


SLOW = """
import sys, time
import ldmlr.generation.parts as parts
drawn = parts.Parts.draw
def slow(self):
    if self.start:
        print("drawing", flush=True)
        time.sleep(600)
    return drawn(self)
if sys.argv.pop(1) == "slow":
    parts.Parts.draw = slow
from ldmlr_cli.main import main
main(sys.argv[1:])
"""


def test_a_killed_driver_is_started_again(tmp_path, monkeypatch, run_cli, s3):
    """Shards on S3 by one process after the other: the first shard is kept, the lock of the dead is not."""
    FeatureStore.write(f"{s3}/features.h5", train=SplitData(X, LABELS))
    command = ("generate", f"{s3}/features.h5", *GAUSSIAN, "--out", f"{s3}/rows.h5", "--resume")
    assert run_cli(*command, "--shard", "0/2").returncode == 0
    before = fsspec.filesystem("s3").info(f"{s3}/rows-00000-of-00002.h5")
    killed = subprocess.Popen(
        [sys.executable, "-c", SLOW, "slow", *command, "--shard", "1/2"], stdout=subprocess.PIPE
    )
    assert killed.stdout is not None
    assert killed.stdout.readline() == b"drawing\n"
    lock = f"{s3}/.rows-00001-of-00002.h5.lock"
    assert objects.info(lock) is not None
    refused = run_cli(*command, "--shard", "1/2")
    assert refused.returncode == 1
    assert f"process {killed.pid} on " in refused.stderr
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    began = time.monotonic()
    for index in range(2):
        outcome = run_cli(*command, "--shard", f"{index}/2")
        assert outcome.returncode == 0, outcome.stderr
    assert time.monotonic() - began < lease.LEFT
    assert objects.info(lock) is None
    assert fsspec.filesystem("s3").info(f"{s3}/rows-00000-of-00002.h5")["ETag"] == before["ETag"]
    run_cli("generate", f"{s3}/features.h5", *GAUSSIAN, "--out", tmp_path / "whole.h5")
    np.testing.assert_array_equal(
        FeatureStore.open(f"{s3}/rows.json").train.float32(),
        FeatureStore.open(tmp_path / "whole.h5").train.float32(),
    )
