"""Images to a feature store: evaluation mode, float32, batch by batch into the file.

A row depends on its own image alone. Convolutions of other batch sizes may sum in another
order: features agree within 1e-4 of their largest value, whatever the batch size.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.config import config_hash
from ldmlr.data.images import ImageSplit
from ldmlr.data.imageset import ImageSet
from ldmlr.device import resolve_device
from ldmlr.encoders.augment.views import View
from ldmlr.encoders.baseline import held_out_record, training_split
from ldmlr.encoders.config import EncodeConfig
from ldmlr.encoders.encoder import Encoder
from ldmlr.encoders.memory import kept_memory
from ldmlr.encoders.pixels import Pixels, image_shape
from ldmlr.encoders.threads import thread_count
from ldmlr.errors import InputError
from ldmlr.groups import ClassGroups
from ldmlr.heads.evaluation import BaselineScores
from ldmlr.heads.modules import to_stored
from ldmlr.metrics.familiar import KEY
from ldmlr.ownership import owned
from ldmlr.progress import bar
from ldmlr.store import FeatureStore, StoreWriter, shard_name
from ldmlr.store.finished import finished
from ldmlr.torch_defaults import torch_defaults

# Numbers of an image from which it is large (64 x 64 in colour), and of the images that are encoded together.
LARGE, PIECE = 3 * 64 * 64, 32 * 3 * 160 * 160
# Rows of a finished store that are scored together.
STORED_BATCH = 8192


def encode_images(
    encoder: Encoder,
    images: ImageSet,
    out: Path,
    config: EncodeConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    groups: ClassGroups | None = None,
) -> dict[str, Any]:
    """Encode every split of an image set into a feature store.

    The rows keep the order and the ids of the images. With the baseline's head the store is
    complete for stages 2 and 3. Images that the baseline held out become ``val``.

    Parameters
    ----------
    encoder
        From `open_encoder`.
    images
        The image set.
    out
        The file to write, whole or not at all.
    config
        Views, batch size and element type.
    seed
        Seeds the views.
    device
        Where to compute.
    threads
        CPU threads; None is one for small batches, and torch's setting for others.
    resume
        Do nothing if the store of these very settings and images is there.
    overwrite
        Replace a file that exists.
    groups
        Shot groups of the accuracy rows; many > 100, few < 20 by default.

    Returns
    -------
    dict
        Figures of the result: rows per split, accuracy ``rows`` of the head on the test images
        (empty without head or test images), seconds.

    Raises
    ------
    InputError
        The encoder returns NaN or infinity.
    """
    figures = encode_part(
        encoder, images, out, config, seed=seed, device=device, threads=threads, resume=resume,
        overwrite=overwrite,
    )  # fmt: skip
    counts = splits_to_encode(encoder, images)[0]["train"].counts
    return {"rows": accuracy_of([figures.pop("counted")], counts, groups), **figures}


@torch_defaults()
def encode_part(
    encoder: Encoder,
    images: ImageSet,
    out: Path,
    config: EncodeConfig,
    *,
    shard: tuple[int, int] | None = None,
    seed: int = 0,
    device: torch.device | str = "auto",
    threads: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Encode some batches of every split into a store of their own.

    Whole batches, those that one process would have: all shards together are the same rows to the bit, with
    as many threads.

    Parameters
    ----------
    encoder, images, out, config, seed, device, threads, resume, overwrite
        As of `encode_images`; with `shard`, `out` is the name that the shards share.
    shard
        (I, N): the I-th of N ranges of batches. None: all of them.

    Returns
    -------
    Figures as of `encode_images`, with ``counted``, what the head got right, in the place of ``rows``; and
    ``finished_before``.
    """
    device = resolve_device(device) if isinstance(device, str) else device
    start = time.perf_counter()
    encoder.to(device)
    splits, held_out = splits_to_encode(encoder, images)
    kinds = config.kinds()
    settings = {
        "stage": "encode", **config.to_dict(), "view_kinds": list(kinds), "seed": seed,
        "encoder": encoder.provenance, "images": dict(images.provenance),
        "images_fingerprint": images.fingerprint(), "held_out": held_out,
        # A head is that of a baseline, which was trained on these images.
        KEY: encoder.head is not None,
    }  # fmt: skip
    settings["key"] = config_hash(settings)
    path = out if shard is None else shard_name(out, *shard)
    parts = {name: part_of(len(split), config.batch_size, shard) for name, split in splits.items()}
    parts = {name: part for name, part in parts.items() if len(part)}
    scores = _Scores(encoder, splits["train"].counts)
    with owned(path):
        before = resume and finished(path, settings["key"], overwrite)
        if before:
            scores.read(path)
        else:
            _encode(
                encoder, images, splits, parts, path, config, settings, scores, device, threads, overwrite
            )
    return {
        "counted": scores.counted(),
        "store": str(path),
        "splits": {name: len(part) for name, part in parts.items()},
        "dim": encoder.dim,
        "views": list(kinds),
        "encoder": encoder.provenance,
        "images": dict(images.provenance),
        "finished_before": before,
        "seconds": round(time.perf_counter() - start, 2),
    }


def _encode(
    encoder: Encoder,
    images: ImageSet,
    splits: Mapping[str, ImageSplit],
    parts: Mapping[str, range],
    path: Path,
    config: EncodeConfig,
    settings: Mapping[str, Any],
    scores: _Scores,
    device: torch.device,
    threads: int | None,
    overwrite: bool,
) -> None:
    """Encode parts of splits into a store."""
    kinds, seed, shape = config.kinds(), settings["seed"], image_shape(images.train)
    flip = encoder.flip if config.view_flip == "auto" else config.view_flip == "yes"
    total = sum(map(len, parts.values())) + len(kinds) * len(parts.get("train", ()))
    with (
        kept_memory(),
        thread_count(min(config.batch_size, len(images.train)) * math.prod(shape), threads),
        StoreWriter(
            path, dim=encoder.dim, num_classes=images.num_classes, dtype=config.dtype, encoder=encoder.name,
            config=settings, class_names=images.class_names,
            head=None if encoder.head is None else to_stored(encoder.head), overwrite=overwrite,
        ) as writer,
        bar(total, "encode", unit="rows") as progress,
    ):  # fmt: skip
        for name, part in parts.items():
            split, wanted = splits[name], kinds if name == "train" else ()
            ids = np.asarray(split.ids) if not isinstance(split.ids, list) else split.ids
            target = writer.split(
                name, len(part), ids="text" if isinstance(split.ids, list) else "int",
                views=len(wanted), view_kinds=wanted,
            )  # fmt: skip
            views = [
                View(kind, len(split), shape, flip=flip, seed=seed, index=index)
                for index, kind in enumerate(wanted)
            ]
            for first, last, features, pixels in _batches(encoder, split, part, config.batch_size, device):
                labels, place = split.labels[first:last], first - part.start
                target.write(place, _checked(features, name, first), labels, ids=ids[first:last])
                progress.update(last - first)
                if name == "test":
                    scores.update(features, labels)
                for index, view in enumerate(views):
                    seen = _features(encoder, view(pixels, first, encoder.normalise))
                    target.write_view(index, place, _checked(seen, f"view {index}", first))
                    progress.update(last - first)


def part_of(rows: int, batch_size: int, shard: tuple[int, int] | None) -> range:
    """Return the rows of a split that a shard has: whole batches, and all rows without one."""
    if shard is None:
        return range(rows)
    index, count = shard
    batches = -(-rows // batch_size)
    first, last = (min(rows, batches * number // count * batch_size) for number in (index, index + 1))
    return range(first, last)


def accuracy_of(
    counted: Iterable[Mapping[str, Any]], counts: npt.NDArray[np.int64], groups: ClassGroups | None
) -> list[dict[str, Any]]:
    """Return the accuracy rows of what was counted in parts; none where nothing was."""
    scores = BaselineScores(counts, groups)
    for part in counted:
        scores.add(part)
    return scores.rows() if scores.plain.total.any() else []


class _Scores:
    """What the stored head gets right of the test rows, counted while they pass."""

    def __init__(self, encoder: Encoder, counts: npt.NDArray[np.int64]) -> None:
        self.head, self.scores = encoder.head, BaselineScores(counts)

    @torch.no_grad()
    def update(self, features: Any, labels: Any) -> None:
        """Count a batch."""
        if self.head is None:
            return
        device = next(self.head.parameters()).device
        logits = self.head(torch.from_numpy(features).to(device)).cpu().numpy()
        self.scores.update(logits, labels)

    def read(self, path: Path) -> None:
        """Count the test rows of a store that is finished."""
        with FeatureStore.open(path) as store:
            for features, labels in () if store.test is None else store.test.batches(STORED_BATCH):
                self.update(features, labels)

    def counted(self) -> dict[str, list[list[int]]]:
        """Return what was counted."""
        return self.scores.counted()


def splits_to_encode(encoder: Encoder, images: ImageSet) -> tuple[dict[str, ImageSplit], dict[str, Any]]:
    """Return the splits to encode, and what is known of images that the baseline held out.

    Those become ``val``. Nothing of an image set that the baseline was not trained on was held out,
    so its training images stay together.

    Raises
    ------
    InputError
        The images are those of the training, but other ones come out as held out.
    """
    train, val = images.train, images.val
    record = encoder.baseline.provenance.get("held_out", {}) if encoder.baseline is not None else {}
    if record and record["of"] != images.train.fingerprint():
        record = {}
    if record and val is not None:
        raise InputError(
            f"{images.name}: has validation images, and the baseline held out some of its training images as "
            "well; leave them out of the source, as at training"
        )
    if record:
        train, val = training_split(images, record["fraction"], record["seed"])
        found = held_out_record(images, val, record["fraction"], record["seed"])
        if found != record:
            raise InputError(
                f"{images.name}: the images are not in the order that the baseline was trained on, so those "
                "it held out cannot be told; name the source as at training, or train again"
            )
    named = {"train": train, "test": images.test, "val": val}
    return {name: split for name, split in named.items() if split is not None and len(split)}, record


def _batches(encoder: Encoder, split: ImageSplit, part: range, size: int, device: torch.device) -> Any:
    """Yield first row, end, features (numpy) and pixels of each batch of some rows."""
    plan = [np.arange(first, min(first + size, part.stop)) for first in range(part.start, part.stop, size)]
    for chosen, pixels in Pixels(split, memory_limit=0).batches(plan):
        pixels = pixels.to(device)
        features = _features(encoder, encoder.normalise(pixels))
        yield int(chosen[0]), int(chosen[-1]) + 1, features, pixels


def _features(encoder: Encoder, images: torch.Tensor) -> Any:
    """Return features (numpy) of images ``[N, C, H, W]``; on a CPU, piece by piece where images are large.

    The activations of a piece stay in the caches, and large images lie channels last, which convolutions of
    few multiply-adds per number (depthwise ones) are several times faster in.
    """
    values = math.prod(images.shape[1:])
    if images.device.type != "cpu" or values < LARGE:
        return encoder.features(images).cpu().numpy()
    size = max(1, PIECE // values)
    pieces = [piece.to(memory_format=torch.channels_last) for piece in torch.split(images, size)]
    return torch.cat([encoder.features(piece) for piece in pieces]).numpy()


def _checked(features: Any, what: str, first: int) -> Any:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        row = first + int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"encode: the encoder returned NaN or infinity for row {row} of {what}; "
            "check the model and its normalisation"
        )
    return features
