"""The candidates: which settings are tried, and how many of the run's own each of them changes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.classes import class_word, saved_table
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError, opt
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.catalogue import entry_of, resolved
from ldmlr.select.config import BY_CLASS, SelectConfig


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A way to generate.

    Attributes
    ----------
    generator
        A name of `ldmlr.generation.generators.catalogue`.
    scale
        A number as text, or ``class``; None for a generator that does not widen.
    guidance
        None for all but the diffusion model.
    gate
        ``none``, ``prototype`` or ``head``.
    """

    generator: str
    scale: str | None
    guidance: float | None
    gate: str = "none"

    def changes(self, base: Candidate) -> int:
        """Return how many settings differ from those of the run."""
        guided = self.guidance is not None and base.guidance is not None
        widened = self.scale is not None and base.scale is not None
        return (
            int(self.generator != base.generator) + int(widened and self.scale != base.scale)
            + int(guided and self.guidance != base.guidance) + int(self.gate != base.gate)
        )  # fmt: skip

    def settings(self, k: npt.NDArray[np.float64], class_names: Sequence[str] | None) -> dict[str, Any]:
        """Return the keys of the ``generate`` table, given the widening per class ``[C]``."""
        names = [class_word(label, len(k), class_names) for label in range(len(k))]
        by_class = self.scale == BY_CLASS
        factors = {name: round(factor, 4) for name, factor in zip(names, k.tolist(), strict=True)}
        found: dict[str, Any] = {"gate": self.gate, "class_scale": saved_table(factors if by_class else {})}
        if self.guidance is not None:
            found["guidance"] = self.guidance
        if self.scale is not None and not by_class:
            found["scale"] = float(self.scale)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return dataclasses.asdict(self)


def base_candidate(generate: GenerateConfig, generator: str, model: DiffusionConfig) -> Candidate:
    """Return the candidate that the run's own settings are.

    Raises
    ------
    UsageError
        They widen single classes, which is for the selection to do, or ask for guidance that the model
        will not have.
    """
    if generate.class_scale:
        raise UsageError(f"{opt('auto')}: measures the widening of every class itself; leave class_scale out")
    chosen = resolved(generator, generate, model)
    reads = entry_of(generator).reads
    scale = _text(chosen.scale) if "scale" in reads and chosen.scale is not None else None
    return Candidate(generator, scale, chosen.guidance if "guidance" in reads else None, chosen.gate)


def _text(scale: float) -> str:
    """Return a number as short as it can be read back."""
    return f"{scale:g}" if float(f"{scale:g}") == scale else repr(float(scale))


def grid(base: Candidate, select: SelectConfig, model: DiffusionConfig) -> list[Candidate]:
    """Return the candidates of the first round, the run's own first: generator, scale and guidance.

    A widening per class is measured around class means, which a standardised model does not have; and a model
    without label dropout has no guidance.
    """
    scales = [s if s == BY_CLASS else _text(float(s)) for s in select.scales]
    if model.transform != "whitened":
        scales = [scale for scale in scales if scale != BY_CLASS]
    found = [base]
    for generator in select.generators:
        reads = entry_of(generator).reads
        widths: Sequence[str | None] = scales if "scale" in reads else (None,)
        guidances: Sequence[float | None] = (None,)
        if "guidance" in reads:
            guidances = select.guidances if model.label_dropout else (1.0,)
        gate = base.gate if "gate" in reads else "none"
        found += [
            Candidate(generator, scale, guidance, gate)
            for guidance, scale in itertools.product(guidances, widths)
        ]
    return list(dict.fromkeys(found))


def gate_round(chosen: Candidate, select: SelectConfig, transform: str) -> list[Candidate]:
    """Return the candidates of the second round: the chosen one, and it with other gates."""
    if "gate" not in entry_of(chosen.generator).reads:
        return [chosen]
    gates = [gate for gate in select.gates if gate != "prototype" or transform == "whitened"]
    others = [dataclasses.replace(chosen, gate=gate) for gate in gates]
    return list(dict.fromkeys([chosen, *others]))
