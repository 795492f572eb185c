"""Quality of the generated rows of a store, from seeded samples, beside test rows as a yardstick.

A distance between samples means little alone: it falls with the number of rows and rises where a class has
few. So test rows, which are as new to the generator as rows can be, are measured against the training rows
in the same way and in the same numbers; good generated rows look like them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError, counted
from ldmlr.metrics.generated import quality
from ldmlr.progress import bar
from ldmlr.store.split import sample_rows

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore, Split

SAMPLE = 6000
# Rows of each kind that precision and recall need: more than their five neighbours.
FEWEST = 7
# Fréchet distances cost C times D^3; beyond this, classes are taken evenly over the counts.
WORK = 4e9

Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]
Counts = npt.NDArray[np.int64]

DEFINITIONS = {
    "frechet": "squared Fréchet distance of the Gaussians fitted to a class's training rows and to its other "
    "rows; 0 is the same mean and covariance",
    "scatter_ratio": "mean squared distance of a class's rows to their mean, over that of its training rows; "
    "1 is as wide",
    "precision": "share of rows that lie among the training rows (inside the ball around a training row that "
    "reaches to its fifth neighbour)",
    "recall": "share of training rows that lie among these rows in the same sense",
    "density": "mean number of training balls a row lies in, over five; it may exceed 1",
    "coverage": "share of training rows with at least one of these rows in their ball",
    "distance_ratio": "median distance to the nearest training row, over that between training rows; near 0 "
    "is a copy",
    "closer": "share of rows nearer to a training row than any other training row is",
    "duplicates": "share of rows equal to a training row",
}


def store_quality(
    store: FeatureStore, pseudo: FeatureStore, *, sample: int = SAMPLE, seed: int = 0
) -> dict[str, Any]:
    """Compare generated rows with the encoded training rows of their classes, and test rows likewise.

    Parameters
    ----------
    store
        Encoded rows: its training split, and its test split as the yardstick where it has one.
    pseudo
        Generated rows: those with ``source`` 1 of its training split, or all of a plain file that knows no
        ``source``. May be `store` itself.
    sample
        Most rows of each kind that are compared.
    seed
        Seed of the samples.

    Returns
    -------
    dict
        ``rows`` and ``sampled`` (rows of each kind), ``classes`` (per class with generated rows: training
        and generated rows, ``frechet``, ``scatter_ratio`` and the test rows' ``test_frechet`` and
        ``test_scatter_ratio``), ``generated`` and ``test`` (``precision``, ``recall``, ``density``,
        ``coverage``, ``distance_ratio``, ``closer``, ``duplicates``), ``classes_left_out``, ``definitions``.

    Raises
    ------
    InputError
        The stores do not belong together, or there are too few rows to compare.
    """
    if (store.dim, store.num_classes) != (pseudo.dim, pseudo.num_classes):
        raise InputError(
            f"{pseudo.path}: has {counted(pseudo.num_classes, 'class')} of {pseudo.dim}-d rows, but "
            f"{store.path} has {store.num_classes} of {store.dim}-d rows; give rows generated for this store"
        )
    train, made, test = store.split("train"), pseudo.split("train"), store.test
    # A plain file knows no source: all its rows are generated ones, unless it is the store itself.
    if made.source is None and ("format" in pseudo.attributes or store.same_file(pseudo)):
        raise InputError(
            f"{pseudo.path}: holds encoded rows (no /train/source); give the output of generate or augment"
        )
    counts, drawn = _counts(train, 0), _counts(made, 1)
    present = np.flatnonzero((drawn > 0) & (counts > 0))
    if not len(present):
        raise InputError(f"{pseudo.path}: has no generated row (source 1); give the output of generate")
    chosen = _classes(present, counts, store.dim)
    share = max(2, sample // len(chosen))
    limit = np.zeros(store.num_classes, np.int64)
    limit[chosen] = share
    known = _counts(test, 0) if test is not None else np.zeros_like(counts)
    # As many generated rows as test rows of a class, so that their figures can be compared.
    both = np.where(known > 0, np.minimum(np.minimum(known, drawn), limit), limit)
    with bar(4, "quality", "part") as progress:
        real = sample_rows(train, limit, seed=seed, source=0)
        generated = sample_rows(made, both, seed=seed, source=1)
        held = sample_rows(test, np.where(known > 0, both, 0), seed=seed, source=0) if test else None
        progress.update(1)
        for rows, path in ((real, store.path), (generated, pseudo.path)):
            if len(rows[0]) < FEWEST:
                raise InputError(
                    f"{path}: has {counted(len(rows[0]), 'row')}, too few to compare; {FEWEST} are needed"
                )
        if held is not None and len(held[0]) < FEWEST:
            held = None
        found = _figures(real, generated, chosen)
        progress.update(2)
        beside = _figures(real, held, chosen) if held is not None else None
        progress.update(1)
    names = store.class_names or pseudo.class_names
    return {
        "rows": {"encoded": int(counts.sum()), "generated": int(drawn.sum()), "test": int(known.sum())},
        "sampled": {
            "encoded": len(real[0]), "generated": len(generated[0]),
            "test": 0 if held is None else len(held[0]),
        },
        "seed": seed,
        "classes_left_out": int(len(present) - len(chosen)),
        "classes": [
            {
                "class": int(label), "name": names[label] if names else str(label),
                "train_rows": int(counts[label]), "generated_rows": int(drawn[label]),
                **{name: found[name][place] for name in ("frechet", "scatter_ratio")},
                **{
                    f"test_{name}": beside[name][place] if beside is not None else None
                    for name in ("frechet", "scatter_ratio")
                },
            }
            for place, label in enumerate(chosen)
        ],
        "generated": found["all"],
        "test": beside["all"] if beside is not None else None,
        "definitions": DEFINITIONS,
    }  # fmt: skip


def quality_lines(found: dict[str, Any]) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield name, figure of the generated rows and of the test rows: medians over the classes first."""
    for name in ("frechet", "scatter_ratio"):
        made, held = (
            [entry[prefix + name] for entry in found["classes"] if entry[prefix + name] is not None]
            for prefix in ("", "test_")
        )
        middle = [float(np.median(part)) if part else None for part in (made, held)]
        yield f"{name.replace('_', ' ')}, median", middle[0], middle[1]
    for name, value in found["generated"].items():
        yield name.replace("_", " "), value, (found["test"] or {}).get(name)


def _counts(split: Split, source: int) -> Counts:
    """Return the encoded (0) or generated (1) rows per class, ``[C]``."""
    if split.source is None:
        return split.counts
    chosen = split.labels[np.asarray(split.source) == source]
    return np.bincount(chosen, minlength=split.num_classes).astype(np.int64)


def _classes(present: Counts, counts: Counts, dim: int) -> Counts:
    """Return the classes to compare: all, or evenly over the training counts where that is much work."""
    most = max(20, int(WORK / dim**3))
    if len(present) <= most:
        return present
    ranked = present[np.argsort(-counts[present], kind="stable")]
    return np.sort(ranked[np.linspace(0, len(ranked) - 1, most).round().astype(np.int64)])


def _figures(real: Rows, others: Rows, classes: Counts) -> dict[str, Any]:
    """Return `quality` of rows beside the training rows, classes renumbered as in `classes`."""
    place = np.zeros(int(classes.max()) + 1, np.int64)
    place[classes] = np.arange(len(classes))
    found = quality(real[0], place[real[1]], others[0], place[others[1]], len(classes))
    copies = found["memorisation"]
    base = copies["train_distance"]
    ratio = copies["distance"] / base if base > 0 else None
    return {
        **found,
        "all": {
            **found["prdc"],
            "distance_ratio": ratio, "closer": copies["closer"], "duplicates": copies["duplicates"],
        },
    }  # fmt: skip
