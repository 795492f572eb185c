"""``ldmlr encode`` in shards of whole batches: by Ray's workers, or by the ranks that torchrun started.

A worker opens network and images once and encodes many shards. All shards together are the file of one
process to the bit, if the network computes on as many threads.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ldmlr import progress
from ldmlr.data.imageset import ImageSet
from ldmlr.data.open import open_image_set
from ldmlr.encoders.config import EncodeConfig
from ldmlr.encoders.encode import accuracy_of, encode_images, encode_part, splits_to_encode
from ldmlr.encoders.encoder import Encoder, open_encoder
from ldmlr.engines.config import EngineConfig
from ldmlr.engines.driving import check_engine, drive_ranks, drive_ray
from ldmlr.engines.ray import Outcome, pool_outcomes
from ldmlr.errors import UsageError, opt
from ldmlr.groups import ClassGroups
from ldmlr.ranks import Ranks
from ldmlr.store import shard_name, write_manifest
from ldmlr.store.shards import MAX_SHARDS

# Rows of a shard where nobody says how many shards there are: on a CPU some minutes of work.
SHARD_ROWS = 2**14


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What is to be encoded before its files are read: plain data that every machine can be sent.

    Attributes
    ----------
    model
        As for `ldmlr.encoders.encoder.open_encoder`.
    source
        The image set.
    images
        Options of `ldmlr.data.open.open_image_set`.
    config, seed, device, threads
        As for `ldmlr.encoders.encode.encode_images`.
    """

    model: str
    source: str
    images: Mapping[str, Any]
    config: EncodeConfig
    seed: int
    device: str
    threads: int | None

    def opened(self) -> tuple[Encoder, ImageSet]:
        """Return the encoder and the images."""
        images = open_image_set(self.source, seed=self.seed, **self.images)
        return open_encoder(self.model, images, self.config, seed=self.seed), images


def encode_store(
    work: Encoding,
    encoder: Encoder,
    images: ImageSet,
    out: Path,
    engine: EngineConfig,
    group: Ranks,
    *,
    groups: ClassGroups | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any] | None:
    """Encode an image set: here, on a Ray cluster, or shared with the ranks that torchrun started.

    Parameters
    ----------
    work, encoder, images
        What is encoded, for workers, and opened.
    out
        The store; with shards, the name that they share with their manifest.
    engine, group
        Who encodes.
    groups, resume, overwrite
        As for `ldmlr.encoders.encode.encode_images`.

    Returns
    -------
    Figures as of `ldmlr.encoders.encode.encode_images`; ``shards`` too where there are any; None where
    another rank has those of all.

    Raises
    ------
    UsageError
        Engines that exclude each other, or more shards than batches.
    """
    if not check_engine(engine, group):
        return encode_images(
            encoder, images, out, work.config, seed=work.seed, device=work.device, threads=work.threads,
            groups=groups, resume=resume, overwrite=overwrite,
        )  # fmt: skip
    began = time.perf_counter()
    splits = splits_to_encode(encoder, images)[0]
    count = shard_count(len(splits["train"]), work.config.batch_size, engine.shards, group.size)

    def finish(done: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return _whole(done, splits, groups, out, count, began)

    if group.alone:
        own = dataclasses.replace(work, threads=work.threads or 1)
        tasks = [(index,) for index in range(count)]

        def start(ray: Any) -> Iterable[Outcome]:
            arguments = (own, out.absolute(), count, resume, overwrite)
            return pool_outcomes(
                ray, shard_encoder, arguments, tasks, threads=own.threads or 1, on_gpu=work.device != "cpu"
            )

        return drive_ray(
            out, count, start, finish, address=engine.address, label="encode",
            rows=sum(map(len, splits.values())), resume=resume, overwrite=overwrite,
        )  # fmt: skip
    write = _encoder_of(work, encoder, images, out, count, resume, overwrite)
    return drive_ranks(out, count, write, finish, group, resume=resume, overwrite=overwrite)


def shard_count(rows: int, batch_size: int, wanted: int | None, ranks: int) -> int:
    """Return how many shards an image set is encoded in: at most one per batch of training images.

    Raises
    ------
    UsageError
        More are wanted.
    """
    most = min(-(-rows // batch_size), MAX_SHARDS)
    if wanted is None:
        return min(-(-max(-(-rows // SHARD_ROWS), ranks) // ranks) * ranks, most)
    if not 1 <= wanted <= most:
        raise UsageError(
            f"{opt('shards')}: must be from 1 to {most:,}, the batches of training images, not {wanted}; or "
            f"lower {opt('batch_size')}"
        )
    return wanted


def shard_encoder(
    work: Encoding, out: Path, count: int, resume: bool, overwrite: bool
) -> Callable[[int], dict[str, Any]]:
    """Open network and images, in a worker, and return what encodes a shard by its number."""
    progress.silence()
    return _encoder_of(work, *work.opened(), out, count, resume, overwrite)


def _encoder_of(
    work: Encoding, encoder: Encoder, images: ImageSet, out: Path, count: int, resume: bool, overwrite: bool
) -> Callable[[int], dict[str, Any]]:
    def encode(index: int) -> dict[str, Any]:
        figures = encode_part(
            encoder, images, out, work.config, shard=(index, count), seed=work.seed, device=work.device,
            threads=work.threads, resume=resume, overwrite=overwrite,
        )  # fmt: skip
        return {**figures, "rows": sum(figures["splits"].values())}

    return encode


def _whole(
    done: Sequence[Mapping[str, Any]],
    splits: Mapping[str, Any],
    groups: ClassGroups | None,
    out: Path,
    count: int,
    began: float,
) -> dict[str, Any]:
    """Write the manifest, and return the figures of all shards as those of one encoding."""
    manifest = write_manifest(out, [shard_name(out, index, count) for index in range(count)], overwrite=True)
    one = done[0]
    return {
        "rows": accuracy_of((figures["counted"] for figures in done), splits["train"].counts, groups),
        "store": str(manifest), "splits": {name: len(split) for name, split in splits.items()},
        **{name: one[name] for name in ("dim", "views", "encoder", "images")}, "shards": count,
        "finished_before": all(figures["finished_before"] for figures in done),
        "seconds": round(time.perf_counter() - began, 2),
    }  # fmt: skip
