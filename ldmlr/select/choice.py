"""A choice: the settings that held-out rows spoke for, as a document that another run can take over."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ldmlr.config import plain
from ldmlr.errors import InputError, LdmlrError, UsageError, counted, opt
from ldmlr.files import check_input, os_error, parse_json
from ldmlr.remote import as_path

FORMAT = "ldmlr-choice"
SCHEMA_VERSION = 1
# Tables of a run that a choice brings along.
TABLES = ("diffuse", "generate", "finetune")


@dataclasses.dataclass(frozen=True)
class Choice:
    """Generator and settings that were chosen on held-out rows.

    Attributes
    ----------
    generator
        A name of `ldmlr.generation.generators.catalogue`.
    settings
        Table of a run (``generate``, ``finetune``) -> keys and values that were chosen.
    base
        The same for all that was not chosen but held while choosing (``diffuse`` included).
    num_classes
        Classes C: a choice may hold a number per class.
    document
        Everything, with the evidence: what is written.
    """

    generator: str
    settings: Mapping[str, Mapping[str, Any]]
    base: Mapping[str, Mapping[str, Any]]
    num_classes: int
    document: Mapping[str, Any]

    @classmethod
    def of(cls, document: Mapping[str, Any], where: str = "choice") -> Self:
        """Read a document.

        Raises
        ------
        InputError
            It is not a choice.
        """
        try:
            if document["format"] != FORMAT or document["schema_version"] != SCHEMA_VERSION:
                raise ValueError
            settings, base = (
                {str(name): dict(table) for name, table in document[part].items()}
                for part in ("settings", "base")
            )
            if not {*settings, *base} <= set(TABLES):
                raise ValueError
            return cls(str(document["generator"]), settings, base, int(document["num_classes"]), document)
        except (KeyError, ValueError, TypeError, AttributeError):
            raise InputError(
                f"{where}: not a choice ({FORMAT}, version {SCHEMA_VERSION}); give the choice.json or the "
                f"result.json of ldmlr run --auto"
            ) from None

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a choice.json, or the result.json of a run that chose."""
        path = check_input(as_path(path), "choice")
        try:
            document = parse_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise os_error(error, path) from error
        except ValueError:
            raise InputError(f"{path}: not a JSON file; give the choice.json of ldmlr run --auto") from None
        if isinstance(document, dict) and "choice" in document:
            document = document["choice"]
        return cls.of(document if isinstance(document, dict) else {}, str(path))

    def tables(self, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the tables of a run: what was chosen, over what is given, over what held while choosing.

        Raises
        ------
        UsageError
            A value is given that the choice has settled otherwise.
        """
        for name, table in self.settings.items():
            for key, value in table.items():
                own = given.get(name, {}).get(key, value)
                if plain(own) != plain(value):
                    raise UsageError(
                        f"{opt('refit')}: {name}.{key} was chosen ({_shown(value)}), and {_shown(own)} "
                        "is given; "
                        "leave one of the two out"
                    )
        base = {name: dict(table) for name, table in self.base.items()}
        if self.settings.get("generate", {}).get("gate", "head") != "head":
            base.get("generate", {}).pop("gate_confidence", None)  # of a gate that was not chosen
        names = {*given, *base, *self.settings}
        return {
            name: {**base.get(name, {}), **given.get(name, {}), **self.settings.get(name, {})}
            for name in sorted(names)
        }

    def check(self, num_classes: int, where: str) -> None:
        """Refuse a store of other classes."""
        if num_classes != self.num_classes:
            raise UsageError(
                f"{opt('refit')}: was chosen for {counted(self.num_classes, 'class')}, but {where} "
                f"has {num_classes}; give a choice made for the same classes"
            )


def _shown(value: Any) -> str:
    """Return a value for a message; a long one, such as a factor per class, shortened."""
    text = json.dumps(plain(value))
    return text if len(text) <= 40 else f"{text[:36]} ..."


def no_val(where: str) -> LdmlrError:
    """Return the error for a store without held-out rows."""
    return InputError(
        f"{where}: has no validation rows (/val) to choose on; train with ldmlr baseline --val-fraction 0.1 "
        f"and encode again, or for ldmlr run from images add --set baseline.val_fraction=0.1"
    )
