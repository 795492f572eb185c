"""What a training would do, and whether it has been done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from ldmlr.data.imageset import ImageSet
from ldmlr.encoders.augment.shrink import side_share
from ldmlr.encoders.baseline import earlier_models, held_out_record, training_split
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.model import FILENAME, file_hash, model_path
from ldmlr.encoders.networks import build_network, parameter_count
from ldmlr.encoders.pixels import common_shape, even_batches
from ldmlr.encoders.precision import resolve_precision
from ldmlr.encoders.threads import thread_count
from ldmlr.encoders.trainer import Trainer
from ldmlr.errors import InputError, UsageError, opt
from ldmlr.files import parse_json
from ldmlr.heads.modules import make_head
from ldmlr.remote import as_path
from ldmlr.results import RESULT


def describe(
    images: ImageSet, config: BaselineConfig, device: torch.device, *, seed: int = 0
) -> dict[str, Any]:
    """Return the network, the sizes and the amount of work of a training, as plain data.

    Parameters
    ----------
    images, config, device, seed
        As for `ldmlr.encoders.baseline.train_baseline`.

    Raises
    ------
    UsageError, InputError
        The images, the model to start from or the teacher are refused, as by the training.
    """
    shape = common_shape(images)
    train, held_out = training_split(images, config.val_fraction, seed)
    record = held_out_record(images, held_out, config.val_fraction, seed)
    init, teacher = earlier_models(images, config, record)
    with torch.random.fork_rng(devices=[]):
        network, dim = build_network(config.network, shape)
        head = make_head(config.head, dim, images.num_classes)
        if init is not None:
            init.fill(network, head, images.class_names, config)
    steps = len(even_batches(train.labels, config.batch_size))
    return {
        "network": config.network,
        "head": config.head,
        **({} if init is None else {"starts_from": str(init.path), "earlier_epochs": init.epochs}),
        **({} if teacher is None else {"teacher": str(teacher.path)}),
        "parameters": parameter_count(network) + parameter_count(head),
        "feature_dim": dim,
        "image_shape": list(shape),
        "classes": images.num_classes,
        "train_images": len(train),
        "val_images": sum(len(part) for part in (images.val, held_out) if part is not None),
        "test_images": 0 if images.test is None else len(images.test),
        "largest_class": int(train.counts.max()),
        "smallest_class": int(train.counts.min()),
        "epochs": config.epochs,
        "head_epochs": config.head_epochs,
        "steps": (config.epochs + config.head_epochs) * steps,
        "precision": resolve_precision(config.precision, device),
        "device": str(device),
    }


def estimated_seconds(
    images: ImageSet,
    config: BaselineConfig,
    device: torch.device,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> float:
    """Return about how long a training would take on this machine as busy as it is now, in seconds.

    A few steps are taken with networks that are thrown away. Images are read, as for the training.

    Parameters
    ----------
    images, config, device, seed, threads
        As for `ldmlr.encoders.baseline.train_baseline`.
    """
    config = config.replace(precision=resolve_precision(config.precision, device))
    train, held_out = training_split(images, config.val_fraction, seed)
    record = held_out_record(images, held_out, config.val_fraction, seed)
    _, teacher = earlier_models(images, config, record)
    batch = min(config.batch_size, len(train)) * math.prod(common_shape(images))
    with thread_count(batch, threads), torch.random.fork_rng(devices=[]):
        trainer = Trainer(config, train, seed, device, teacher=teacher)
        step = trainer.seconds_per_step()
    # Steps cost as the square of the side of the images, which grows; those of the head alone about a third.
    work = sum(side_share(config.first_size, epoch, config.epochs) ** 2 for epoch in range(config.epochs))
    return step * trainer.steps_per_epoch * (work + config.head_epochs / 3)


def finished(out: Path, settings: dict[str, Any], images: ImageSet) -> dict[str, Any] | None:
    """Return the result document of a finished training with these settings on these images, or None.

    Raises
    ------
    UsageError
        The folder holds a finished training with other settings, images, first weights or teacher.
    InputError
        Its result document is damaged.
    """
    path = out / RESULT
    if not (out / FILENAME).exists() or not path.exists():
        return None
    try:
        document: dict[str, Any] = parse_json(path.read_text(encoding="utf-8"))
        config = dict(document["config"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: damaged; train again with {opt('overwrite', True)}") from None
    for key, value in settings.items():
        if config.get(key) != value:
            raise UsageError(
                f"{out}: holds a finished baseline with {key} {config.get(key)!r}, not {value!r}; "
                f"name another folder or pass {opt('overwrite', True)}"
            )
    marks = [("image set", document.get("fingerprint"), images.fingerprint())]
    for used in ("init", "teacher"):
        model = settings.get(used)
        # A model that is no longer there has done its work.
        if model is not None and as_path(model).exists():
            known = document.get(used, {}).get("sha256")
            marks.append((f"--{used} {model}", known, file_hash(model_path(as_path(model)))))
    for name, known, now in marks:
        if known is not None and known != now:
            raise UsageError(
                f"{out}: holds a finished baseline, and the {name} has changed since; "
                f"name another folder or pass {opt('overwrite', True)}"
            )
    return document
