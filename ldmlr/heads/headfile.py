"""Head files: safetensors with the heads as tensors and everything else in one JSON header entry.

head.weight, head.bias, ...          the fine-tuned head (see `ldmlr.heads.modules.to_stored`)
baseline.weight, baseline.bias, ...  the head it started from
counts [C] int64                     encoded training rows per class
metadata["ldmlr"]                    JSON: format, version, kinds, configuration, seed, history, selection
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ldmlr.errors import InputError
from ldmlr.files import check_input, parse_json, write_bytes
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.modules import Head, from_stored, to_stored

if TYPE_CHECKING:
    from ldmlr.heads.finetune import FinetunedHead

FORMAT = "ldmlr-head"
VERSION = 1


def save_head(tuned: FinetunedHead, path: Path, overwrite: bool = False) -> None:
    """Write a fine-tuned head, whole or not at all."""
    tensors: dict[str, npt.NDArray[Any]] = {"counts": np.asarray(tuned.counts, dtype=np.int64)}
    kinds = {}
    for name, head in (("head", tuned.head), ("baseline", tuned.baseline)):
        stored = to_stored(head)
        kinds[name] = stored.kind
        arrays = {"weight": stored.weight, "bias": stored.bias, **stored.extra}
        tensors |= {f"{name}.{key}": value for key, value in arrays.items() if value is not None}
    about = {
        "format": FORMAT,
        "version": VERSION,
        "kinds": kinds,
        "origin": tuned.origin,
        "config": tuned.config.to_dict(),
        "seed": tuned.seed,
        "history": tuned.history,
        "generated": tuned.generated,
        "selection": tuned.selection,
    }
    # One metadata entry: safetensors orders several at random, and equal heads should be equal files.
    write_bytes(path, save(tensors, metadata={"ldmlr": json.dumps(about, sort_keys=True)}), overwrite)


def load_head(path: Path) -> dict[str, Any]:
    """Return the fields of a `FinetunedHead` read from a file.

    Raises
    ------
    InputError
        The file is missing, is no safetensors file, or is not (a version of) a head file.
    """
    check_input(path, "head file")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get("ldmlr")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error}); give a head file") from None
    about = _about(path, text)
    try:
        counts = tensors["counts"].astype(np.int64)
        heads = {name: _head(name, about["kinds"][name], tensors) for name in ("head", "baseline")}
        fields = {
            "origin": str(about["origin"]),
            "config": FinetuneConfig.from_mapping(about["config"], str(path)),
            "seed": int(about["seed"]),
            "history": list(about["history"]),
            "generated": int(about["generated"]),
            "selection": str(about["selection"]),
        }
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path}: damaged head file ({error!r}); write it again") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    shapes = {(head.dim, head.num_classes) for head in heads.values()}
    if len(shapes) > 1 or counts.shape != (heads["head"].num_classes,):
        raise InputError(f"{path}: its heads and counts have different sizes; write it again")
    return {**heads, **fields, "counts": counts}


def _about(path: Path, text: str | None) -> dict[str, Any]:
    try:
        about = parse_json(text or "")
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path}: is not a head file; give the output of ldmlr finetune")
    if about.get("version") != VERSION:
        raise InputError(
            f"{path}: head file of version {about.get('version')}, this program reads {VERSION}; upgrade it"
        )
    return about


def _head(name: str, kind: str, tensors: dict[str, npt.NDArray[Any]]) -> Head:
    from ldmlr.store import StoredHead

    arrays = {key.split(".", 1)[1]: tensors[key] for key in tensors if key.startswith(f"{name}.")}
    weight, bias = arrays.pop("weight"), arrays.pop("bias", None)
    if weight.ndim != 2:
        raise InputError(f"{name}.weight is {list(weight.shape)}, expected [C, D]")
    return from_stored(StoredHead(kind=kind, weight=weight, bias=bias, extra=arrays)).eval()
