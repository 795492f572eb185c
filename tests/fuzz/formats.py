"""What is read: for each format a small sound file, its mutator, and the reading as the commands do it."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from ldmlr.data import open_image_set
from ldmlr.data.longtail import LongTailedDraw
from ldmlr.encoders.checkpoint import load_checkpoint, save_checkpoint
from ldmlr.encoders.model import Baseline
from ldmlr.errors import InputError, UsageError
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.store import FeatureStore, SplitData, StoredHead, shard_name, verify, write_manifest
from ldmlr.store.convert.importing import import_store
from ldmlr.store.convert.unlabelled import open_features

from . import mutate

FIXTURES = Path(__file__).parent.parent / "fixtures"
RNG = np.random.default_rng(0)
X = RNG.standard_normal((24, 5)).astype(np.float32)
Y = np.arange(24) % 3
NAMES = ("ant", "bee", "cat")
PIXELS = RNG.integers(0, 255, (12, 8, 8, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Format:
    """One format.

    Parameters
    ----------
    name
        In words.
    write
        Writes a sound file into a folder and returns its name.
    read
        Reads a file as the commands do and returns what stands for its contents.
    mutate
        The mutator.
    checksum
        Whether contents that differ must be noticed.
    """

    name: str
    write: Callable[[Path], str]
    read: Callable[[Path, Path], Any]
    mutate: mutate.Mutator = mutate.mutated
    checksum: bool = False


def _hash(*parts: Any) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray) and part.dtype.kind != "O":
            digest.update(f"{part.dtype} {part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


# --- stores ------------------------------------------------------------------------------------------


def _contents(store: FeatureStore) -> str:
    parts: list[Any] = [store.class_names, store.num_classes, store.encoder, store.config]
    for name, split in store.splits.items():
        parts += [name, split.float32(), split.labels, split.source, split.ids, split.view_kinds]
        if split.views_on_disk is not None:
            parts += [view.float32() for view in split.views_on_disk.parts]
    if store.head is not None:
        parts += [store.head.kind, store.head.weight, store.head.bias]
    return _hash(*parts)


def _own(folder: Path) -> str:
    head = StoredHead("linear", np.ones((3, 5), np.float32), np.zeros(3, np.float32))
    data = SplitData(
        X, Y, source=Y == 2, ids=[f"image {i}" for i in range(24)], views=X[None], view_kinds=["weak"]
    )
    FeatureStore.write(
        folder / "own.h5",
        train=data,
        test=SplitData(X[:6], Y[:6]),
        head=head,
        class_names=NAMES,
        overwrite=True,
    )
    return "own.h5"


def _verified(folder: Path, path: Path) -> str:
    found = verify(path)
    if found.problems:
        raise InputError(found.problems[0])
    return _contents(FeatureStore.open(path))


def _opened(folder: Path, path: Path) -> str:
    return _contents(FeatureStore.open(path))


def _foreign(folder: Path) -> str:
    with h5py.File(folder / "foreign.h5", "w") as file:
        file.create_dataset("train/features", data=X, chunks=(8, 5), compression="gzip", shuffle=True)
        file["train/labels"], file["class_names"] = Y, list(NAMES)
        file["train/ids"] = [f"image {i}" for i in range(24)]
        file.attrs["encoder"] = "a network"
    return "foreign.h5"


def _other_layout(folder: Path) -> str:
    with h5py.File(folder / "layout.h5", "w") as file:
        file["X"], file["y"] = X, [NAMES[i] for i in Y]
    return "layout.h5"


def _manifest(folder: Path) -> str:
    for index in range(2):
        path = shard_name(folder / "parts", index, 2)
        FeatureStore.write(path, train=SplitData(X[index::2], Y[index::2]), num_classes=3, overwrite=True)
    return write_manifest(folder / "parts", overwrite=True).name


# --- imports -------------------------------------------------------------------------------------------


def _imported(folder: Path, path: Path, **options: Any) -> str:
    done = import_store(path, folder / "imported.out", overwrite=True, **options)
    return _contents(done.store)


def _unlabelled(folder: Path, path: Path) -> str:
    return _hash(open_features(path).float32())


def _npz(packed: bool) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        save = np.savez_compressed if packed else np.savez
        save(folder / "rows.npz", features=X, labels=Y, class_names=np.array(NAMES), ids=np.arange(24))
        return "rows.npz"

    return write


def _npy(folder: Path) -> str:
    np.save(folder / "rows.npy", X)
    np.save(folder / "given.npy", Y)
    return "rows.npy"


def _npy_labels(folder: Path) -> str:
    np.save(folder / "given.npy", X)
    np.save(folder / "classes.npy", np.array(NAMES)[Y])
    return "classes.npy"


def _tensors(folder: Path) -> str:
    import torch

    torch.save(
        {"features": torch.from_numpy(X), "labels": torch.from_numpy(Y), "class_names": list(NAMES)},
        folder / "rows.pt",
    )
    return "rows.pt"


def _parquet(folder: Path) -> str:
    import pyarrow
    import pyarrow.parquet

    columns = {f"f{i}": X[:, i] for i in range(5)} | {"label": np.array(NAMES)[Y]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "rows.parquet")
    return "rows.parquet"


def _table() -> bytes:
    lines = ["a,b,label", *(f"{x[0]},{x[1]},{NAMES[y]}" for x, y in zip(X.tolist(), Y.tolist(), strict=True))]
    return "\n".join(lines).encode()


def _csv(folder: Path) -> str:
    (folder / "rows.csv").write_bytes(_table())
    return "rows.csv"


def _packed_csv(folder: Path) -> str:
    (folder / "rows.csv.gz").write_bytes(gzip.compress(_table()))
    return "rows.csv.gz"


def _anndata(folder: Path) -> str:
    with h5py.File(folder / "cells.h5ad", "w") as file:
        file.attrs["encoding-type"] = "anndata"
        file["X"], file["obs/_index"] = X, [str(i) for i in range(24)]
        file["obs/label/codes"], file["obs/label/categories"] = Y.astype("i1"), list(NAMES)
        file.create_group("var")
    return "cells.h5ad"


# --- images --------------------------------------------------------------------------------------------


def _images(folder: Path, path: Path) -> str:
    found = open_image_set(path)
    splits = [split for split in (found.train, found.test, found.val) if split is not None]
    return _hash(
        found.class_names, *(part for split in splits for part in (split.load(slice(None)), split.labels))
    )


def _image_hdf5(folder: Path) -> str:
    with h5py.File(folder / "images.h5", "w") as file:
        file.create_dataset("train/images", data=PIXELS, chunks=(4, 8, 8, 3), compression="gzip")
        file["train/labels"], file["class_names"] = np.arange(12) % 3, list(NAMES)
    return "images.h5"


def _list(folder: Path) -> str:
    for row, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(folder / f"{row}.png")
    (folder / "train.txt").write_text("".join(f"{row}.png {row % 3}\n" for row in range(12)))
    return "train.txt"


def _picture(kind: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        _list(folder)
        name = f"picture.{kind}"
        Image.fromarray(PIXELS[0]).save(folder / name)
        (folder / "with.txt").write_text(f"{name} 0\n1.png 1\n")
        return name

    return write


def _decoded(folder: Path, path: Path) -> str:
    return _images(folder, folder / "with.txt")


def _archive(python: bool) -> Callable[[Path], str]:
    names = [f"label {i}".encode() for i in range(10)]
    labels = np.arange(10, dtype=np.uint8)
    planes = RNG.integers(0, 255, (10, 3072), np.uint8)

    def write(folder: Path) -> str:
        members: dict[str, bytes] = {}
        for batch in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
            if python:
                document = {b"data": planes, b"labels": labels.tolist()}
                members[batch] = pickle.dumps(document, protocol=3)
            else:
                members[f"{batch}.bin"] = np.hstack([labels[:, None], planes]).tobytes()
        meta = {b"label_names": names}
        members |= (
            {"batches.meta": pickle.dumps(meta, 3)} if python else {"batches.meta.txt": b"\n".join(names)}
        )
        with tarfile.open(folder / "cifar.tar.gz", "w:gz", compresslevel=1) as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(f"cifar/{name}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
        return "cifar.tar.gz"

    return write


# --- models and documents ----------------------------------------------------------------------------------


def _model(kind: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        _LOADERS[kind](FIXTURES / f"{kind}-v1.safetensors").save(
            folder / f"{kind}.safetensors", overwrite=True
        )
        return f"{kind}.safetensors"

    return write


def _loaded(kind: str) -> Callable[[Path, Path], str]:
    def read(folder: Path, path: Path) -> str:
        model: Any = _LOADERS[kind](path)
        again = folder / "again.safetensors"
        model.save(again, overwrite=True)
        return _hash(again.read_bytes())

    return read


_LOADERS: dict[str, Any] = {
    "diffusion": LatentDiffusion.load,
    "head": FinetunedHead.load,
    "baseline": Baseline.load,
}


def _resealed(random: Any, data: bytes) -> bytes:
    """Change a value of a model's header and make its checksum anew: a model of somebody else's."""
    from safetensors.numpy import load, save

    from ldmlr import modelfile

    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"][modelfile.KEY]
    header = json.loads(mutate.changed_json(random, text))
    if isinstance(header, dict):
        header["sha256"] = modelfile._whole_checksum(header, tensors)
    return save(tensors, metadata={modelfile.KEY: json.dumps(header)})


_RUN = """source = "digits-lt"
out = "runs/x"
seeds = 2
threads = 1
groups = "many:20,medium:10"

[baseline]
epochs = 3
augment = ["crop", "flip"]
lr = 1e-2

[diffuse]
hidden = 64  # a note

[generate]
steps = 4
ratio = 0.5

[finetune]
epochs = 2
"""


def _toml(folder: Path) -> str:
    (folder / "run.toml").write_text(_RUN)
    return "run.toml"


def _run_file(folder: Path, path: Path) -> str:
    from ldmlr_cli.run_file import checked_tables, read_run_file

    from ldmlr.run.config import RunConfig

    found = read_run_file(path, None)
    run = RunConfig.from_mapping(found.values, str(path))
    try:
        return _hash(found.source, found.values, checked_tables(found.tables, {}, run, str(path)))
    except UsageError as error:
        # A value that is wrong is told by its option: the file stands in front where a table is meant.
        raise UsageError(f"{path}: {error}") from None


def _draw(folder: Path) -> str:
    LongTailedDraw.draw(open_image_set("digits-lt").train, "digits-lt", 2.0, 0).save(
        folder / "draw.json", overwrite=True
    )
    return "draw.json"


def _checkpoint(folder: Path) -> str:
    import torch

    save_checkpoint(folder / "checkpoint.pt", {"seed": 1}, {"epoch": 3, "network": {"w": torch.ones(4)}})
    return "checkpoint.pt"


FORMATS = {
    form.name: form
    for form in (
        Format("store", _own, _verified, checksum=True),
        Format("store, opened", _own, _opened),
        Format("manifest", _manifest, _verified, mutate.text_mutated, checksum=True),
        Format("HDF5 as a store", _foreign, _opened),
        Format("HDF5 import", _foreign, _imported),
        Format("HDF5 import, texts", _other_layout, _imported),
        Format("AnnData import", _anndata, _imported),
        Format("npz import", _npz(False), _imported, mutate.in_zip),
        Format("npz import, packed", _npz(True), _imported, mutate.in_zip),
        Format("npy import", _npy, lambda folder, path: _imported(folder, path, labels=folder / "given.npy")),
        Format("npy labels", _npy_labels, lambda f, path: _imported(f, f / "given.npy", labels=path)),
        Format("torch.save import", _tensors, _imported, mutate.in_zip),
        Format("Parquet import", _parquet, _imported),
        Format("CSV import", _csv, _imported, mutate.text_mutated),
        Format("CSV import, packed", _packed_csv, _imported, mutate.in_gzip(mutate.text_mutated)),
        Format("npz rows, packed", _npz(True), _unlabelled, mutate.in_zip),
        Format("npy rows", _npy, _unlabelled),
        Format("torch.save rows", _tensors, _unlabelled, mutate.in_zip),
        Format("Parquet rows", _parquet, _unlabelled),
        Format("CSV rows, packed", _packed_csv, _unlabelled, mutate.in_gzip(mutate.text_mutated)),
        Format("image HDF5", _image_hdf5, _images),
        Format("image list", _list, _images, mutate.text_mutated),
        Format("PNG", _picture("png"), _decoded),
        Format("JPEG", _picture("jpg"), _decoded),
        Format("CIFAR archive", _archive(False), _images, mutate.in_tar),
        Format("CIFAR archive of pickles", _archive(True), _images, mutate.in_tar),
        *(
            Format(f"{kind} file", _model(kind), _loaded(kind), mutate.in_safetensors, checksum=True)
            for kind in _LOADERS
        ),
        *(Format(f"{kind} file, resealed", _model(kind), _loaded(kind), _resealed) for kind in _LOADERS),
        Format("TOML", _toml, _run_file, mutate.text_mutated),
        Format(
            "saved draw", _draw, lambda _, path: _hash(LongTailedDraw.load(path).indices),
            mutate.text_mutated, checksum=True,
        ),
        Format(
            "checkpoint", _checkpoint,
            lambda _, path: _hash(load_checkpoint(path, {"seed": 1})), mutate.in_zip,
        ),
    )
}  # fmt: skip
