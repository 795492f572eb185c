"""A contest over the rows of a store: ``ldmlr compare`` tunes methods by it, ``ldmlr run --auto`` chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig, PlanConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.generators.catalogue import entry_of
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.train_rows import TrainRows, train_rows
from ldmlr.select.contest import Contest, contest_folds
from ldmlr.select.entrants import FILLS
from ldmlr.select.inner import Held

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

# So many validation rows take the place of held-out training rows.
ENOUGH = 20
# What says how many rows of which class are generated.
PLANNED = ("strategy", "target", "ratio", "minimum", "only", "count")


def open_contest(
    store: FeatureStore,
    trained_on_rows: bool,
    *,
    rows: TrainRows | None = None,
    diffuse: DiffusionConfig | None = None,
    generate: GenerateConfig | None = None,
    kind: str = "linear",
    seed: int = 0,
    machine: Machine | None = None,
) -> Contest:
    """Return a contest on held-out rows of a store; nothing is fitted yet.

    Parameters
    ----------
    store
        Its training rows, and its validation rows where it has enough of them. The test split is not read.
    trained_on_rows
        Whether the encoder has seen the training rows: then views of them are held out in their place, and
        LDMLR's rows are widened and guided.
    rows
        The training rows, if they were read before.
    diffuse, generate
        How a diffusion model is trained and rows are drawn. A plan that differs from the usual one is kept;
        otherwise how far classes are filled up is chosen.
    kind
        Of heads that are linear otherwise.
    seed
        Of models, rows and heads.
    machine
        Where to compute.
    """
    model, drawing, place = (
        diffuse or DiffusionConfig(),
        generate or GenerateConfig(),
        machine or Machine("auto"),
    )
    if rows is None:
        rows = train_rows(store, model.weak_views, model.strong_views)
    val = None
    if store.val is not None and len(store.split("val")) >= ENOUGH:
        held = store.split("val")
        val = held.float32(), np.asarray(held.labels, np.int64)
    chosen = Held.of(rows, val=val, use_views=trained_on_rows, used=contest_folds(rows), seed=seed)

    def fitted(name: str, config: GenerateConfig, own: TrainRows) -> Generator:
        if not entry_of(name).trains:
            # Gaussians stand for the distribution as it is; one is as wide as LDMLR's rows are to be where
            # that is said.
            as_it_is = name in ("gaussian", "gaussian-borrowed")
            config = drawing.replace(scale=None, class_scale={}) if as_it_is else drawing
        return fit(
            name, own, config, model,
            seed=seed, backend=place.backend, device=place.device, threads=place.threads,
        )  # fmt: skip

    usual = all(getattr(drawing, name) == getattr(PlanConfig(), name) for name in PLANNED)
    return Contest(
        chosen, fitted, drawing.for_features(trained_on_rows),
        kind=kind, fills=FILLS if usual else None, seed=seed, device=place.device,
    )  # fmt: skip
