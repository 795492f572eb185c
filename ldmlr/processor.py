"""Which type of number ``auto`` multiplies in: a table of facts about processors, and one rule.

An instruction that a processor has need not be fast on it. AVX-512's bfloat16 product (``vdpbf16ps``, two
products a lane) is issued as often as the float32 one on AMD's Zen 4 and Zen 5, so bfloat16 is twice the work
per second; on Intel's cores it is issued a quarter as often, half the work of float32, and only the tile unit
(AMX) is faster. int8 costs accuracy and is never chosen unasked. The choice is a function of the
processor and of the instruction set alone, so the same machine always draws the same rows.

Measured with ``ldmlr bench sample`` at D 64, H 128: one core of Zen 5 draws 168,000 rows/s with bfloat16 and
87,000 with float32 (multiply-adds on registers: 505 and 253 GFLOP/s); two of Emerald Rapids without AMX
60,000 and 104,000. Zen 4 issues both once a cycle (AMD's optimisation guide); the other Intel cores, whose
vector units are those of Emerald Rapids, are taken to be like it.
"""

from __future__ import annotations

import dataclasses

from ldmlr import _native
from ldmlr.errors import UsageError, opt
from ldmlr.isa import InstructionSet

AMD, INTEL = "AuthenticAMD", "GenuineIntel"
TILES = "amx"


@dataclasses.dataclass(frozen=True)
class Processor:
    """What a processor calls itself (CPUID): vendor, display family and model; empty where it has none."""

    vendor: str = ""
    family: int = 0
    model: int = 0


@dataclasses.dataclass(frozen=True)
class Fact:
    """How fast a kind of processor multiplies bfloat16 in vectors.

    Attributes
    ----------
    cores
        Their name.
    vendor, family
        As CPUID has them.
    models
        Of the family; empty: all that have the instruction.
    rate
        Products a second of ``vdpbf16ps`` over those of float32's ``vfmadd231ps``.
    """

    cores: str
    vendor: str
    family: int
    models: tuple[int, ...]
    rate: float

    def fits(self, processor: Processor) -> bool:
        """Tell whether a processor is of this kind."""
        same = (processor.vendor, processor.family) == (self.vendor, self.family)
        return same and (not self.models or processor.model in self.models)


# Processors that have AVX512-BF16.
FACTS = (
    Fact("AMD Zen 4", AMD, 0x19, (), 2.0),
    Fact("AMD Zen 5", AMD, 0x1A, (), 2.0),
    Fact("Intel Cooper Lake", INTEL, 6, (0x55,), 0.5),
    Fact("Intel Sapphire Rapids", INTEL, 6, (0x8F,), 0.5),
    Fact("Intel Emerald Rapids", INTEL, 6, (0xCF,), 0.5),
    Fact("Intel Granite Rapids", INTEL, 6, (0xAD, 0xAE), 0.5),
)


@dataclasses.dataclass(frozen=True)
class NumberType:
    """A type of number to multiply in, and why.

    Attributes
    ----------
    name
        ``float32`` or ``bfloat16``.
    reason
        One clause.
    """

    name: str
    reason: str


def this_processor() -> Processor:
    """Return the processor that runs this."""
    return Processor(*_native.processor())


def number_type(chosen: InstructionSet, processor: Processor | None = None) -> NumberType:
    """Return the type that ``auto`` means for products: the fastest that costs no accuracy.

    Parameters
    ----------
    chosen
        The instruction set that runs.
    processor
        None: this one.
    """
    found = processor or this_processor()
    if not chosen.bfloat16:
        return NumberType("float32", f"{chosen.name} has no bfloat16 products")
    if chosen.name == TILES:
        return NumberType("bfloat16", "the tile unit multiplies it many times faster than float32")
    fact = next((fact for fact in FACTS if fact.fits(found)), None)
    if fact is None:
        return NumberType("float32", "of this processor it is not known that bfloat16 is faster")
    if fact.rate > 1:
        return NumberType(
            "bfloat16", f"{fact.cores} multiplies it at {fact.rate:g} times the rate of float32"
        )
    return NumberType(
        "float32", f"{fact.cores} multiplies bfloat16 in vectors at {fact.rate:g} times its rate"
    )


def vector_products(precision: str, chosen: InstructionSet, processor: Processor | None = None) -> str:
    """Return the type of products of a kernel that multiplies in vectors alone: no tile unit.

    Parameters
    ----------
    precision
        ``auto``, ``float32`` or ``bfloat16``.
    chosen
        The instruction set that runs.
    processor
        What ``auto`` is chosen for; None: this one.

    Raises
    ------
    UsageError
        bfloat16 was asked for and the instruction set has none.
    """
    if precision == "bfloat16" and not chosen.bfloat16:
        raise UsageError(
            f"{opt('precision', 'bfloat16')}: {chosen.name} has no bfloat16 products; "
            f"use {opt('precision', 'float32')}"
        )
    if precision != "auto":
        return precision
    # Without tiles, what has them multiplies as the instruction set below does.
    plain = dataclasses.replace(chosen, name="avx512bf16") if chosen.name == TILES else chosen
    return number_type(plain, processor).name
