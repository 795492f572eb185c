"""One owner at a time for an output, and what dead processes left is removed."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from ldmlr import files, progress
from ldmlr.errors import LdmlrError
from ldmlr.files import atomic_path, beside, check_output, sweep, write_text
from ldmlr.ownership import owned
from ldmlr.pids import machine_mark

HOLD = """
    import sys, time
    from pathlib import Path
    from ldmlr.files import atomic_path
    from ldmlr.ownership import owned
    with owned(Path(sys.argv[1])), atomic_path(Path(sys.argv[1])) as temporary:
        temporary.write_text("half")
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that is in the middle of writing ``out``."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(tmp_path / "out")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def take(path):
    with owned(path):
        pass


def test_nothing_is_left_of_a_lock(tmp_path):
    with owned(tmp_path / "new" / "deep" / "out"):
        assert names(tmp_path / "new" / "deep") == [".out.lock"]
    assert names(tmp_path) == []
    with owned(tmp_path / "new" / "out"):
        write_text(tmp_path / "new" / "out", "text")
    assert names(tmp_path / "new") == ["out"]


def test_the_second_process_is_refused_in_one_line_that_names_the_first(tmp_path, other):
    with pytest.raises(LdmlrError, match=rf"out: process {other.pid} on \S+ is writing this output; wait"):
        take(tmp_path / "out")
    take(tmp_path / "another")


def test_the_lock_ends_with_its_process_and_its_temporary_file_is_removed(tmp_path, other):
    assert len(names(tmp_path)) == 2
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert len(names(tmp_path)) == 2
    take(tmp_path / "out")
    assert names(tmp_path) == []


def test_a_link_to_the_output_is_the_same_output(tmp_path, other):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(LdmlrError, match="link: process"):
        take(tmp_path / "link")


def test_the_owner_may_take_it_again_and_another_thread_may_not(tmp_path):
    path, refusals = tmp_path / "out", []

    def elsewhere():
        try:
            take(path)
        except LdmlrError as error:
            refusals.append(str(error))

    with owned(path):
        with owned(path):
            pass
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert len(refusals) == 1
        assert "another thread" in refusals[0]
        assert names(tmp_path) == [".out.lock"]
    elsewhere()
    assert len(refusals) == 1


def test_a_forked_child_has_no_part_in_the_lock(tmp_path):
    def try_it(path, queue):
        try:
            take(path)
            queue.put("taken")
        except LdmlrError:
            queue.put("refused")

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with owned(tmp_path / "out"):
        child = context.Process(target=try_it, args=(tmp_path / "out", queue))
        child.start()
        assert queue.get(timeout=20) == "refused"
        child.join()
        # What the child closed has not given up the parent's lock.
        again = context.Process(target=try_it, args=(tmp_path / "out", queue))
        again.start()
        assert queue.get(timeout=20) == "refused"
        again.join()


def test_a_lock_file_that_was_removed_meanwhile_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    path, lockf, opened = tmp_path / "out", fcntl.lockf, []

    def replaced_before_it_is_locked(descriptor, how):
        opened.append(descriptor)
        if len(opened) == 1:  # as an owner does that ends between the opening and the locking
            (tmp_path / ".out.lock").unlink()
        lockf(descriptor, how)

    monkeypatch.setattr(fcntl, "lockf", replaced_before_it_is_locked)
    with owned(path):
        assert len(opened) == 2
        assert os.path.samestat(os.fstat(opened[1]), os.stat(tmp_path / ".out.lock"))


def test_without_locks_in_the_file_system_it_goes_on_and_says_so_once(tmp_path, monkeypatch, capsys):
    def none(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    monkeypatch.setattr(progress, "_said", set())
    take(tmp_path / "a")
    take(tmp_path / "b")
    assert capsys.readouterr().err.count("has no locks") == 1
    assert names(tmp_path) == []


def test_an_error_in_locking_names_the_output(tmp_path, monkeypatch):
    def broken(descriptor, how):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", broken)
    with pytest.raises(LdmlrError, match="out: Input/output error"):
        take(tmp_path / "out")
    monkeypatch.undo()
    take(tmp_path / "out")


def dead_process():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_only_temporary_files_of_dead_processes_of_this_machine_are_removed(tmp_path, monkeypatch):
    number = dead_process()
    mine = files._temporary(tmp_path / "a")
    dead = mine.name.replace(str(os.getpid()), str(number), 1)
    elsewhere = dead.replace(f"-{machine_mark()}", "-ffffff")
    kept = [mine.name, elsewhere, "a.tmp", f".a.{number}.tmp", dead[1:]]
    for name in [*kept, dead]:
        (tmp_path / name).write_text("")
    sweep(tmp_path)
    assert names(tmp_path) == sorted(kept)


def test_writing_in_a_folder_sweeps_it(tmp_path):
    stale = files._temporary(tmp_path / "a").name.replace(str(os.getpid()), str(dead_process()), 1)
    (tmp_path / stale).write_text("half")
    write_text(tmp_path / "b", "text")
    assert names(tmp_path) == ["b"]


def test_an_output_further_down_finds_the_probe_that_a_killed_start_left_above(tmp_path):
    probe = files._temporary(tmp_path / "ldmlr").name.replace(str(os.getpid()), str(dead_process()), 1)
    (tmp_path / probe).write_text("")
    check_output(tmp_path / "out" / "model.safetensors")
    assert names(tmp_path) == []


def test_names_as_long_as_they_may_be_can_be_written_and_owned(tmp_path):
    path = tmp_path / ("é" * 127)
    assert len(beside(path, ".lock").name.encode()) <= 255
    with owned(path), atomic_path(path) as temporary:
        temporary.write_text("text")
    assert names(tmp_path) == [path.name]
    assert beside(tmp_path / "out", ".lock").name == ".out.lock"
