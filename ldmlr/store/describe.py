"""What a store holds, as plain data and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ldmlr.errors import counted
from ldmlr.groups import GROUPS, ShotGroups
from ldmlr.store.layout import gigabytes
from ldmlr.store.shards import is_manifest, manifest_shards
from ldmlr.store.store import FeatureStore
from ldmlr.text import table


def describe(store: FeatureStore) -> dict[str, Any]:
    """Return splits, classes, shot groups, head and provenance of a store."""
    place = store.parts.file.place
    shards = manifest_shards(place) if is_manifest(place) else []
    size = sum(path.stat().st_size for path in (shards or [place]))
    figures: dict[str, Any] = {
        "file": str(store.path),
        "bytes": size,
        "shards": len(shards),
        "complete": "format" in store.attributes,
        "dim": store.dim,
        "num_classes": store.num_classes,
        "class_names": list(store.class_names) if store.class_names else None,
        "splits": {
            name: {
                "rows": len(split),
                "dtype": split.rows.storage,
                "counts": split.counts.tolist(),
                "generated": None if split.source is None else int(split.source.sum()),
                "ids": split.ids_on_disk is not None,
                "views": list(split.view_kinds) or (len(split.views_on_disk) if split.views_on_disk else 0),
            }
            for name, split in store.splits.items()
        },
        "groups": None,
        "imbalance_factor": None,
        "head": None,
        "encoder": store.encoder,
        "created_with": store.attributes.get("created_with"),
        "config_saved": store.config,
    }
    if store.train is not None:
        # Generated rows move no class to another group.
        counts = store.train.encoded_counts
        masks = ShotGroups().masks(counts)
        figures["groups"] = {name: int(masks[name].sum()) for name in GROUPS}
        if counts.min() > 0:
            figures["imbalance_factor"] = float(counts.max() / counts.min())
    if store.head is not None:
        figures["head"] = {
            "kind": store.head.kind, "shape": list(store.head.weight.shape),
            "bias": store.head.bias is not None, "extra": sorted(store.head.extra),
        }  # fmt: skip
    return figures


def describe_text(figures: Mapping[str, Any]) -> str:
    """Return the same for people."""
    rows = []
    for name, split in figures["splits"].items():
        counts = sorted(split["counts"], reverse=True)
        views = split["views"]
        rows.append(
            [
                name, f"{split['rows']:,}", str(figures["dim"]), split["dtype"], f"{counts[0]:,}",
                f"{counts[len(counts) // 2]:,}", f"{counts[-1]:,}", _or_dash(split["generated"]),
                ", ".join(views) if isinstance(views, list) else _or_dash(views or None),
            ]
        )  # fmt: skip
    header = ["split", "rows", "dim", "dtype", "largest class", "median", "smallest", "generated", "views"]
    classes = f"{figures['num_classes']}"
    if figures["class_names"]:
        names = figures["class_names"]
        classes += f" ({', '.join(names[:4])}{', ...' if len(names) > 4 else ''})"
    facts = [("classes", classes)]
    if figures["groups"]:
        groups = ", ".join(f"{count} {name}" for name, count in figures["groups"].items())
        factor = figures["imbalance_factor"]
        facts.append(("shot groups", groups))
        facts.append(("imbalance factor", f"{factor:.4g}" if factor else "- (a class has no encoded row)"))
    head = figures["head"]
    facts.append(("head", f"{head['kind']} {head['shape'][0]} x {head['shape'][1]}" if head else "-"))
    facts.append(("encoder", figures["encoder"] or "-"))
    facts.append(("written by", figures["created_with"] or "-"))
    if not figures["complete"]:
        facts.append(("format", "plain file; `ldmlr store import` makes a complete store of it"))
    shards = f" in {counted(figures['shards'], 'shard')}" if figures["shards"] else ""
    facts.append(("size", gigabytes(figures["bytes"]) + shards))
    width = max(len(key) for key, _ in facts)
    lines = [f"{key:<{width}}  {value}" for key, value in facts]
    return "\n".join([figures["file"], "", table(header, rows), "", *lines])


def _or_dash(value: Any) -> str:
    return "-" if value is None else f"{value:,}"
