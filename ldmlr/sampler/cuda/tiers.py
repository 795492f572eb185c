"""Which kernels run: a table by size, from measurements on an H200 (docs/kernels.md).

==========  =============================================================================================
resident    all weights and the state of 128 rows stay in shared memory; the fastest where they fit
streamed    activations stay in registers, the weights pass through shared memory
layered     one matrix product per layer; every size
warpgroup   the same with the instructions of sm_90a
bulk        warpgroup, with copies by the engine of sm_90a and blocks that share what they read
==========  =============================================================================================

The choice depends on the model and on the device, never on the number of rows: two parts of one
request must not run on kernels that round differently.
"""

from __future__ import annotations

import dataclasses
import os

from ldmlr import _native
from ldmlr.errors import UsageError, counted, nearest
from ldmlr.floats import Bits
from ldmlr.sampler.cuda.packing import BLOCK, BLOCK_BYTES, Matrix, pack, pack_swizzled

VARIABLE = "LDMLR_CUDA_TIER"
TIERS = {
    "layered": _native.CudaTier.layered,
    "resident": _native.CudaTier.resident,
    "streamed": _native.CudaTier.streamed,
    "warpgroup": _native.CudaTier.warpgroup,
    "bulk": _native.CudaTier.bulk,
}
BY_WGMMA = ("warpgroup", "bulk")
IN_LAYERS = ("layered", *BY_WGMMA)
# (tier, K', H') of csrc/cuda/fused_table.cuh, the first that fits runs.
SHAPES = (
    ("resident", 64, 64),
    ("resident", 64, 128),
    ("streamed", 64, 128),
    ("streamed", 64, 256),
    ("streamed", 128, 128),
    ("streamed", 128, 256),
)
# What K' and H' of the tiers in layers are multiples of, and D' of all tiers.
MULTIPLES = {"layered": (64, 64), "warpgroup": (64, 128), "bulk": (64, 128)}
FEATURES_MULTIPLE = 64
# Where no fused kernel fits and the device has wgmma. bulk has the same bits and is within 2 % of it either
# way; layered is 1.4 to 1.7 times slower.
ON_SM90 = "warpgroup"
ROWS_MULTIPLE = 256  # rows of the largest block of the kernels in layers
# A slab should be large: eight times the rows are 35 % faster at H 512 and 5 to 8 % at H 2048, although their
# activations leave the second-level cache between layers. Memory is the limit: the caller's is there too.
SLAB_BYTES = 2 << 30
SLAB_SMALLEST, SLAB_LARGEST = 4096, 32768

_WARPS = 8


@dataclasses.dataclass(frozen=True)
class Tier:
    """The kernels that run a model.

    Attributes
    ----------
    name
        ``resident``, ``streamed``, ``layered``, ``warpgroup`` or ``bulk``.
    latent, hidden
        K' and H': the sizes that the network's kernels compute with.
    """

    name: str
    latent: int
    hidden: int

    @property
    def code(self) -> _native.CudaTier:
        """The tier in the extension."""
        return TIERS[self.name]

    @property
    def fused(self) -> bool:
        """All steps run in one kernel."""
        return self.name not in IN_LAYERS

    def packing(self, matrix: Matrix, outputs: int, inputs: int) -> Bits:
        """Return a matrix in the order in which the kernels read it."""
        if self.name in BY_WGMMA:
            return pack_swizzled(matrix, outputs, inputs)
        return pack(matrix, outputs, inputs, chained=self.fused)


def padded_features(dim: int) -> int:
    """Return D', the columns of the last step."""
    return _up(dim, FEATURES_MULTIPLE)


def shared_bytes(tier: str, latent: int, hidden: int, layers: int, guided: bool) -> int:
    """Return the shared memory that a fused kernel needs (``csrc/cuda/fused_table.cuh``)."""
    d, h = latent // BLOCK, hidden // BLOCK
    two_passes = guided and h > 8
    state = _WARPS * 32 * 16 * (3 if two_passes else 2) * d * 2
    if tier == "resident":
        return (2 * d * h + h * (d + h) + (layers - 1) * 2 * h * h) * BLOCK_BYTES + state
    slots = 2 if d * h > 64 else 3
    return slots * 2 * h * BLOCK_BYTES + state


def choose(
    latent: int,
    hidden: int,
    layers: int,
    guided: bool,
    shared_limit: int,
    name: str | None = None,
    *,
    wgmma: bool = False,
) -> Tier:
    """Return the kernels for a model.

    Parameters
    ----------
    latent, hidden, layers
        K, H and L.
    guided
        Guidance evaluates two classes.
    shared_limit
        Bytes of shared memory that a block may have on the device.
    name
        Take this tier; None: that of ``LDMLR_CUDA_TIER``, or the first of the table.
    wgmma
        The device and the build have the instructions of sm_90a.

    Raises
    ------
    UsageError
        The tier is unknown or cannot run the model.
    """
    where = "tier" if name else VARIABLE
    wanted = name or os.environ.get(VARIABLE) or None
    if wanted is not None and wanted not in TIERS:
        raise UsageError(f"{where}: unknown value {wanted!r}; {nearest(wanted, TIERS)}")
    for tier, d, h in SHAPES:
        fits = latent <= d and hidden <= h and shared_bytes(tier, d, h, layers, guided) <= shared_limit
        if fits and wanted in (None, tier):
            return Tier(tier, d, h)
    if wanted in BY_WGMMA and not wgmma:
        raise UsageError(f"{where}: the {wanted} kernels need a device and a build of sm_90a; use layered")
    if wanted is not None and wanted not in IN_LAYERS:
        raise UsageError(
            f"{where}: the {wanted} kernels cannot run D {latent}, H {hidden} and "
            f"{counted(layers, 'layer')} with {counted(shared_limit, 'byte')} of shared memory; use layered"
        )
    found = wanted or (ON_SM90 if wgmma else "layered")
    return Tier(found, _up(latent, MULTIPLES[found][0]), _up(hidden, MULTIPLES[found][1]))


def largest_slab(tier: Tier, guided: bool) -> int:
    """Return the rows that go through the layers together, a power of two times `ROWS_MULTIPLE`."""
    row = 12 * tier.latent + tier.hidden * (4 + (8 if not guided else 16))
    rows = SLAB_LARGEST
    while rows > SLAB_SMALLEST and rows * row > SLAB_BYTES:
        rows //= 2
    return rows


def slab_for(rows: int, largest: int) -> int:
    """Return the slab for a call of some rows.

    The smallest power of two times `ROWS_MULTIPLE` that holds them, at most `largest`; or half of that, a
    quarter and so on, if the last slab, which is always computed whole, would be mostly empty.
    """
    slab = ROWS_MULTIPLE
    while slab < min(rows, largest):
        slab *= 2
    sizes = [min(slab, largest)]
    while sizes[-1] > SLAB_SMALLEST and sizes[-1] // 2 % ROWS_MULTIPLE == 0:
        sizes.append(sizes[-1] // 2)

    def computed(size: int) -> int:
        return -(-rows // size) * size

    # Smaller slabs are up to 35 % slower, so a fifth of empty rows is no reason for one.
    return next((size for size in sizes if computed(size) <= 1.25 * rows), min(sizes, key=computed))


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
