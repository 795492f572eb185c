"""File systems without memory maps, locks or a flush: the work goes on, with one line for each."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

import ldmlr
from ldmlr import progress, tensorfile
from ldmlr.errors import LdmlrError
from ldmlr.files import write_text
from ldmlr.ownership import owned
from ldmlr.store import FeatureStore, SplitData
from ldmlr.store.convert.tensors import load_tensors

RNG = np.random.default_rng(0)
ROWS = RNG.standard_normal((60, 5)).astype(np.float32)
LABELS = np.repeat([0, 1, 2], [40, 14, 6])


def fail(number):
    def call(*_, **__):
        raise OSError(number, os.strerror(number))

    return call


@pytest.fixture
def said(monkeypatch, capsys):
    """What is said once, from the beginning."""
    monkeypatch.setattr(progress, "_said", set())
    return lambda: [line for line in capsys.readouterr().err.splitlines() if line.startswith("note: ")]


@pytest.fixture
def no_maps(monkeypatch):
    """No library can map a file."""

    def refuse(*_, **__):
        # As safetensors says it, whose error has no number.
        raise OSError("No such device (os error 19)")

    monkeypatch.setattr(np, "memmap", fail(errno.ENODEV))
    monkeypatch.setattr(mmap, "mmap", fail(errno.ENODEV))
    monkeypatch.setattr(tensorfile, "safe_open", refuse)
    load = torch.load

    def unmapped(path, *, mmap=False, **options):
        if mmap:
            raise RuntimeError(f"unable to mmap 10 bytes from file <{path}>: No such device (19)")
        return load(path, **options)

    monkeypatch.setattr(torch, "load", unmapped)


def test_stores_are_read_without_memory_maps(tmp_path, no_maps, said):
    views = np.stack([ROWS + 1, ROWS - 1])
    store = FeatureStore.write(
        tmp_path / "s.h5", train=SplitData(ROWS, LABELS, views=views, view_kinds=("weak", "strong"))
    )
    train = FeatureStore.open(store.path).train
    assert np.array_equal(train.features, ROWS)
    assert not train.features.flags.writeable
    assert np.array_equal(train.views, views)
    assert np.array_equal(train.float32([3, 50, 2]), ROWS[[3, 50, 2]])
    assert said() == [
        f"note: {tmp_path}: this file system has no memory maps; files are read into memory instead"
    ]


def test_models_heads_and_tensors_are_read_without_memory_maps(tmp_path, no_maps, said):
    model = ldmlr.LatentDiffusion(hidden=8, layers=1, iterations=3).fit(ROWS, LABELS)
    model.save(tmp_path / "m.safetensors")
    again = ldmlr.LatentDiffusion.load(tmp_path / "m.safetensors")
    assert again.fingerprint() == model.fingerprint()
    assert np.array_equal(again.sample([0, 1, 2], seed=3), model.sample([0, 1, 2], seed=3))
    store = FeatureStore.write(tmp_path / "s.h5", train=SplitData(ROWS, LABELS))
    head = ldmlr.finetune(store, epochs=1)
    head.save(tmp_path / "h.safetensors")
    found = type(head).load(tmp_path / "h.safetensors")
    assert np.array_equal(found.logits(ROWS), head.logits(ROWS))
    torch.save({"features": torch.from_numpy(ROWS)}, tmp_path / "t.pt")
    assert np.array_equal(load_tensors(tmp_path / "t.pt")[0]["features"], ROWS)
    with tensorfile.open_tensors(tmp_path / "h.safetensors", "pt") as file:
        assert set(file.metadata()) == {"ldmlr"}
        assert torch.equal(file.get_tensor("counts"), torch.tensor([40, 14, 6]))
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "h.safetensors").read_bytes()[:100])
    with pytest.raises(SafetensorError), tensorfile.open_tensors(tmp_path / "cut.safetensors", "np"):
        pass
    assert len(said()) == 1


def test_other_errors_of_maps_are_errors(tmp_path, monkeypatch, said):
    store = FeatureStore.write(tmp_path / "s.h5", train=SplitData(ROWS, LABELS))
    monkeypatch.setattr(mmap, "mmap", fail(errno.EIO))
    with pytest.raises(LdmlrError, match=r"s\.h5: "):
        store.train.features  # noqa: B018
    assert said() == []


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_what_cannot_be_flushed_is_written_and_that_is_said_once(tmp_path, monkeypatch, said, number):
    monkeypatch.setattr(os, "fsync", fail(number))
    for name in "ab":
        write_text(tmp_path / name, name)
    assert [(tmp_path / name).read_text() for name in "ab"] == ["a", "b"]
    (line,) = said()
    assert line.startswith(f"note: {tmp_path}: files here cannot be flushed to the disk")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_folder_that_may_not_be_opened_is_not_flushed(tmp_path, monkeypatch, said):
    real = os.open

    def refuse(path, flags, *more, **options):
        if str(path) == str(tmp_path) and flags == os.O_RDONLY:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refuse)
    write_text(tmp_path / "a", "a")
    assert (tmp_path / "a").read_text() == "a"
    assert len(said()) == 1


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_flush_that_fails_is_an_error_and_nothing_is_left(tmp_path, monkeypatch, said, number):
    monkeypatch.setattr(os, "fsync", fail(number))
    with pytest.raises(LdmlrError, match="a: "):
        write_text(tmp_path / "a", "a")
    assert list(tmp_path.iterdir()) == []
    assert said() == []


def test_a_file_system_with_nothing_of_it_has_one_line_for_each(tmp_path, monkeypatch, no_maps, said):
    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    monkeypatch.setattr(fcntl, "lockf", fail(errno.ENOLCK))
    for name in ("a.h5", "b.h5"):
        with owned(tmp_path / name):
            store = FeatureStore.write(tmp_path / name, train=SplitData(ROWS, LABELS))
        assert np.array_equal(store.train.features, ROWS)
    assert len(said()) == 3
