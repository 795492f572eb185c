"""Files made to do harm: each is refused in one line, quickly, and nothing in it is run or written elsewhere.

They are made here: headers that lie about sizes, bombs, brackets without end, paths that lead out, pickles.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import ldmlr
from ldmlr import isolated
from ldmlr.config import read_toml
from ldmlr.data import open_image_set
from ldmlr.data.longtail import LongTailedDraw
from ldmlr.encoders.model import Baseline
from ldmlr.errors import LdmlrError
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.select.choice import Choice
from ldmlr.store import FeatureStore, SplitData, shard_name, verify, write_manifest
from ldmlr.store.convert.importing import import_store

X, Y = np.ones((6, 2), np.float32), np.arange(6) % 3
DEEP = "[" * 100_000
LOADERS = {"diffusion": ldmlr.LatentDiffusion.load, "head": FinetunedHead.load, "baseline": Baseline.load}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Bound readers tightly: an attack that needs its time is one."""
    monkeypatch.setattr(isolated, "SECONDS", 3.0)
    monkeypatch.setattr(isolated, "MEMORY", 1 << 30)


def refused(read, path, *words):
    """Check that reading is one line, soon, with words in it."""
    started = time.process_time()
    with pytest.raises(LdmlrError) as caught:
        read(path)
    line = str(caught.value)
    assert line.isprintable(), line
    assert all(word in line for word in words), line
    assert time.process_time() - started < 5


class Touch:
    """Pickled, it makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def imported(path):
    return import_store(path, path.with_name("imported.h5"), overwrite=True)


# --- safetensors ---------------------------------------------------------------------------------


def tensors_file(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape, start, stop, kind="F32"):
    return {"dtype": kind, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize(
    "header",
    [
        {f"t{i}": entry([1], 4 * i, 4 * i + 4) for i in range(100_000)},
        {"a": entry([2], 0, 8), "b": entry([2], 4, 12)},
        {"a": entry([2**40, 2**40], 0, 16)},
        {"a": entry([2**63], 0, 16)},
        {"a": entry([-1], 0, 16)},
        {"a": entry([10**10], 0, 4 * 10**10)},
        DEEP.encode(),
        b'{"__metadata__": {"ldmlr": ' + json.dumps(DEEP).encode() + b"}}",
        b'{"__metadata__": {"ldmlr": "{\\"format\\": ' + DEEP.encode() + b'"}}',
        b"\xff" * 100,
    ],
    ids=["many", "overlap", "overflow", "huge", "negative", "beyond", "deep", "text", "inside", "bytes"],
)  # fmt: skip
def test_headers_of_models(tmp_path, kind, header):
    refused(LOADERS[kind], tensors_file(tmp_path / "m.safetensors", header, bytes(16)), "m.safetensors: ")


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**9, 0])
def test_the_length_of_a_header(tmp_path, length):
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}")
    for load in LOADERS.values():
        refused(load, path, "m.safetensors: ")


# --- NumPy, zip, gzip ----------------------------------------------------------------------------


def npy(shape, kind="<f4", data=b""):
    header = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


LABELS = npy("(6,)", "<i8", Y.tobytes())


@pytest.mark.parametrize(
    "shape", ["(1000000000000, 10)", "(4611686018427387904, 8)", "(-1, 2)", "(6, 0)", "(6,)", "()"]
)
def test_shapes_that_lie(tmp_path, shape):
    refused(imported, npz(tmp_path / "x.npz", features=npy(shape, data=bytes(48)), labels=LABELS), "x.npz: ")
    if shape != "(6,)":  # which labels may have
        big = npy(shape, "<i8", bytes(48))
        features = npy("(6, 2)", data=bytes(48))
        refused(imported, npz(tmp_path / "y.npz", features=features, labels=big), "y.npz: ")
    (tmp_path / "z.npy").write_bytes(npy(shape, data=bytes(48)))
    np.save(tmp_path / "labels.npy", Y)
    with pytest.raises(LdmlrError, match=r"z\.npy: "):
        import_store(tmp_path / "z.npy", tmp_path / "o.h5", labels=tmp_path / "labels.npy")


def test_a_bomb_in_a_zip_file(tmp_path):
    zeros = zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED)
    with zeros, zeros.open("features.npy", "w", force_zip64=True) as handle:
        handle.write(npy("(6, 2)", data=bytes(48)))
        handle.write(b"")
    with zipfile.ZipFile(tmp_path / "x.npz", "a", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("labels.npy", "w", force_zip64=True) as handle:
            handle.write(npy(f"({160 << 20},)", "<i8"))
            for _ in range(20):
                handle.write(bytes(64 << 20))
    assert (tmp_path / "x.npz").stat().st_size < 4 << 20
    refused(imported, tmp_path / "x.npz", "labels: unpacks to 1 GB", "save it without compression")


def test_rows_that_unpack_to_a_full_disk(tmp_path, monkeypatch):
    from ldmlr.store.convert import importing

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset(
            "train/features", data=np.zeros((4000, 1000), "f4"), chunks=(400, 1000), compression=9
        )
        file["train/labels"] = np.arange(4000) % 3
    monkeypatch.setattr(importing, "UNPACKED_BYTES", 1 << 20)
    monkeypatch.setattr(isolated, "_inside", True)  # here, where the limit is lowered
    refused(imported, tmp_path / "x.h5", "times the file and more; write it without compression")


def test_a_line_without_end_in_a_packed_table(tmp_path):
    with gzip.open(tmp_path / "x.csv.gz", "wb", 1) as file:
        file.write(b"a,label\n")
        for _ in range(96):
            file.write(b"1" * (16 << 20))
    refused(imported, tmp_path / "x.csv.gz", "x.csv.gz: ")


def test_an_archive_of_images_that_unpacks_without_end(tmp_path):
    def archive(path, members):
        with tarfile.open(path, "w:gz", compresslevel=1) as out:
            for name, size in members:
                member = tarfile.TarInfo(name)
                member.size = size
                out.addfile(member, io.BytesIO(bytes(min(size, 1 << 20))))
        return path

    # The header alone says so: what follows it need not be there.
    header = tarfile.TarInfo("other")
    header.size = 2**40
    (tmp_path / "long.tar.gz").write_bytes(gzip.compress(header.tobuf()))
    refused(open_image_set, tmp_path / "long.tar.gz", "unpacks to far more than a CIFAR archive")
    header.name, header.size = "data_batch_1.bin", 600 << 20
    (tmp_path / "batch.tar.gz").write_bytes(gzip.compress(header.tobuf()))
    refused(open_image_set, tmp_path / "batch.tar.gz", "too long for CIFAR")
    out = archive(
        tmp_path / "escape.tar.gz", [("../../data_batch_1.bin", 3073), ("/tmp/test_batch.bin", 3073)]
    )
    refused(open_image_set, out, "is missing")
    assert not (tmp_path.parent.parent / "data_batch_1.bin").exists()


# --- brackets without end ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "read"),
    [
        ("x.json", '{"format": ' + DEEP, FeatureStore.open), ("x.json", DEEP, LongTailedDraw.load),
        ("x.json", '{"choice": ' + DEEP, Choice.load), ("x.toml", "a = " + DEEP, read_toml),
        ("x.toml", "a = " + "{b=" * 5000, read_toml), ("x.toml", "a = 9999-99-99", read_toml),
        ("x.toml", "a = " + "9" * 100_000, read_toml),
    ],
    ids=["manifest", "draw", "choice", "toml", "toml tables", "toml date", "toml number"],
)  # fmt: skip
def test_deep_documents(tmp_path, name, text, read):
    (tmp_path / name).write_text(text)
    refused(read, tmp_path / name, f"{name}: ")


# --- paths that lead out -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../secret.h5", "/etc/passwd", "sub/a.h5", "..", ""])
def test_a_manifest_names_files_beside_it_alone(tmp_path, name):
    for index in range(2):
        path = shard_name(tmp_path / "s", index, 2)
        FeatureStore.write(path, train=SplitData(X[index::2], Y[index::2]), num_classes=3)
    manifest = write_manifest(tmp_path / "s")
    document = json.loads(manifest.read_text())
    document["shards"][0]["file"] = name
    manifest.write_text(json.dumps(document))
    refused(FeatureStore.open, manifest, "s.json")
    assert verify(manifest, untrusted=True).problems


@pytest.mark.parametrize("name", ["../{}.png", "/{}.png", "a/../../{}.png"])
def test_an_image_list_stays_in_its_root(tmp_path, name):
    from PIL import Image

    inside = tmp_path / "in"
    (inside / "a").mkdir(parents=True)
    outside = tmp_path / "secret.png"
    Image.new("RGB", (8, 8)).save(outside)
    given = str(outside) if name.startswith("/") else name.format("secret")
    (inside / "train.txt").write_text(f"{given} 0\n{given} 1\n")
    refused(open_image_set, inside / "train.txt", "line 1", "leads out of the image root", "image_root")
    shutil.copy(outside, inside / "a.png")
    (inside / "train.txt").write_text(f"a/../a.png 0\n{inside / 'a.png'} 1\n")
    assert len(open_image_set(inside / "train.txt").train) == 2


# --- pickles -------------------------------------------------------------------------------------


def test_pickles_run_nothing(tmp_path):
    import torch

    ran = tmp_path / "ran"
    trap = Touch(ran)
    torch.save({"features": torch.ones(6, 2), "labels": trap}, tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(trap))
    np.savez(tmp_path / "c.npz", features=X, labels=np.array([trap] * 6, dtype=object))
    np.save(tmp_path / "d.npy", np.array([trap] * 6, dtype=object))
    np.save(tmp_path / "x.npy", X)
    (tmp_path / "e.safetensors").write_bytes(pickle.dumps(trap))
    for name in ("a.pt", "b.pt", "c.npz"):
        refused(imported, tmp_path / name, f"{name}: ")
    with pytest.raises(LdmlrError, match=r"d\.npy: holds pickled objects"):
        import_store(tmp_path / "x.npy", tmp_path / "o.h5", labels=tmp_path / "d.npy")
    for load in LOADERS.values():
        refused(load, tmp_path / "e.safetensors", "e.safetensors: ")
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["train/features"] = X
        file.create_dataset("train/labels", data=np.void(pickle.dumps(trap)))
    refused(FeatureStore.open, tmp_path / "f.h5", "f.h5: ")
    assert not ran.exists()
    pickle.loads(pickle.dumps(trap))  # the trap is one
    assert Path(ran).exists()
