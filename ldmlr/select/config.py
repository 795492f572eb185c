"""The grid that ``ldmlr run --auto`` chooses from; imports no torch."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.generation.config import GATES
from ldmlr.generation.generators.catalogue import GENERATORS
from ldmlr.select.entrants import ENTRANTS

# The word among the scales that stands for the widening measured class by class.
BY_CLASS = "class"


@dataclasses.dataclass(frozen=True)
class SelectConfig(Config):
    """What is tried on the held-out rows. The settings of the run itself are always among it."""

    methods: tuple[str, ...] = option(
        (),
        "Methods that --auto chooses among.  [default: all but knn; mlp where rows are few]",
        metavar="WORD",
    )
    generators: tuple[str, ...] = option(
        ("diffusion", "gaussian"),
        f"Generators to try: {', '.join(GENERATORS)}.",
        metavar="WORD",
    )
    scales: tuple[str, ...] = option(
        ("1", "1.2", "1.41", "1.7", BY_CLASS),
        "Widenings to try: numbers, or class for the one measured class by class.",
        metavar="FACTOR|class",
    )
    guidances: tuple[float, ...] = option((1.0, 1.5, 2.0), "Guidances to try.", metavar="FLOAT")
    gates: tuple[str, ...] = option(("none", "prototype"), "Quality gates to try.", metavar="WORD")
    taus: tuple[float, ...] = option(
        (0.5, 0.75, 1.0, 1.25), "Strengths of the label shift to try.", metavar="FLOAT"
    )
    averages: tuple[float, ...] = option(
        (0.0, 0.5), "Shares of the baseline's head in the label-shift row to try.", metavar="FLOAT"
    )

    def __post_init__(self) -> None:
        # Numbers in a TOML list stand for their words.
        scales: object = self.scales
        if isinstance(scales, int | float):
            scales = (scales,)
        if isinstance(scales, list | tuple):
            object.__setattr__(self, "scales", tuple(_word(scale) for scale in scales))
        super().__post_init__()
        for name, words in (("methods", ENTRANTS), ("generators", GENERATORS), ("gates", GATES)):
            for word in getattr(self, name):
                if word not in words:
                    raise UsageError(f"{opt(name)}: unknown value {word!r}; {nearest(word, words)}")
        for scale in self.scales:
            if scale != BY_CLASS and not _positive(scale):
                raise UsageError(
                    f"{opt('scales')}: expected numbers above 0 or the word class, not {scale!r}"
                )
        for name, low in (("guidances", 0.0), ("taus", 0.0), ("averages", 0.0)):
            if any(value < low for value in getattr(self, name)):
                raise UsageError(f"{opt(name)}: must be at least {low:g}")
        if any(value > 1 for value in self.averages):
            raise UsageError(f"{opt('averages')}: must be at most 1")


def _word(value: object) -> object:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


def _positive(text: str) -> bool:
    try:
        return 0 < float(text) < float("inf")
    except ValueError:
        return False
