"""Opening what a run starts from, and refusing early what a later stage could not use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from ldmlr.data.featuresets import ready_source
from ldmlr.data.imageset import ImageSet
from ldmlr.data.open import open_image_set
from ldmlr.encoders.baseline import earlier_models, held_out_record, training_split
from ldmlr.encoders.config import BaselineConfig
from ldmlr.encoders.encoder import check_mirror
from ldmlr.encoders.pixels import common_shape, image_shape
from ldmlr.encoders.recipes import baseline_config, default_preset
from ldmlr.errors import InputError, opt
from ldmlr.generation.ahead import Material
from ldmlr.metrics.familiar import Familiar, familiar
from ldmlr.run.config import RunConfig, StageTables
from ldmlr.run.plan import Facts
from ldmlr.store import check_trainable
from ldmlr.store.convert.config import SourceConfig
from ldmlr.store.heldout import Measuring


class Origin(Protocol):
    """What a run starts from, open."""

    @property
    def facts(self) -> Facts:
        """What the keys of the steps need."""

    @property
    def num_classes(self) -> int:
        """Classes C."""

    @property
    def familiar(self) -> Familiar:
        """Whether the encoder has seen the training rows."""

    def materials(self) -> Iterator[Material]:
        """Yield the rows that stage 2 will have, once for each different set of them."""

    @property
    def has_val(self) -> bool:
        """Whether there will be validation rows."""

    def check_files(self) -> None:
        """Refuse a source with files that cannot be read; all are listed."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was left out, or taken for something else."""


class StoreOrigin:
    """A feature store, or features in another form.

    Parameters
    ----------
    source
        Its path.
    config
        The run.
    folder
        Where a copy as a store is kept.

    Raises
    ------
    InputError
        It has one class, or rows that cannot be trained on, or neither test rows nor rows to hold out.
    """

    def __init__(self, source: str, config: RunConfig, folder: Path) -> None:
        ready = ready_source(source, folder, SourceConfig(config.features_key, config.labels_key))
        with ready.open() as store:
            if store.num_classes < 2:
                raise InputError(f"{source}: has one class, and nothing to tell apart; add another")
            check_trainable(store)
            self.source, self.num_classes, self._has_val = source, store.num_classes, store.val is not None
            self._material = Material.of(store)
            self.familiar = familiar(store, config.encoder_trained_on_rows)
            generated = store.split("train").generated_rows
            inputs = {config.seed_list[0]: (store.fingerprint(),)}
            measuring = Measuring.of(store, config)
        self.facts = Facts(source, inputs, own_generated=generated, store=ready, measuring=measuring)

    def materials(self) -> Iterator[Material]:
        yield self._material

    @property
    def has_val(self) -> bool:
        return self._has_val

    def check_files(self) -> None:
        """A store was looked at when it was opened."""

    @property
    def notes(self) -> tuple[str, ...]:
        return ()


class ImageOrigin:
    """An image set; a long-tailed one may be drawn anew for every seed.

    Parameters
    ----------
    source
        A built-in set or a path.
    config, tables
        The run.
    per_seed
        Whether every seed has a baseline, and so a draw, of its own.

    Raises
    ------
    InputError
        There are no test images to measure on.
    UsageError
        A setting of stage 1 does not fit the images.
    """

    def __init__(self, source: str, config: RunConfig, tables: StageTables, per_seed: bool) -> None:
        self.source, self.config, self.tables = source, config, tables
        said = config.encoder_trained_on_rows
        self.familiar = Familiar(
            said is not False, "a baseline, trained on them" if said is None else "as was said"
        )
        self._images: dict[int, ImageSet] = {}
        preset, baseline, inputs = config.preset, None, {}
        for seed in config.seed_list if per_seed else config.seed_list[:1]:
            images = self.images(seed)
            if images.test is None:
                raise InputError(
                    f"{source}: has no test images to measure on; add a test split, or draw one with "
                    f"{opt('test_fraction')}"
                )
            if baseline is None:
                preset = preset or default_preset(max(image_shape(images.train)[:2]))
                baseline = baseline_config(preset, tables.baseline)
            check_mirror(tables.encode, "flip" in baseline.augment, "the baseline")
            _, held = training_split(images, baseline.val_fraction, seed)
            record = held_out_record(images, held, baseline.val_fraction, seed)
            models = earlier_models(images, baseline, record)
            hashes = (model.sha256 for model in models if model is not None)
            inputs[seed] = (images.fingerprint(), *hashes)
        assert baseline is not None
        self.baseline: BaselineConfig = baseline
        self.facts = Facts(
            source, inputs, baseline, preset, per_seed,
            measuring=Measuring(of_images=config.test_fraction or 0.0),
        )  # fmt: skip

    @property
    def num_classes(self) -> int:
        """Classes C."""
        return int(self.images(self.config.seed_list[0]).num_classes)

    def materials(self) -> Iterator[Material]:
        for seed in self.facts.inputs:
            images = self.images(seed)
            train, _ = training_split(images, self.baseline.val_fraction, seed)
            # The store will have the baseline's head.
            yield Material(
                self.source, train.counts, images.class_names, has_head=True,
                view_kinds=self.tables.encode.kinds(),
            )  # fmt: skip

    @property
    def has_val(self) -> bool:
        return bool(self.baseline.val_fraction) or self.images(self.config.seed_list[0]).val is not None

    def check_files(self) -> None:
        images = self.images(self.config.seed_list[0])
        images.check_images()
        common_shape(images)

    @property
    def notes(self) -> tuple[str, ...]:
        return self.images(self.config.seed_list[0]).notes

    def images(self, seed: int) -> ImageSet:
        """Return the images of a seed of stage 1, opened once."""
        if seed not in self._images:
            self._images[seed] = open_image_set(
                self.source, imbalance_factor=self.config.imbalance_factor, seed=seed,
                image_root=self.config.image_root, image_size=self.config.image_size,
                image_crop=self.config.image_crop, test_fraction=self.config.test_fraction,
                skip_bad=self.config.skip_bad,
            )  # fmt: skip
        return self._images[seed]


def open_origin(source: str, kind: str, config: RunConfig, tables: StageTables, folder: Path) -> Origin:
    """Open what a run starts from.

    Parameters
    ----------
    source, kind
        The source and what `ldmlr.run.source.kind_of` says of it.
    config, tables
        The settings of the run and of its stages.
    folder
        Where a copy as a store is kept.
    """
    if kind == "store":
        return StoreOrigin(source, config, folder)
    per_seed = config.baselines == "per-seed" or (config.baselines == "auto" and kind == "builtin")
    return ImageOrigin(source, config, tables, per_seed)
