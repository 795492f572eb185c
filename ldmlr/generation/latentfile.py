"""The file of a diffusion model: header, tensors, and back; nothing is taken on trust."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import modelfile
from ldmlr.config import config_hash
from ldmlr.diffusion.config import BEFORE_AXES, BEFORE_TRAINERS, DiffusionConfig
from ldmlr.diffusion.heldout import BANDS, HeldOut
from ldmlr.diffusion.learned import NOTHING
from ldmlr.diffusion.transform import Transform
from ldmlr.diffusion.weights import Weights, shapes
from ldmlr.diffusion.zeros import Censored
from ldmlr.errors import counted
from ldmlr.generation.trained import Trained

# What the header of a model file holds.
HEADER = {
    "config": modelfile.ANY,
    "seed": modelfile.SEED,
    "dim": modelfile.whole(1),
    "num_classes": modelfile.whole(1),
    "class_names": modelfile.optional(modelfile.many(modelfile.NAME)),
    "floor": modelfile.optional(modelfile.number()),
    "bound": modelfile.number(above=0),
    "losses": modelfile.many(modelfile.FIGURE),
    "provenance": modelfile.ANY,
}

# Up to so many numbers a row the basis ``auto`` was the Cholesky factor.
NARROW = 64


def write_model(model: Trained, path: Path, overwrite: bool) -> None:
    """Write a model as safetensors, whole or not at all."""
    header, tensors = contents(model)
    modelfile.write(path, modelfile.DIFFUSION, header, tensors, overwrite)


def read_model(path: Path) -> Trained:
    """Return the model in a file.

    Raises
    ------
    InputError
        The file is missing, damaged, of another kind, or its tensors do not fit its configuration.
    """
    header, tensors = modelfile.read(path, modelfile.DIFFUSION, HEADER)
    with modelfile.damaged(path, modelfile.DIFFUSION):
        return restore(header, tensors)


def contents(model: Trained) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return header and tensors of its file."""
    transform, floor = model.transform, model.transform.floor
    tensors = {f"network.{name}": value for name, value in model.weights.arrays.items()}
    arrays: dict[str, npt.NDArray[Any] | None] = {
        "transform.mean": transform.mean, "transform.scale": transform.scale, "counts": model.counts,
        "transform.psi": transform.psi, "gain": model.held_out.gain,
        "transform.floor": floor if isinstance(floor, np.ndarray) else None,
    }  # fmt: skip
    tensors |= {name: array for name, array in arrays.items() if array is not None}
    if transform.zeros:
        for field in dataclasses.fields(transform.zeros):
            tensors[f"zeros.{field.name}"] = getattr(transform.zeros, field.name)
    names = model.class_names
    # JSON has no infinity: a missing floor is null.
    one_floor = isinstance(floor, float) and np.isfinite(floor)
    header: dict[str, Any] = {
        "config": model.config.to_dict(), "seed": model.seed,
        "dim": transform.dim, "num_classes": len(model.counts),
        "class_names": None if names is None else [str(name) for name in names],
        "floor": floor if one_floor else None, "bound": transform.bound,
        "losses": model.losses, "held_out": model.held_out.document, "provenance": model.provenance,
        "trained": model.trained,
    }  # fmt: skip
    return header, tensors


def fingerprint(model: Trained) -> str:
    """Return a hash of everything the generated rows depend on."""
    header, tensors = contents(model)
    facts = {key: header[key] for key in ("config", "floor", "bound")}
    # Options that did nothing, or nothing that the weights do not show: models from before them keep
    # their names.
    silent = {*BEFORE_TRAINERS, *(() if model.config.in_axes else BEFORE_AXES)}
    facts["config"] = {n: value for n, value in facts["config"].items() if n not in silent}
    return config_hash(facts, modelfile.checksum(tensors))


def restore(header: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> Trained:
    """Return the model of a header that keeps to `HEADER`, and its tensors.

    Raises
    ------
    ValueError, LookupError, RuntimeError, LdmlrError
        They do not fit each other.
    """
    values = {**BEFORE_AXES, **BEFORE_TRAINERS, **header["config"]}
    if values["basis"] == "auto":
        values["basis"] = _basis(values, header["dim"])
    config = modelfile.config_of(DiffusionConfig, values)
    dim, classes, names = header["dim"], header["num_classes"], header["class_names"]
    transform, counts = _transform(config, header, tensors)
    if names is not None and len(names) != classes:
        raise ValueError(f"it has {counted(len(names), 'class name')} for {counted(classes, 'class')}")
    weights = {n.removeprefix("network."): t for n, t in tensors.items() if n.startswith("network.")}
    # Before a network of some other size is thought of, which may be far too large.
    if f"first.{config.layers - 1}.weight" not in weights or transform.latent > dim:
        raise ValueError("the weights do not fit the configuration")
    wanted = shapes(config.network, transform.latent, classes, config.hidden, config.layers)
    found = {name: array.shape for name, array in weights.items()}
    if found != wanted or any(array.dtype != np.float32 for array in weights.values()):
        raise ValueError("the weights do not fit the configuration")
    gain = tensors.get("gain")
    if gain is not None and (gain.shape != (BANDS, classes) or gain.dtype != np.float64):
        raise ValueError("the gains do not fit the configuration")
    return Trained(
        config, header["seed"], Weights(config.network, weights), transform, counts,
        None if names is None else tuple(str(name) for name in names), list(header["losses"]),
        HeldOut(dict(header.get("held_out", NOTHING)), gain), dict(header["provenance"]),
        dict(header.get("trained", {})),
    )  # fmt: skip


def _basis(values: Mapping[str, Any], dim: int) -> str:
    """Return what ``auto`` meant as a basis: eigenvectors for wide rows, and where axes were chosen."""
    eigen = values.get("transform") == "whitened" and (dim > NARROW or str(values["latent"]).isdigit())
    return "eigen" if eigen else "cholesky"


def _transform(
    config: DiffusionConfig, header: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]
) -> tuple[Transform, npt.NDArray[np.int64]]:
    """Return the transform and the training rows per class, of the shapes and types they must have."""
    dim, classes = header["dim"], header["num_classes"]
    mean, scale = tensors["transform.mean"], tensors["transform.scale"]
    counts = tensors["counts"]
    if config.transform != "whitened":
        shapes: tuple[tuple[int, ...], ...] = (1, dim), (dim,)
    else:
        shapes = (classes, dim), (dim, scale.shape[-1] if config.in_axes else dim)
    extra = {name: tensors[name] for name in ("transform.psi", "transform.floor") if name in tensors}
    wrong = (mean.shape, scale.shape) != shapes or any(array.shape != (dim,) for array in extra.values())
    if wrong or counts.shape != (classes,):
        raise ValueError("the statistics do not fit the configuration")
    types = [array.dtype.name for array in (counts, mean, scale, *extra.values())]
    if types != ["int64"] + ["float64"] * (len(types) - 1):
        raise ValueError(f"the statistics are {', '.join(types)}")
    floor: Any = -np.inf if header["floor"] is None else float(header["floor"])
    found = Transform(
        config.transform, mean, scale, extra.get("transform.floor", floor), float(header["bound"]),
        psi=extra.get("transform.psi"),
        zeros=_zeros(tensors, classes, dim, scale.shape[-1]) if "zeros.columns" in tensors else None,
    )  # fmt: skip
    return found, counts


def _zeros(tensors: Mapping[str, npt.NDArray[Any]], classes: int, dim: int, latent: int) -> Censored:
    """Return the dimensions with zeros, of the shapes and types they must have."""
    arrays = {field.name: tensors[f"zeros.{field.name}"] for field in dataclasses.fields(Censored)}
    columns = arrays["columns"]
    wanted: dict[str, tuple[int, ...]] = dict.fromkeys(arrays, (classes, len(columns)))
    wanted |= {"columns": (len(columns),), "factors": (latent,)}
    inside = columns.dtype == np.int64 and bool(np.all(np.diff(columns, prepend=-1, append=dim) > 0))
    types = all(array.dtype == np.float32 for name, array in arrays.items() if name != "columns")
    if not (inside and types) or {name: array.shape for name, array in arrays.items()} != wanted:
        raise ValueError("the tables of zeros do not fit the configuration")
    return Censored(**arrays)
