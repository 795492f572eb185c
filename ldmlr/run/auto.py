"""``--auto``: which method to use, chosen without the test split, and its head.

Where the encoder has not seen the training rows, all of a contest try on held-out rows of them
(`ldmlr.select.contest`). Where it has, only validation rows can tell methods apart: the run's own head,
which starts from the baseline's, is then one more entrant. Without validation rows nothing can be told, and
the run's head with label shift is the answer, as the recipe was ahead or level wherever it was developed.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.generation.config import GenerateConfig
from ldmlr.groups import parse_groups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Variant, measure
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.logits import head_logits
from ldmlr.heads.modules import Head, LinearHead
from ldmlr.run import stages
from ldmlr.select.auto import open_contest
from ldmlr.select.contest import Contest, Trial, paired
from ldmlr.select.entrants import ENTRANTS, RETRAINED
from ldmlr.select.rule import Scores
from ldmlr.store.convert.ready import Ready
from ldmlr.store.store import FeatureStore

# Heads that are trained in batches take long: they try where the numbers of all rows are at most so many.
BATCHED_NUMBERS = 10_000_000
RECIPE_ROW = "label-shift"


@dataclasses.dataclass(frozen=True)
class Answer:
    """What ``--auto`` says.

    Parameters
    ----------
    method, adjustment
        What to use, as rows of a table have it.
    headline
        In one sentence.
    document
        How it was chosen.
    trial
        The entrant that won; None: the run's own head.
    scores
        What it had right on the held-out rows; None where nothing was held out.
    """

    method: str
    adjustment: str
    headline: str
    document: dict[str, Any]
    trial: Trial | None
    scores: Scores | None = None


def run_auto(
    stores: Sequence[Ready],
    recipe: Path,
    generator: str,
    diffuse: DiffusionConfig,
    generate: GenerateConfig,
    methods: Sequence[str],
    groups: str,
    trained_on_rows: bool,
    seeds: Sequence[int],
    out: Path,
    *,
    seed: int,
    machine: Machine,
) -> dict[str, Any]:
    """Choose a method, write its head, and measure it on the test split where there is one.

    Parameters
    ----------
    stores
        The encoded rows of each of `seeds`; the first ones choose.
    recipe
        The run's own head of the first seed.
    generator
        What the rows of this head were drawn by.
    diffuse, generate
        How a model is trained and rows are drawn.
    methods
        Names of `ldmlr.select.entrants`; none: all that are worth the time.
    groups
        Shot groups.
    trained_on_rows
        Whether the encoder has seen the training rows.
    seeds
        The seeds of the run.
    out
        The head to write.
    seed, machine
        Of the choice.
    """
    method = stages.method_of(generator)
    own = FinetunedHead.load(recipe)

    def contest_of(store: FeatureStore) -> Contest:
        return open_contest(
            store, trained_on_rows, diffuse=diffuse, generate=generate, seed=seed, machine=machine
        )

    with stores[0].open() as first:
        contest, fingerprint = contest_of(first), first.fingerprint()
        answer = _answer(first, contest, own, method, methods, trained_on_rows)
        _head(contest, answer, own, seeds[0]).save(out, overwrite=True)
    measured = []
    # The rows of the run's own head stand in its table.
    for store, number in zip(stores, seeds, strict=True) if answer.trial is not None else ():
        with store.open() as opened:
            if opened.test is None or not len(opened.test):
                continue
            if opened.fingerprint() != fingerprint:
                contest, fingerprint = contest_of(opened), opened.fingerprint()
            head = _head(contest, answer, own, number)
            variant = Variant(answer.method, answer.adjustment, head.label_shifted())
            measured += stages.entries(
                measure([variant], opened.test, head.counts, parse_groups(groups), machine.device)
            )
    figures = {
        "method": answer.method, "adjustment": answer.adjustment, "headline": answer.headline,
        "accuracy": None if answer.scores is None else answer.scores.mean,
        "row_accuracy": None if answer.scores is None else answer.scores.of_rows,
    }  # fmt: skip
    return {"auto": {**answer.document, **figures}, "measured": measured}


def _answer(
    store: FeatureStore,
    contest: Contest,
    recipe: FinetunedHead,
    method: str,
    methods: Sequence[str],
    trained_on_rows: bool,
) -> Answer:
    """Return what to use."""
    by_val = store.val is not None and contest.held.how.endswith("validation rows")
    if trained_on_rows and not by_val:
        headline = (
            f"Use {_spoken(method)} with label shift: the encoder has seen the training rows, so they tell "
            "no methods apart, and the recipe was ahead or level wherever it was developed; validation rows "
            "would decide."
        )
        return Answer(method, RECIPE_ROW, headline, {"held_out": "nothing", "trials": []}, None)
    contest.enter(list(methods) or usual_entrants(contest.held.rows.features.size))
    won, document, headline = contest.winner(), contest.document(), contest.headline()
    name = f"{won.entrant.name}-tuned" if won.entrant.name == method else won.entrant.name
    adjustment = RECIPE_ROW if won.entrant.spec.loss == "cross-entropy" and won.spec.trained else "none"
    if by_val:
        own = _scores(store, recipe)
        document["trials"] = [
            {"method": method, "adjustment": RECIPE_ROW, "held_out": round(own.mean, 3)}, *document["trials"]
        ]  # fmt: skip
        gap, error = paired(own, won.scores)
        if gap > 0:
            headline = (
                f"Use {_spoken(method)} with label shift ({own.mean:.2f} % on {contest.held.how}): it is "
                f"ahead of {won.entrant.said} ({won.accuracy:.2f} %) by {gap:.2f} points (standard error "
                f"{error:.2f})."
            )
            return Answer(method, RECIPE_ROW, headline, document, None, own)
    return Answer(name, adjustment, headline, document, won, won.scores)


def usual_entrants(numbers: int) -> list[str]:
    """Return the names of all entrants that are worth the time on so many numbers (rows times dimensions)."""
    # A head of neighbours holds all rows, and cannot be written.
    aside = {"knn", *(one.name for one in RETRAINED)}
    aside |= {"mlp", "cosine"} if numbers > BATCHED_NUMBERS else set()
    return [name for name in ENTRANTS if name not in aside]


def _scores(store: FeatureStore, recipe: FinetunedHead) -> Scores:
    """Return what the run's own head with label shift has right on the validation rows."""
    val = store.split("val")
    labels = np.asarray(val.labels, np.int64)
    right = head_logits(recipe.label_shifted(), val.float32()).argmax(axis=1) == labels
    return Scores((right,), (labels,), ("held out",))


def _head(contest: Contest, answer: Answer, recipe: FinetunedHead, seed: int) -> FinetunedHead:
    """Return the head of the answer with all corrections in it."""
    if answer.trial is None:
        shifted = recipe.label_shifted()
        if not isinstance(shifted, Head):
            return recipe  # its label shift takes both heads
        config = recipe.config.replace(average=0.0, tau_shift=0.0)
        return dataclasses.replace(recipe, head=shifted, config=config, shift=None, temperature=1.0)
    head, shift, rows = contest.head(answer.trial, seed)
    counts = contest.held.rows.counts
    if shift.any():
        assert isinstance(head, LinearHead)
        head = copy.deepcopy(head)
        assert head.bias is not None
        with torch.no_grad():
            head.bias.sub_(torch.from_numpy(shift).float())
    config = FinetuneConfig(head=head.kind, init="fresh", average=0.0, tau_shift=0.0, mix=1.0)
    return dataclasses.replace(
        recipe, head=head, counts=counts, config=config, seed=seed, history=[], generated=rows.generated,
        chosen={"method": answer.method, **answer.trial.chosen()}, shift=None, temperature=1.0,
    )  # fmt: skip


def _spoken(method: str) -> str:
    return "LDMLR" if method == "ldmlr" else method
