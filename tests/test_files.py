"""`ldmlr.files`: files are written whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.files import atomic_path, check_input, check_output, existing_folder, os_error, write_text


def test_a_finished_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("failure", [ValueError("bad"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, failure):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write():
        with atomic_path(path, overwrite=True) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        write()
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_an_output_that_exists_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(UsageError, match=r"a\.txt: already exists; .* overwrite=True"):
        check_output(path)
    assert check_output(path, overwrite=True) == path


def test_what_another_process_wrote_meanwhile_is_kept(tmp_path):
    path = tmp_path / "a.txt"

    def write():
        with atomic_path(path) as temporary:
            temporary.write_text("mine")
            path.write_text("theirs")

    with pytest.raises(UsageError, match=r"a\.txt: another process wrote it meanwhile; .* overwrite=True"):
        write()
    assert path.read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_disk_without_links_will_do(tmp_path, monkeypatch, number):
    def refuse(*names):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refuse)
    write_text(tmp_path / "a.txt", "one", overwrite=False)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.txt", "one")]


@pytest.mark.parametrize("there", [True, False])
def test_behind_a_link_the_file_it_points_to_is_written(tmp_path, there):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "a.txt", tmp_path / "link.txt"
    if there:
        target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new", overwrite=there)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [p.name for p in (tmp_path / "disk").iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_clear_line(tmp_path):
    def write():
        with atomic_path(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(LdmlrError, match=r"a\.txt: the disk is full; free some space"):
        write()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_place_of_a_file_and_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LdmlrError, match="file"):
        check_output(tmp_path / "file" / "a.txt")
    with pytest.raises(InputError, match="no such file; check the path"):
        check_input(tmp_path / "absent")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_every_system_error_names_the_path_and_a_remedy(tmp_path, number):
    text = str(os_error(OSError(number, os.strerror(number)), tmp_path))
    assert text.startswith(f"{tmp_path}: ")
    assert ";" in text
    assert "\n" not in text


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_or_a_device_is_no_file_to_write(tmp_path, overwrite):
    for path in (tmp_path, Path("/dev/null")):
        with pytest.raises(UsageError):
            check_output(path, overwrite)
    with pytest.raises(UsageError, match="is a folder where a file is expected"):
        check_output(tmp_path, overwrite=True)


def test_the_nearest_folder_that_is_there(tmp_path):
    assert existing_folder(tmp_path / "a" / "b" / "c.h5") == tmp_path
