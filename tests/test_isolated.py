"""`ldmlr.isolated`, `ldmlr.boundary`: files from others are read within limits, no pipe is waited for.

Old-format HDF5 whose texts make the library loop for ever, files that crash or ask for all memory: one line.
"""

from __future__ import annotations

import os
import time

import h5py
import numpy as np
import pytest
from support.readers import allocate, answer, crash, leave, loop, surprise, unknown, wrong

from ldmlr import isolated
from ldmlr.boundary import boundary
from ldmlr.errors import InputError, UsageError
from ldmlr.store import FeatureStore, SplitData, verify
from ldmlr.store.convert.importing import import_store

RNG = np.random.default_rng(0)


@pytest.fixture
def short(monkeypatch):
    """Let a reading process compute for a second and take 512 MiB."""
    monkeypatch.setattr(isolated, "SECONDS", 1.0)
    monkeypatch.setattr(isolated, "MEMORY", 512 << 20)


# --- what ends a reading process -----------------------------------------------------------------
@pytest.mark.parametrize(
    ("function", "message"),
    [
        (loop, "took more than 1 s of computing"), (allocate, "takes more than 0.5 GiB of memory"),
        (crash, "ended the process that reads (SIGSEGV)"), (leave, "ended the process that reads"),
        (surprise, "failed (KeyError: 'no such thing')"),
    ],
)  # fmt: skip
def test_whatever_ends_a_reader_is_one_line(short, function, message):
    with pytest.raises(InputError) as caught:
        isolated.call(function, path="file.h5")
    assert str(caught.value).startswith(f"file.h5: reading it {message}; it is damaged, or made to do harm")
    assert "\n" not in str(caught.value)
    assert isolated.call(answer, 1, os.getcwd(), path="file.h5") == {"number": 2, "folder": True}


def test_errors_of_a_reader_arrive_as_they_are(tmp_path, monkeypatch):
    for function in (wrong, unknown):
        with pytest.raises(UsageError, match=r"^file\.h5: say it another way$"):
            isolated.call(function, path="file.h5")
    monkeypatch.chdir(tmp_path)
    assert isolated.call(answer, np.int64(4), tmp_path, path="file.h5") == {"number": 5, "folder": True}


def test_a_forked_process_has_readers_of_its_own():
    isolated.call(answer, 1, ".", path="file.h5")
    child = os.fork()
    if not child:
        good = isolated.call(answer, 1, ".", path="file.h5")["number"] == 2
        isolated._server.stop()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert isolated.call(answer, 2, ".", path="file.h5")["number"] == 3


def test_limits_grow_with_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"1" * 1000)
    (tmp_path / "b").write_bytes(b"1" * 10)
    assert isolated.size_of(tmp_path) == 1010
    assert isolated.size_of(tmp_path / "gone") == 0
    small, large = isolated.limits(0), isolated.limits(1 << 30)
    assert large["seconds"] > small["seconds"] >= 60
    assert large["memory"] - small["memory"] == 16 << 30


# --- the boundary --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [ValueError, KeyError, RuntimeError, OSError, ZeroDivisionError, AttributeError]
)
def test_any_error_within_a_boundary_names_the_file(kind):
    with pytest.raises(
        InputError, match=r"^a\.h5: is a damaged HDF5 file \(what is wrong\); copy it again$"
    ) as caught:
        with boundary("a.h5", "HDF5 file", "copy it again"):
            raise kind("what is wrong")
    assert isinstance(caught.value.__cause__, kind)


def test_memory_and_brackets_and_permissions_are_told_apart():
    for error, words in (
        (MemoryError(), "need more memory than there is"), (RecursionError(), "brackets within brackets"),
        (PermissionError(13, "Permission denied"), "a.h5: permission denied"),
        (InputError("b: known"), "b: known"),
    ):  # fmt: skip
        with pytest.raises(Exception, match=words), boundary("a.h5", "HDF5 file"):
            raise error


# --- HDF5 of the old format ----------------------------------------------------------------------


def endless(path, **datasets):
    """Write an old-format file with texts, in whose heap an object has no size: HDF5 walks it for ever."""
    with h5py.File(path, "w", libver="earliest") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
    data = bytearray(path.read_bytes())
    assert data[8] < 2, "not the old format"
    place = data.index(b"GCOL") + 16
    # An object with a number and a length that wraps round.
    data[place + 8 : place + 16] = b"\xff" * 8
    path.write_bytes(data)
    return path


STORE = {
    "train__features": np.ones((6, 2), "f4"),
    "train__labels": np.arange(6) % 3,
    "class_names": ["a", "b", "c"],
}
IMAGES = {
    "train__images": RNG.integers(0, 255, (6, 8, 8, 3), np.uint8), "train__labels": np.arange(6) % 3,
    "class_names": ["a", "b", "c"],
}  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("store", "verify", "s.h5"), ("store", "verify", "--untrusted", "s.h5"), ("store", "inspect", "s.h5"),
        ("store", "import", "s.h5", "--out", "o.h5"), ("run", "s.h5", "--out", "r"),
        ("diffuse", "s.h5", "--out", "m.safetensors"), ("finetune", "s.h5", "--out", "h.safetensors"),
        ("run", "i.h5", "--out", "r"), ("baseline", "i.h5", "--out", "b", "--epochs", "1"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_file_that_makes_the_library_loop_is_refused(tmp_path, monkeypatch, run_cli, short, words):
    monkeypatch.chdir(tmp_path)
    endless(tmp_path / "s.h5", **STORE)
    endless(tmp_path / "i.h5", **IMAGES)
    started = time.monotonic()
    done = run_cli(*words)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1), done.stderr
    assert done.stderr.startswith(("Error: s.h5: ", "Error: i.h5: "))
    assert time.monotonic() - started < 30
    assert {file.name for file in tmp_path.iterdir()} == {"s.h5", "i.h5"}


@pytest.mark.parametrize("before", [0, 512])  # bytes of another program, as MATLAB writes them
def test_sound_files_of_the_old_format_are_probed_once(tmp_path, monkeypatch, before):
    with h5py.File(tmp_path / "s.h5", "w", userblock_size=before) as file:
        for name, values in STORE.items():
            file[name.replace("__", "/")] = values
    asked = []
    monkeypatch.setattr(isolated, "call", lambda *_, **where: asked.append(where["path"]))
    for _ in range(3):
        assert FeatureStore.open(tmp_path / "s.h5").class_names == ("a", "b", "c")
    assert len(asked) == 1


def test_own_stores_are_read_without_another_process(tmp_path, monkeypatch):
    monkeypatch.setattr(isolated, "call", None)
    store = FeatureStore.write(
        tmp_path / "s.h5", train=SplitData(np.ones((4, 2)), [0, 1, 0, 1]), class_names=["a", "b"]
    )
    assert verify(store.path).problems == []
    assert len(FeatureStore.open(store.path).train.float32()) == 4


def test_verify_of_a_file_that_is_not_trusted_finds_the_same(tmp_path, run_cli):
    FeatureStore.write(tmp_path / "s.h5", train=SplitData(np.ones((4, 2)), [0, 1, 0, 1]))
    (tmp_path / "cut.h5").write_bytes((tmp_path / "s.h5").read_bytes()[:-100])
    assert verify(tmp_path / "s.h5", untrusted=True) == verify(tmp_path / "s.h5")
    assert verify(tmp_path / "cut.h5", untrusted=True) == verify(tmp_path / "cut.h5")
    assert run_cli("store", "verify", "--untrusted", tmp_path / "s.h5").returncode == 0
    done = run_cli("store", "verify", "--untrusted", tmp_path / "cut.h5")
    assert done.returncode == 1
    assert "is truncated" in done.stderr


def test_an_import_that_is_ended_leaves_nothing(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", features=RNG.random((3000, 3000)), labels=np.arange(3000) % 3)
    monkeypatch.setattr(isolated, "SECONDS", 0.0)
    monkeypatch.setattr(isolated, "SECONDS_PER_BYTE", 0.0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match="took more than 0 s"):
        import_store(tmp_path / "x.npz", tmp_path / "out.h5")
    assert sorted(tmp_path.iterdir()) == before


# --- pipes and devices ---------------------------------------------------------------------------

INPUTS = [
    ("store", "verify", "{}.h5"), ("store", "import", "{}.npz", "--out", "o.h5"),
    ("store", "import", "{}.csv", "--out", "o.h5"), ("store", "import", "{}.pt", "--out", "o.h5"),
    ("run", "{}.toml"), ("run", "{}.h5"), ("run", "{}.csv"), ("run", "{}.txt"), ("run", "{}"),
    ("diffuse", "{}.npz", "--out", "m.safetensors"), ("generate", "{}.safetensors", "--out", "g.h5"),
    ("baseline", "{}.txt", "--out", "b"), ("baseline", "{}.tar.gz", "--out", "b"),
    ("baseline", "digits-lt", "--out", "b", "--init", "{}.safetensors"),
    ("encode", "{}.safetensors", "digits-lt", "--out", "f.h5"),
    ("encode", "{}.pt2", "digits-lt", "--out", "f.h5"), ("evaluate", "s.h5", "--head", "{}.safetensors"),
    ("diffuse", "s.h5", "--config", "{}.toml", "--out", "m.safetensors"),
    ("report", "{}.json"), ("store", "import", "x.npy", "{}.npy", "--out", "o.h5"),
]  # fmt: skip


@pytest.mark.parametrize("words", INPUTS, ids=" ".join)
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path, monkeypatch, run_cli, words):
    monkeypatch.chdir(tmp_path)
    FeatureStore.write(
        "s.h5", train=SplitData(np.ones((4, 2)), [0, 1, 0, 1]), test=SplitData(np.ones((2, 2)), [0, 1])
    )
    np.save("x.npy", np.ones((4, 2)))
    name = next(word for word in words if "{}" in word).format("pipe")
    os.mkfifo(name)
    done = run_cli(*(word.format("pipe") for word in words))
    assert done.returncode in (1, 2), done.stdout
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"{name}: is a device or a pipe" in done.stderr
