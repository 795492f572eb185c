"""Stage 1 from images to a model file: train, resume, save and measure a baseline."""

from __future__ import annotations

import functools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.config import config_hash
from ldmlr.data.images import ImageSplit
from ldmlr.data.imageset import ImageSet
from ldmlr.data.longtail import hold_out
from ldmlr.device import fastest_algorithms, resolve_device
from ldmlr.encoders.checkpoint import FILENAME as CHECKPOINT
from ldmlr.encoders.checkpoint import load_checkpoint, save_checkpoint
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import FILENAME as MODEL
from ldmlr.encoders.model import Baseline
from ldmlr.encoders.pixels import Pixels, common_shape
from ldmlr.encoders.precision import resolve_precision
from ldmlr.encoders.start import Start
from ldmlr.encoders.teacher import Teacher
from ldmlr.encoders.threads import thread_count
from ldmlr.encoders.trainer import Trainer
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import check_output, check_unfinished, parse_json, write_text
from ldmlr.groups import ClassGroups
from ldmlr.heads.evaluation import BaselineScores
from ldmlr.ownership import owned
from ldmlr.ranks import ALONE, Ranks
from ldmlr.remote import as_path
from ldmlr.torch_defaults import torch_defaults

LOG = "train.jsonl"
DRAW = "draw.json"
EVALUATION_BATCH = 256
# Between two checkpoints on a GPU.
CHECKPOINT_SECONDS = 10.0


@torch_defaults()
def train_baseline(
    images: ImageSet,
    config: BaselineConfig,
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    groups: ClassGroups | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train a baseline and write ``model.safetensors`` and ``train.jsonl`` into a folder.

    A checkpoint is written after every epoch, on a GPU after ten seconds at the earliest. A run that was
    killed goes on from there with `resume`, and on a CPU ends with the same weights to the bit as one that
    was not (same machine and number of threads).

    Parameters
    ----------
    images
        The image set; its validation split, if any, is left alone.
    config
        How to train.
    out
        The folder, made if need be.
    seed
        Seeds the weights and every epoch's draws.
    device
        Where to compute.
    threads
        CPU threads; None is one for small batches, and torch's setting for others.
    resume
        Go on from the checkpoint in the folder, if there is one. A training that has ended there is
        not repeated: its model is measured again.
    overwrite
        Replace what an earlier run left in the folder.
    groups
        Shot groups of the accuracy rows; many > 100, few < 20 by default.
    ranks
        The processes that train together. This is what the first does; the others `follow`.

    Returns
    -------
    dict
        The figures of the result: accuracy ``rows`` (last epoch, test images), history, sizes
        and times. ``rows`` is empty without test images.

    Raises
    ------
    UsageError
        The folder holds a model or a checkpoint, and neither `resume` nor `overwrite` is set; or the
        model to start from is another network, or it or the teacher may have seen the images to be held out.
    InputError
        The model to start from or the teacher is missing, damaged or for other images.
    LdmlrError
        The loss is no longer finite.
    """
    device = resolve_device(device) if isinstance(device, str) else device
    out = as_path(out)
    check_output(out / MODEL, overwrite=True)
    with owned(out / MODEL):
        return _baseline(images, config, out, seed, device, threads, resume, overwrite, groups, ranks)


def _baseline(
    images: ImageSet,
    config: BaselineConfig,
    out: Path,
    seed: int,
    device: torch.device,
    threads: int | None,
    resume: bool,
    overwrite: bool,
    groups: ClassGroups | None,
    ranks: Ranks,
) -> dict[str, Any]:
    """Train, save and measure a baseline in a folder that is owned."""
    config = config.replace(precision=resolve_precision(config.precision, device))
    shape = common_shape(images)
    train, held_out = training_split(images, config.val_fraction, seed)
    record = held_out_record(images, held_out, config.val_fraction, seed)
    init, teacher = earlier_models(images, config, record)
    origin = {
        "images": dict(images.provenance), "fingerprint": images.fingerprint(), "seed": seed,
        "counts": train.counts.tolist(),
    }  # fmt: skip
    if record is not None:
        origin["held_out"] = record
    if init is not None:
        origin["init"] = init.record(config.head, images.class_names)
    if teacher is not None:
        origin["teacher"] = teacher.record()
    ended = _ended(out, config, origin) if resume else None
    if ended is None:
        _check_folder(out, resume, overwrite)
    if overwrite and not resume:
        (out / CHECKPOINT).unlink(missing_ok=True)
    if images.draw is not None:
        images.draw.save(out / DRAW, overwrite=True)
    batch = min(config.batch_size, len(train)) * math.prod(shape)
    ranks.tell(ended is None)
    with thread_count(batch, threads):
        start, used = time.perf_counter(), torch.get_num_threads()
        if ended is not None:
            baseline, history = ended
        else:
            trainer = _trained(images, train, config, out, seed, device, resume, init, teacher, ranks)
            history = trainer.history
            baseline = Baseline(
                trainer.network, trainer.head, config.network, trainer.shape, trainer.mean, trainer.std,
                images.class_names, config.to_dict(), origin,
            )  # fmt: skip
        rows = []
        if images.test is not None:
            rows = measured_rows(baseline, images.test, train.counts, device, groups)
        if ended is None:
            baseline.save(out / MODEL, overwrite=True)
    (out / CHECKPOINT).unlink(missing_ok=True)
    return {
        "rows": rows,
        "model": str(out / MODEL),
        "seed": seed,
        "epochs": config.epochs,
        "head_epochs": config.head_epochs,
        "train_images": len(train),
        "val_images": 0 if held_out is None else len(held_out),
        "last_epoch": history[-1],
        "training_seconds": round(sum(entry["seconds"] for entry in history), 1),
        "seconds": round(time.perf_counter() - start, 1),
        "precision": config.precision,
        "threads": used,
        "images": dict(images.provenance),
        "fingerprint": images.fingerprint(),
        **{used: origin[used] for used in ("init", "teacher") if used in origin},
    }


def _trained(
    images: ImageSet,
    train: ImageSplit,
    config: BaselineConfig,
    out: Path,
    seed: int,
    device: torch.device,
    resume: bool,
    init: Start | None,
    teacher: Teacher | None,
    ranks: Ranks,
) -> Trainer:
    """Train, or go on training; the first rank writes a checkpoint and the log after every epoch."""
    checkpoint = out / CHECKPOINT
    run = {
        **config.to_dict(),
        "seed": seed,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "images": images.fingerprint(),
        **({} if ranks.alone else {"ranks": ranks.size}),
    }
    run.update({used.option: used.sha256 for used in (init, teacher) if used is not None})
    ranks.check_same(config_hash({**run, "threads": None}), "images or settings")
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if device.type == "cuda" else []):
        start = (
            None
            if init is None
            else functools.partial(init.fill, class_names=images.class_names, config=config)
        )
        trainer = Trainer(config, train, seed, device, start, teacher, ranks)
        state = load_checkpoint(checkpoint, run) if ranks.first and resume and checkpoint.exists() else None
        state = ranks.tell(state)
        if state is not None:
            trainer.restore(state)

        saved = time.monotonic()

        def after_epoch() -> None:
            nonlocal saved
            if not ranks.first:
                return
            # An epoch on a GPU may take less time than its checkpoint.
            if device.type != "cuda" or trainer.done or time.monotonic() - saved >= CHECKPOINT_SECONDS:
                save_checkpoint(checkpoint, run, trainer.state())
                saved = time.monotonic()
            write_text(out / LOG, "".join(json.dumps(entry) + "\n" for entry in trainer.history))

        with fastest_algorithms(device):
            trainer.run(after_epoch)
    trainer.finish()
    return trainer


@torch_defaults()
def follow(
    images: ImageSet,
    config: BaselineConfig,
    ranks: Ranks,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    threads: int | None = None,
) -> None:
    """Do the part of a rank other than the first in what `train_baseline` trains; it has no output.

    Parameters
    ----------
    images, config, ranks, seed, device, threads
        As of `train_baseline`.
    """
    device = resolve_device(device) if isinstance(device, str) else device
    config = config.replace(precision=resolve_precision(config.precision, device))
    train, held_out = training_split(images, config.val_fraction, seed)
    record = held_out_record(images, held_out, config.val_fraction, seed)
    init, teacher = earlier_models(images, config, record)
    if ranks.tell(None):
        batch = min(config.batch_size, len(train)) * math.prod(common_shape(images))
        with thread_count(batch, threads):
            _trained(images, train, config, Path(), seed, device, False, init, teacher, ranks)


def training_split(images: ImageSet, fraction: float, seed: int) -> tuple[ImageSplit, ImageSplit | None]:
    """Return the images to train on, and those held out (None for fraction 0).

    Raises
    ------
    UsageError
        The set has validation images of its own.
    """
    if not fraction:
        return images.train, None
    if images.val is not None:
        raise UsageError(
            f"{opt('val_fraction')}: {images.name} has validation images already; leave the option out"
        )
    kept, held = hold_out(images.train.labels, fraction, seed)
    return images.train.subset(kept), images.train.subset(held)


def earlier_models(
    images: ImageSet, config: BaselineConfig, held_out: dict[str, Any] | None
) -> tuple[Start | None, Teacher | None]:
    """Return the models that ``--init`` and ``--teacher`` name, None where one is not given.

    Parameters
    ----------
    images, config
        Of the training.
    held_out
        The `held_out_record` of its images.

    Raises
    ------
    UsageError, InputError
        One cannot be used for these images, or may have seen those that are held out.
    """
    init, teacher = Start.open(config), Teacher.open(config, images)
    for model in (init, teacher):
        if model is not None:
            model.check_held_out(held_out)
    return init, teacher


def held_out_record(
    images: ImageSet, held: ImageSplit | None, fraction: float, seed: int
) -> dict[str, Any] | None:
    """Return what a model has to remember of its held-out images, so that encoding finds the same ones.

    None stands for no held-out images, as in `training_split`.
    """
    if held is None:
        return None
    return {
        "fraction": fraction,
        "seed": seed,
        "counts": held.counts.tolist(),
        "ids_sha256": config_hash([str(name) for name in held.ids]),
        "of": images.train.fingerprint(),
    }


def measured_rows(
    baseline: Baseline,
    split: ImageSplit,
    counts: npt.NDArray[np.int64],
    device: torch.device,
    groups: ClassGroups | None = None,
) -> list[dict[str, Any]]:
    """Return the accuracy rows ``baseline`` without adjustment and with label shift."""
    scores = BaselineScores(counts, groups)
    rows = np.arange(len(split))
    pixels = Pixels(split)
    plan = [rows[i : i + EVALUATION_BATCH] for i in range(0, len(rows), EVALUATION_BATCH)]
    with torch.no_grad():
        for chosen, batch in pixels.batches(plan):
            logits = baseline.head(baseline.features(batch, device)).cpu().numpy()
            scores.update(logits, split.labels[chosen])
    return scores.rows()


def _ended(
    out: Path, config: BaselineConfig, origin: dict[str, Any]
) -> tuple[Baseline, list[dict[str, Any]]] | None:
    """Return the model and the log of this very training if it ended in this folder, or None.

    A kill may come after the model was saved and before its figures are: the training is not repeated.
    """
    try:
        baseline = Baseline.load(out / MODEL, (config.network,))
        history = [parse_json(line) for line in (out / LOG).read_text(encoding="utf-8").splitlines()]
    except (InputError, OSError, ValueError):
        return None
    whole = len(history) == config.epochs + config.head_epochs
    same = [baseline.config, baseline.provenance] == json.loads(json.dumps([config.to_dict(), origin]))
    return (baseline, history) if whole and same else None


def _check_folder(out: Path, resume: bool, overwrite: bool) -> None:
    if (out / MODEL).exists() and not overwrite:
        raise UsageError(
            f"{out / MODEL}: already exists; name another folder or pass {opt('overwrite', True)}"
        )
    if not resume:
        check_unfinished(out / CHECKPOINT, overwrite)
