"""The activation store: one HDF5 file that loses nothing. See ``docs/format.md``.

Importing this needs h5py and NumPy only; neither torch nor transformers is touched.
"""

from __future__ import annotations

from signbridge.store.merge import merge_stores
from signbridge.store.reader import Store, open_store
from signbridge.store.rules import Problem
from signbridge.store.schema import (
    CHUNK_ROWS,
    FORMAT,
    FORMAT_VERSION,
    SampleTable,
    Shard,
    StoreSpec,
)
from signbridge.store.verify import verify_store
from signbridge.store.writer import StoreWriter, estimated_bytes

__all__ = [
    "CHUNK_ROWS",
    "FORMAT",
    "FORMAT_VERSION",
    "Problem",
    "SampleTable",
    "Shard",
    "Store",
    "StoreSpec",
    "StoreWriter",
    "estimated_bytes",
    "merge_stores",
    "open_store",
    "verify_store",
]
