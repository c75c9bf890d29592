"""What ``docs/format.md`` asks of a store, whatever its checksums say."""

from __future__ import annotations

import itertools
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from signbridge.errors import first_line
from signbridge.store import hdf
from signbridge.store.checksums import DIMENSION_ONLY
from signbridge.store.opening import ForeignPartError, open_plain, shard_names
from signbridge.store.provenance import provenance_sha256
from signbridge.store.schema import (
    BASELINE_DTYPES,
    BASELINE_NAME,
    CLASS_LOGPROB,
    CLASS_VARIABLE,
    GROUP_VARIABLE,
    INFO,
    LAYER_VARIABLE,
    RESERVED_ATTRIBUTES,
    RESID_POST,
    RESPONSE,
    SAMPLE_VARIABLES,
    SHARDS,
    THUMBNAIL,
    Values,
)

REQUIRED = (
    RESID_POST,
    LAYER_VARIABLE.name,
    CLASS_VARIABLE.name,
    *(v.name for v in SAMPLE_VARIABLES),
)
SMALL = (
    LAYER_VARIABLE.name,
    CLASS_VARIABLE.name,
    "label",
    "group",
    GROUP_VARIABLE.name,
    "sample_id",
)
"""The variables whose values are checked whenever a store is opened, where it has them."""

_KNOWN: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    v.name: (v.dims, (v.dtype,))
    for v in (
        LAYER_VARIABLE,
        CLASS_VARIABLE,
        GROUP_VARIABLE,
        *SAMPLE_VARIABLES,
        CLASS_LOGPROB,
        RESPONSE,
        THUMBNAIL,
    )
} | {RESID_POST: (("sample", "layer", "hidden"), ("float16", "float32"))}
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SHARD_COLUMNS = ("name", "start", "stop", "size", "sha256")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a store.

    Attributes:
        where: Variable, attribute or file concerned.
        what: What is wrong, one clause.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def is_dimension_only(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the structure is a dimension without values."""
    name = entry["attrs"].get("NAME", ["", ""])[1]
    return str(name).startswith(DIMENSION_ONLY) and len(entry["shape"]) == 1


def layout_problems(h5: h5py.File, described: Mapping[str, Any]) -> Iterator[Problem]:
    """Check which variables there are, their types, dimensions and lengths, and the attributes.

    Args:
        h5: The store.
        described: Its structure.
    """
    lengths: dict[str, tuple[str, int]] = {}
    for name, entry in described.items():
        if "shape" not in entry:
            if name in _KNOWN or name.startswith((f"{INFO}/", f"{SHARDS}/")):
                yield Problem(name, "is a group, not a variable")
            continue
        if name in (INFO, SHARDS):
            yield Problem(name, "is no group")
        if "/" in name or is_dimension_only(entry):
            if name in _KNOWN:
                yield Problem(name, "is a dimension without values")
            continue
        dims, shape = _dims(name, entry), entry["shape"]
        yield from _type_problems(name, dims, entry, h5[name].dtype)
        for dim, length in zip(dims, shape, strict=True):
            first, known = lengths.setdefault(dim, (name, length))
            if known != length:
                yield Problem(name, f"has {length} along {dim}, but {first} has {known}")
            if dim != name and described.get(dim, {}).get("shape") != [length]:
                yield Problem(name, f"its dimension {dim} has another length than it says")
    if lengths.get("sample", ("", 1))[1] == 0:
        yield Problem("sample_id", "there are no samples")
    yield from _attribute_problems(h5, described[""]["attrs"])


def _dims(name: str, entry: Mapping[str, Any]) -> list[str]:
    """The names of its dimensions; a variable that is a scale itself names its own."""
    dims: list[str] = entry["dims"]
    is_scale = entry["attrs"].get("CLASS", ["", ""])[1] == "DIMENSION_SCALE"
    return [name] if is_scale and dims == [""] else dims


def _type_problems(
    name: str, dims: list[str], entry: Mapping[str, Any], dtype: np.dtype[Any]
) -> Iterator[Problem]:
    known = _KNOWN.get(name)
    if known is None and dims == ["sample", f"{name}_feature"]:
        known = ((dims[0], dims[1]), BASELINE_DTYPES)
        if not BASELINE_NAME.match(name):
            yield Problem(name, "is no name of a baseline")
    if known is not None:
        wanted, kinds = known
        if dims != list(wanted):
            yield Problem(name, f"its dimensions are {_listed(dims)}, not {_listed(wanted)}")
        if entry["dtype"] not in kinds:
            yield Problem(name, f"its values are {entry['dtype']}, not {' or '.join(kinds)}")
    elif "" in dims:
        yield Problem(name, "has an axis without a dimension")
    if dtype.byteorder == ">" or (dtype.byteorder == "=" and sys.byteorder == "big"):
        yield Problem(name, "its numbers are not little-endian")
    text = h5py.check_string_dtype(dtype)
    if known is not None and text is not None and text.encoding != "utf-8":
        yield Problem(name, "its texts are not marked as UTF-8")


def _listed(names: Iterable[str]) -> str:
    return "(" + ", ".join(name or "nameless" for name in names) + ")"


def _attribute_problems(h5: h5py.File, attrs: Mapping[str, Any]) -> Iterator[Problem]:
    if attrs.get("complete") != ["int8", 1]:
        yield Problem("attribute 'complete'", "is not the int8 1")
    kind, keys = attrs.get("provenance_keys", ["", None])
    if kind != "string" or not isinstance(keys, list) or keys != sorted(set(keys)):
        yield Problem("attribute 'provenance_keys'", "is no sorted list of different names")
        return
    good = True
    for key in keys:
        if key not in attrs or key in RESERVED_ATTRIBUTES:
            good = False
            yield Problem(f"attribute '{key}'", "is named by provenance_keys and is not there")
        elif not _is_provenance(*attrs[key]):
            good = False
            yield Problem(f"attribute '{key}'", "is neither a text, a number nor a list of them")
    if good:
        provenance = {key: hdf.read_attribute(h5.attrs[key]) for key in keys}
        if attrs.get("provenance_sha256") != ["string", provenance_sha256(provenance)]:
            yield Problem("attribute 'provenance_sha256'", "does not match the provenance")


def _is_provenance(kind: str, value: Any) -> bool:
    if kind == "empty":
        return False
    values = value if isinstance(value, list) else [value]
    return all(
        isinstance(one, (str, bool, int)) or (isinstance(one, float) and math.isfinite(one))
        for one in values
    )


def value_problems(values: Mapping[str, Values]) -> Iterator[Problem]:
    """Check what must hold between the values of a store.

    Args:
        values: All values of the variables in :data:`SMALL`; what is missing is passed over.
    """
    label, group = _numbers(values.get("label")), _numbers(values.get("group"))
    names = values.get(CLASS_VARIABLE.name)
    if names is not None:
        if (twice := _twice(names)) is not None:
            yield Problem(CLASS_VARIABLE.name, f"the name {twice!r} occurs more than once")
        if ((label < 0) | (label >= len(names))).any():
            yield Problem("label", f"a label is not between 0 and {len(names) - 1}")
    if (group < 0).any():
        yield Problem("group", "a group number is negative")
    names = values.get(GROUP_VARIABLE.name)
    if names is not None:
        if _twice(names) is not None or "" in names:
            yield Problem(GROUP_VARIABLE.name, "a name is empty or occurs more than once")
        if (group >= len(names)).any():
            yield Problem("group", f"a group number is above {len(names) - 1}, the last name")
    layer = _numbers(values.get(LAYER_VARIABLE.name))
    if (layer < 0).any():
        yield Problem(LAYER_VARIABLE.name, "a layer number is negative")
    if _twice(layer.tolist()) is not None:
        yield Problem(LAYER_VARIABLE.name, "a layer number occurs more than once")
    elif (np.diff(layer) < 0).any():
        yield Problem(LAYER_VARIABLE.name, "the layer numbers do not ascend")
    ids = values.get("sample_id", [])
    if (twice := _twice(ids)) is not None:
        yield Problem("sample_id", f"the id {twice!r} occurs more than once")
    if "" in ids:
        yield Problem("sample_id", "an id is empty")


def _numbers(values: Values | None) -> Any:
    return np.asarray([] if values is None else values, np.int64)


def _twice(values: Iterable[Any]) -> Any:
    """A value that occurs more than once, or ``None``."""
    values = list(values)
    if len(set(values)) == len(values):
        return None
    return Counter(values).most_common(1)[0][0]


def is_utf8(texts: Iterable[str]) -> bool:
    """Whether texts that were read as UTF-8 were that."""
    try:
        "".join(texts).encode("utf-8")
    except UnicodeEncodeError:  # what is not UTF-8 came back as surrogates
        return False
    return True


def shard_sizes(h5: h5py.File, path: Path) -> list[tuple[Path, int]]:
    """The shard files that a store of virtual datasets refers to, with their sizes.

    Raises:
        ForeignPartError: If one of them does not lie in the store's own folder.
    """
    if SHARDS not in h5:
        return []
    sizes = h5[SHARDS]["size"][:]
    return [(path.parent / name, int(n)) for name, n in zip(shard_names(h5), sizes, strict=True)]


def shard_problems(h5: h5py.File, path: Path) -> Iterator[Problem]:
    """Check the list of shards, and that each is there and holds all its values itself."""
    if SHARDS not in h5:
        return
    group = h5[SHARDS]
    for name in _SHARD_COLUMNS:
        text = name in ("name", "sha256")
        if name not in group or (group[name].dtype.kind == "O") != text or group[name].ndim != 1:
            yield Problem(f"{SHARDS}/{name}", "is missing or of another type")
            return
    if len({len(group[name]) for name in _SHARD_COLUMNS}) > 1:
        yield Problem(SHARDS, "its lists have different lengths")
        return
    starts, stops = group["start"][:].tolist(), group["stop"][:].tolist()
    edges = [0, *stops]
    if starts != edges[:-1] or edges[-1] != h5[RESID_POST].shape[0] or _not_ascending(edges):
        yield Problem(SHARDS, "the shards do not hold every sample once, in order")
    if not all(_SHA256.fullmatch(text) for text in hdf.get_rows(group["sha256"], 0, len(starts))):
        yield Problem(f"{SHARDS}/sha256", "a value is no SHA-256 in hexadecimal")
    try:
        listed = shard_sizes(h5, path)
    except ForeignPartError as error:
        yield Problem(f"{SHARDS}/name", str(error))
        return
    for shard, size in listed:
        yield from _problems_of_shard(shard, size)


def _not_ascending(edges: list[int]) -> bool:
    return any(a >= b for a, b in itertools.pairwise(edges))


def _problems_of_shard(shard: Path, size: int) -> Iterator[Problem]:
    try:
        found = shard.stat().st_size
    except OSError:
        yield Problem(str(shard), "this shard of the store is missing")
        return
    if found != size:
        yield Problem(str(shard), f"this shard has {found} bytes instead of {size}")
        return
    try:
        open_plain(shard).close()
    except hdf.DAMAGE as error:
        yield Problem(str(shard), f"this shard cannot be read ({first_line(error)})")
