"""Real and generated rows for training loops in PyTorch: data sets that draw while they are read.

Nothing is written and nothing is stored: a generated row is drawn when a loader asks for it, new in every
epoch, and the same one whatever the batches, the workers and their start method, since row i of epoch e is
a pure function of (model, plan, seed, e, i).

- `BalancedFeatures` has an index: any sampler, shuffled or distributed, works on it.
- `BalancedBatches` is read in order and hands out whole batches: the fastest way, in little memory.
- `balanced_sampler` draws real rows only, more often where a class has few.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, IterableDataset, WeightedRandomSampler, get_worker_info

from ldmlr.arguments import check_seed, whole_number
from ldmlr.device import Machine
from ldmlr.errors import InputError, UsageError, counted
from ldmlr.generation.latent import LatentDiffusion
from ldmlr.generation.plan import Strategy, labels_of, plan
from ldmlr.sampler.config import SampleConfig
from ldmlr.store import FeatureStore

# Rows drawn at a time for an index, and the memory for rows that were drawn and may be asked for again.
PAGE = 256
CACHE_BYTES = 2**28

Item = tuple[torch.Tensor, int]
Batch = tuple[torch.Tensor, torch.Tensor]


class _Source:
    """The rows of a store and the plan of rows to generate: what both data sets share."""

    def __init__(
        self,
        store: FeatureStore | str | Path,
        model: LatentDiffusion | str | Path | None,
        strategy: Strategy,
        seed: int,
        machine: Machine,
        config: SampleConfig,
        plan_options: Mapping[str, Any],
    ) -> None:
        self.store = store if isinstance(store, FeatureStore) else FeatureStore.open(store)
        split = self.store.split("train")
        kept = np.ones(len(split.labels), bool) if split.source is None else split.source[:] == 0
        self.encoded = np.flatnonzero(kept)
        self.labels = np.asarray(split.labels[:])[self.encoded].astype(np.int64)
        counts = np.bincount(self.labels, minlength=self.store.num_classes)
        self.model = LatentDiffusion.load(model) if isinstance(model, str | Path) else model
        self.wanted = np.zeros_like(counts)
        if self.model is not None:
            found = (self.model.dim, self.model.num_classes)
            if found != (self.store.dim, self.store.num_classes):
                raise InputError(
                    f"{self.store.path}: has {counted(self.store.dim, 'number')} a row and "
                    f"{self.store.num_classes} "
                    f"classes, the model {found[0]} and {found[1]}; use the model that was trained on it"
                )
            self.wanted = plan(counts, strategy, class_names=self.store.class_names, **plan_options)
        self.generated = int(self.wanted.sum())
        self.seed, self.machine, self.config = check_seed(seed), machine, config
        # Shared, so that workers that live on see the epoch that is set in the main process.
        self._epoch: torch.Tensor = torch.zeros(1, dtype=torch.int64)
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]
        self._sampler: Any = None

    def __getstate__(self) -> dict[str, Any]:
        # A prepared sampler belongs to its process.
        return {**self.__dict__, "_sampler": None}

    @property
    def epoch(self) -> int:
        return int(self._epoch[0])

    @epoch.setter
    def epoch(self, value: int) -> None:
        number = whole_number(value)
        if number is None or not 0 <= number < 2**31:
            raise UsageError(f"epoch: must be a whole number from 0, not {value!r}")
        self._epoch[0] = number

    def real(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return real rows by their place among those of the encoder; a copy, never the map of the file."""
        order, back = np.unique(places, return_inverse=True)
        rows = self.store.split("train").float32(self.encoded[order])
        return np.ascontiguousarray(np.asarray(rows)[back], np.float32)

    def drawn(self, labels: npt.NDArray[np.int64], first: int) -> npt.NDArray[np.float32]:
        """Return generated rows ``first ...`` of this epoch."""
        assert self.model is not None
        if self._sampler is None:
            self._sampler = self.model.sampler(self.config, self.seed, self.machine)
        number = self.epoch * max(self.generated, 1) + first
        return np.asarray(self._sampler(labels, number, "float32"), np.float32)


class BalancedFeatures(Dataset[Item]):
    """Real rows of a store and, after them, generated ones: ``(features [D], label)`` by index.

    Parameters
    ----------
    store
        A feature store, or its path. Rows that it holds as generated are left out.
    model
        The diffusion model that draws, or its path; None: no generated rows.
    strategy
        How many rows of which class are generated, as in `ldmlr.generation.plan.plan`: ``balance`` (default),
        ``ratio``, a dictionary from class to rows ...
    seed
        Seed of the generated rows.
    solver, steps, guidance, scale
        How rows are drawn, see `ldmlr.LatentDiffusion.sample`.
    backend, threads
        What draws, and on how many CPU threads; loaders with several workers want one.
    cache_bytes
        Memory for drawn rows. Where all generated rows of an epoch fit, each is drawn once a worker; where
        they do not, a shuffled reader draws pages of 256 rows again and again: use `BalancedBatches` then.
    **plan_options
        ``target``, ``ratio``, ``minimum``, ``only`` and ``groups`` of the plan.

    Attributes
    ----------
    labels
        The class of each index ``[N + M]``.
    generated_mask
        Which indices are generated ``[N + M]``.

    Raises
    ------
    InputError
        The model does not fit the store.
    UsageError
        An unknown option.

    Examples
    --------
    >>> data = BalancedFeatures("features.h5", "model.safetensors")  # doctest: +SKIP
    >>> loader = torch.utils.data.DataLoader(data, batch_size=256, shuffle=True)  # doctest: +SKIP
    >>> for epoch in range(20):  # doctest: +SKIP
    ...     data.set_epoch(epoch)
    ...     for features, labels in loader:
    ...         ...
    """

    def __init__(
        self,
        store: FeatureStore | str | Path,
        model: LatentDiffusion | str | Path | None,
        *,
        strategy: Strategy = "balance",
        seed: int = 0,
        solver: str = "dpmpp2m",
        steps: int = 10,
        guidance: float | None = None,
        scale: float | None = None,
        backend: str = "auto",
        threads: int | None = 1,
        cache_bytes: int = CACHE_BYTES,
        **plan_options: Any,
    ) -> None:
        config = SampleConfig(solver=solver, steps=steps, guidance=guidance, scale=scale)
        machine = Machine(backend=backend, threads=threads)
        self._source = _Source(store, model, strategy, seed, machine, config, plan_options)
        drawn = labels_of(self._source.wanted, 0, self._source.generated)
        self.labels = np.concatenate([self._source.labels, drawn])
        self.generated_mask = np.arange(len(self.labels)) >= len(self._source.labels)
        self._pages: OrderedDict[tuple[int, int], npt.NDArray[np.float32]] = OrderedDict()
        self._most = max(1, cache_bytes // (PAGE * self._source.store.dim * 4))

    def __getstate__(self) -> dict[str, Any]:
        # Pages are drawn again where they are needed: they are many bytes to send to a worker.
        return {**self.__dict__, "_pages": OrderedDict()}

    def set_epoch(self, epoch: int) -> None:
        """Draw the generated rows of another epoch from now on; without it every epoch has the same.

        Call it before the loader is iterated, like that of PyTorch's ``DistributedSampler``.
        """
        self._source.epoch = epoch

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Item:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Return the items of a batch, which loaders ask for at once."""
        places = np.asarray(indices, np.int64)
        count = len(self.labels)
        if ((places < -count) | (places >= count)).any():
            raise IndexError(f"index out of range: there are {counted(count, 'row')}")
        places %= count
        rows = np.empty((len(places), self._source.store.dim), np.float32)
        generated = self.generated_mask[places]
        if not generated.all():
            rows[~generated] = self._source.real(places[~generated])
        numbers = places[generated] - len(self._source.labels)
        found = np.empty((len(numbers), rows.shape[1]), np.float32)
        for page in np.unique(numbers // PAGE).tolist():
            inside = numbers // PAGE == page
            found[inside] = self._page(page)[numbers[inside] % PAGE]
        rows[generated] = found
        return [
            (row, int(label)) for row, label in zip(torch.from_numpy(rows), self.labels[places], strict=True)
        ]

    def _page(self, page: int) -> npt.NDArray[np.float32]:
        key = (self._source.epoch, page)
        if key not in self._pages:
            stop = min((page + 1) * PAGE, self._source.generated)
            labels = labels_of(self._source.wanted, page * PAGE, stop)
            while len(self._pages) >= self._most:
                self._pages.popitem(last=False)
            self._pages[key] = self._source.drawn(labels, page * PAGE)
        self._pages.move_to_end(key)
        return self._pages[key]


class BalancedBatches(IterableDataset[Batch]):
    """Shuffled batches of real and generated rows: ``(features [B, D], labels [B])``.

    One pass is one epoch: every real row once, and the rows of the plan. Workers of a loader share the
    batches of an epoch; give the loader ``batch_size=None``, since batches are made here.

    Parameters
    ----------
    store, model, strategy, seed, solver, steps, guidance, scale, backend, threads, **plan_options
        As in `BalancedFeatures`; the seed decides the order, too.
    batch_size
        Rows of a batch B; the last one may be smaller.

    Raises
    ------
    InputError, UsageError
        As `BalancedFeatures`.
    """

    def __init__(
        self,
        store: FeatureStore | str | Path,
        model: LatentDiffusion | str | Path | None,
        *,
        batch_size: int = 256,
        strategy: Strategy = "balance",
        seed: int = 0,
        solver: str = "dpmpp2m",
        steps: int = 10,
        guidance: float | None = None,
        scale: float | None = None,
        backend: str = "auto",
        threads: int | None = 1,
        **plan_options: Any,
    ) -> None:
        size = whole_number(batch_size)
        if size is None or size < 1:
            raise UsageError(f"batch_size: must be a whole number from 1, not {batch_size!r}")
        self.batch_size = size
        config = SampleConfig(solver=solver, steps=steps, guidance=guidance, scale=scale)
        machine = Machine(backend=backend, threads=threads)
        self._source = _Source(store, model, strategy, seed, machine, config, plan_options)

    def set_epoch(self, epoch: int) -> None:
        """Draw other generated rows in another order; without it every pass is the same."""
        self._source.epoch = epoch

    def __len__(self) -> int:
        return -(-(len(self._source.labels) + self._source.generated) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        source = self._source
        real = len(source.labels)
        order = np.random.default_rng([source.seed, source.epoch]).permutation(real + source.generated)
        before = np.concatenate([[0], np.cumsum(order >= real)])  # generated rows in front of each place
        ends = np.cumsum(source.wanted)
        worker = get_worker_info()
        first, stride = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for batch in range(first, len(self), stride):
            start = batch * self.batch_size
            places = order[start : start + self.batch_size]
            generated = places >= real
            rows = np.empty((len(places), source.store.dim), np.float32)
            labels = np.empty(len(places), np.int64)
            rows[~generated] = source.real(places[~generated])
            labels[~generated] = source.labels[places[~generated]]
            if generated.any():
                labels[generated] = np.searchsorted(ends, places[generated] - real, side="right")
                # Numbered in the order of the pass: a batch takes consecutive numbers, drawn in one call.
                rows[generated] = source.drawn(labels[generated], int(before[start]))
            yield torch.from_numpy(rows), torch.from_numpy(labels)


def balanced_sampler(
    labels: npt.ArrayLike, *, power: float = 1.0, rows: int | None = None, seed: int | None = None
) -> WeightedRandomSampler:
    """Return a sampler of real rows that draws those of small classes more often.

    Parameters
    ----------
    labels
        The class of each row ``[N]``, such as ``store.train.labels``.
    power
        A row is drawn in proportion to its class's rows to minus this power: 1 all classes alike, 0 as they
        come.
    rows
        Rows of an epoch; None: N.
    seed
        Seed; None: PyTorch's own.

    Raises
    ------
    UsageError
        No labels, or a power outside 0 .. 1.
    """
    given = np.asarray(labels)
    if given.ndim != 1 or not len(given):
        raise UsageError(f"labels: expected one label per row, not shape {list(given.shape)}")
    if not 0 <= power <= 1:
        raise UsageError(f"power: must be from 0 to 1, not {power!r}")
    _, classes, counts = np.unique(given, return_inverse=True, return_counts=True)
    weights = counts[classes] ** -float(power)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(
        torch.from_numpy(weights).tolist(), len(given) if rows is None else rows, generator=generator
    )
