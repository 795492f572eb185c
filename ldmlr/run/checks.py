"""What a run refuses before anything is computed."""

from __future__ import annotations

from collections.abc import Iterable

from ldmlr.device import Machine
from ldmlr.errors import UsageError, opt
from ldmlr.generation.ahead import Material, check_ahead
from ldmlr.generation.generate import check_not_empty
from ldmlr.generation.generators.catalogue import check_read, entry_of
from ldmlr.run.config import RunConfig, StageTables
from ldmlr.store.convert.config import SourceConfig

# What says how features are found.
OF_FEATURES = SourceConfig.names()


def check_settings(source: str, kind: str, config: RunConfig, tables: StageTables, machine: Machine) -> None:
    """Refuse settings that this kind of run would not look at.

    Raises
    ------
    UsageError
        Settings of stage 1 for a store, or of the diffusion model for a run without one.
    """
    # With --auto the generator is only where the choice starts; with --refit the choice says all.
    if not config.auto and config.refit is None:
        check_read(config.generator, tables.diffuse, tables.generate, backend=machine.backend)
    if kind != "store":
        if config.folds is not None:
            raise UsageError(
                f"{opt('folds')}: the network would have to be trained anew for every fold of {source}; give "
                f"{opt('test_fraction')}, or run on the features that ldmlr encode writes"
            )
        unread = [opt(name) for name in OF_FEATURES if getattr(config, name) is not None]
        if unread:
            raise UsageError(f"{unread[0]}: is for features, and {source} holds images; leave it out")
        return
    unread = [
        opt(name)
        for name in ("preset", "imbalance_factor", "image_root", "image_size")
        if getattr(config, name) is not None
    ]
    unread += [opt("baselines")] if config.baselines != "auto" else []
    unread += [f"[{name}]" for name in ("baseline", "encode") if name in tables.given]
    if unread:
        raise UsageError(
            f"{unread[0]}: is for images, and {source} is a feature store, whose rows are taken as "
            "they are; leave it out"
        )


def check_generation(
    materials: Iterable[Material], config: RunConfig, tables: StageTables, machine: Machine
) -> None:
    """Refuse a plan or a setting of stage 2 that does not fit the rows.

    Parameters
    ----------
    materials
        The training rows of each seed.
    config, tables, machine
        Of the run.

    Raises
    ------
    InputError, UsageError
        As `check_ahead`, or the plan generates nothing, or a gate to be tried needs a head that is not there.
    """
    # With --auto rows may be drawn by whatever is tried, not by the start alone.
    names = dict.fromkeys((config.generator, *(tables.select.generators if config.auto else ())))
    for material in materials:
        gated = config.auto and any("gate" in entry_of(name).reads for name in names)
        if gated and "head" in tables.select.gates and not material.has_head:
            raise UsageError(
                f"{opt('set')} select.gates: {material.name} has no head to judge rows by; leave the "
                "gate head out"
            )
        for name in names:
            plan = check_ahead(
                material, name, tables.generate, tables.diffuse,
                backend=machine.backend, device=machine.device,
            )  # fmt: skip
            check_not_empty(plan, tables.generate)
