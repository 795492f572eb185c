"""Configuration of a whole run: options of its own and one configuration per stage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ldmlr.config import Config, option
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.recipes import PRESETS
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.generation.config import EncoderConfig, GenerateConfig
from ldmlr.generation.generators.catalogue import GENERATORS, entry_of
from ldmlr.heads.config import FinetuneConfig
from ldmlr.select.config import SelectConfig
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.heldout import REPEATS, HeldOutConfig, Measuring

MAX_SEEDS = 10_000

# Tables of the TOML file and the configuration behind each.
STAGES: dict[str, type[Config]] = {
    "baseline": BaselineConfig,
    "encode": EncodeConfig,
    "diffuse": DiffusionConfig,
    "generate": GenerateConfig,
    "finetune": FinetuneConfig,
    "select": SelectConfig,
}


@dataclasses.dataclass(frozen=True)
class RunConfig(HeldOutConfig, SourceConfig, EncoderConfig):
    """What a run does beyond its stages."""

    seeds: int | None = option(
        None, "Run seeds 0 .. K-1 and report mean and standard deviation.  "
        f"[default: 5; {REPEATS} by folds]", metavar="K", minimum=1, maximum=MAX_SEEDS,
    )  # fmt: skip
    seed: int | None = option(None, "Run this one seed instead.", minimum=0, maximum=2**64 - 1, metavar="N")
    baselines: str = option(
        "auto",
        "Baseline networks: one for all seeds (shared), one per seed, or auto: per seed for built-in sets, "
        "shared for others.",
        choices=("auto", "shared", "per-seed"),
    )
    preset: str | None = option(
        None, "Recipe of stage 1; see ldmlr baseline --help.  [default: by image size]", metavar="NAME"
    )
    imbalance_factor: float | None = option(
        None, "Draw a long-tailed training set: largest over smallest class.", minimum=1, metavar="F"
    )
    image_root: Path | None = option(
        None, "Folder that the paths of an image list start from.", metavar="DIR"
    )
    image_size: int | None = option(
        None, "Resize the shorter side to this and crop the centre square.", minimum=1, metavar="PIXELS"
    )
    image_crop: float | None = option(
        None, "Share of the shorter side that the crop keeps, such as 0.875.  [default: all]", above=0,
        maximum=1, metavar="F",
    )  # fmt: skip
    skip_bad: bool = option(False, "Go on without images that cannot be decoded.")
    groups: str = option(
        "100,20", "Shot groups: many above, few below so many training rows; paper: fixed class ranges.",
        metavar="MANY,FEW|paper",
    )  # fmt: skip
    generator: str = option(
        "diffusion", "What generates.", choices=tuple(GENERATORS),
    )  # fmt: skip
    auto: bool = option(
        False,
        "Choose the method without the test split, say which and why, and write its head; with validation "
        "rows (val) also generator, widening, guidance, gate, tau and average: --set select.KEY=VALUE "
        "changes what is tried.",
    )
    refit: Path | None = option(
        None,
        "Take over generator and settings of stages 2 and 3 of an --auto run: choice.json or result.json.",
        metavar="CHOICE.json",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.auto and self.refit is not None:
            raise UsageError(
                f"{opt('auto', True)} chooses anew and {opt('refit')} takes a choice over; give one of "
                "the two"
            )
        if self.preset is not None and self.preset not in PRESETS:
            raise UsageError(
                f"{opt('preset')}: unknown value {self.preset!r}; {nearest(self.preset, PRESETS)}"
            )

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds of the run; where nothing is said, those of a test split (`Measuring.repeats`)."""
        seeds = Measuring().repeats if self.seeds is None else self.seeds
        return tuple(range(seeds)) if self.seed is None else (self.seed,)


@dataclasses.dataclass(frozen=True)
class StageTables:
    """The values given for each stage: what is not given has the stage's default.

    The baseline's defaults depend on a preset, which depends on the images, so its values stay
    as they were given until the images are open. `given` names the tables that say anything.
    """

    baseline: Mapping[str, Any]
    encode: EncodeConfig
    diffuse: DiffusionConfig
    generate: GenerateConfig
    finetune: FinetuneConfig
    select: SelectConfig
    given: frozenset[str] = frozenset()

    def for_features(self, generator: str, trained_on_rows: bool) -> StageTables:
        """Return them for rows that the encoder has seen, or has not, where that decides a setting."""
        generate = self.generate
        if entry_of(generator).trains:
            generate = generate.for_features(trained_on_rows)
        finetune = self.finetune.for_features(trained_on_rows)
        return dataclasses.replace(self, generate=generate, finetune=finetune)


def stage_tables(tables: Mapping[str, Mapping[str, Any]], run: RunConfig, where: str = "") -> StageTables:
    """Return the checked stage configurations of a run.

    Parameters
    ----------
    tables
        Stage name -> keys and values.
    run
        The run; its shot groups hold in every stage that does not say otherwise.
    where
        Prefix of error messages, such as the file's name.

    Raises
    ------
    UsageError
        A table, key or value is unknown; the nearest one is named.
    """
    prefix = f"{where}: " if where else ""
    for name in tables:
        if name not in STAGES:
            raise UsageError(f"{prefix}unknown table [{name}]; {nearest(name, STAGES)}")

    def build(stage: str, **defaults: Any) -> Any:
        return STAGES[stage].from_mapping({**defaults, **tables.get(stage, {})}, f"{prefix}[{stage}]")

    diffuse: DiffusionConfig = build("diffuse")
    kinds = ("weak",) * diffuse.weak_views + ("strong",) * diffuse.strong_views
    given = tables.get("encode", {})
    views = {} if "views" in given else {"views": len(kinds), "view_kinds": kinds}
    build("baseline")  # checks keys and values; the preset is applied later
    return StageTables(
        baseline=dict(tables.get("baseline", {})),
        encode=build("encode", **views),
        diffuse=diffuse,
        generate=build("generate", groups=run.groups),
        finetune=build("finetune"),
        select=build("select"),
        given=frozenset(name for name, values in tables.items() if values),
    )
