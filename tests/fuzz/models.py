"""Models, the checkpoint of a training, and the documents that say what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ldmlr.data import open_image_set
from ldmlr.data.longtail import LongTailedDraw
from ldmlr.encoders.checkpoint import load_checkpoint, save_checkpoint
from ldmlr.encoders.model import Baseline
from ldmlr.errors import UsageError
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.heads.headfile import FinetunedHead

from . import mutate
from .form import FIXTURES, Format, hash_of


def _model(kind: str) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        _LOADERS[kind](FIXTURES / f"{kind}-v1.safetensors").save(
            folder / f"{kind}.safetensors", overwrite=True
        )
        return f"{kind}.safetensors"

    return write


def _loaded(kind: str) -> Callable[[Path, Path], str]:
    def read(folder: Path, path: Path) -> str:
        model: Any = _LOADERS[kind](path)
        again = folder / "again.safetensors"
        model.save(again, overwrite=True)
        return hash_of(again.read_bytes())

    return read


_LOADERS: dict[str, Any] = {
    "diffusion": LatentDiffusion.load,
    "head": FinetunedHead.load,
    "baseline": Baseline.load,
}


def _resealed(random: Any, data: bytes) -> bytes:
    """Change a value of a model's header and make its checksum anew: a model of somebody else's."""
    from safetensors.numpy import load, save

    from ldmlr import modelfile

    tensors = load(data)
    length = int.from_bytes(data[:8], "little")
    text = json.loads(data[8 : 8 + length])["__metadata__"][modelfile.KEY]
    header = json.loads(mutate.changed_json(random, text))
    if isinstance(header, dict):
        header["sha256"] = modelfile._whole_checksum(header, tensors)
    return save(tensors, metadata={modelfile.KEY: json.dumps(header)})


_RUN = """source = "digits-lt"
out = "runs/x"
seeds = 2
threads = 1
groups = "many:20,medium:10"

[baseline]
epochs = 3
augment = ["crop", "flip"]
lr = 1e-2

[diffuse]
hidden = 64  # a note

[generate]
steps = 4
ratio = 0.5

[finetune]
epochs = 2
"""


def _toml(folder: Path) -> str:
    (folder / "run.toml").write_text(_RUN)
    return "run.toml"


def _run_file(folder: Path, path: Path) -> str:
    from ldmlr_cli.run_file import checked_tables, read_run_file

    from ldmlr.run.config import RunConfig

    found = read_run_file(path, None)
    run = RunConfig.from_mapping(found.values, str(path))
    try:
        return hash_of(found.source, found.values, checked_tables(found.tables, {}, run, str(path)))
    except UsageError as error:
        # A value that is wrong is told by its option: the file stands in front where a table is meant.
        raise UsageError(f"{path}: {error}") from None


def _draw(folder: Path) -> str:
    LongTailedDraw.draw(open_image_set("digits-lt").train, "digits-lt", 2.0, 0).save(
        folder / "draw.json", overwrite=True
    )
    return "draw.json"


def _checkpoint(folder: Path) -> str:
    import torch

    save_checkpoint(folder / "checkpoint.pt", {"seed": 1}, {"epoch": 3, "network": {"w": torch.ones(4)}})
    return "checkpoint.pt"


FORMATS = (
    *(
        Format(f"{kind} file", _model(kind), _loaded(kind), mutate.in_safetensors, checksum=True)
        for kind in _LOADERS
    ),
    *(Format(f"{kind} file, resealed", _model(kind), _loaded(kind), _resealed) for kind in _LOADERS),
    Format("TOML", _toml, _run_file, mutate.text_mutated),
    Format(
        "saved draw", _draw, lambda _, path: hash_of(LongTailedDraw.load(path).indices),
        mutate.text_mutated, checksum=True,
    ),
    Format(
        "checkpoint", _checkpoint,
        lambda _, path: hash_of(load_checkpoint(path, {"seed": 1})), mutate.in_zip,
    ),
)  # fmt: skip
