"""What an activation store holds: its variables, their dimensions and types.

``docs/format.md`` is the specification in prose. This module is the one place in the code where the
names, dimension orders and block sizes of format version 1.2 are written down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from signbridge.errors import StoreError
from signbridge.runtime.words import some

FORMAT = "signbridge-activations"
FORMAT_VERSION = "1.2"
FORMAT_MAJOR, FORMAT_MINOR = 1, 2

CHUNK_ROWS = 64
"""Rows of samples in an HDF5 chunk, and in a checksum block, of a captured variable."""
SMALL_BLOCK_ROWS = 4096
"""Rows in a checksum block of the other variables (labels, ids)."""

CHECKSUMS = "checksums"
INFO = "info"
SHARDS = "shards"
RESID_POST = "resid_post"

RESERVED_ATTRIBUTES = frozenset(
    {"format", "format_version", "complete", "provenance_keys", "provenance_sha256", "Conventions"}
)
Strings = list[str]
Values = NDArray[Any] | Strings
StoreDtype = Literal["float16", "float32"]
Baseline = tuple[int, str, Mapping[str, Any]]
"""A baseline feature: its dimension, its dtype, and attributes recorded with the variable."""

BASELINE_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
BASELINE_DTYPES = ("float16", "float32", "uint8")


@dataclass(frozen=True)
class Variable:
    """One variable of a store.

    Attributes:
        name: Name of the HDF5 dataset.
        dims: Names of its dimensions, outermost first.
        dtype: NumPy dtype name, or ``"string"`` for variable-length UTF-8.
        attrs: Attributes recorded with it.
        block_rows: Rows covered by one checksum.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    attrs: Mapping[str, Any] = field(default_factory=dict)
    block_rows: int = SMALL_BLOCK_ROWS

    @property
    def is_feature(self) -> bool:
        """Whether it is a numeric array per sample that is stored in chunks."""
        return len(self.dims) > 1 and self.dims[0] == "sample"

    @property
    def has_layers(self) -> bool:
        """Whether each checksum block covers one layer of it."""
        return len(self.dims) == 3


SAMPLE_VARIABLES = (
    Variable("sample_id", ("sample",), "string", {"long_name": "stable id of the image"}),
    Variable("label", ("sample",), "int64", {"long_name": "index into class_name"}),
    Variable(
        "group", ("sample",), "int64", {"long_name": "samples of one group are not independent"}
    ),
    Variable("source_split", ("sample",), "string", {"long_name": "split named by the source"}),
    Variable("image_sha256", ("sample",), "string", {"long_name": "SHA-256 of the image's bytes"}),
)
LAYER_VARIABLE = Variable(
    "layer", ("layer",), "int64", {"long_name": "decoder layer number, 0-based"}
)
CLASS_VARIABLE = Variable("class_name", ("class",), "string", {"long_name": "name of the class"})
GROUP_VARIABLE = Variable(
    "group_name", ("group_number",), "string", {"long_name": "name of the group, such as a signer"}
)
# Captured, where the spec asks for them, beside resid_post and the baselines.
CLASS_LOGPROB = Variable(
    "class_logprob",
    ("sample", "class"),
    "float32",
    {
        "long_name": "log-probability of each class name as the answer",
        "units": "nat",
        "coordinates": "class_name",
    },
    CHUNK_ROWS,
)
RESPONSE = Variable(
    "response", ("sample",), "string", {"long_name": "generated answer"}, CHUNK_ROWS
)
THUMBNAIL = Variable(
    "thumbnail",
    ("sample",),
    "string",
    {"long_name": "the image, made small: a JPEG in base64", "media_type": "image/jpeg"},
    CHUNK_ROWS,
)

RESERVED_VARIABLES = frozenset(
    {RESID_POST, "sample", "hidden", "class", "group_number", CHECKSUMS, INFO, SHARDS}
    | {v.name for v in (*SAMPLE_VARIABLES, LAYER_VARIABLE, CLASS_VARIABLE, GROUP_VARIABLE)}
    | {v.name for v in (CLASS_LOGPROB, RESPONSE, THUMBNAIL)}
)


@dataclass(frozen=True)
class StoreSpec:
    """What is captured for every sample.

    Args:
        layers: Decoder layer numbers (0-based); kept in ascending order.
        hidden_size: Width of the residual stream.
        store_dtype: ``"float16"`` or ``"float32"``, of ``resid_post``.
        baselines: For each baseline feature its ``(dimension, dtype, attributes)``, for example
            ``{"vision": (1024, "float16", {}), "pixels": (784, "uint8", {})}``.
        responses: Whether the model's answers are stored.
        class_logprob: Whether the log-probability of each class name is stored.
        thumbnails: Whether each image is stored too, made small.

    Raises:
        StoreError: If a value makes no sense.
    """

    layers: tuple[int, ...]
    hidden_size: int
    store_dtype: StoreDtype = "float16"
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    responses: bool = False
    class_logprob: bool = False
    thumbnails: bool = False

    def __post_init__(self) -> None:
        layers = tuple(sorted(int(layer) for layer in self.layers))
        object.__setattr__(self, "layers", layers)
        if not layers or layers[0] < 0 or len(set(layers)) != len(layers):
            raise StoreError(
                f"The layers {list(self.layers)} cannot be stored: give at least one decoder layer "
                "number, each once and none below 0."
            )
        if self.hidden_size < 1:
            raise StoreError(
                f"The hidden size {self.hidden_size} cannot be stored: give the width of the "
                "residual stream, at least 1."
            )
        if self.store_dtype not in ("float16", "float32"):
            raise StoreError(
                f"The store dtype '{self.store_dtype}' is not known: use float16 or float32."
            )
        for name, (size, dtype, _attrs) in self.baselines.items():
            if not BASELINE_NAME.match(name) or name in RESERVED_VARIABLES:
                raise StoreError(
                    f"The baseline name '{name}' cannot be used: take lower-case letters, digits "
                    "and underscores, and no name that the store uses itself."
                )
            if size < 1 or dtype not in BASELINE_DTYPES:
                raise StoreError(
                    f"The baseline '{name}' ({size} values of {dtype}) cannot be stored: give at "
                    f"least 1 value of {', '.join(BASELINE_DTYPES)}."
                )

    @property
    def captured(self) -> tuple[Variable, ...]:
        """The variables that an extraction fills, shard by shard."""
        about = {
            "long_name": "residual stream after each decoder layer",
            "coordinates": "sample_id label group",
        }
        dims = ("sample", "layer", "hidden")
        found = [Variable(RESID_POST, dims, self.store_dtype, about, CHUNK_ROWS)]
        found += [
            Variable(name, ("sample", f"{name}_feature"), dtype, attrs, CHUNK_ROWS)
            for name, (_size, dtype, attrs) in sorted(self.baselines.items())
        ]
        found += [CLASS_LOGPROB] if self.class_logprob else []
        found += [RESPONSE] if self.responses else []
        found += [THUMBNAIL] if self.thumbnails else []
        return tuple(found)

    def sizes(self, n_samples: int, n_classes: int) -> dict[str, int]:
        """The length of every dimension, in the order in which dimensions are stored."""
        sizes = {
            "sample": n_samples,
            "layer": len(self.layers),
            "hidden": self.hidden_size,
            "class": n_classes,
        }
        for name, (size, _dtype, _attrs) in sorted(self.baselines.items()):
            sizes[f"{name}_feature"] = size
        return sizes

    def bytes_per_sample(self, n_classes: int = 0) -> int:
        """Bytes that one sample's captured numbers take, answers not counted."""
        sizes = self.sizes(1, n_classes)
        return sum(
            int(np.dtype(v.dtype).itemsize * np.prod([sizes[d] for d in v.dims]))
            for v in self.captured
            if v.dtype != "string"
        )


@dataclass(frozen=True, eq=False)
class SampleTable:
    """The samples of a store, one entry per row.

    Args:
        sample_id: Unique, non-empty ids.
        label: Integers, shape ``(n,)``, indices into ``class_names``.
        class_names: Unique names of the classes.
        group: Integers from 0, shape ``(n,)``; samples of one group are not independent.
        source_split: What the source calls the sample's split, or ``""``.
        image_sha256: SHA-256 of each image, in hexadecimal.
        group_names: Unique names by group number, such as those of signers; ``None`` where groups
            have none.

    Raises:
        StoreError: If lengths differ, an id is empty or occurs twice, a label or group is out of
            range, or a text cannot be stored as UTF-8.
    """

    sample_id: Sequence[str]
    label: NDArray[np.int64]
    class_names: tuple[str, ...]
    group: NDArray[np.int64]
    source_split: Sequence[str]
    image_sha256: Sequence[str]
    group_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("sample_id", "source_split", "image_sha256"):
            object.__setattr__(self, name, checked_strings(getattr(self, name), name))
        object.__setattr__(self, "class_names", tuple(checked_strings(self.class_names, "class")))
        if self.group_names is not None:
            names = tuple(checked_strings(self.group_names, "group name"))
            object.__setattr__(self, "group_names", names)
        for name in ("label", "group"):
            values = np.asarray(getattr(self, name))
            if values.ndim != 1 or values.dtype.kind not in "iu":
                raise StoreError(
                    f"The samples' {name} must be one integer each, not an array of "
                    f"{values.dtype} with shape {values.shape}."
                )
            object.__setattr__(self, name, values.astype(np.int64))
        problem = self.problem()
        if problem:
            raise StoreError(problem)

    def __len__(self) -> int:
        return len(self.sample_id)

    def problem(self) -> str | None:
        """Say in one sentence what is wrong with the table, or ``None``."""
        n = len(self.sample_id)
        if n == 0:
            return "There are no samples to store: check the image source."
        for name in ("label", "group", "source_split", "image_sha256"):
            if len(getattr(self, name)) != n:
                return f"There are {n} sample ids but {len(getattr(self, name))} values of {name}."
        if len(set(self.sample_id)) != n:
            seen: set[str] = set()
            for sample in self.sample_id:
                if sample in seen:
                    return f"The sample id '{sample}' occurs twice: ids must be unique."
                seen.add(sample)
        if "" in self.sample_id:
            return f"Sample {list(self.sample_id).index('')} has an empty id: give it one."
        if len(set(self.class_names)) != len(self.class_names):
            return f"The class names {some(self.class_names, 10)} are not unique."
        bad = np.flatnonzero((self.label < 0) | (self.label >= len(self.class_names)))
        if len(bad):
            return (
                f"Sample '{self.sample_id[bad[0]]}' has label {self.label[bad[0]]}, but there are "
                f"{len(self.class_names)} classes, numbered from 0."
            )
        bad = np.flatnonzero(self.group < 0)
        if len(bad):
            return (
                f"Sample '{self.sample_id[bad[0]]}' has group {self.group[bad[0]]}: groups are "
                "numbered from 0."
            )
        if self.group_names is not None:
            if "" in self.group_names or len(set(self.group_names)) != len(self.group_names):
                return f"The group names {list(self.group_names)} are not unique and not empty."
            bad = np.flatnonzero(self.group >= len(self.group_names))
            if len(bad):
                return (
                    f"Sample '{self.sample_id[bad[0]]}' has group {self.group[bad[0]]}, but there "
                    f"are {len(self.group_names)} group names, numbered from 0."
                )
        return None

    def column(self, name: str) -> Values:
        """The values stored under ``name``, one of the per-sample variables."""
        values = getattr(self, name)
        return values if isinstance(values, np.ndarray) else list(values)


@dataclass(frozen=True)
class Shard:
    """A contiguous range of samples, ``start`` to ``stop`` (exclusive), written as one piece."""

    index: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def checked_strings(values: Sequence[str], name: str) -> Strings:
    """Return ``values`` as a list after checking that each can be stored.

    Raises:
        StoreError: If a value is not a string, holds a NUL or is no valid Unicode.
    """
    checked = list(values)
    for i, value in enumerate(checked):
        if not isinstance(value, str):
            raise StoreError(f"The {name} of sample {i} is {value!r}, which is not a text.")
        if "\0" in value:
            raise StoreError(f"The {name} {value!r} of sample {i} holds a NUL: remove it.")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise StoreError(
                f"The {name} {value!r} of sample {i} is not valid Unicode: rename it."
            ) from None
    return checked


def block_edges(n: int, rows: int) -> list[tuple[int, int]]:
    """Cut ``n`` rows into ``(start, stop)`` blocks of at most ``rows``."""
    return [(start, min(start + rows, n)) for start in range(0, n, rows)]
