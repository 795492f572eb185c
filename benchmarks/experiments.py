"""The experiments of ``experiments.toml``, and the documents with their figures."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Experiment:
    """An entry of ``experiments.toml``; the file explains the fields."""

    id: str
    shows: str
    data: tuple[str, ...]
    file: str
    sha256: str
    commands: tuple[str, ...]
    hardware: str = ""
    status: str = "kept"
    encoder: str = ""
    mirror: bool = False
    parent: str = ""
    time: str = ""
    date: str = ""
    code: str = ""
    commit: str = ""
    was: str = ""
    note: str = ""

    @property
    def kind(self) -> str:
        """The command, for the experiments of one command; else the name itself."""
        first = self.id.split("-")[0]
        return first if first in ("baseline", "run", "compare", "ablate") else self.id


def load(folder: Path = HERE) -> dict[str, Experiment]:
    """Return the experiments by their names, in the order of the file.

    Raises
    ------
    ValueError
        An entry lacks a field, or has one that is unknown; the message names both.
    """
    document = tomllib.loads((folder / "experiments.toml").read_text(encoding="utf-8"))
    found = {}
    for name, entry in document["experiments"].items():
        lists = {key: tuple(entry.get(key, ())) for key in ("data", "commands")}
        try:
            found[name] = Experiment(id=name, **{**entry, **lists})
        except TypeError as error:
            raise ValueError(f"experiments.toml: {name}: {error}") from None
    return found


def document(experiment: Experiment, folder: Path = HERE) -> dict[str, Any]:
    """Return the document of an experiment.

    Raises
    ------
    ValueError
        The file is no result document; the message names it.
    """
    path = folder / "results" / experiment.file
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(read["rows"], list):
            raise TypeError("rows is no list")
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a result document ({error!r}); write it again") from None
    return dict(read)
