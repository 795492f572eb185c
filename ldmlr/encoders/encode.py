"""Images to a feature store: evaluation mode, float32, batch by batch into the file.

A row depends on its own image alone. Convolutions of other batch sizes may sum in another
order: features agree within 1e-4 of their largest value, whatever the batch size.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

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
from ldmlr.progress import bar
from ldmlr.store import StoreWriter
from ldmlr.torch_defaults import torch_defaults

# Numbers of an image from which it is large (64 x 64 in colour), and of the images that are encoded together.
LARGE, PIECE = 3 * 64 * 64, 32 * 3 * 160 * 160


@torch_defaults()
def encode_images(
    encoder: Encoder,
    images: ImageSet,
    out: Path,
    config: EncodeConfig,
    *,
    seed: int = 0,
    device: torch.device | str = "auto",
    threads: int | None = None,
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
    device = resolve_device(device) if isinstance(device, str) else device
    start = time.perf_counter()
    encoder.to(device)
    splits, held_out = splits_to_encode(encoder, images)
    kinds = config.kinds()
    shape = image_shape(images.train)
    total = sum(len(split) for split in splits.values()) + len(kinds) * len(splits["train"])
    settings = {
        "stage": "encode", **config.to_dict(), "view_kinds": list(kinds), "seed": seed,
        "encoder": encoder.provenance, "images": dict(images.provenance),
        "images_fingerprint": images.fingerprint(), "held_out": held_out,
        # A head is that of a baseline, which was trained on these images.
        KEY: encoder.head is not None,
    }  # fmt: skip
    flip = encoder.flip if config.view_flip == "auto" else config.view_flip == "yes"
    scores = _Scores(encoder, splits["train"].counts, groups)
    with (
        kept_memory(),
        thread_count(min(config.batch_size, len(images.train)) * math.prod(shape), threads),
        StoreWriter(
            out, dim=encoder.dim, num_classes=images.num_classes, dtype=config.dtype, encoder=encoder.name,
            config=settings, class_names=images.class_names,
            head=None if encoder.head is None else to_stored(encoder.head), overwrite=overwrite,
        ) as writer,
        bar(total, "encode", unit="rows") as progress,
    ):  # fmt: skip
        for name, split in splits.items():
            wanted = kinds if name == "train" else ()
            ids = np.asarray(split.ids) if not isinstance(split.ids, list) else split.ids
            target = writer.split(
                name, len(split), ids="text" if isinstance(split.ids, list) else "int",
                views=len(wanted), view_kinds=wanted,
            )  # fmt: skip
            views = [
                View(kind, len(split), shape, flip=flip, seed=seed, index=index)
                for index, kind in enumerate(wanted)
            ]
            for first, last, features, pixels in _batches(encoder, split, config.batch_size, device):
                labels = split.labels[first:last]
                target.write(first, _checked(features, name, first), labels, ids=ids[first:last])
                progress.update(last - first)
                if name == "test":
                    scores.update(features, labels)
                for index, view in enumerate(views):
                    seen = _features(encoder, view(pixels, first, encoder.normalise))
                    target.write_view(index, first, _checked(seen, f"view {index}", first))
                    progress.update(last - first)
    return {
        "rows": scores.rows(),
        "store": str(out),
        "splits": {name: len(split) for name, split in splits.items()},
        "dim": encoder.dim,
        "views": list(kinds),
        "encoder": encoder.provenance,
        "images": dict(images.provenance),
        "seconds": round(time.perf_counter() - start, 2),
    }


class _Scores:
    """Accuracy of the stored head on the test rows, counted while they pass."""

    def __init__(self, encoder: Encoder, counts: Any, groups: ClassGroups | None) -> None:
        self.head, self.scores = encoder.head, BaselineScores(counts, groups)

    @torch.no_grad()
    def update(self, features: Any, labels: Any) -> None:
        if self.head is None:
            return
        device = next(self.head.parameters()).device
        logits = self.head(torch.from_numpy(features).to(device)).cpu().numpy()
        self.scores.update(logits, labels)

    def rows(self) -> list[dict[str, Any]]:
        return self.scores.rows() if self.scores.plain.total.any() else []


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


def _batches(encoder: Encoder, split: ImageSplit, size: int, device: torch.device) -> Any:
    """Yield first row, end, features (numpy) and pixels of each batch."""
    rows = np.arange(len(split))
    plan = [rows[first : first + size] for first in range(0, len(rows), size)]
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
