"""Steps of a run: each has a key made from its settings and inputs, and a folder named after it.

A step whose folder holds a finished record with the same key is reused; changed settings
give another key and so another folder, and nothing that was computed is lost.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ldmlr.config import config_hash, plain
from ldmlr.errors import LdmlrError
from ldmlr.files import make_folder, parse_json, write_text
from ldmlr.runfolder import step_folder

# Part of every key: raise it when a stage changes what it computes from the same settings.
SCHEMA = 5
RECORD = "step.json"


@dataclasses.dataclass(frozen=True)
class Step:
    """One stage for one seed.

    Parameters
    ----------
    stage
        ``baseline``, ``encode``, ``diffuse``, ``generate`` or ``finetune``.
    seed
        The seed it runs with.
    settings
        Its resolved configuration.
    inputs
        Keys of the steps, or fingerprints of the files, that it reads.
    root
        The folder of the run.
    filename
        The name of its main output.
    """

    stage: str
    seed: int
    settings: dict[str, Any]
    inputs: tuple[str, ...]
    root: Path
    filename: str

    @property
    def key(self) -> str:
        """Hash of everything the output depends on."""
        return config_hash(SCHEMA, self.stage, self.seed, self.settings, list(self.inputs))

    @property
    def folder(self) -> Path:
        """Where its outputs are."""
        return self.root / step_folder(self.stage, self.seed, self.key)

    @property
    def output(self) -> Path:
        """Its main output."""
        return self.folder / self.filename

    def record(self) -> dict[str, Any] | None:
        """Return the record of the finished step, or None if it has not finished."""
        path = self.folder / RECORD
        try:
            record = parse_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValueError, OSError):
            raise LdmlrError(f"{path}: damaged; delete this folder and run again") from None
        if not isinstance(record, dict) or record.get("key") != self.key or not self.output.exists():
            return None
        return record

    def run(self, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """Return the record, after doing the work if no finished record is there.

        `work` writes the main output to the path it is given and returns figures for the record.
        """
        found = self.record()
        if found is not None:
            return found
        make_folder(self.folder)
        start = time.perf_counter()
        figures = work(self.output)
        record = {
            "key": self.key, "stage": self.stage, "seed": self.seed, "output": self.filename,
            "seconds": round(time.perf_counter() - start, 3), "settings": self.settings,
            "inputs": list(self.inputs), "figures": plain(figures),
        }  # fmt: skip
        write_text(self.folder / RECORD, json.dumps(record, indent=2, allow_nan=False) + "\n")
        found = self.record()
        if found is None:
            raise LdmlrError(f"{self.output}: the {self.stage} stage ended without writing it")
        return found
