"""The instruction sets of the extension: which were built, which this processor has, which one runs."""

from __future__ import annotations

import dataclasses
import os

from ldmlr import _native
from ldmlr.errors import UsageError, nearest

VARIABLE = "LDMLR_ISA"


@dataclasses.dataclass(frozen=True)
class InstructionSet:
    """One set of kernels.

    Attributes
    ----------
    name
        ``baseline``, ``avx2``, ``avx512``, ``avx512vnni``, ``avx512bf16`` or ``amx``.
    available
        This processor (and its operating system) can run it.
    bfloat16, int8
        It has products of that type; all have those of float32.
    """

    name: str
    available: bool
    bfloat16: bool
    int8: bool


def instruction_sets() -> tuple[InstructionSet, ...]:
    """Return the instruction sets of this build, the slowest first."""
    return tuple(InstructionSet(*entry) for entry in _native.instruction_sets())


def choose(name: str | None = None) -> InstructionSet:
    """Return the instruction set that runs: the one named, or that of ``LDMLR_ISA``, or the fastest.

    Raises
    ------
    UsageError
        The name is unknown, or asks for more than this processor has.
    """
    where = "isa" if name else VARIABLE
    wanted = name or os.environ.get(VARIABLE)
    sets = {entry.name: entry for entry in instruction_sets()}
    available = [entry for entry in sets.values() if entry.available]
    if not wanted:
        return available[-1]
    if wanted not in sets:
        raise UsageError(f"{where}: unknown instruction set {wanted!r}; {nearest(wanted, sets)}")
    if not sets[wanted].available:
        names = ", ".join(entry.name for entry in available)
        raise UsageError(f"{where}: this processor does not have {wanted}; use one of {names}")
    return sets[wanted]
