"""What is varied, and over which values; imports no torch.

The paper varies two things: the ratio of generated to encoded rows, and which shot groups are generated.
Three more belong to a sampler of few steps: the solver evaluations, the guidance, the width of the denoiser.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from ldmlr.config import option
from ldmlr.diffusion.config import BASES, DiffusionConfig
from ldmlr.errors import UsageError, nearest, opt
from ldmlr.generation.config import EncoderConfig, GenerateConfig, PlanConfig
from ldmlr.groups import GROUPS
from ldmlr.sampler.config import SOLVERS
from ldmlr.store.heldout import HeldOutConfig

Stages = tuple[DiffusionConfig, GenerateConfig]


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of an ablation before it runs.

    Parameters
    ----------
    name
        The value, written in the one way that the result uses.
    model, drawing
        How the diffusion model is trained, and how rows are drawn from it.
    fills
        The shot groups it generates for, where that is what is varied.
    """

    name: str
    model: DiffusionConfig
    drawing: GenerateConfig
    fills: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Kind:
    """One ablation.

    Parameters
    ----------
    what
        One line that says what is varied.
    values
        The default values.
    sets
        Options of the stages that the ablation sets itself.
    make
        Value and the configurations of the stages -> the settings that it stands for.
    """

    what: str
    values: tuple[str, ...]
    sets: tuple[str, ...]
    make: Callable[[str, Stages], list[Setting]]


def _ratio(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    # No target and no count: they belong to other strategies.
    drawing = drawing.replace(target=None, count={})
    if value == "balance":
        return [Setting(value, model, drawing.replace(strategy="balance", minimum=PlanConfig().minimum))]
    ratio = _number(value, "a ratio from 0 or balance")
    minimum = drawing.minimum if ratio > 0 else 0
    return [Setting(f"{ratio:g}", model, drawing.replace(strategy="ratio", ratio=ratio, minimum=minimum))]


def _groups(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    words = [word.strip() for word in value.split("+")]
    for word in words:
        if word not in (*GROUPS, "all"):
            raise UsageError(f"{opt('values')}: unknown group {word!r}; {nearest(word, (*GROUPS, 'all'))}")
    fills = tuple(name for name in GROUPS if name in words or "all" in words)
    name = "all" if fills == GROUPS else "+".join(fills)
    return [Setting(name, model, drawing.replace(only=fills), fills)]


def _steps(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    solver, colon, count = value.rpartition(":")
    if colon and solver not in SOLVERS:
        raise UsageError(f"{opt('values')}: unknown solver {solver!r}; {nearest(solver, SOLVERS)}")
    steps = _whole(count, "SOLVER:STEPS such as ddim:10, or STEPS for both ddim and dpmpp2m")
    return [
        # Only ddim has a share of ancestral noise.
        Setting(f"{name}:{steps}", model, dataclasses.replace(
            drawing, solver=name, steps=steps, eta=drawing.eta if name == "ddim" else 0.0
        ))
        for name in ((solver,) if colon else ("ddim", "dpmpp2m"))
    ]  # fmt: skip


def _guidance(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    guidance = _number(value, "a guidance from 0")
    if guidance != 1 and model.label_dropout == 0:
        raise UsageError("diffuse.label_dropout: must be above 0 where guidance is varied; leave it out")
    return [Setting(f"{guidance:g}", model, drawing.replace(guidance=guidance))]


def _width(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    width = _whole(value, "a width from 1")
    return [Setting(str(width), model.replace(hidden=width), drawing)]


def _basis(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    if value not in BASES:
        raise UsageError(f"{opt('values')}: unknown basis {value!r}; {nearest(value, BASES)}")
    latent = "none" if value == "cholesky" else model.latent
    return [Setting(value, model.replace(basis=value, latent=latent), drawing)]


def _axes(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    count = (
        value if value in ("auto", "none") else str(_whole(value, "auto, none or a number of axes from 1"))
    )
    return [Setting(count, model.replace(basis="eigen", latent=count), drawing)]


def _error_power(value: str, stages: Stages) -> list[Setting]:
    model, drawing = stages
    power = _number(value, "a power from 0")
    return [Setting(f"{power:g}", model.replace(basis="eigen", error_power=power), drawing)]


KINDS: dict[str, Kind] = {
    "ratio": Kind(
        "rows generated per class, as a fraction of its own; balance fills up to the largest",
        ("0", "0.05", "0.1", "0.2", "0.5", "1", "balance"),
        ("generate.strategy", "generate.ratio", "generate.target", "generate.count"), _ratio,
    ),
    "groups": Kind(
        "which shot groups are filled: many, medium, few and their unions",
        ("many", "medium", "few", "many+medium", "many+few", "medium+few", "all"),
        ("generate.only",), _groups,
    ),
    "steps": Kind(
        "solver and its steps; one evaluation of the network each, heun two but for the last",
        ("ddim:5", "ddim:10", "ddim:20", "ddim:50", "dpmpp2m:5", "dpmpp2m:10", "dpmpp2m:20", "dpmpp2m:50"),
        ("generate.solver", "generate.steps"), _steps,
    ),
    "guidance": Kind(
        "classifier-free guidance; 1 is off",
        ("0.5", "1", "1.5", "2", "3"),
        ("generate.guidance",), _guidance,
    ),
    "width": Kind(
        "hidden width of the denoiser; a model is trained for each",
        ("32", "64", "128", "256"),
        ("diffuse.hidden",), _width,
    ),
    "basis": Kind(
        "root of the shared covariance that whitens the rows: its eigenvectors, or the Cholesky factor",
        BASES,
        ("diffuse.basis", "diffuse.latent"), _basis,
    ),
    "axes": Kind(
        "eigenvectors that are diffused; the others are drawn Gaussian",
        ("16", "32", "64", "128", "none"),
        ("diffuse.basis", "diffuse.latent"), _axes,
    ),
    "error-power": Kind(
        "the error on an eigenvector counts as its variance to this power",
        ("0", "0.5", "0.75", "1"),
        ("diffuse.basis", "diffuse.error_power"), _error_power,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AblateConfig(HeldOutConfig, EncoderConfig):
    """Over which values."""

    values: tuple[str, ...] = option(
        (), "Try these instead (VALUE or VALUE,VALUE); may be repeated.  [default: see below]",
        metavar="VALUE",
    )  # fmt: skip

    def __post_init__(self) -> None:
        # A file may hold plain numbers.
        given: Any = self.values
        given = (given,) if isinstance(given, str | int | float) else given
        object.__setattr__(self, "values", tuple(str(value) for value in given))
        super().__post_init__()


def make_settings(
    kind: str, values: Sequence[str], model: DiffusionConfig, drawing: GenerateConfig
) -> list[Setting]:
    """Return the settings of an ablation in the order they were named, each one once.

    Parameters
    ----------
    kind
        A key of `KINDS`.
    values
        Values, several in one entry separated by commas; empty: the defaults.
    model, drawing
        What every setting starts from.

    Raises
    ------
    UsageError
        A value that the ablation cannot take.
    """
    entries = [part.strip() for entry in values or KINDS[kind].values for part in entry.split(",")]
    found: dict[str, Setting] = {}
    for entry in entries:
        for setting in KINDS[kind].make(entry, (model, drawing)):
            found.setdefault(setting.name, setting)
    return list(found.values())


def _number(text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise UsageError(f"{opt('values')}: expected {expected}, not {text!r}")
    return number


def _whole(text: str, expected: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise UsageError(f"{opt('values')}: expected {expected}, not {text!r}")
    return int(text)
