"""A finished baseline that another training makes use of, and which images it may have seen."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar, Self

from ldmlr.encoders.model import Baseline, file_hash, model_path
from ldmlr.errors import UsageError, opt
from ldmlr.remote import as_path


@dataclasses.dataclass
class Earlier:
    """A finished baseline.

    Parameters
    ----------
    path
        The model file.
    sha256
        Its hash.
    baseline
        What it holds.
    """

    # Name of the option that names it.
    option: ClassVar[str]

    path: Path
    sha256: str
    baseline: Baseline

    @classmethod
    def read(cls, name: str, code: Collection[str | None], option: str) -> Self:
        """Read the model of a file or folder; `code` and `option` as of `Baseline.load`.

        Raises
        ------
        InputError
            It is missing, damaged or no baseline.
        """
        path = model_path(as_path(name))
        return cls(path, file_hash(path), Baseline.load(path, code, option))

    def check_held_out(self, held_out: dict[str, Any] | None) -> None:
        """Refuse to hold out images that the weights may have seen.

        Whether two image sets share images cannot be told by their records, so every training behind the
        weights must have held out the very same ones.

        Parameters
        ----------
        held_out
            Record of the images held out now; None if there are none.

        Raises
        ------
        UsageError
            One of the trainings held out none, or others.
        """
        if held_out is not None and any(before != held_out for before in self.held_out):
            raise UsageError(
                f"{opt(self.option)} {self.path}: may have been trained on images that {opt('val_fraction')} "
                f"would hold out; use a baseline of the same images, {opt('val_fraction')} and "
                f"{opt('seed')}, or leave one of the two out"
            )

    @property
    def held_out(self) -> list[dict[str, Any] | None]:
        """What each training behind the weights held out, the last one first."""
        origin = self.baseline.provenance
        found: list[dict[str, Any] | None] = [origin.get("held_out")]
        for used in ("init", "teacher"):
            found += origin.get(used, {}).get("held_out", [])
        return found
