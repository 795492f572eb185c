"""The selection itself: draw, fine-tune and measure every candidate on the held-out rows.

Three rounds, each decided by the rule of `ldmlr.select.rule`: generator, scale and guidance by the
fine-tuned head as it is; then the gate, likewise; then tau and average of the label-shift row by that row.
The test split is never read. A candidate is drawn and fine-tuned exactly as the run will do it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr import progress
from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import InputError
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.generators.base import Generator
from ldmlr.generation.generators.catalogue import entry_of, resolved
from ldmlr.generation.generators.fit import fit
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import labels_of, plan_from_config
from ldmlr.generation.prepare import prepare
from ldmlr.generation.train_rows import train_rows
from ldmlr.groups import parse_groups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.finetune import baseline_head, tuned_head
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.heads.logits import logit_blocks
from ldmlr.heads.losses import log_prior
from ldmlr.heads.modules import Head
from ldmlr.heads.training_rows import gather_rows
from ldmlr.metrics.scatter import ScatterRatio, scatter_ratio, squares
from ldmlr.select.candidates import Candidate, base_candidate, gate_round, grid
from ldmlr.select.choice import FORMAT, SCHEMA_VERSION, Choice, no_val
from ldmlr.select.config import SelectConfig
from ldmlr.select.rule import RULE, Scores, choose
from ldmlr.store import FeatureStore

BY = "class-balanced accuracy on val"
Shift = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The run's own settings: where the selection starts, and what it leaves alone.

    Attributes
    ----------
    diffuse, generate, finetune
        The stages.
    generator
        A name of `ldmlr.generation.generators.catalogue`.
    groups
        Shot groups.
    backend, device, threads
        Where to compute.
    """

    diffuse: DiffusionConfig
    generate: GenerateConfig
    finetune: FinetuneConfig
    generator: str = "diffusion"
    groups: str = "100,20"
    backend: str = "auto"
    device: str = "cpu"
    threads: int | None = None


class Seed:
    """One seed: its store, its model and the held-out rows.

    Parameters
    ----------
    seed
        Seeds drawing and fine-tuning.
    store
        An open store with ``train`` and ``val``; its test split is not touched.
    model
        The trained diffusion model, or None where no candidate needs it.
    settings
        Of the run.
    """

    def __init__(
        self, seed: int, store: FeatureStore, model: LatentDiffusion | None, settings: Settings
    ) -> None:
        if store.val is None:
            raise no_val(str(store.path))
        self.seed, self.store, self.model, self.settings = seed, store, model, settings
        encoded = slice(None) if store.val.source is None else np.flatnonzero(store.val.source == 0)
        self.val, self.val_labels = store.val.float32(encoded), store.val.labels[encoded]
        if not len(self.val_labels):
            raise no_val(str(store.path))
        self.counts = store.split("train").encoded_counts
        self.rows = train_rows(store, settings.diffuse.weak_views, settings.diffuse.strong_views, copy=False)
        self._fitted: dict[str, Generator] = {}
        self.baseline: Head | None = None

    def generated(self, config: GenerateConfig, generator: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return the rows and labels that the run would generate with these settings."""
        settings = self.settings
        if entry_of(generator).trains:
            assert self.model is not None
            generation = prepare(
                self.model, config, seed=self.seed, judge=self.store,
                machine=Machine(settings.device, settings.threads, settings.backend),
            )  # fmt: skip
            labels = labels_of(generation.plan, 0, generation.rows)
            return generation.draw(labels).rows, labels
        chosen = resolved(generator, config, settings.diffuse)
        plan = plan_from_config(self.counts, chosen, self.store.class_names)
        labels = labels_of(plan, 0, int(plan.sum()))
        if generator not in self._fitted:
            self._fitted[generator] = fit(generator, self.rows, chosen)
        return self._fitted[generator].drawing_as(chosen).draw(labels, self.seed), labels

    def tuned(self, config: GenerateConfig, generator: str) -> FinetunedHead:
        """Return the head fine-tuned on what these settings generate."""
        seed, device = self.seed, self.settings.device
        rows = gather_rows(self.store, self.generated(config, generator), own_generated=False)
        if self.baseline is None:
            self.baseline = baseline_head(rows, self.store.head, seed, device)[0]
        tune = self.settings.finetune.settled(self.baseline.kind)
        return tuned_head(rows, self.baseline, "", tune, seed, device=device)

    def right(self, head: Head, offset: float | npt.NDArray[np.float64] = 0.0) -> npt.NDArray[np.bool_]:
        """Return which held-out rows a head's logits minus an offset ``[C]`` get right, ``[M]``."""
        found = np.empty(len(self.val_labels), np.bool_)
        for part, logits in logit_blocks(head, self.val):
            found[part] = (logits - offset).argmax(axis=1) == self.val_labels[part]
        return found

    def shifted(self, tuned: FinetunedHead, shifts: Sequence[Shift]) -> dict[Shift, npt.NDArray[np.bool_]]:
        """Return which rows the label-shift row gets right, for each (tau, average)."""
        prior = log_prior(self.counts)
        found = {shift: np.empty(len(self.val_labels), np.bool_) for shift in shifts}
        blocks = (logit_blocks(head, self.val) for head in (tuned.baseline, tuned.head))
        for (part, old), (_, new) in zip(*blocks, strict=True):
            for tau, share in shifts:
                logits = share * old + (1 - share) * new - tau * prior
                found[tau, share][part] = logits.argmax(axis=1) == self.val_labels[part]
        return found


class Selection:
    """Chooses on the held-out rows of one or several seeds.

    Parameters
    ----------
    seeds
        Each with a store that has ``val``; seeds that share a store share its rows.
    settings
        The run's own.
    select
        The grid.

    Raises
    ------
    InputError
        The stores have different classes.
    """

    def __init__(self, seeds: Sequence[Seed], settings: Settings, select: SelectConfig) -> None:
        self.seeds, self.settings, self.select = list(seeds), settings, select
        first = seeds[0].store
        for seed in seeds:
            if seed.store.num_classes != first.num_classes:
                raise InputError(
                    f"{seed.store.path}: has other classes than {first.path}; choose for each apart"
                )
        self.class_names = first.class_names
        self.transform = settings.diffuse.transform
        self.base = base_candidate(settings.generate, settings.generator, settings.diffuse)
        own = (settings.finetune.tau_shift, settings.finetune.average)
        pairs = [(tau, share) for tau in select.taus for share in select.averages]
        self.shifts: list[Shift] = list(dict.fromkeys([own, *pairs]))
        self.plain: dict[Candidate, Scores] = {}
        self.shift_scores: dict[Candidate, dict[Shift, Scores]] = {}
        self.scatter = self._scatter()

    def run(self) -> Choice:
        """Do the three rounds and return the choice with its evidence."""
        first = grid(self.base, self.select, self.settings.diffuse)
        extra = max(0, len(self.select.gates) - 1)
        with progress.bar((len(first) + extra) * len(self.seeds), "select", "fit") as bar:
            rounds = [self._round(first, bar)]
            chosen = rounds[0][0]
            rounds.append(self._round(gate_round(chosen, self.select, self.transform), bar))
            chosen = rounds[1][0]
        shift, shift_evidence = self._shift_round(chosen)
        evidence = {
            "generation": rounds[0][1], "gate": rounds[1][1], "label_shift": shift_evidence,
            "baseline": self._baselines(), "scatter": self.scatter.to_dict(),
        }  # fmt: skip
        return Choice.of(self._document(chosen, shift, evidence))

    def _round(self, candidates: Sequence[Candidate], bar: Any) -> tuple[Candidate, list[dict[str, Any]]]:
        for candidate in candidates:
            if candidate not in self.plain:
                self._measure(candidate, bar)
        scores = [self.plain[candidate] for candidate in candidates]
        changes = [candidate.changes(self.base) for candidate in candidates]
        verdict = choose(scores, changes)
        evidence = [
            {**candidate.to_dict(), **_evidence(scores, verdict, changes, at)}
            for at, candidate in enumerate(candidates)
        ]
        return candidates[verdict.chosen], evidence

    def _measure(self, candidate: Candidate, bar: Any) -> None:
        """Fine-tune with a candidate for every seed and keep who got which row right."""
        config = self.settings.generate.changed(candidate.settings(self.scatter.k, self.class_names))
        plain, shifted = [], []
        for seed in self.seeds:
            tuned = seed.tuned(config, candidate.generator)
            plain.append(seed.right(tuned.head))
            shifted.append(seed.shifted(tuned, self.shifts))
            bar.update(1)
        self.plain[candidate] = self._scores(plain)
        self.shift_scores[candidate] = {
            shift: self._scores([found[shift] for found in shifted]) for shift in self.shifts
        }

    def _shift_round(self, chosen: Candidate) -> tuple[Shift, list[dict[str, Any]]]:
        scores = [self.shift_scores[chosen][shift] for shift in self.shifts]
        own = self.shifts[0]
        changes = [int(tau != own[0]) + int(share != own[1]) for tau, share in self.shifts]
        verdict = choose(scores, changes)
        evidence = [
            {"tau_shift": tau, "average": share, **_evidence(scores, verdict, changes, at)}
            for at, (tau, share) in enumerate(self.shifts)
        ]
        return self.shifts[verdict.chosen], evidence

    def _scores(self, right: Sequence[npt.NDArray[np.bool_]]) -> Scores:
        draws = tuple(str(seed.store.path) for seed in self.seeds)
        return Scores(tuple(right), tuple(seed.val_labels for seed in self.seeds), draws)

    def _baselines(self) -> dict[str, float]:
        """Return what the baseline's head gets on the held-out rows, as it is and with label shift."""
        plain, shifted = [], []
        for seed in self.seeds:
            assert seed.baseline is not None
            plain.append(seed.right(seed.baseline))
            shifted.append(seed.right(seed.baseline, log_prior(seed.counts)))
        return {
            "none": round(self._scores(plain).mean, 3),
            "label-shift": round(self._scores(shifted).mean, 3),
        }

    def _scatter(self) -> ScatterRatio:
        """Measure the widening on the held-out rows of all draws together."""
        first = self.seeds[0]
        draws = {str(seed.store.path): seed for seed in self.seeds}
        parts = [
            squares(seed.rows.blocks, seed.val, seed.val_labels, first.store.num_classes)
            for seed in draws.values()
        ]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole + part
        return scatter_ratio(whole, first.counts, parse_groups(self.settings.groups))

    def _document(self, chosen: Candidate, shift: Shift, evidence: dict[str, Any]) -> dict[str, Any]:
        picked = chosen.settings(self.scatter.k, self.class_names)
        settings = {"generate": picked, "finetune": {"tau_shift": shift[0], "average": shift[1]}}
        base = {
            "diffuse": self.settings.diffuse.to_dict(),
            "generate": self.settings.generate.to_dict(),
            "finetune": self.settings.finetune.to_dict(),
        }
        # Shot groups are an option of the run, not of the choice.
        base["generate"].pop("groups")
        stores = {str(seed.store.path): seed.store for seed in self.seeds}
        return {
            "format": FORMAT, "schema_version": SCHEMA_VERSION, "generator": chosen.generator,
            "settings": settings, "base": base, "chosen": chosen.to_dict(), "own": self.base.to_dict(),
            "by": BY, "rule": RULE, "grid": self.select.to_dict(), "groups": self.settings.groups,
            "seeds": [seed.seed for seed in self.seeds], "num_classes": self.seeds[0].store.num_classes,
            "dim": self.seeds[0].store.dim,
            "stores": [{"store": path, "rows": len(store.split("train")), "val_rows": len(store.split("val")),
                        "train_sha256": store.dataset_sha256("/train/features"),
                        "val_sha256": store.dataset_sha256("/val/features")}
                       for path, store in stores.items()],
            "evidence": evidence,
        }  # fmt: skip


def _evidence(scores: Sequence[Scores], verdict: Any, changes: Sequence[int], at: int) -> dict[str, Any]:
    values = scores[at].values()
    return {
        "val": round(float(np.mean(values)), 3), "values": [round(value, 3) for value in values],
        "changes": changes[at], "shortfall": round(verdict.shortfall[at], 3),
        "error": round(verdict.error[at], 3), "within": verdict.within(at),
        "best": at == verdict.best, "chosen": at == verdict.chosen,
    }  # fmt: skip


def select(
    stores: Sequence[tuple[int, Path | str, Path | str | None]],
    settings: Settings | None = None,
    grid: SelectConfig | None = None,
) -> Choice:
    """Choose generator and settings on the held-out rows of stores.

    Parameters
    ----------
    stores
        Per seed: the seed, a store with ``train`` and ``val``, and its trained diffusion model (None where
        the grid has no diffusion).
    settings
        The run's own settings, by default the recipe.
    grid
        What is tried.

    Raises
    ------
    InputError
        A store has no held-out rows.
    """
    own = settings or Settings(DiffusionConfig(), GenerateConfig(), FinetuneConfig())
    seeds = [
        Seed(seed, FeatureStore.open(path), None if model is None else LatentDiffusion.load(model), own)
        for seed, path, model in stores
    ]
    return Selection(seeds, own, grid or SelectConfig()).run()
