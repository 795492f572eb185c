"""Matrices in the order in which the CUDA kernels read them (``csrc/cuda/fragment.cuh``).

A block is 16 outputs by 16 inputs as the 32 lanes of a warp hold it: 16 bytes a lane, so that one
vector load gives a lane its share of both halves of eight outputs. Lane ``4 g + t`` has output g of
each half and inputs ``2t, 2t + 1`` and ``8 + 2t, 9 + 2t``. Outputs are placed so that a lane's four
results are adjacent columns: position g of half j is column ``4 (g // 2) + 2 j + g % 2``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ldmlr.floats import Bits, bfloat16_bits, from_bfloat16

BLOCK = 16
BLOCK_BYTES = 512

Matrix = npt.NDArray[np.floating]


def pad(array: Matrix, *shape: int) -> npt.NDArray[np.float32]:
    """Return a float32 copy whose last dimensions are filled up with zeros."""
    widths = [(0, 0)] * (array.ndim - len(shape))
    widths += [(0, size - old) for size, old in zip(shape, array.shape[-len(shape) :], strict=True)]
    return np.pad(array.astype(np.float32), widths)


def pack(matrix: Matrix, outputs: int, inputs: int, *, chained: bool) -> Bits:
    """Return a matrix as blocks ``[outputs / 16, inputs / 16, 256]``.

    Parameters
    ----------
    matrix
        ``[N, K]``, outputs by inputs.
    outputs, inputs
        Sizes to fill up to, multiples of 16.
    chained
        The left operand comes from the registers of the product before, which hold adjacent columns:
        inputs are counted as its outputs are. Else it comes from memory and they are counted in order.
    """
    bits = bfloat16_bits(pad(matrix, outputs, inputs))
    inner = (4, 2, 2) if chained else (2, 4, 2)  # chained: (t, r, e), else (r, t, e)
    split = bits.reshape(outputs // BLOCK, 4, 2, 2, inputs // BLOCK, *inner)
    # axes: n, g // 2, j, g % 2, k, then t, r, e in either order
    t, r = (5, 6) if chained else (6, 5)
    ordered = split.transpose(0, 4, 1, 3, t, 2, r, 7)
    return np.ascontiguousarray(ordered).reshape(outputs // BLOCK, inputs // BLOCK, 256)


def pack_swizzled(matrix: Matrix, outputs: int, inputs: int) -> Bits:
    """Return a matrix as wgmma reads it from shared memory, ``[inputs / 64, outputs, 64]``.

    A row is 64 inputs of one output, 128 bytes in eight parts; part p of row r lies at ``p ^ (r % 8)``.
    Outputs are placed as in `pack`.

    Parameters
    ----------
    matrix
        ``[N, K]``, outputs by inputs.
    outputs, inputs
        Sizes to fill up to, multiples of 64.
    """
    bits = bfloat16_bits(pad(matrix, outputs, inputs))
    placed = bits.reshape(outputs // BLOCK, 4, 2, 2, inputs).transpose(0, 2, 1, 3, 4)  # n, j, g // 2, g % 2
    parts = placed.reshape(outputs // 8, 8, inputs // 64, 8, 8)
    row, part = np.arange(8)[:, None], np.arange(8)[None, :]
    swizzled = parts[:, row, :, part ^ row]  # the two index arrays come first: row, part
    return np.ascontiguousarray(swizzled.transpose(3, 2, 0, 1, 4)).reshape(inputs // 64, outputs, 64)


def pack_stream(
    w_in: Matrix,
    first: Matrix,
    w1: Sequence[Matrix],
    w2: Sequence[Matrix],
    w_out: Matrix,
    latent: int,
    hidden: int,
) -> Bits:
    """Return all weights in the order in which a fused kernel reads them (``csrc/cuda/fused.cuh``).

    Parameters
    ----------
    w_in, first
        ``[H, K]``; the product of the first layer and the folded one of the first block.
    w1, w2
        Matrices ``[H, H]``: L - 1 of layers 1 and up, and L.
    w_out
        ``[K, H]``.
    latent, hidden
        K' and H'.
    """
    parts = [pack(w_in, hidden, latent, chained=True).ravel()]
    inner = [pack(first, hidden, latent, chained=True), *(pack(w, hidden, hidden, chained=True) for w in w1)]
    outer = [pack(w, hidden, hidden, chained=True) for w in w2]
    for into, back in zip(inner, outer, strict=True):
        for chunk in range(hidden // BLOCK):
            parts += [into[chunk].ravel(), back[:, chunk].ravel()]
    parts.append(pack(w_out, latent, hidden, chained=True).ravel())
    return np.concatenate(parts)


def split_matrix(matrix: Matrix, dim: int, latent: int) -> npt.NDArray[np.float32]:
    """Return a matrix ``[D, K]`` as ``[D', 3 K']``: its high part twice, then its low part.

    With z = high + low as well, three bfloat16 products give ``matrix z`` to about 16 bits.
    """
    exact = matrix.astype(np.float32)
    high = from_bfloat16(bfloat16_bits(exact))
    parts = [pad(part, dim, latent) for part in (high, high, exact - high)]
    return np.concatenate(parts, axis=1)
