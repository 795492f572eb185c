"""Rows in, a trained latent diffusion model out: transform, denoiser, and what held-out rows say of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ldmlr.arguments import class_count
from ldmlr.config import config_hash
from ldmlr.device import device_name
from ldmlr.diffusion import rows
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.fit import train
from ldmlr.diffusion.heldout import HeldOut, examine, hold_out
from ldmlr.diffusion.learned import NOTHING
from ldmlr.diffusion.transform import fit_transform
from ldmlr.errors import InputError
from ldmlr.generation.standardise import standardise
from ldmlr.generation.trained import Trained
from ldmlr.ranks import Ranks
from ldmlr.remote import as_path
from ldmlr.sampler.config import SampleConfig

if TYPE_CHECKING:
    import torch

# Seed of the rows that zeros are standardised by.
CALIBRATION = 2**64 - 1


def train_model(
    config: DiffusionConfig,
    seed: int,
    X: npt.ArrayLike | torch.Tensor,
    y: npt.ArrayLike | torch.Tensor,
    *,
    views: Sequence[npt.ArrayLike | torch.Tensor] | npt.ArrayLike | torch.Tensor | None,
    counts: npt.ArrayLike | None,
    num_classes: int | None,
    class_names: Sequence[str] | None,
    device: str,
    threads: int | None,
    checkpoint: str | Path | None,
    resume: bool,
    ranks: Ranks,
) -> Trained:
    """Return a model trained on rows; parameters and errors are those of `ldmlr.LatentDiffusion.fit`."""
    features = rows.check_features(X)
    labels = rows.check_labels(y, len(features), num_classes)
    classes = num_classes or class_count([("labels", labels)])
    if class_names is not None and len(class_names) != classes:
        raise InputError(f"class_names: expected {classes}, one per class, not {len(class_names)}")
    config = config.for_rows(*features.shape)
    trained_on = rows.rows_per_class(labels, classes, counts)
    blocks = rows.blocks(features, labels, views)
    place = device_name(device)
    checkpoint = None if checkpoint is None else as_path(checkpoint)
    names = tuple(class_names) if class_names is not None else None
    transform = fit_transform(
        config.transform, blocks, trained_on, names,
        latent=config.latent if config.in_axes else None,
    )  # fmt: skip
    z, z_labels = transform.forward_all(blocks)
    # An image is held out with all its views.
    share = config.held_out if transform.axes else 0.0
    held = hold_out(labels, trained_on, share, seed)
    kept = np.flatnonzero(~np.tile(held, len(blocks))) if held.any() else slice(None)  # no copy of z
    importance = (
        np.ones(transform.latent) if transform.axes is None else transform.axes.importance(config.error_power)
    )
    key = config_hash(config, seed, rows.digest(blocks))
    weights, losses, trainer = train(
        config, z[kept], z_labels[kept], trained_on, seed=seed, device=place,
        threads=threads, checkpoint=checkpoint, resume=resume, key=key, importance=importance,
        ranks=ranks,
    )  # fmt: skip
    found = HeldOut(NOTHING, None)
    if held.any():
        clean = z[: len(labels)]
        found = examine(weights.predict, clean[held], labels[held], trained_on, importance, config)
    trained = Trained(
        config, seed, weights, transform, trained_on, names, losses, found, {}, trainer.document()
    )
    if not transform.zeros:
        return trained
    plain = dataclasses.replace(trained, transform=dataclasses.replace(transform, zeros=None))
    spec = plain.spec(SampleConfig(guidance=1.0), CALIBRATION)
    settled = standardise(transform, spec, z, z_labels, trained_on, threads)
    return dataclasses.replace(trained, transform=settled)
