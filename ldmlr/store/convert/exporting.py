"""Writing a store in forms that other programs read.

=========== ================ =====================================================================
``npz``     ``NAME.npz``      ``train_features``, ``train_labels``, ``test_features`` ...,
                              ``class_names``, ``head_weight``, ``head_bias``, ``head_kind``, and what
                              else a head of that kind has, such as ``head_scale``
``npy``     ``NAME.npy``      one split: ``NAME-features.npy`` and ``NAME-labels.npy``
``parquet`` ``NAME.parquet``  one split: columns ``features`` (list), ``label``, ``source``, ``id``
``hdf5``    ``NAME.h5``       the datasets of a store as float32, without attributes
=========== ================ =====================================================================
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from ldmlr.errors import UsageError, nearest, opt
from ldmlr.files import atomic_path, check_output
from ldmlr.remote import as_path
from ldmlr.store.convert.parquet import pyarrow, write_parquet
from ldmlr.store.layout import SPLITS, Array, block_rows
from ldmlr.store.rows import Rows
from ldmlr.store.split import Split
from ldmlr.store.store import FeatureStore
from ldmlr.store.writer import StoreWriter, write_split

FORMATS = {".npz": "npz", ".npy": "npy", ".parquet": "parquet", ".h5": "hdf5", ".hdf5": "hdf5"}


def export_store(
    store: FeatureStore,
    out: str | Path,
    *,
    split: str | None = None,
    dtype: str = "float32",
    overwrite: bool = False,
) -> list[Path]:
    """Write a store, or one of its splits, in another form and return the files written.

    Parameters
    ----------
    store
        An open store.
    out
        The file; its ending tells the form.
    split
        ``train``, ``test``, ``val`` or ``all``; by default ``all`` for ``.npz`` and HDF5, which hold
        several, and ``train`` for the others.
    dtype
        ``float32`` or ``float16`` (``.npz`` and ``.npy``).
    overwrite
        Replace files that exist.
    """
    out = as_path(out)
    kind = FORMATS.get(out.suffix.lower())
    if kind is None:
        raise UsageError(
            f"{opt('out')}: the ending of {out.name!r} names no form; choose from {', '.join(FORMATS)}"
        )
    if dtype not in ("float32", "float16"):
        raise UsageError(f"{opt('dtype')}: unknown value {dtype!r}; {nearest(dtype, ('float32', 'float16'))}")
    if dtype == "float16" and kind in ("parquet", "hdf5"):
        raise UsageError(f"{opt('dtype')}: {out.suffix} files are written as float32; leave it out")
    several = kind in ("npz", "hdf5")
    name = split or ("all" if several else "train")
    if name not in (*SPLITS, "all"):
        raise UsageError(f"{opt('split')}: unknown value {name!r}; {nearest(name, (*SPLITS, 'all'))}")
    if name == "all" and not several:
        raise UsageError(
            f"{opt('split')}: {out.suffix} holds one split; choose from {', '.join(store.splits)}"
        )
    chosen = store.splits if name == "all" else {name: store.split(name)}
    if kind == "npy":
        return _write_npy(out, chosen[name], dtype, overwrite)
    check_output(out, overwrite)
    if kind == "hdf5":
        _write_hdf5(out, store, chosen, overwrite)
        return [out]
    if kind == "parquet":
        pyarrow()
    with atomic_path(out, overwrite) as temporary:
        if kind == "parquet":
            write_parquet(temporary, chosen[name], store.class_names)
        else:
            _write_npz(temporary, store, chosen, dtype)
    return [out]


class _PlainWriter(StoreWriter):
    """Writes the datasets of a store without the attributes of the format."""

    def finish(self) -> None:
        super().finish()
        with self.session() as handle:
            for name in [*self.checksums, "/"]:
                attributes = handle[name].attrs
                for key in list(attributes):
                    if key not in ("kinds", "kind"):
                        del attributes[key]


def _write_hdf5(out: Path, store: FeatureStore, splits: dict[str, Split], overwrite: bool) -> None:
    with _PlainWriter(
        out, dim=store.dim, num_classes=store.num_classes, class_names=store.class_names,
        head=store.head, overwrite=overwrite,
    ) as writer:  # fmt: skip
        for name, split in splits.items():
            write_split(writer, name, split)


def _write_npy(out: Path, split: Split, dtype: str, overwrite: bool) -> list[Path]:
    paths = [out.with_name(f"{out.stem}-{what}.npy") for what in ("features", "labels")]
    with atomic_path(paths[0], overwrite) as features, atomic_path(paths[1], overwrite) as labels:
        with open(features, "wb") as handle:
            _write_rows(handle, split.rows, dtype)
        with open(labels, "wb") as handle:
            np.save(handle, split.labels, allow_pickle=False)
    return paths


def _write_npz(path: Path, store: FeatureStore, splits: dict[str, Split], dtype: str) -> None:
    arrays: dict[str, Array] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, split in splits.items():
            with archive.open(f"{name}_features.npy", "w", force_zip64=True) as handle:
                _write_rows(handle, split.rows, dtype)
            arrays[f"{name}_labels"] = split.labels
            if split.source is not None:
                arrays[f"{name}_source"] = split.source
            if split.ids is not None:
                arrays[f"{name}_ids"] = split.ids if split.ids.dtype != object else split.ids.astype(str)
            if split.views_on_disk is not None:
                with archive.open(f"{name}_views.npy", "w", force_zip64=True) as handle:
                    _write_header(handle, split.views_on_disk.shape, dtype)
                    for part in split.views_on_disk.parts:
                        _write_rows(handle, part, dtype, header=False)
                arrays[f"{name}_view_kinds"] = np.array(split.view_kinds, dtype=str)
        if store.class_names is not None:
            arrays["class_names"] = np.array(store.class_names, dtype=str)
        if store.head is not None:
            arrays["head_weight"] = store.head.weight
            if store.head.bias is not None:
                arrays["head_bias"] = store.head.bias
            arrays["head_kind"] = np.array(store.head.kind)
            arrays |= {f"head_{name}": np.asarray(value) for name, value in store.head.extra.items()}
        for key, values in arrays.items():
            with archive.open(f"{key}.npy", "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, values, allow_pickle=False)


def _write_rows(handle: IO[bytes] | Any, rows: Rows, dtype: str, header: bool = True) -> None:
    if header:
        _write_header(handle, rows.shape, dtype)
    step = block_rows(4 * rows.shape[1])
    for start in range(0, len(rows), step):
        block = rows.float32(slice(start, start + step))
        with np.errstate(over="ignore"):
            stored = block.astype(np.dtype(dtype).newbyteorder("<"), copy=False)
        if not np.isfinite(stored).all():
            raise UsageError(
                f"{opt('dtype')}: values up to {abs(block).max():g} do not fit {dtype}; use float32"
            )
        handle.write(stored.tobytes())


def _write_header(handle: IO[bytes] | Any, shape: tuple[int, ...], dtype: str) -> None:
    kind = {"float32": "<f4", "float16": "<f2"}[dtype]
    header = {"descr": kind, "fortran_order": False, "shape": tuple(map(int, shape))}
    np.lib.format.write_array_header_1_0(handle, header)
