"""The feature store: one HDF5 file of encoded rows, read in place and written whole."""

from ldmlr.store.layout import SplitData, StoredHead
from ldmlr.store.shards import find_shards, manifest_name, shard_name, write_manifest
from ldmlr.store.split import Split
from ldmlr.store.split_writer import SplitWriter
from ldmlr.store.store import FeatureStore, check_trainable
from ldmlr.store.verify import Verification, verify
from ldmlr.store.writer import StoreWriter

__all__ = [
    "FeatureStore",
    "Split",
    "SplitData",
    "SplitWriter",
    "StoreWriter",
    "StoredHead",
    "Verification",
    "check_trainable",
    "find_shards",
    "manifest_name",
    "shard_name",
    "verify",
    "write_manifest",
]
