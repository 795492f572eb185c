"""Store in, balanced store out: train, generate and write encoded and generated rows together."""

from __future__ import annotations

import dataclasses
import time
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
from ldmlr.generation.generate import Generation, check_space, finished, prepare
from ldmlr.generation.parts import Parts, check_parts, parts_folder
from ldmlr.sampler.backends import Sampler
from ldmlr.store import FeatureStore, SplitWriter, StoreWriter
from ldmlr.store.layout import block_rows
from ldmlr.store.split_writer import IdKind
from ldmlr.store.writer import write_split

MODEL_SUFFIX = ".model.safetensors"


@dataclasses.dataclass(frozen=True)
class Job:
    """One store to augment.

    Attributes
    ----------
    store
        The store to read.
    out
        The balanced store to write; its model lies beside it.
    """

    store: Path
    out: Path

    @property
    def model(self) -> Path:
        """Where the model goes."""
        return self.out.with_name(self.out.stem + MODEL_SUFFIX)

    def check_fresh(self, overwrite: bool) -> None:
        """Refuse outputs that are there, or the state of an interrupted run, unless they may be replaced."""
        check_unfinished(checkpoint_path(self.model), overwrite)
        check_parts(self.out, overwrite)
        check_output(self.model, overwrite)
        check_output(self.out, overwrite)


def jobs(stores: list[Path], out_dir: Path) -> list[Job]:
    """Return one job per store, named after it; names must differ, and no output may be an input."""
    found: dict[str, Job] = {}
    for store in stores:
        job = Job(store, out_dir / f"{store.stem}.h5")
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
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train a model on a store and write the store with generated rows added.

    Encoded rows come first (source 0), then the generated ones (source 1). Other splits, head,
    class names and provenance are carried over; augmented views are not, since generated rows have none.

    Parameters
    ----------
    job
        Input and output.
    diffusion, config
        How the model is trained, and which rows are drawn how.
    seed
        Seed of training and noise.
    backend, device, threads
        How and where to compute.
    resume
        Continue an interrupted run of the same settings; do nothing if it is finished.
    overwrite
        Replace outputs that exist.

    Returns
    -------
    Figures: ``store``, ``output``, ``model``, ``rows``, ``generated``, ``per_class``, ``backend``, ``loss``,
    ``gate``, ``train_seconds``, ``generate_seconds``, ``finished_before``.

    Raises
    ------
    InputError, UsageError
        A store that cannot be trained on, or settings that do not fit it: both before anything is trained.
    """
    store = FeatureStore.open(job.store)
    check_ahead(Material.of(store), diffusion, config, backend=backend, device=device)
    if not resume:
        job.check_fresh(overwrite)
    model, trained = diffuse(
        store, job.model, diffusion,
        seed=seed, device=device, threads=threads, resume=resume, overwrite=overwrite,
    )  # fmt: skip
    generation = prepare(model, config, seed=seed, judge=store)
    key = config_hash(generation.key, store.fingerprint())
    figures: dict[str, Any] = {
        "store": job.store, "output": job.out, "model": job.model, "rows": int(generation.counts.sum()),
        "generated": generation.rows, "per_class": generation.plan, "loss": trained["loss"],
        "train_seconds": trained["seconds"],
    }  # fmt: skip
    if resume and finished(job.out, key, overwrite):
        backend = FeatureStore.open(job.out).config["backend"]
        figures["gate"] = None
        return {**figures, "backend": backend, "generate_seconds": 0.0, "finished_before": True}
    check_output(job.out, overwrite)
    check_space(job.out, generation.rows + len(store.split("train")), generation)
    began = time.perf_counter()
    machine = Machine(device=device, threads=threads, backend=backend)
    sampler = model.sampler(generation.config, seed, machine)
    with parts_folder(job.out, f"{key} {sampler.kernels}", resume, overwrite) as folder:
        parts = Parts(folder, sampler, generation.plan, 0, generation.rows, generation.gate)
        parts.draw()
        _write(store, job.out, generation, parts, key, sampler, overwrite)
    seconds = time.perf_counter() - began
    figures["gate"] = parts.gate_figures()
    return {**figures, "backend": sampler.backend, "generate_seconds": seconds, "finished_before": False}


def _write(
    store: FeatureStore,
    out: Path,
    generation: Generation,
    parts: Parts,
    key: str,
    sampler: Sampler,
    overwrite: bool,
) -> None:
    split = store.split("train")
    encoded = np.arange(len(split)) if split.source is None else np.flatnonzero(split.source == 0)
    ids = split.ids
    kind: IdKind = False if ids is None else "text" if ids.dtype.kind not in "iu" else "int"
    with StoreWriter(
        out, dim=store.dim, num_classes=store.num_classes, dtype=generation.config.dtype,
        encoder=store.encoder, class_names=store.class_names, head=store.head, overwrite=overwrite,
        config={
            "command": "augment", "key": key, "backend": sampler.backend, "kernels": sampler.kernels,
            "generate": generation.settings(), "diffuse": generation.model.config.to_dict(),
            "source": {"store": str(store.path), "fingerprint": store.fingerprint(), "config": store.config},
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
