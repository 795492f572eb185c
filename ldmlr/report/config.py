"""Options of the report."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option


@dataclasses.dataclass(frozen=True)
class ReportConfig(Config):
    """How much of a run is looked at."""

    sample: int = option(
        6000,
        "Compare at most so many rows of each kind (encoded, generated, test).",
        minimum=10,
        metavar="ROWS",
    )
    seed: int = option(0, "Random seed of the samples.", minimum=0, metavar="N")
