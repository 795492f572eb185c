"""Options of every command that takes features in any form."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config, option


@dataclasses.dataclass(frozen=True)
class SourceConfig(Config):
    """Where the features and labels of a SOURCE are that is no feature store."""

    features_key: str | None = option(
        None, "Features of a SOURCE in another form: dataset, array or column (a pattern for many).",
        metavar="KEY",
    )  # fmt: skip
    labels_key: str | None = option(
        None, "Its labels, likewise; for an .npy file, the file of labels.", metavar="KEY"
    )
