"""Several stores into one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ldmlr.errors import InputError, UsageError, counted, opt
from ldmlr.files import check_output
from ldmlr.remote import as_path
from ldmlr.store.layout import SPLITS, StoredHead
from ldmlr.store.shards import check_shard_set, join_splits
from ldmlr.store.split import Split
from ldmlr.store.store import FeatureStore


@dataclasses.dataclass
class Merged:
    """The new store, and remarks on what was left out."""

    store: FeatureStore
    notes: list[str]


def merge_stores(
    sources: Sequence[str | Path],
    out: str | Path,
    *,
    dtype: str | None = None,
    keep_head: bool = True,
    overwrite: bool = False,
) -> Merged:
    """Join the rows of stores with the same features and classes, in the order given.

    Training rows are joined end to end. A test or validation split that several stores share (the
    same rows) is kept once, otherwise its rows are joined too. Memory does not grow with the rows
    of the features.

    Parameters
    ----------
    sources
        Stores, plain files or manifests of shards.
    out
        The store to write.
    dtype
        ``float32``, ``float16`` or ``bfloat16``; by default that of the sources, float32 if they differ.
    keep_head
        Keep the head, which must be the same in all stores that have one.
    overwrite
        Replace `out` if it exists.
    """
    check_output(as_path(out), overwrite)
    if not sources:
        raise UsageError("no store to merge; name at least one")
    check_shard_set(sources)
    stores = [FeatureStore.open(source) for source in sources]
    first = stores[0]
    for store in stores[1:]:
        _check_same(first, store)
    notes: list[str] = []
    splits: dict[str, Split] = {}
    for name in SPLITS:
        there = [store for store in stores if name in store.splits]
        if not there:
            continue
        if name != "train":
            there = _distinct(there, name, notes)
        joined, remarks = join_splits(name, [store.parts.splits[name] for store in there])
        splits[name] = Split.of(name, joined, first.num_classes)
        notes += remarks
    kinds = {split.rows.storage for store in stores for split in store.splits.values()}
    same = kinds.pop() if len(kinds) == 1 else "float32"
    encoders = dict.fromkeys(store.encoder for store in stores if store.encoder)
    config = {
        "merged_from": [
            {"file": store.path.name, "fingerprint": store.fingerprint(), "config": store.config}
            for store in stores
        ]
    }
    store = FeatureStore.write(
        out, **splits, head=_head(stores) if keep_head else None,
        class_names=next((store.class_names for store in stores if store.class_names), None),
        num_classes=first.num_classes, encoder="; ".join(encoders),
        config=config, dtype=dtype or (same if same in ("float16", "bfloat16") else "float32"),
        overwrite=overwrite,
    )  # fmt: skip
    return Merged(store, notes)


def _check_same(first: FeatureStore, store: FeatureStore) -> None:
    for what in ("dim", "num_classes", "class_names"):
        here, there = getattr(store, what), getattr(first, what)
        if here != there and not (what == "class_names" and None in (here, there)):
            shown = "differ" if what == "class_names" else f"is {here}, but {there}"
            raise InputError(
                f"{store.path}: {what} {shown} in {first.path}; merge stores of the same features and classes"
            )


def _distinct(stores: list[FeatureStore], name: str, notes: list[str]) -> list[FeatureStore]:
    """Return the stores whose split `name` differs from those before."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for store in stores:
        mark = (store.dataset_sha256(f"/{name}/features"), store.dataset_sha256(f"/{name}/labels"))
        if mark not in seen:
            seen.add(mark)
            kept.append(store)
    if len(kept) < len(stores):
        notes.append(
            f"/{name} is the same in {counted(len(stores) - len(kept) + 1, 'store')} and is kept once"
        )
    return kept


def _head(stores: Sequence[FeatureStore]) -> StoredHead | None:
    having = [store for store in stores if store.head is not None]
    for store in having[1:]:
        if not _equal(having[0].head, store.head):
            raise InputError(
                f"{store.path}: /head differs from that of {having[0].path}; pass "
                f"{opt('keep_head', False)}, or merge stores with the same head"
            )
    return having[0].head if having else None


def _equal(first: StoredHead | None, second: StoredHead | None) -> bool:
    if first is None or second is None or first.kind != second.kind:
        return False
    here, there = ({"weight": h.weight, "bias": h.bias, **h.extra} for h in (first, second))
    return here.keys() == there.keys() and all(
        np.array_equal(np.asarray(value), np.asarray(there[key])) for key, value in here.items()
    )
