"""An image set: a training split, optional test and validation splits, and where they came from."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from typing import Any

from ldmlr.data.files import FileSplit, refusal
from ldmlr.data.images import ImageSplit
from ldmlr.data.longtail import LongTailedDraw
from ldmlr.errors import InputError, counted


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """A labelled image set with its splits and its origin.

    Attributes
    ----------
    name
        Short name: that of the built-in set, or of the file or folder.
    train, test, val
        The splits; `test` and `val` are None where the source has none.
    class_names
        One name per class, ``[C]``.
    provenance
        Plain data for results: source, kind, and for a long-tailed draw the imbalance factor,
        the seed, the counts and the sha256 of the chosen indices (None without a draw).
    draw
        The long-tailed draw with its indices (``draw.save(path)`` keeps it); None without one.
    notes
        Sentences on what was left out, or taken for something else.
    """

    name: str
    train: ImageSplit
    test: ImageSplit | None
    val: ImageSplit | None
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any]
    draw: LongTailedDraw | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show the name, the splits and the classes."""
        named = {"train": self.train, "test": self.test, "val": self.val}
        splits = ", ".join(f"{name} {len(split):,}" for name, split in named.items() if split is not None)
        return f"ImageSet({self.name!r}: {splits} images, {counted(self.num_classes, 'class')})"

    @property
    def num_classes(self) -> int:
        """Number of classes, C."""
        return len(self.class_names)

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256("\0".join(self.class_names).encode())
        for name, split in (("train", self.train), ("test", self.test), ("val", self.val)):
            if split is not None:
                digest.update(f"\0{name} {split.shape} {split.fingerprint()}".encode())
        if "image_crop" in self.provenance:
            digest.update(f"\0crop {self.provenance['image_crop']}".encode())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Return a sha256 of what the set holds: names, labels, images and their loaded size.

        Images that lie in files of their own enter with path and size, not with their bytes.
        """
        return self._fingerprint

    def check_images(self) -> None:
        """Decode every image that lies in a file of its own.

        Raises
        ------
        BadImages
            Some cannot be decoded; all are listed.
        """
        bad = [
            image
            for split in (self.train, self.test, self.val)
            if isinstance(split, FileSplit)
            for image in split.bad()
        ]
        if bad:
            raise refusal(bad, in_list=self.provenance["kind"] == "list")

    def split(self, name: str) -> ImageSplit:
        """Return the split ``train``, ``test`` or ``val``.

        Raises
        ------
        InputError
            The set has no such split.
        """
        found = {"train": self.train, "test": self.test, "val": self.val}.get(name)
        if found is None:
            raise InputError(
                f"{self.provenance['source']}: has no {name} images; add them or name another set"
            )
        return found
