"""Latent diffusion feature augmentation for long-tailed recognition (arXiv 2404.04517)."""

from __future__ import annotations

import importlib
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldmlr.errors import nearest

if TYPE_CHECKING:
    from ldmlr import ops as ops
    from ldmlr import torch as torch
    from ldmlr.generation.imblearn import LatentDiffusionSampler as LatentDiffusionSampler
    from ldmlr.generation.latent import LatentDiffusion as LatentDiffusion
    from ldmlr.heads.finetune import finetune as finetune
    from ldmlr.store import FeatureStore as FeatureStore

# Python looks into the current folder before it looks at what is installed: in a clone, after
# `pip install .`, it finds these sources, beside which no extension was compiled.
_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "setup.py").is_file() and PathFinder.find_spec("ldmlr._native", __path__) is None:
    raise ImportError(
        f"{_ROOT} is the source of ldmlr, without its compiled extension, and hides the installed package: "
        "change to another folder, or build the extension here with `pip install -e .`"
    )

# Names of the public interface and the modules they live in. They are loaded on first use,
# so that the command line answers before torch is imported.
_PUBLIC = {
    "FeatureStore": "ldmlr.store",
    "LatentDiffusion": "ldmlr.generation.latent",
    "LatentDiffusionSampler": "ldmlr.generation.imblearn",
    "finetune": "ldmlr.heads.finetune",
}
# Modules of the public interface: data sets for PyTorch, and the fused step as an operation of it.
_MODULES = ("ops", "torch")

__all__ = ["FeatureStore", "LatentDiffusion", "LatentDiffusionSampler", "finetune", "ops", "torch"]
__version__ = metadata.version("ldmlr")


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"ldmlr.{name}")
    # Names with underscores are asked for by Python itself, and only to see whether they are there.
    hint = "" if name.startswith("_") else f"; {nearest(name, __all__)}"
    raise AttributeError(f"module 'ldmlr' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
