"""Store in, balanced store out: fit, generate and write encoded and generated rows together."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ldmlr.config import config_hash
from ldmlr.device import Machine
from ldmlr.diffusion.config import DiffusionConfig
from ldmlr.errors import UsageError, opt
from ldmlr.files import check_output, check_unfinished
from ldmlr.generation.ahead import Material, check_ahead
from ldmlr.generation.config import GenerateConfig
from ldmlr.generation.diffuse import checkpoint_path, diffuse
from ldmlr.generation.generate import check_space
from ldmlr.generation.generators.catalogue import entry_of
from ldmlr.generation.parts import Parts, check_parts, parts_folder, remove_parts
from ldmlr.generation.prepare import Generation, prepare, prepare_from_rows
from ldmlr.metrics.familiar import KEY, Familiar, familiar
from ldmlr.ownership import owned
from ldmlr.store import FeatureStore, SplitWriter, StoreWriter
from ldmlr.store.finished import finished
from ldmlr.store.layout import block_rows
from ldmlr.store.split_writer import IdKind
from ldmlr.store.writer import write_split

MODEL_SUFFIX = ".model.safetensors"
# What is said of a model beside its time.
LEARNED = ("steps", "loss", "axes", "held_out", "learned")


@dataclasses.dataclass(frozen=True)
class Job:
    """One store to augment.

    Attributes
    ----------
    store
        The store to read.
    out
        The balanced store to write; a diffusion model lies beside it.
    generator
        What draws the rows.
    place
        Where the store lies, if `store` is the name of what it was converted from.
    """

    store: Path
    out: Path
    generator: str = "diffusion"
    place: Path | None = None

    def open(self) -> FeatureStore:
        """Open the store to read."""
        return FeatureStore.open(self.store, place=self.place)

    @property
    def model(self) -> Path | None:
        """Where the model goes; None for a generator that is not trained."""
        trains = entry_of(self.generator).trains
        return self.out.with_name(self.out.stem + MODEL_SUFFIX) if trains else None

    def check_fresh(self, overwrite: bool) -> None:
        """Refuse outputs that are there, or the state of an interrupted run, unless they may be replaced."""
        if self.model is not None:
            check_unfinished(checkpoint_path(self.model), overwrite)
            check_output(self.model, overwrite)
        check_parts(self.out, overwrite)
        check_output(self.out, overwrite)


def jobs(
    stores: list[Path],
    out_dir: Path,
    generator: str = "diffusion",
    places: Mapping[Path, Path | None] | None = None,
) -> list[Job]:
    """Return one job per store, named after it; names must differ, and no output may be an input.

    Parameters
    ----------
    stores, out_dir, generator
        What is augmented, into which folder, and how.
    places
        Where the stores lie that were converted from something else.
    """
    found: dict[str, Job] = {}
    for store in stores:
        job = Job(store, out_dir / f"{store.stem}.h5", generator, (places or {}).get(store))
        if job.out.name in found:
            raise UsageError(
                f"{store}: has the same name as {found[job.out.name].store}, and so the same output "
                f"{job.out}; rename one, or use two folders"
            )
        if job.out.resolve() == store.resolve():
            raise UsageError(f"{store}: would be its own output; give another {opt('out_dir')}")
        found[job.out.name] = job
    return list(found.values())


def augment(
    job: Job,
    diffusion: DiffusionConfig,
    config: GenerateConfig,
    *,
    seed: int = 0,
    trained_on_rows: bool | None = None,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Fit a generator to a store and write the store with generated rows added.

    Encoded rows come first (source 0), then the generated ones (source 1). Other splits, head,
    class names and provenance are carried over; augmented views are not, since generated rows have none.

    Parameters
    ----------
    job
        Input, output and generator.
    diffusion, config
        How a model is trained (a generator that is none reads how many views it uses), and which rows are
        drawn how.
    seed
        Seed of training and noise.
    trained_on_rows
        Whether the encoder has seen the training rows, if that is known.
    backend, device, threads
        How and where to compute.
    resume
        Continue an interrupted run of the same settings; do nothing if it is finished.
    overwrite
        Replace outputs that exist.

    Returns
    -------
    Figures: ``store``, ``output``, ``generator``, ``model``, ``steps``, ``loss``, ``axes``, ``held_out`` and
    ``learned`` (None without a model, see `ldmlr.generation.diffuse.diffuse`), ``features`` (whether the
    encoder has seen the rows, and how that is known), ``rows``, ``generated``, ``per_class``,
    ``backend``, ``gate``, ``notes``, ``train_seconds``, ``generate_seconds``, ``finished_before``.

    Raises
    ------
    InputError, UsageError
        A store that cannot be trained on, or settings that do not fit it: both before anything is trained.
    """
    with job.open() as store, owned(job.out):
        material = Material.of(store)
        check_ahead(material, job.generator, config, diffusion, backend=backend, device=device)
        if not resume:
            job.check_fresh(overwrite)
        figures: dict[str, Any] = {
            "store": job.store, "output": job.out, "generator": job.generator, "model": job.model,
        }  # fmt: skip
        began = time.perf_counter()
        if job.model is None:
            generation = prepare_from_rows(job.generator, store, config, views=diffusion, seed=seed)
            figures |= {**dict.fromkeys(LEARNED), "train_seconds": time.perf_counter() - began}
        else:
            model, trained = diffuse(
                store, job.model, diffusion, seed=seed, trained_on_rows=trained_on_rows,
                device=device, threads=threads, resume=resume, overwrite=overwrite,
            )  # fmt: skip
            generation = prepare(
                model, config, seed=seed, judge=store, trained_on_rows=trained_on_rows,
                machine=Machine(device, threads, backend),
            )  # fmt: skip
            figures |= {name: trained[name] for name in LEARNED}
            figures["train_seconds"] = trained["seconds"]
        kept = familiar(store, trained_on_rows)
        figures |= {
            "features": kept.document(), "rows": int(generation.counts.sum()), "generated": generation.rows,
            "per_class": generation.plan,
        }  # fmt: skip
        return {**figures, **_added(store, generation, job.out, kept, resume, overwrite)}


def _added(
    store: FeatureStore, generation: Generation, out: Path, seen: Familiar, resume: bool, overwrite: bool
) -> dict[str, Any]:
    """Draw the rows, if that was not done before, write the store with them, and return the figures."""
    key = config_hash(generation.key, store.fingerprint())
    if resume and finished(out, key, overwrite):
        remove_parts(out)
        with FeatureStore.open(out) as before:
            backend = before.config["backend"]
        return {
            "gate": None, "notes": (), "backend": backend, "generate_seconds": 0.0, "finished_before": True,
        }  # fmt: skip
    check_output(out, overwrite)
    check_space(out, generation.rows + len(store.split("train")), generation)
    began = time.perf_counter()
    drawn_under = f"{key} {generation.kernels}"
    with parts_folder(out, drawn_under, resume, overwrite) as folder:
        parts = Parts(folder, generation, 0, generation.rows, drawn_under)
        parts.draw()
        _write(store, out, parts, key, seen, overwrite)
    return {
        "gate": parts.gate_figures(), "notes": generation.generator.notes,
        "backend": generation.generator.backend, "generate_seconds": time.perf_counter() - began,
        "finished_before": False,
    }  # fmt: skip


def _write(store: FeatureStore, out: Path, parts: Parts, key: str, seen: Familiar, overwrite: bool) -> None:
    split, generation = store.split("train"), parts.generation
    encoded = np.arange(len(split)) if split.source is None else np.flatnonzero(split.source == 0)
    ids = split.ids
    kind: IdKind = False if ids is None else "text" if ids.dtype.kind not in "iu" else "int"
    source = {"store": str(store.path), "fingerprint": store.fingerprint(), "config": store.config}
    with StoreWriter(
        out, dim=store.dim, num_classes=store.num_classes, dtype=generation.config.dtype,
        encoder=store.encoder, class_names=store.class_names, head=store.head, overwrite=overwrite,
        config={
            "command": "augment", "key": key, **generation.facts(), "source": source,
            KEY: seen.trained_on_rows,
        },
    ) as writer:  # fmt: skip
        rows = len(encoded) + generation.rows
        train = writer.split("train", rows, source=True, ids=kind)
        step = block_rows(4 * store.dim)
        for start in range(0, len(encoded), step):
            some = encoded[start : start + step]
            names = None if ids is None else ids[some]
            train.write(start, split.float32(some), split.labels[some], source=0, ids=names)
        _write_generated(train, parts, len(encoded), ids)
        for name in ("test", "val"):
            other = store.splits.get(name)
            if other is not None:
                write_split(writer, name, other)


def _write_generated(train: SplitWriter, parts: Parts, after: int, ids: npt.NDArray[Any] | None) -> None:
    """Write the generated rows; where encoded rows have ids, theirs go on counting, or say what they are."""
    for first, features, labels in parts:
        numbers = np.arange(first, first + len(labels))
        names: Any = None
        if ids is not None and ids.dtype.kind in "iu":
            names = numbers + (int(ids.max(initial=-1)) + 1)
        elif ids is not None:
            names = [f"generated/{number}" for number in numbers]
        train.write(after + first, features, labels, source=1, ids=names)
