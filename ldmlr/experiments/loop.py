"""The loop of every experiment: seeds, and within a seed the arms, whose heads are measured together.

Per seed: the baseline's head, then each arm makes its heads, then one pass over the test split measures them
all. An arm is charged with the whole of what it needs: what several arms share is made once, and its seconds
count for each of them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ldmlr import progress
from ldmlr.errors import UsageError, opt
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Variant, answers_of, group_sizes, measure, plain_variants
from ldmlr.heads.finetune import baseline_head
from ldmlr.heads.modules import Head
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.answers import Answers
from ldmlr.results import accuracy_rows

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

# The baseline's own label-shift row subtracts the whole log prior, as published.
BASELINE_TAU = 1.0
T = TypeVar("T")


class Shared:
    """What the arms of a seed share: made once, its seconds charged to every arm that asks for it.

    Attributes
    ----------
    borrowed
        Seconds that the present arm would have spent on what was there already.
    """

    def __init__(self) -> None:
        self.borrowed = 0.0
        self._made: dict[Hashable, tuple[Any, float]] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, from the first call with this key."""
        if key in self._made:
            found, seconds = self._made[key]
            self.borrowed += seconds
        else:
            start = time.perf_counter()
            found = make()
            self._made[key] = found, time.perf_counter() - start
        return found  # type: ignore[no-any-return]


@dataclasses.dataclass(frozen=True)
class Seed:
    """What every arm of a seed starts from.

    Parameters
    ----------
    number
        Everything random depends on it alone.
    rows
        The training rows of stage 3.
    baseline, origin
        The head that arms start from and are compared with; ``stored`` or ``fitted``.
    tuning
        Stage 3, with the kind of head settled.
    device
        Where to compute.
    shared
        What arms have made for each other.
    """

    number: int
    rows: TrainingRows
    baseline: Head
    origin: str
    tuning: FinetuneConfig
    device: str
    shared: Shared = dataclasses.field(default_factory=Shared)


@dataclasses.dataclass(frozen=True)
class Made:
    """What an arm made for a seed.

    Parameters
    ----------
    variants
        Heads, ready to be measured; as many for every seed.
    generated
        Rows it generated.
    notes
        Remarks for the user.
    drawing
        Seconds of drawing rows alone.
    backend
        What drew them.
    held_out
        What the training of their model added to the class Gaussian, see `ldmlr.diffusion.learned`.
    chosen
        What held-out training rows chose, by name.
    """

    variants: list[Variant]
    generated: int = 0
    notes: tuple[str, ...] = ()
    drawing: float = 0.0
    backend: str = ""
    held_out: Mapping[str, Any] | None = None
    chosen: Mapping[str, Any] | None = None


Arm = Callable[[Seed], Made]


@dataclasses.dataclass
class Record:
    """What an arm gave and took, per seed; `notes` without repetition, `head` the kind of its head."""

    generated: list[int] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    drawing: list[float] = dataclasses.field(default_factory=list)
    notes: dict[str, None] = dataclasses.field(default_factory=dict)
    head: str = ""
    backend: str = ""
    held_out: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    chosen: Mapping[str, Any] | None = None

    def timed(self, arm: Arm, seed: Seed) -> list[Variant]:
        """Let an arm make its heads, note what it took, and return them."""
        start, seed.shared.borrowed = time.perf_counter(), 0.0
        made = arm(seed)
        self.seconds.append(time.perf_counter() - start + seed.shared.borrowed)
        self.generated.append(made.generated)
        self.drawing.append(made.drawing)
        self.notes.update(dict.fromkeys(made.notes))
        self.held_out += [] if made.held_out is None else [made.held_out]
        self.head = str(made.variants[0].head.kind) if made.variants else ""
        self.backend = made.backend or self.backend
        self.chosen = made.chosen
        return made.variants


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What an experiment gave.

    Parameters
    ----------
    table
        Name of the arm and row of the accuracy table, in the order of the arms.
    records
        Per arm, what it gave and took.
    figures
        What every result document says: ``seeds``, ``baseline_head``, ``groups``, ``encoded_rows``.
    heads
        The kind of the baseline's head, and that of heads that are trained.
    tuning
        Stage 3, with the kind of head settled.
    answers
        What each head of the table answered right.
    """

    table: list[tuple[str, dict[str, Any]]]
    records: dict[str, Record]
    figures: dict[str, Any]
    heads: dict[str, str]
    tuning: FinetuneConfig
    answers: Answers

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The accuracy table."""
        return [row for _, row in self.table]

    @property
    def backend(self) -> str | None:
        """What drew rows; None where none were drawn by one."""
        return next((record.backend for record in self.records.values() if record.backend), None)


def baseline_arm(seed: Seed) -> Made:
    """Return the baseline's head, as it is and with label shift."""
    return Made(plain_variants("baseline", seed.baseline, seed.rows.counts, BASELINE_TAU))


def over_seeds(
    arms: Mapping[str, Arm],
    store: FeatureStore,
    rows: TrainingRows | Callable[[int], TrainingRows],
    config: FinetuneConfig,
    *,
    seeds: int,
    groups: ClassGroups | None = None,
    device: str = "cpu",
    label: str = "experiment",
    said: str | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Outcome:
    """Run every arm with seeds 0 .. K-1 and measure its heads on the test split.

    Parameters
    ----------
    arms
        Name -> what makes its heads for a seed.
    store
        An open store with a test split, and the baseline's head where there is one.
    rows
        Training rows of stage 3, or seed -> rows; a store without a head has one fitted to the encoded ones.
    config
        Stage 3.
    seeds
        K.
    groups
        Shot groups; many > 100, few < 20 by default.
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    label
        Of the progress bar.
    said
        How many of what, for the line of a seed.  [default: that of the arms]
    report
        Called with one line per seed.

    Raises
    ------
    InputError
        There is no test split, or a head that does not fit the rows.
    UsageError
        No arm has a head to measure.
    """
    test, chosen = store.split("test"), groups or ShotGroups()
    records = {name: Record() for name in arms}
    runs: list[list[dict[str, Any]]] = []
    with progress.bar(seeds * len(arms), label, "arm") as bar:
        for number in range(seeds):
            begin = time.perf_counter()
            seed = start_of(number, rows(number) if callable(rows) else rows, store, config, device)
            variants: list[Variant] = []
            owners: list[str] = []
            for name, arm in arms.items():
                bar.set_postfix_str(name)
                made = records[name].timed(arm, seed)
                variants += made
                owners += [name] * len(made)
                bar.update(1)
            if not variants:
                why = "; ".join(dict.fromkeys(note for record in records.values() for note in record.notes))
                raise UsageError(f"{opt('methods')}: {', '.join(arms)} cannot be measured here: {why}")
            measured = measure(variants, test, seed.rows.counts, chosen, device)
            runs.append([found.entry for found in measured])
            figures, tuning = _figures(seed, seeds, chosen), seed.tuning
            heads = {"baseline": seed.baseline.kind, "trained": tuning.head}
            counts = seed.rows.counts
            del seed  # and its rows, before the next seed's are gathered
            report(f"seed {number}  {said or f'{len(arms)} arms'}  {time.perf_counter() - begin:.1f} s")
    table = list(zip(owners, accuracy_rows(runs), strict=True))
    answers = answers_of(runs, test, counts, chosen)
    return Outcome(table, records, figures, heads, tuning, answers)


def start_of(
    number: int, rows: TrainingRows, store: FeatureStore, config: FinetuneConfig, device: str
) -> Seed:
    """Return what every arm of a seed starts from."""
    baseline, origin = baseline_head(rows, store.head, number, device)
    return Seed(number, rows, baseline, origin, config.settled(baseline.kind), device)


def _figures(seed: Seed, seeds: int, groups: ClassGroups) -> dict[str, Any]:
    """Return what every result document says of an experiment."""
    return {
        "seeds": list(range(seeds)),
        "baseline_head": seed.origin,
        "groups": dict(group_sizes(seed.rows.counts, groups)),
        "encoded_rows": seed.rows.encoded,
    }
