"""The colours of the page and its pictures: one light and one dark theme, in one place.

The page takes them as CSS variables, the pictures as colours of matplotlib, so that a picture has the very
paper it lies on. Marks are told apart by lightness and shape as well as by colour.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours as ``#rrggbb``.

    Parameters
    ----------
    name
        ``light`` or ``dark``.
    paper, panel
        Behind everything, and behind what is set apart.
    ink, soft, rule
        Words, words of less weight, and lines.
    base, base_shift, made, made_shift, other
        Marks of the baseline and of LDMLR, plain and with label shift, and of any other method.
    good, bad, flat
        Verdicts.
    """

    name: str
    paper: str
    panel: str
    ink: str
    soft: str
    rule: str
    base: str
    base_shift: str
    made: str
    made_shift: str
    other: str
    good: str
    bad: str
    flat: str

    def __getitem__(self, kind: str) -> str:
        """Return the colour of a kind of mark, such as ``made-shift``."""
        colour: str = getattr(self, kind.replace("-", "_"))
        return colour

    def variables(self) -> dict[str, str]:
        """Return name -> colour, the names as CSS writes them."""
        return {
            field.name.replace("_", "-"): self[field.name]
            for field in dataclasses.fields(self)
            if field.name != "name"
        }


LIGHT = Theme(
    "light", paper="#fdfdfc", panel="#f3f4f2", ink="#1b1f24", soft="#5b636d", rule="#d9dde2",
    base="#6b7683", base_shift="#2f6fb7", made="#cf5a1c", made_shift="#1f8a63", other="#8a6fb0",
    good="#1f8a63", bad="#b3372b", flat="#8a6a14",
)  # fmt: skip
DARK = Theme(
    "dark", paper="#15181c", panel="#1d2126", ink="#e6e8ea", soft="#9aa3ad", rule="#343a41",
    base="#9aa5b1", base_shift="#6aa6ea", made="#f08a4b", made_shift="#4fc596", other="#b79be0",
    good="#4fc596", bad="#ef7d70", flat="#d9b04a",
)  # fmt: skip
THEMES = (LIGHT, DARK)
