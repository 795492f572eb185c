"""The work of each stage of a run: from the outputs of the steps before it to its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ldmlr.config import plain
from ldmlr.data.imageset import ImageSet
from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.encoders.baseline import train_baseline
from ldmlr.encoders.config import BaselineConfig, EncodeConfig
from ldmlr.encoders.encode import encode_images
from ldmlr.encoders.encoder import open_encoder
from ldmlr.files import write_text
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.diffuse import diffuse
from ldmlr.generation.generate import check_not_empty, generate
from ldmlr.generation.generators.catalogue import DIFFUSION, entry_of
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import labels_of
from ldmlr.generation.prepare import prepare, prepare_from_rows
from ldmlr.groups import parse_groups
from ldmlr.heads.config import FinetuneConfig
from ldmlr.heads.evaluation import Measured, Tally, Variant, measure, plain_variants, tuned_variants
from ldmlr.heads.finetune import finetune
from ldmlr.heads.headfile import FinetunedHead
from ldmlr.results import shares
from ldmlr.select.choose import Settings, select
from ldmlr.select.config import SelectConfig
from ldmlr.store import FeatureStore
from ldmlr.store.convert.ready import Ready
from ldmlr.store.heldout import Measuring

# The name in tables of the head that was fine-tuned on rows of the diffusion model.
RECIPE = "ldmlr"


def method_of(generator: str) -> str:
    """Return what a table calls the head that was fine-tuned on the rows of a generator."""
    return RECIPE if generator == DIFFUSION else generator


def entries(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return what was measured as the record of a step has it."""
    return [{**found.entry, "per_class": shares(found.per_class)} for found in measured]


def run_baseline(
    images: ImageSet, config: BaselineConfig, out: Path, *, seed: int, machine: Machine
) -> dict[str, Any]:
    """Train a baseline, going on from the checkpoint of an interrupted run."""
    figures = train_baseline(
        images, config, out.parent,
        seed=seed, device=machine.device, threads=machine.threads, resume=True, overwrite=True,
    )  # fmt: skip
    return {"rows": figures["rows"], "epochs": figures["epochs"], "last_epoch": figures["last_epoch"]}


def run_encode(
    images: ImageSet, model: Path, config: EncodeConfig, out: Path, *, seed: int, machine: Machine
) -> dict[str, Any]:
    """Encode an image set with a baseline."""
    encoder = open_encoder(str(model), images, config)
    figures = encode_images(
        encoder, images, out, config,
        seed=seed, device=machine.device, threads=machine.threads, overwrite=True,
    )  # fmt: skip
    return {"splits": figures["splits"], "views": figures["views"], "dim": figures["dim"]}


def run_diffuse(
    store: Ready, config: DiffusionConfig, trained_on_rows: bool, out: Path, *, seed: int, machine: Machine
) -> dict[str, Any]:
    """Train the diffusion model, going on from the checkpoint of an interrupted run."""
    with store.open() as opened:
        _, figures = diffuse(
            opened, out, config, seed=seed, trained_on_rows=trained_on_rows,
            device=machine.device, threads=machine.threads, resume=True, overwrite=True,
        )  # fmt: skip
    return {name: figures[name] for name in ("steps", "loss", "axes", "held_out", "learned")}


def run_generate(
    store: Ready,
    model: Path | None,
    name: str,
    diffuse: DiffusionConfig,
    config: GenerateConfig,
    trained_on_rows: bool,
    out: Path,
    *,
    seed: int,
    machine: Machine,
) -> dict[str, Any]:
    """Draw pseudo-features, keeping what an interrupted run has drawn.

    Without a model, the generator is fitted to the rows that diffusion would learn from.
    """
    with store.open() as opened:
        if model is None:
            generation = prepare_from_rows(name, opened, config, views=diffuse, seed=seed)
        else:
            generation = prepare(
                LatentDiffusion.load(model), config, seed=seed, judge=opened, trained_on_rows=trained_on_rows,
                machine=machine,
            )  # fmt: skip
        check_not_empty(generation.plan, generation.config)
        figures = generate(generation, out, resume=True, overwrite=True)
    return {name: figures[name] for name in ("rows", "per_class", "gate", "backend", "rows_per_s", "notes")}


def run_select(
    stores: Sequence[tuple[int, Path, Path | None]],
    settings: Settings,
    grid: SelectConfig,
    out: Path,
) -> dict[str, Any]:
    """Choose generator and settings on the held-out rows."""
    choice = select(stores, settings, grid)
    write_text(out, json.dumps(plain(choice.document), indent=2, allow_nan=False) + "\n")
    return {"generator": choice.generator, "settings": choice.settings}


def run_finetune(
    store: Ready,
    pseudo: Path,
    generator: str,
    config: FinetuneConfig,
    groups: str,
    out: Path,
    *,
    seed: int,
    machine: Machine,
) -> dict[str, Any]:
    """Fine-tune the head and measure it and the baseline on the test split, once, at the end.

    Without a test split the head is trained and nothing measured: `run_measure` does that on other rows.

    Generated rows that the store holds already are left out: the run measures those it has drawn. Its rows of
    the table are called by the generator, as those of a comparison are; ``ldmlr`` are those of diffusion.
    """
    with store.open() as encoded, FeatureStore.open(pseudo) as generated:
        tuned = finetune(
            encoded, generated, config=config, seed=seed, device=machine.device, own_generated=False
        )
        # Without generated rows its own name is the right one.
        method = method_of(generator) if tuned.generated else None
        measured = []
        if encoded.test is not None and len(encoded.test):
            measured = measure(
                _variants(tuned, method), encoded.test, tuned.counts, parse_groups(groups), machine.device
            )
    tuned.save(out, overwrite=True)
    return {
        "baseline_head": tuned.origin,
        "measured": entries(measured),
    }


def run_measure(
    store: Ready,
    measuring: Measuring,
    generator: str,
    diffusion: DiffusionConfig,
    drawing: GenerateConfig,
    tuning: FinetuneConfig,
    groups: str,
    trained_on_rows: bool,
    out: Path,
    *,
    seed: int,
    machine: Machine,
) -> dict[str, Any]:
    """Measure stages 2 and 3 on held-out rows, with all of it done on the others: once for every fold.

    The models of an interrupted repetition are used when it goes on, and removed when it is done.
    """
    models = []
    method = method_of(generator)
    with store.open() as whole:
        counts = whole.split("train").encoded_counts
        tally = Tally(whole.num_classes)
        order = []
        for number, part in enumerate(measuring.parts(whole, seed)):
            if entry_of(generator).trains:
                models.append(out.with_name(f"fold-{number}.safetensors"))
                model, _ = diffuse(
                    part, models[-1], diffusion, seed=seed, trained_on_rows=trained_on_rows,
                    device=machine.device, threads=machine.threads, resume=True, overwrite=True,
                )  # fmt: skip
                generation = prepare(
                    model, drawing, seed=seed, judge=part, trained_on_rows=trained_on_rows,
                    machine=machine,
                )  # fmt: skip
            else:
                generation = prepare_from_rows(generator, part, drawing, views=diffusion, seed=seed)
            labels = labels_of(generation.plan, 0, generation.rows)
            # A fold may be balanced though the whole is not.
            pseudo = (generation.draw(labels).rows, labels) if len(labels) else None
            tuned = finetune(
                part, pseudo, config=tuning, seed=seed, device=machine.device, own_generated=False
            )
            tally.add(
                _variants(tuned, method),
                part.split("test"),
                machine.device,
            )
            order.append(measuring.held(part))
        # As the rows lie in the store, so that seeds can be compared row by row.
        measured = tally.measured(counts, parse_groups(groups), np.argsort(np.concatenate(order)))
    figures = {
        "baseline_head": tuned.origin,
        "measured": entries(measured),
    }
    write_text(out, json.dumps(plain(figures), indent=2, allow_nan=False) + "\n")
    for path in models:
        path.unlink(missing_ok=True)
    return figures


def _variants(tuned: FinetunedHead, method: str | None) -> list[Variant]:
    """Return the rows of the table: the baseline and the head, each without and with label shift."""
    return [*plain_variants("baseline", tuned.baseline, tuned.counts), *tuned_variants(tuned, method)]
