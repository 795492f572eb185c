"""Training a model from a store into a file, resumable: what ``ldmlr diffuse`` and ``augment`` do."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.rows import store_rows
from ldmlr.diffusion.weights import shapes
from ldmlr.errors import UsageError, opt
from ldmlr.files import beside, check_output, check_unfinished
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.metrics.familiar import KEY, Familiar, familiar
from ldmlr.ownership import owned
from ldmlr.ranks import ALONE, LostRank, Ranks
from ldmlr.store import FeatureStore, check_trainable


def diffuse(
    store: FeatureStore,
    out: Path,
    config: DiffusionConfig,
    *,
    seed: int = 0,
    trained_on_rows: bool | None = None,
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    ranks: Ranks = ALONE,
) -> tuple[LatentDiffusion, dict[str, Any]]:
    """Train a model on a store and save it.

    Parameters
    ----------
    store
        An open feature store; its encoded training rows and views are trained on.
    out
        The model file. While training, ``.NAME.checkpoint`` lies beside it.
    config, seed
        The configuration and the seed of the training.
    trained_on_rows
        Whether the encoder has seen these rows, if that is known: the model keeps it.
    device, threads
        Where to train.
    resume
        Continue an interrupted run of the same settings; do nothing if it is finished.
    overwrite
        Replace an output that exists, and without `resume` the checkpoint of an interrupted run too.
    ranks
        The processes that train together. This is what the first does; the others `follow`.

    Returns
    -------
    The model, and figures: ``output``, ``rows``, ``views``, ``steps``, ``loss``, ``losses``, ``trained``
    (what trained), ``axes`` (how many were diffused), ``held_out`` and ``learned`` (what training added to
    the class Gaussian, as data and in words), ``features`` (whether the encoder has seen the rows, and how
    that is known), ``seconds``, ``finished_before``.

    Raises
    ------
    UsageError
        The output or the checkpoint of an interrupted run is there and neither `resume` nor `overwrite` is
        set, or what is there belongs to other settings or data.
    """
    check_trainable(store)
    found = familiar(store, trained_on_rows)
    config = settled(config, store)
    with owned(out):
        return _diffused(store, out, config, seed, found, device, threads, resume, overwrite, ranks)


def _diffused(
    store: FeatureStore,
    out: Path,
    config: DiffusionConfig,
    seed: int,
    found: Familiar,
    device: str,
    threads: int | None,
    resume: bool,
    overwrite: bool,
    ranks: Ranks,
) -> tuple[LatentDiffusion, dict[str, Any]]:
    """Train, or take what is finished; the output is owned."""
    if resume and out.is_file():
        model = LatentDiffusion.load(out)
        same = (model.config, model.seed) == (config, seed)
        same = same and model.provenance.get(KEY, found.trained_on_rows) == found.trained_on_rows
        if same and model.provenance.get("fingerprint") == store.fingerprint():
            checkpoint_path(out).unlink(missing_ok=True)
            ranks.tell(False)
            figures = _figures(out, model)
            return model, {
                **figures, "features": found.document(), "seconds": 0.0, "finished_before": True,
            }  # fmt: skip
        if not overwrite:
            raise UsageError(
                f"{out}: is a model of other settings or data; pass {opt('overwrite', True)} or another "
                f"{opt('out')}"
            )
    check_output(out, overwrite)
    checkpoint = checkpoint_path(out)
    if not resume:
        check_unfinished(checkpoint, overwrite)
        checkpoint.unlink(missing_ok=True)
    began = time.perf_counter()
    ranks.tell(True)
    try:
        model = LatentDiffusion(config, seed=seed).fit_store(
            store, device=device, threads=threads, checkpoint=checkpoint, resume=resume, ranks=ranks
        )
    except Exception as error:
        # An interrupt is no Exception: it leaves the checkpoint for --resume, as a lost rank does.
        if not resume and not isinstance(error, LostRank):
            checkpoint.unlink(missing_ok=True)
        raise
    model.provenance[KEY] = found.trained_on_rows
    # A model that could not be saved, as on a full disk, leaves the checkpoint too.
    model.save(out, overwrite)
    checkpoint.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    figures = _figures(out, model)
    return model, {**figures, "features": found.document(), "seconds": seconds, "finished_before": False}


def settled(config: DiffusionConfig, store: FeatureStore) -> DiffusionConfig:
    """Return a configuration with what it leaves open settled for the encoded training rows of a store."""
    split = store.split("train")
    generated = 0 if split.source is None else int(np.count_nonzero(split.source))
    return config.for_rows(len(split.labels) - generated, store.dim)


def follow(
    store: FeatureStore,
    config: DiffusionConfig,
    ranks: Ranks,
    *,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
) -> None:
    """Do the part of a rank other than the first in what `diffuse` trains; it has no output.

    Parameters
    ----------
    store, config, ranks, seed, device, threads
        As of `diffuse`.
    """
    if ranks.tell(None):
        LatentDiffusion(config, seed=seed).fit_store(store, device=device, threads=threads, ranks=ranks)


def checkpoint_path(out: Path) -> Path:
    """Return where the state of a training lies while it runs."""
    return beside(out, ".checkpoint")


def preview(store: FeatureStore, config: DiffusionConfig) -> dict[str, Any]:
    """Return what would be trained on and how large the model would be."""
    counts, config = check_trainable(store), settled(config, store)
    features, _, views = store_rows(store, config.weak_views, config.strong_views)
    drawn, rows = config.steps * config.batch_size, len(features) * (1 + len(views))
    weights = shapes(config.network, store.dim, store.num_classes, config.hidden, config.layers)
    return {
        "rows": len(features),
        "views": len(views),
        "classes": store.num_classes,
        "fewest rows of a class": int(counts.min()),
        "dim": store.dim,
        "parameters": sum(map(math.prod, weights.values())),
        "steps": config.steps,
        "passes over the rows": round(drawn / rows, 1),
    }


def _figures(out: Path, model: LatentDiffusion) -> dict[str, Any]:
    return {
        "output": out,
        "rows": model.provenance["rows"],
        "views": model.provenance["views"],
        "steps": model.config.steps,
        "loss": model.losses[-1],
        "losses": model.losses,
        "trained": model.trained,
        "axes": model.transform.latent,
        "held_out": model.held_out,
        "learned": model.learned,
    }
