"""The loop of every experiment: seeds, and within a seed the arms, whose heads are measured together.

Per seed: the baseline's head, then each arm makes its heads, then one pass over the test split measures them
all. Without a test split the seed does so for every fold, and what its heads say of all held-out rows is one
measurement. An arm is charged with the whole of what it needs: what several arms share is made once, and
its seconds count for each of them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ldmlr import progress
from ldmlr.errors import UsageError, opt
from ldmlr.groups import ClassGroups, ShotGroups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Tally, Variant, group_sizes, plain_variants
from ldmlr.heads.finetune import baseline_head
from ldmlr.heads.modules import Head
from ldmlr.heads.training_rows import TrainingRows
from ldmlr.metrics.answers import Answers
from ldmlr.results import accuracy_rows
from ldmlr.store.heldout import Measuring

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
# A part of a store -> the arms that are measured on it, and the training rows of stage 3.
Setup = Callable[["FeatureStore"], tuple[Mapping[str, Arm], TrainingRows]]


@dataclasses.dataclass
class Record:
    """What an arm gave and took, per seed; `notes` without repetition, `head` the kind of its head.

    `choices` are what held-out training rows chose, per seed and fold.
    """

    generated: list[int] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    drawing: list[float] = dataclasses.field(default_factory=list)
    notes: dict[str, None] = dataclasses.field(default_factory=dict)
    head: str = ""
    backend: str = ""
    held_out: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)
    choices: list[Mapping[str, Any]] = dataclasses.field(default_factory=list)

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
        self.choices += [] if made.chosen is None else [made.chosen]
        return made.variants

    def join(self, parts: int) -> None:
        """Make one entry of those of the last parts: seconds add up, of the rows generated it is the mean."""
        for values in (self.seconds, self.drawing):
            values[-parts:] = [sum(values[-parts:])]
        self.generated[-parts:] = [round(sum(self.generated[-parts:]) / parts)]


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


def seed_numbers(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """Return the seeds that a number of them, or a list, stands for: K are 0 .. K-1."""
    return tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)


def over_seeds(
    arms: Mapping[str, Arm],
    store: FeatureStore,
    rows: TrainingRows | Callable[[int], TrainingRows],
    config: FinetuneConfig,
    *,
    seeds: int | Sequence[int],
    groups: ClassGroups | None = None,
    device: str = "cpu",
    label: str = "experiment",
    said: str | None = None,
    report: Callable[[str], None] = lambda message: None,
    measuring: Measuring | None = None,
    setup: Setup | None = None,
) -> Outcome:
    """Run every arm with every seed and measure its heads on the test split, or on held-out rows.

    Parameters
    ----------
    arms
        Name -> what makes its heads for a seed.
    store
        An open store, and the baseline's head where there is one.
    rows
        Training rows of stage 3, or seed -> rows; a store without a head has one fitted to the encoded ones.
    config
        Stage 3.
    seeds
        K, which is 0 .. K-1, or the seeds themselves.
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
    measuring
        What rows heads are measured on, if not on a test split of the store's own.
    setup
        Then, a part of the store -> its arms, called as those of `arms`, and its training rows.

    Raises
    ------
    InputError
        There is no test split, or a head that does not fit the rows.
    UsageError
        No arm has a head to measure.
    """
    measuring, chosen = measuring or Measuring(), groups or ShotGroups()
    labels, parts = measuring.measured_rows(store), max(measuring.folds, 1)
    counts = store.split("train").encoded_counts
    records = {name: Record() for name in arms}
    runs: list[list[dict[str, Any]]] = []
    numbers = seed_numbers(seeds)
    with progress.bar(len(numbers) * parts * len(arms), label, "arm") as bar:
        for number in numbers:
            begin = time.perf_counter()
            made: list[tuple[FeatureStore, dict[str, list[Variant]]]] = []
            for part in measuring.parts(store, number):
                own, used = arms, rows
                if not measuring.whole:
                    assert setup is not None
                    own, used = setup(part)
                seed = start_of(number, used(number) if callable(used) else used, part, config, device)
                variants = {}
                for name, arm in own.items():
                    bar.set_postfix_str(name)
                    variants[name] = records[name].timed(arm, seed)
                    bar.update(1)
                made.append((part, variants))
                origin, tuning = seed.origin, seed.tuning
                heads = {"baseline": seed.baseline.kind, "trained": tuning.head}
                del seed  # and its rows, before the next seed's are gathered
            for record in records.values():
                record.join(parts)
            # An arm that has no head for one fold has none for the seed.
            kept = [name for name in arms if all(len(found[name]) for _, found in made)]
            if not kept:
                why = "; ".join(dict.fromkeys(note for record in records.values() for note in record.notes))
                raise UsageError(f"{opt('methods')}: {', '.join(arms)} cannot be measured here: {why}")
            tally, held = Tally(store.num_classes), []
            for part, found in made:
                tally.add([variant for name in kept for variant in found[name]], part.split("test"), device)
                held.append(measuring.held(part))
            order = None if measuring.whole else np.argsort(np.concatenate(held))
            runs.append([one.entry for one in tally.measured(counts, chosen, order)])
            owners = [name for name in kept for _ in made[0][1][name]]
            report(f"seed {number}  {said or f'{len(arms)} arms'}  {time.perf_counter() - begin:.1f} s")
    answers = Answers.of(runs, labels, counts, chosen)
    common = {"measured_on": measuring.measured_on, "judged_by": answers.judged_by}
    rows_of_table = [{**row, **common} for row in accuracy_rows(runs)]
    figures = {
        "seeds": list(numbers),
        "baseline_head": origin,
        "groups": dict(group_sizes(counts, chosen)),
        "encoded_rows": int(counts.sum()),
        "measured": measuring.in_full(answers.judged_by),
        "unmeasured": list(measuring.unmeasured(store)),
    }
    table = list(zip(owners, rows_of_table, strict=True))
    return Outcome(table, records, figures, heads, tuning, answers)


def start_of(
    number: int, rows: TrainingRows, store: FeatureStore, config: FinetuneConfig, device: str
) -> Seed:
    """Return what every arm of a seed starts from."""
    baseline, origin = baseline_head(rows, store.head, number, device)
    return Seed(number, rows, baseline, origin, config.settled(baseline.kind), device)
