"""Options of the engines; imports nothing heavy, so that the command line answers at once."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option
from ldmlr.errors import UsageError, opt

ENGINES = ("local", "ray")


@dataclasses.dataclass(frozen=True)
class EngineConfig(Config):
    """Who does the work."""

    engine: str = option("local", "This process, or the workers of a Ray cluster.", choices=ENGINES)
    address: str | None = option(
        None, "Ray cluster to join; without it RAY_ADDRESS, else one on this machine.", metavar="HOST:PORT"
    )
    shards: int | None = option(
        None, "Shards to draw in, where several work.  [default: by the number of rows]", minimum=1
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "local" and self.address is not None:
            raise UsageError(f"{opt('address')}: only {opt('engine', 'ray')} has one; leave it out")
