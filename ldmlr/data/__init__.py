"""Image sets for stage 1: sources, long-tailed draws and the built-in digits-lt."""

from ldmlr.data.files import FileSplit
from ldmlr.data.images import ArraySplit, ImageSplit
from ldmlr.data.imageset import ImageSet
from ldmlr.data.longtail import LongTailedDraw, hold_out, long_tailed_counts, long_tailed_indices
from ldmlr.data.open import BUILTIN, open_image_set

__all__ = [
    "BUILTIN",
    "ArraySplit",
    "FileSplit",
    "ImageSet",
    "ImageSplit",
    "LongTailedDraw",
    "hold_out",
    "long_tailed_counts",
    "long_tailed_indices",
    "open_image_set",
]
