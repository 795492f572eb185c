"""Stage 3: fine-tune the classification head on encoded and generated rows."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ldmlr.arguments import check_seed
from ldmlr.device import resolve_device
from ldmlr.errors import UsageError, opt
from ldmlr.heads.config import AUTO, OF_THE_RECIPE, RECIPE, TUNED, FinetuneConfig
from ldmlr.heads.headfile import FITTED, STORED, FinetunedHead, check_head
from ldmlr.heads.logits import CHUNK, head_logits
from ldmlr.heads.modules import AngularHead, Head, LinearHead, from_stored
from ldmlr.heads.training import EpochCallback, fresh_head, train_head
from ldmlr.heads.training_rows import Rows, TrainingRows, gather_rows
from ldmlr.heads.tuned import Views, best_head, fit_baseline, held_views
from ldmlr.metrics.familiar import familiar
from ldmlr.store import FeatureStore, StoredHead
from ldmlr.torch_defaults import torch_defaults


@torch_defaults()
def finetune(
    store: Rows | str | Path,
    pseudo: Rows | str | Path | None = None,
    *,
    config: FinetuneConfig | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    on_epoch: EpochCallback | None = None,
    own_generated: bool = True,
    **options: Any,
) -> FinetunedHead:
    """Fine-tune a classification head on encoded and generated rows.

    Parameters
    ----------
    store
        A `FeatureStore`, the path of one, or features ``[N, D]`` and labels ``[N]`` (arrays or tensors). A
        store may hold generated rows itself (``source`` 1), as those of ``ldmlr augment`` do.
    pseudo
        Generated rows, in any of these forms.
    config
        The configuration; otherwise it is built from `options`, the fields of `FinetuneConfig`:
        ``head`` (``auto``: the kind of the store's head), ``fit``, ``init``, ``loss``, ``tau``, ``epochs``,
        ``batch``, ``lr``, ``weight_decay``, ``width``, ``dropout``, ``mix``, ``average``, ``tau_shift``,
        ``norm_limit``, ``monotone_norms``.
    seed
        Everything random depends on it alone.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    on_epoch
        Called with the epoch (from 1) and the head after each epoch.
    own_generated
        Whether generated rows that `store` holds itself are used too, beside those of `pseudo`.

    Returns
    -------
    FinetunedHead
        A classifier as scikit-learn knows them (``classes_``, ``predict``, ``predict_proba``,
        ``decision_function``, ``score``), with ``.logits(features)``, ``.label_shifted()``, ``.save(path)``;
        ``.chosen``, what was chosen on held-out rows, or ``.history`` of the recipe.

    Raises
    ------
    InputError
        Rows or heads that do not fit together.
    UsageError
        An unknown option or value.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.random.default_rng(0).normal(size=(60, 4)).astype("float32")
    >>> y = np.repeat([0, 1], [50, 10])
    >>> head = finetune((X, y), (X[50:] + 0.1, y[50:]), epochs=2)
    >>> head.logits(X).shape
    (60, 2)
    """
    if config is not None and options:
        raise UsageError(f"finetune: give config or single options, not both ({', '.join(options)})")
    config = config or FinetuneConfig.from_mapping(options)
    if config.fit == AUTO and config.head != "mlp" and not {*OF_THE_RECIPE}.isdisjoint(options):
        config = config.replace(fit=RECIPE)  # whoever says epochs means them, also their default
    seed, place = check_seed(seed), resolve_device(device)
    store, pseudo = opened(store), None if pseudo is None else opened(pseudo)
    rows = gather_rows(store, pseudo, own_generated=own_generated)
    stored = None if isinstance(store, tuple) else store.head
    config = config_for(store, config)
    baseline, origin = baseline_head(rows, stored, seed, place)
    config = config.settled(baseline.kind)
    views: Views = ((), ())
    if not isinstance(store, tuple) and config.fit == TUNED:
        views = held_views(store)
    found = tuned_head(rows, baseline, origin, config, seed, views=views, device=place, on_epoch=on_epoch)
    names = None if isinstance(store, tuple) else store.class_names
    return dataclasses.replace(found, class_names=names)


def config_for(store: Rows, config: FinetuneConfig) -> FinetuneConfig:
    """Return a configuration with the way of fitting and the head-mix settled for a store, or for arrays.

    The recipe is for rows that the encoder has seen, and goes on from the head it was trained with. Of arrays
    nothing is known of an encoder: they are mixed as rows that it has seen.
    """
    if isinstance(store, tuple):
        return config.for_features(True).fitted(False)
    seen = familiar(store).trained_on_rows
    return config.for_features(seen).fitted(seen and store.head is not None)


def tuned_head(
    rows: TrainingRows,
    baseline: Head,
    origin: str,
    config: FinetuneConfig,
    seed: int = 0,
    *,
    counts: npt.NDArray[np.int64] | None = None,
    views: Views = ((), ()),
    device: str | torch.device = "cpu",
    label: str = "fine-tune",
    on_epoch: EpochCallback | None = None,
) -> FinetunedHead:
    """Fine-tune a head on rows in memory: what `finetune` and every experiment do.

    Parameters
    ----------
    rows
        Encoded and generated rows.
    baseline, origin
        The head it starts from and is averaged with, and where that comes from (`baseline_head`).
    config
        Stage 3, with the kind of head settled.
    seed
        Everything random depends on it alone.
    counts
        Encoded rows per class ``[C]`` of the label shift, if they are not those of `rows`.
    views
        Augmented views of the encoded rows and their kinds: where a head is fitted anew, held out in their
        stead (`ldmlr.heads.tuned.held_views`).
    device
        Where to compute.
    label
        Of the progress bar.
    on_epoch
        Called with the epoch (from 1) and the head after each epoch.
    """
    if config.fit == TUNED:
        if on_epoch is not None:
            raise UsageError(
                f"{opt('fit', TUNED)}: has no epochs to look at; give {opt('fit', RECIPE)} for those"
            )
        return best_head(
            rows, baseline, origin, config, seed, counts=counts, views=views, device=device, label=label
        )
    head = start_head(config, baseline, rows, seed)
    history = train_head(head, rows, config, seed=seed, device=device, label=label, on_epoch=on_epoch)
    counts = rows.counts if counts is None else counts
    return FinetunedHead(head, baseline, origin, counts, config, seed, history, rows.generated)


def opened(rows: Rows | str | Path) -> Rows:
    """Return a store for a path, and rows that are rows already as they are."""
    if isinstance(rows, str | Path):
        return FeatureStore.open(rows)
    if isinstance(rows, tuple | FeatureStore):
        return rows
    raise UsageError(f"finetune: expected a store, its path or (features, labels), not {type(rows).__name__}")


def baseline_head(
    rows: TrainingRows, stored: StoredHead | None, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Head, str]:
    """Return the store's head and ``stored``, or one fitted to the encoded rows and ``fitted``."""
    if stored is None:
        return fit_baseline(rows, seed, device), FITTED
    head = from_stored(stored).eval()
    check_head(head, rows.dim, rows.num_classes, f"{rows.name}: its head", rows.name)
    return head, STORED


def start_head(config: FinetuneConfig, baseline: Head, rows: TrainingRows, seed: int) -> Head:
    """Return the head that training starts from.

    With ``init="stored"`` it is the baseline's head. Where the kinds differ, it takes over the class weights,
    and a cosine or WCDAS head the spread of the baseline's logits on the encoded rows as well: twelve epochs
    are too short to grow a scale from one to the hundred or more that WCDAS needs. With ``init="fresh"`` the
    class weights are drawn from the seed; a cosine or WCDAS head keeps the scale that it has then. The kind
    of head is settled (`FinetuneConfig.settled`).
    """
    fresh = fresh_head(config.head, baseline.dim, baseline.num_classes, seed)
    if config.init == "fresh" and not isinstance(fresh, AngularHead):
        return fresh
    drawn = fresh.get_parameter("weight").detach().clone()
    head = copy.deepcopy(baseline) if config.head == baseline.kind else _converted(fresh, baseline, rows)
    if config.init == "fresh":
        with torch.no_grad():
            head.get_parameter("weight").copy_(drawn)
    return head


def _converted(head: Head, baseline: Head, rows: TrainingRows) -> Head:
    """Give a head of another kind the baseline's class weights, and the spread of its logits."""
    with torch.no_grad():
        head.get_parameter("weight").copy_(baseline.get_parameter("weight"))
        if isinstance(head, LinearHead) and head.bias is not None:
            head.bias.zero_()
    if isinstance(head, AngularHead):
        sample = rows.features[: rows.encoded][:: -(-rows.encoded // CHUNK)]
        wanted, found = (_spread(head_logits(which, sample)) for which in (baseline, head))
        if wanted > 0 and found > 0:
            head.rescale(wanted / found)
    return head


def _spread(logits: npt.NDArray[np.float32]) -> float:
    """Return the standard deviation of logits around the mean of their row."""
    return float((logits - logits.mean(axis=1, keepdims=True)).std(dtype=np.float64))
