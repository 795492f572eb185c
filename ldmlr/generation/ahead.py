"""What a generation would refuse, found before a model is trained for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ldmlr.device import device_name
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.rows import choose_views
from ldmlr.diffusion.weights import TABLES
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.gate import check_gate
from ldmlr.generation.generators.catalogue import check_views, entry_of, resolved
from ldmlr.generation.plan import Counts, plan_from_config
from ldmlr.heads.training_rows import check_counts
from ldmlr.sampler.backends import choose_backend
from ldmlr.sampler.widen import class_scales
from ldmlr.store import FeatureStore


@dataclasses.dataclass(frozen=True)
class Material:
    """What is known of the rows before anything is trained on them.

    Attributes
    ----------
    name
        The file, for messages.
    counts
        Encoded training rows per class ``[C]``.
    class_names
        Names of the classes, or None.
    has_head
        Whether the store has, or will have, the baseline's head.
    view_kinds
        Kind of each augmented view of the rows.
    """

    name: str
    counts: npt.NDArray[np.int64]
    class_names: Sequence[str] | None
    has_head: bool
    view_kinds: tuple[str, ...] = ()

    @classmethod
    def of(cls, store: FeatureStore) -> Material:
        """Return what a store tells."""
        split = store.split("train")
        kinds = () if split.views is None else split.view_kinds or ("weak",) * len(split.views)
        return cls(str(store.path), split.encoded_counts, store.class_names, store.head is not None, kinds)


def check_ahead(
    material: Material,
    name: str,
    config: GenerateConfig,
    diffusion: DiffusionConfig,
    *,
    backend: str = "auto",
    device: str = "auto",
) -> Counts:
    """Refuse what the generation after a training would refuse, and return its plan ``[C]``.

    Parameters
    ----------
    material
        The rows.
    name
        The generator.
    config
        The generation.
    diffusion
        The model that will be trained, if the generator is one, and how many views are used.
    backend, device
        What will draw, and where.

    Raises
    ------
    InputError
        A class has no encoded row.
    UsageError
        The plan is impossible or names a class that is not there, or a setting does not fit the generator or
        the backend.
    """
    check_counts(material.counts, material.name)
    classes = len(material.counts)
    chosen = resolved(name, config, diffusion)
    plan = plan_from_config(material.counts, chosen, material.class_names)
    if chosen.scale is not None:
        class_scales(chosen.class_scale, chosen.scale, classes, material.class_names)
    views = choose_views(material.view_kinds, diffusion.weak_views, diffusion.strong_views)
    check_views(name, len(views), material.name)
    if entry_of(name).trains:
        check_gate(chosen, diffusion.transform, material.name, material.has_head)
        network = TABLES[diffusion.network]
        choose_backend(backend, network, device_name(device), chosen.weights)
    return plan
