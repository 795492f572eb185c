"""What a run left: its result document, and the files of each seed beside it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldmlr.errors import InputError
from ldmlr.files import check_input, parse_json
from ldmlr.remote import as_path
from ldmlr.results import RESULT
from ldmlr.runfolder import step_folder, tuned_head
from ldmlr.store import FeatureStore
from ldmlr.store.convert.ready import FOLDER as CONVERTED


@dataclasses.dataclass(frozen=True)
class OpenedRun:
    """A result document and the folder it is in.

    Parameters
    ----------
    document
        The contents of ``result.json``.
    path
        The file.
    """

    document: dict[str, Any]
    path: Path

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return self.path.parent

    @property
    def command(self) -> str:
        """The command that wrote the document, or an empty text."""
        return str(self.document.get("command", ""))

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration."""
        found = self.document.get("config")
        return found if isinstance(found, dict) else {}

    @property
    def seeds(self) -> list[int]:
        """The seeds."""
        found = self.document.get("seeds")
        return [seed for seed in found if isinstance(seed, int)] if isinstance(found, list) else []

    def steps(self, stage: str) -> list[dict[str, Any]]:
        """Return the records of a stage, the last one of each seed."""
        found = self.document.get("steps")
        records = [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
        last = {entry.get("seed"): entry for entry in records if entry.get("stage") == stage}
        return list(last.values())

    def output(self, step: dict[str, Any], name: str) -> Path | None:
        """Return a file of a step's folder, or None if it is gone."""
        path = self.folder / step_folder(step["stage"], step.get("seed"), str(step.get("key"))) / name
        return path if path.is_file() else None

    def outputs(self, stage: str, name: str) -> Iterator[tuple[int, Path]]:
        """Yield (seed, file) of a stage, for the files that are there."""
        for step in self.steps(stage):
            path = self.output(step, name)
            if path is not None:
                yield int(step["seed"]), path

    def first_output(self, stage: str, name: str) -> Path | None:
        """Return a file of a stage of the first seed, or None where there is none."""
        steps = self.steps(stage)
        return self.output(steps[0], name) if steps else None

    @property
    def next_command(self) -> str:
        """The command that uses the head of a run."""
        new = "IMAGES" if self.steps("encode") else "FEATURES"
        return shlex.join(["ldmlr", "predict", str(self.folder), new, "--out", "predictions.csv"])

    def store_of(self, seed: int) -> Path | None:
        """Return the store of encoded rows of a seed: its own, a shared one, or the source."""
        encoded = dict(self.outputs("encode", "features.h5"))
        if encoded:
            # One network for all seeds is encoded once; another seed's own network would not fit the head.
            shared = next(iter(encoded.values())) if len(self.steps("encode")) == 1 else None
            return encoded.get(seed, shared)
        given = self.config.get("source" if self.command == "run" else "store")
        return self._beside(given, self.config.get("converted")) if isinstance(given, str) else None

    def measured(self) -> list[list[dict[str, Any]]]:
        """Return the rows of the table of each seed as its steps measured them, held out or not."""
        records = self.steps("measure") or self.steps("finetune")
        found = [step["figures"]["measured"] for step in records if step["figures"]["measured"]]
        # The head that --auto has chosen is measured with all seeds in one step.
        chosen = [entry for step in self.steps("auto") for entry in step["figures"]["measured"]]
        if len(chosen) != len(found):
            return found
        return [[*rows, entry] for rows, entry in zip(found, chosen, strict=True)]

    def heads(self) -> list[tuple[int, Path]]:
        """Return (seed, head file) of the seeds whose head is there."""
        found = list(self.outputs("finetune", "head.safetensors"))
        if self.command == "finetune":
            files = ((seed, self.folder / tuned_head(seed)) for seed in self.seeds)
            found = [(seed, path) for seed, path in files if path.is_file()]
        return found

    def pseudo_of(self, seed: int) -> Path | None:
        """Return the store of generated rows of a seed; for augmented stores, the store itself."""
        drawn = dict(self.outputs("generate", "pseudo.h5"))
        given = self.config.get("pseudo")
        if self.command == "finetune" and isinstance(given, list):
            if not given:
                return self.store_of(seed)
            return self._beside(str(given[seed if seed < len(given) else 0]))
        return drawn.get(seed)

    def _beside(self, name: str, copy: object = None) -> Path | None:
        """Return a store by its path as it was given, or from the folder of the run.

        Of a source that is no store, `copy` is where the store lies that was made of it.

        Raises
        ------
        InputError
            There is one of that name, but its contents are not those that the result was computed from.
        """
        places = (as_path(name), self.folder / name)
        if isinstance(copy, str):
            places = (as_path(copy), self.folder / CONVERTED / Path(copy).name)
        found = [path for path in places if path.is_file()]
        inputs = self.document.get("inputs")
        wanted = inputs.get(name) if isinstance(inputs, dict) else None
        if wanted is None or not found:
            return found[0] if found else None
        for path in found:
            with FeatureStore.open(path) as store:
                if store.fingerprint() == wanted:
                    return path
        raise InputError(
            f"{found[0]}: is another store than the one of {self.path}, or has changed since; start from the "
            "folder where the command ran, or run it again"
        )


def read_run(path: Path) -> OpenedRun:
    """Read the result document of a run.

    Parameters
    ----------
    path
        A folder with a ``result.json``, or the file itself.

    Raises
    ------
    InputError
        There is none, or it is not a result document.
    """
    check_input(path, "run folder or result.json")
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{path}: has no {RESULT}; give a folder that a command wrote, or let ldmlr run finish"
        )
    try:
        document = parse_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); check the permissions") from None
    except ValueError:
        raise InputError(f"{file}: not JSON, or cut short; give the result.json of a command") from None
    if not isinstance(document, dict) or not isinstance(document.get("command"), str):
        raise InputError(f"{file}: not a result document; give the result.json of a command")
    return OpenedRun(document, file)
