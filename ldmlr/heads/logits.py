"""Logits of many rows, in blocks of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ldmlr.arguments import as_array
from ldmlr.errors import InputError
from ldmlr.heads.modules import Head
from ldmlr.torch_defaults import torch_defaults

CHUNK = 16384
# Numbers in the logits that are held at once (64 MiB in float32): all rows of a store times thousands of
# classes would be gigabytes.
LOGITS = 1 << 24


@torch_defaults()
def head_logits(head: nn.Module, features: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the logits ``[N, C]`` of features ``[N, D]``, computed in chunks on the head's device."""
    rows = as_array(features)
    dim = head.dim
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise InputError(f"head: expects features [N, {dim}], not {list(rows.shape)}")
    device = next(head.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, max(len(rows), 1), CHUNK):
            block = np.array(rows[start : start + CHUNK], dtype=np.float32)
            parts.append(head(torch.from_numpy(block).to(device)).cpu().numpy())
    return np.concatenate(parts)


def block_rows(num_classes: int, most: int = CHUNK) -> int:
    """Return for how many rows at once logits ``[n, C]`` should be held: `most`, or fewer if C is large."""
    return max(1, min(most, LOGITS // num_classes))


def logit_blocks(head: Head, features: npt.NDArray[Any]) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield the logits of features ``[N, D]`` block by block, each with the slice of its rows."""
    size = block_rows(head.num_classes)
    for start in range(0, len(features), size):
        part = slice(start, start + size)
        yield part, head_logits(head, features[part])
