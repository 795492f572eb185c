"""The generators by name: what each is, and which settings it reads; imports no torch."""

from __future__ import annotations

import dataclasses

from ldmlr.config import Config
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.generation.config import GenerateConfig, PlanConfig
from ldmlr.sampler.config import DEFAULT_SCALE

# Settings of a generation that belong to the plan and to the file, whatever draws the rows.
OF_ALL = (*PlanConfig.names(), "dtype")
VIEWS = ("weak_views", "strong_views")
WIDENING = ("scale", "class_scale")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A generator before it is fitted.

    Parameters
    ----------
    what
        One line that says what it does.
    reads
        The settings of ``generate`` that it reads beside those of the plan.
    views
        It is fitted to the augmented views of the rows too, and so reads how many.
    needs_views
        It has no meaning without them.
    trains
        It is a model that has to be trained: it reads all of ``diffuse``, a device and a backend.
    scale
        The widening of rows around their class mean where none is given; None: of the model's choice, or it
        has none.
    """

    what: str
    reads: tuple[str, ...] = ()
    views: bool = False
    needs_views: bool = False
    trains: bool = False
    scale: float | None = None


# The generator that is the method this is all about; in tables it is ``ldmlr``.
DIFFUSION = "diffusion"
GENERATORS: dict[str, Entry] = {
    DIFFUSION: Entry(
        "the latent diffusion model",
        reads=tuple(name for name in GenerateConfig.names() if name not in OF_ALL), views=True, trains=True,
    ),
    "gaussian": Entry(
        "a Gaussian per class, covariance shrunk by n/(n+64)", reads=WIDENING, views=True, scale=1.0
    ),
    "gaussian-wide": Entry(
        "the same, widened as the rows of the diffusion model are",
        reads=WIDENING, views=True, scale=DEFAULT_SCALE["whitened"],
    ),
    "gaussian-borrowed": Entry(
        "a Gaussian per class, rare ones with statistics of the nearest large classes",
        reads=WIDENING, views=True, scale=1.0,
    ),
    "smote": Entry("SMOTE between clean rows"),
    "smote-views": Entry("SMOTE between clean rows and augmented views", views=True, needs_views=True),
    "adasyn": Entry("ADASYN between clean rows"),
    "adasyn-views": Entry("ADASYN between clean rows and augmented views", views=True, needs_views=True),
    "oversampling": Entry("clean rows, repeated"),
    "views": Entry("augmented views, repeated", views=True, needs_views=True),
}  # fmt: skip


def entry_of(name: str) -> Entry:
    """Return the entry of a generator.

    Raises
    ------
    UsageError
        There is none of this name; the nearest is named.
    """
    if name not in GENERATORS:
        raise UsageError(f"{opt('generator')}: unknown value {name!r}; {nearest(name, GENERATORS)}")
    return GENERATORS[name]


def reads(name: str) -> frozenset[str]:
    """Return the settings of ``generate`` and ``diffuse`` that a generator reads."""
    entry = entry_of(name)
    model = DiffusionConfig.names() if entry.trains else VIEWS if entry.views else ()
    return frozenset((*OF_ALL, *entry.reads, *model))


def check_read(name: str, *given: Config, backend: str = "auto", device: str = "auto") -> None:
    """Refuse settings that a generator would not look at.

    Parameters
    ----------
    name
        The generator.
    given
        Configurations: what is at its default was not given.
    backend, device
        What a diffusion model is drawn with, and where.

    Raises
    ------
    UsageError
        Such a setting is not at its default.
    """
    changed = [key for config in given for key in changes(config) if key not in reads(name)]
    if not entry_of(name).trains:
        changed += ["backend"] if backend != "auto" else []
        changed += ["device"] if device not in ("auto", "cpu") else []
    if changed:
        readers = [other for other in GENERATORS if changed[0] in reads(other)] or ["diffusion"]
        whose = "of the diffusion model" if readers == ["diffusion"] else f"nothing to {name}"
        raise UsageError(
            f"{opt(changed[0])}: is {whose}; leave it out, or use {opt('generator')} {' or '.join(readers)}"
        )


def changes(config: Config) -> list[str]:
    """Return the settings of a configuration that are not at their default."""
    usual = type(config)()
    return [name for name in config.names() if getattr(config, name) != getattr(usual, name)]


def resolved(name: str, config: GenerateConfig, diffusion: DiffusionConfig) -> GenerateConfig:
    """Return a generation with the values left open set for a generator.

    Parameters
    ----------
    name
        The generator.
    config
        The generation.
    diffusion
        The model, where it is one.

    Raises
    ------
    UsageError
        Guidance is asked for and the model cannot give it.
    """
    entry = entry_of(name)
    if entry.trains:
        return config.resolved(diffusion.transform, unconditional=diffusion.label_dropout > 0)
    return config if config.scale is not None else config.replace(scale=entry.scale)


def check_views(name: str, views: int, where: str) -> None:
    """Refuse a generator that needs augmented views where there are none."""
    if entry_of(name).needs_views and not views:
        raise UsageError(
            f"{opt('generator')} {name}: needs augmented views, and {where} is used without; encode with "
            f"{opt('views')}, or choose another generator"
        )
