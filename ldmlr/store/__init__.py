"""The feature store: one HDF5 file of encoded rows, read in place and written whole."""

from ldmlr.store.layout import SplitData, StoredHead
from ldmlr.store.split import Split
from ldmlr.store.store import FeatureStore, check_trainable
from ldmlr.store.writer import SplitWriter, StoreWriter

__all__ = [
    "FeatureStore",
    "Split",
    "SplitData",
    "SplitWriter",
    "StoreWriter",
    "StoredHead",
    "check_trainable",
]
