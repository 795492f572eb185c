"""What a generation would refuse, found before a model is trained for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ldmlr.config import Config
from ldmlr.device import resolve_device
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.diffusion.denoiser import NETWORKS
from ldmlr.errors import UsageError, opt
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.gate import check_gate
from ldmlr.generation.plan import Counts, plan_from_config
from ldmlr.heads.training_rows import check_counts
from ldmlr.sampler.backends import choose_backend
from ldmlr.sampler.widen import class_scales
from ldmlr.store import FeatureStore

# Settings of a generation that class Gaussians do not have.
OF_THE_MODEL = ("solver", "steps", "guidance", "eta", "weights", "gate", "gate_confidence")


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
    """

    name: str
    counts: npt.NDArray[np.int64]
    class_names: Sequence[str] | None
    has_head: bool

    @classmethod
    def of(cls, store: FeatureStore) -> Material:
        """Return what a store tells."""
        counts = store.split("train").encoded_counts
        return cls(str(store.path), counts, store.class_names, store.head is not None)


def check_ahead(
    material: Material,
    diffusion: DiffusionConfig | None,
    config: GenerateConfig,
    *,
    backend: str = "auto",
    device: str = "auto",
) -> Counts:
    """Refuse what the generation after a training would refuse, and return its plan ``[C]``.

    Parameters
    ----------
    material
        The rows.
    diffusion
        The model that will be trained; None: class Gaussians draw the rows.
    config
        The generation.
    backend, device
        What will draw, and where.

    Raises
    ------
    InputError
        A class has no encoded row.
    UsageError
        The plan is impossible or names a class that is not there, or a setting does not fit the model or
        the backend.
    """
    check_counts(material.counts, material.name)
    classes = len(material.counts)
    transform = "whitened" if diffusion is None else diffusion.transform
    chosen = config.resolved(transform, unconditional=diffusion is None or diffusion.label_dropout > 0)
    plan = plan_from_config(material.counts, chosen, material.class_names)
    assert chosen.scale is not None
    class_scales(chosen.class_scale, chosen.scale, classes, material.class_names)
    if diffusion is None:
        return plan
    check_gate(chosen, transform, material.name, material.has_head)
    network = NETWORKS[diffusion.network].tables_type
    choose_backend(backend, network, resolve_device(device), chosen.weights)
    return plan


def check_gaussian(diffusion: DiffusionConfig, config: GenerateConfig, backend: str) -> None:
    """Refuse settings of the diffusion model where class Gaussians draw the rows: they would do nothing.

    Raises
    ------
    UsageError
        Such a setting is not at its default.
    """
    usual = DiffusionConfig(), GenerateConfig()
    read = ("weak_views", "strong_views")
    unread = [name for name in _changed(diffusion, usual[0]) if name not in read]
    unread += [name for name in _changed(config, usual[1]) if name in OF_THE_MODEL]
    unread += ["backend"] if backend != "auto" else []
    if unread:
        raise UsageError(
            f"{opt(unread[0])}: is of the diffusion model; leave it out, or use {opt('generator')} diffusion"
        )


def _changed(config: Config, usual: Config) -> list[str]:
    return [name for name in config.names() if getattr(config, name) != getattr(usual, name)]
