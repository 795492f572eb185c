"""Whether the encoder of a store has seen its training rows: the settings of generation follow from it.

An encoder pulls the rows it was trained on together, the more so the rarer their class: what is learned from
them has to be widened. Rows that are new to the encoder, as those of a foreign one or raw numbers are, lie as
widely as test rows do, and widening moves what is drawn away from them.

Known, in this order: what the user says; what the store says (`ldmlr encode` knows its own baselines); what
held-out rows show, by their scatter ratio; and a baseline's head in the store, which was trained with its
encoder on these rows. Nothing of it: the encoder counts as foreign, as most are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ldmlr.errors import InputError
from ldmlr.metrics.scatter import squares

if TYPE_CHECKING:
    from ldmlr.store import FeatureStore

Integers = npt.NDArray[np.int64]
# Key of a store's configuration.
KEY = "encoder_trained_on_rows"
# Held-out rows that lie so much wider than the training rows are new to the encoder where those are not.
# Measured on encoders of both kinds: 1.3 and more (many rows), 1.0.
MEMORISED = 1.15
# So many held-out rows tell the two apart; fewer do not.
ENOUGH = 20


@dataclasses.dataclass(frozen=True)
class Familiar:
    """Whether an encoder has seen the training rows, and how that is known.

    Parameters
    ----------
    trained_on_rows
        It has.
    why
        In words.
    """

    trained_on_rows: bool
    why: str

    def words(self) -> str:
        """Return what follows, as a sentence."""
        if self.trained_on_rows:
            return f"The encoder has seen the training rows ({self.why}): settings of the recipe."
        return f"The encoder has not seen the training rows ({self.why}): plain settings, no widening."

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {KEY: self.trained_on_rows, "why": self.why}


def familiar(store: FeatureStore, said: bool | None = None) -> Familiar:
    """Return whether the encoder of a store has seen its training rows.

    Parameters
    ----------
    store
        An open store.
    said
        What the user says; None: nothing.
    """
    if said is not None:
        return Familiar(said, "as was said")
    kept = _kept(store.config)
    if kept is not None:
        return Familiar(kept, "kept in the store")
    if store.train is not None and store.val is not None:
        ratio = held_out_ratio(store)
        if ratio is not None:
            word = "wider than" if ratio >= MEMORISED else "as widely as"
            return Familiar(
                ratio >= MEMORISED,
                f"held-out rows lie {word} training rows: mean squared distance to the class mean "
                f"{ratio:.2f} times theirs",
            )
    if store.head is not None:
        return Familiar(True, "the store has the head of a baseline, trained on these rows")
    return Familiar(False, "nothing says otherwise")


def held_out_ratio(store: FeatureStore) -> float | None:
    """Return how much wider the held-out rows of a store lie than its training rows; None if not to be told.

    The mean of training rows is their own: around it they lie closer, by (n - 1) / n, and new rows wider, by
    (n + 1) / n. Both are taken out, and classes with a single training row are left out.
    """
    train, val = store.split("train"), store.split("val")
    encoded = np.arange(len(train)) if train.source is None else np.flatnonzero(train.source == 0)
    labels = np.asarray(train.labels[encoded], np.int64)
    counts = np.bincount(labels, minlength=store.num_classes)
    held = np.flatnonzero(counts[np.asarray(val.labels)] > 1)
    if len(held) < ENOUGH:
        return None
    held_labels = np.asarray(val.labels[held], np.int64)
    try:
        measured = squares(
            [(train.float32(encoded), labels)], val.float32(held), held_labels, store.num_classes
        )
    except InputError:
        return None  # no spread at all
    share = np.divide(counts - 1, counts + 1, out=np.zeros(len(counts)), where=counts > 1)
    return float(measured.total @ share / measured.rows.sum())


def _kept(config: Mapping[str, Any]) -> bool | None:
    """Return what the configuration of a store says, or that of the store that it was made of."""
    found: Any = config
    while isinstance(found, Mapping):
        if isinstance(found.get(KEY), bool):
            return bool(found[KEY])
        source = found.get("source")
        found = source.get("config") if isinstance(source, Mapping) else None
    return None
