"""Feature stores, and everything that is imported as one or read as rows without labels."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ldmlr.errors import InputError
from ldmlr.store import FeatureStore, SplitData, StoredHead, shard_name, verify, write_manifest
from ldmlr.store.convert.importing import import_store
from ldmlr.store.convert.unlabelled import open_features

from . import mutate
from .form import NAMES, Format, X, Y, hash_of


def _contents(store: FeatureStore) -> str:
    parts: list[Any] = [store.class_names, store.num_classes, store.encoder, store.config]
    for name, split in store.splits.items():
        parts += [name, split.float32(), split.labels, split.source, split.ids, split.view_kinds]
        if split.views_on_disk is not None:
            parts += [view.float32() for view in split.views_on_disk.parts]
    if store.head is not None:
        parts += [store.head.kind, store.head.weight, store.head.bias]
    return hash_of(*parts)


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
    return hash_of(open_features(path).float32())


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


FORMATS = (
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
)
