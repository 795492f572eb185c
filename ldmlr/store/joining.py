"""Several splits end to end: what shards and merged stores have in common."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ldmlr.store.ids import JoinedIds
from ldmlr.store.reading import SplitParts
from ldmlr.store.rows import JoinedRows, Views


def join_splits(name: str, parts: Sequence[SplitParts]) -> tuple[SplitParts, list[str]]:
    """Return splits joined end to end, still on disk, and notes on what had to be left out.

    Rows of a part without ``source`` count as encoded where another part has it. Ids and views are
    kept where every part has them (views: of the same kinds).
    """
    if len(parts) == 1:
        return parts[0], []
    notes = []
    joined = SplitParts(
        JoinedRows([part.rows for part in parts]), np.concatenate([part.labels for part in parts])
    )
    if any(part.source is not None for part in parts):
        joined.source = np.concatenate(
            [np.zeros(len(p.rows), np.uint8) if p.source is None else p.source for p in parts]
        )
    ids = [part.ids for part in parts if part.ids is not None]
    if len(ids) == len(parts):
        joined.ids = JoinedIds(ids)
    elif ids:
        notes.append(f"/{name}/ids is left out: only {len(ids)} of {len(parts)} parts have ids")
    views = [part.views for part in parts if part.views is not None]
    kinds = {(len(part.views or ()), part.view_kinds) for part in parts}
    if len(views) == len(parts) and len(kinds) == 1:
        joined.views = Views([JoinedRows(same) for same in zip(*(v.parts for v in views), strict=True)])
        joined.view_kinds = parts[0].view_kinds
    elif views:
        notes.append(f"/{name}/views is left out: the parts do not all have the same views")
    return joined, notes
