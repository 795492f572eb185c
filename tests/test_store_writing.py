"""`ldmlr.store.writer`: whole or not at all, whatever goes wrong, and in memory that does not grow with the
rows.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ldmlr.errors import LdmlrError, UsageError
from ldmlr.store import FeatureStore, SplitData, StoreWriter, verify
from ldmlr.store.layout import StoredHead

DATA = SplitData(np.arange(12, dtype=np.float32).reshape(6, 2), np.arange(6) % 3)


@pytest.fixture
def path(tmp_path):
    """A store that must survive whatever happens to its replacement."""
    path = tmp_path / "store.h5"
    FeatureStore.write(path, train=DATA)
    return path


def run(code, *arguments):
    """Run code in another process: signals and limits must not reach this one."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_an_existing_output_is_kept_unless_overwritten(path):
    before = path.read_bytes()
    with pytest.raises(
        UsageError, match=r"store\.h5: already exists; name another output or pass overwrite=True"
    ):
        FeatureStore.write(path, train=DATA)
    assert path.read_bytes() == before
    data = SplitData(DATA.features + 1, DATA.labels)
    assert FeatureStore.write(path, train=data, overwrite=True).train.float32()[0, 0] == 1


@pytest.mark.parametrize("error", [ValueError("an error of the caller"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(path, error):
    before = path.read_bytes()

    def write():
        with StoreWriter(path, dim=2, num_classes=3, overwrite=True) as writer:
            writer.split("train", 6).write(0, DATA.features[:3], DATA.labels[:3])
            assert len(list(path.parent.iterdir())) == 3  # with the temporary file and the lock
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_write_leaves_the_old_file(path):
    before = path.read_bytes()
    code = """if 1:
        import os, signal, sys, numpy as np
        from ldmlr.store import StoreWriter
        with StoreWriter(sys.argv[1], dim=2, num_classes=3, overwrite=True) as writer:
            writer.split("train", 6).write(0, np.ones((3, 2)), np.zeros(3, int))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert run(code, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == before
    left = [file for file in path.parent.iterdir() if file != path and file.suffix != ".lock"]
    assert all(file.name.startswith(".store.h5.") for file in left)
    for file in left:  # whoever opens the remains is told
        with pytest.raises(LdmlrError, match=r"not complete|damaged|truncated|never written"):
            FeatureStore.open(file)
    FeatureStore.write(path, train=DATA, overwrite=True)  # whoever writes next removes them
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_a_full_disk_is_one_line_and_leaves_nothing(path, monkeypatch, after):
    calls = iter(range(1000))
    write = os.pwrite

    def full(*arguments):
        if next(calls) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    before = path.read_bytes()
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(LdmlrError, match=r"store\.h5: the disk is full; free some space") as caught:
        FeatureStore.write(path, train=DATA, overwrite=True)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_disk_that_fails_under_hdf5_does_not_crash_the_process(path):
    """A limit on the size of files is met by real system calls, below HDF5."""
    code = """if 1:
        import resource, sys, numpy as np
        from ldmlr.store import FeatureStore, SplitData
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
        data = SplitData(np.ones((3000, 8)), np.arange(3000) % 3, ids=[f"row {i}" for i in range(3000)])
        try:
            FeatureStore.write(sys.argv[1], train=data, overwrite=True)
        except Exception as error:
            print(type(error).__name__, error)
    """
    before = path.read_bytes()
    for limit in (1000, 50_000, 130_000):
        done = run(code, path, limit)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"LdmlrError {path}: the file grew past the size limit"), done.stdout
        assert done.stderr == ""
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]


def test_too_little_space_is_known_before_the_work_starts(path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 50, 50))
    with pytest.raises(LdmlrError, match=r"needs 96 bytes, but 50 bytes are free; free some space"):
        FeatureStore.write(path, train=DATA, overwrite=True)
    assert list(path.parent.iterdir()) == [path]


def test_a_read_only_folder_is_refused_at_once(tmp_path, monkeypatch):
    if os.geteuid() == 0:  # nothing is read-only for root

        def refuse(*_, **__):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        monkeypatch.setattr(os, "open", refuse)
        expected = "the file system is read-only"
    else:
        tmp_path.chmod(0o555)
        expected = "permission denied"
    with pytest.raises(LdmlrError, match=f"{expected}.*choose"):
        StoreWriter(tmp_path / "store.h5", dim=2, num_classes=3)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LdmlrError, match=r"a part of the path is a file|File exists|is a file"):
        FeatureStore.write(tmp_path / "file" / "store.h5", train=DATA)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA bounds mappings on Linux only")
def test_a_store_ten_times_the_memory_limit_is_written_verified_and_iterated(tmp_path):
    code = """if 1:
        import resource, sys
        from pathlib import Path
        import numpy as np
        from ldmlr.store import FeatureStore, SplitData, StoreWriter, verify
        from ldmlr.store.merging import merge_stores

        def used():
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData"))

        folder, margin, dim = Path(sys.argv[1]), 8 << 20, 256
        small, large = folder / "small.h5", folder / "large.h5"
        FeatureStore.write(small, train=SplitData(np.ones((3, 2)), [0, 1, 2]))  # loads what is loaded once
        verify(small)
        rows = 10 * margin // (4 * dim)
        block = np.random.default_rng(0).random((1000, dim), dtype=np.float32)
        limit = used() + margin
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            np.ones(margin + (1 << 20), np.uint8)
            print("no limit")
        except MemoryError:
            pass
        with StoreWriter(large, dim=dim, num_classes=10) as writer:
            train = writer.split("train", rows)
            for start in range(0, rows, len(block)):
                part = block[: rows - start]
                train.write(start, part, np.arange(start, start + len(part)) % 10)
        print(large.stat().st_size // margin, verify(large).problems)
        store = FeatureStore.open(large)
        total = sum(len(labels) for _, labels in store.train.batches(700))
        some = store.train.float32(np.array([rows - 1, 0, 5]))
        print(total == rows, np.array_equal(some[1:], block[[0, 5]]))
        print(len(merge_stores([large], folder / "merged.h5").store.train) == rows)
    """
    done = run(code, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == ["10 []", "True True", "True"]


def test_views_of_another_store_are_copied_without_loading(tmp_path):
    views = np.random.default_rng(0).random((2, 6, 2)).astype("f4")
    data = SplitData(
        DATA.features, DATA.labels, views=views, view_kinds=("weak", "strong"), ids=list("abcdef")
    )
    first = FeatureStore.write(tmp_path / "a.h5", train=data)
    copy = FeatureStore.write(tmp_path / "b.h5", train=first.train)
    assert copy.fingerprint() == first.fingerprint()
    assert np.array_equal(copy.train.views[1], views[1])
    assert verify(tmp_path / "b.h5").problems == []


def test_rows_written_twice_count_once(tmp_path):
    path = tmp_path / "store.h5"
    with StoreWriter(path, dim=2, num_classes=3) as writer:
        train = writer.split("train", 6)
        train.write(0, DATA.features[:4] + 1, DATA.labels[:4])
        train.write(2, DATA.features[2:], DATA.labels[2:])
        train.write(0, DATA.features[:2], DATA.labels[:2])
    assert np.array_equal(FeatureStore.open(path).train.features, DATA.features)
    assert verify(path).problems == []
    assert Path(path).stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_same_contents_are_the_same_bytes_whenever_they_are_written(tmp_path):
    data, head = (
        SplitData(DATA.features, DATA.labels, ids=list("abcdef")),
        StoredHead("linear", np.ones((3, 2))),
    )
    written = []
    for name in ("one.h5", "two.h5"):
        FeatureStore.write(tmp_path / name, train=data, test=data, head=head, class_names=("x", "y", "z"))
        written.append((tmp_path / name).read_bytes())
        time.sleep(1.1)  # HDF5 counts in whole seconds
    assert written[0] == written[1]
