"""Trained probes on disk: ``probes.safetensors`` for the numbers, ``probes.json`` for the words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError, first_line
from signbridge.results.features import RESID_POST, Feature
from signbridge.results.records import from_json
from signbridge.runtime.files import replace_file
from signbridge.runtime.reading import read_bytes, read_json

FORMAT = "signbridge-probes"
VERSION = "1.0"
TENSORS_FILE = "probes.safetensors"
WORDS_FILE = "probes.json"
_LARGEST = 1 << 36  # bytes of the tensors
PARTS = ("weight", "bias", "mean", "deviation")


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe of one feature with its standardisation.

    Logits are ``weight @ ((x - mean) / deviation) + bias``, in float64.

    Attributes:
        feature: what it reads.
        weight: shape (n_classes, n_features), float64; zero for classes it was not trained on.
        bias: shape (n_classes,); -inf for classes it was not trained on.
        mean: mean of the training part, shape (n_features,).
        deviation: deviation of the training part, never 0, shape (n_features,).
        C: inverse penalty of the fit.
    """

    feature: Feature
    weight: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    mean: npt.NDArray[np.float64]
    deviation: npt.NDArray[np.float64]
    C: float

    @property
    def n_features(self) -> int:
        """Width of the feature."""
        return int(self.weight.shape[1])

    def logits(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Unnormalised log-probabilities.

        Args:
            X: the feature as stored, not standardised, shape (n_samples, n_features).

        Returns:
            Shape (n_samples, n_classes).

        Raises:
            ProbeError: X has another width.
        """
        x = np.asarray(X)
        if x.ndim != 2 or x.shape[1] != self.n_features:
            raise ProbeError(
                f"the probe of {self.feature.name} takes rows of {self.n_features} values, "
                f"not an array of shape {x.shape}."
            )
        z = (x.astype(np.float64) - self.mean) / self.deviation
        return np.asarray(z @ self.weight.T + self.bias, dtype=np.float64)

    def predict_proba(self, X: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Class probabilities, shape (n_samples, n_classes); see :meth:`logits`."""
        logits = self.logits(X)
        p = np.exp(logits - logits.max(1, keepdims=True))
        return np.asarray(p / p.sum(1, keepdims=True))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Class indices, shape (n_samples,); see :meth:`logits`."""
        return np.asarray(self.logits(X).argmax(1), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Probes(Mapping[str, Probe]):
    """The probes of a sweep by the name of their feature (``resid_post/5``, ``pixels``).

    Attributes:
        probes: the probes, in the order of the sweep.
        class_names: names by class index.
        provenance: what they were trained on and how.
    """

    probes: tuple[Probe, ...]
    class_names: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str | int) -> Probe:
        """The probe of a feature name or of a layer number."""
        try:
            feature = Feature.parse(name)
        except ProbeError as error:
            raise KeyError(name) from error
        for probe in self.probes:
            if probe.feature == feature:
                return probe
        raise KeyError(f"no probe of {feature.name}; there are {', '.join(self)}")

    def __iter__(self) -> Iterator[str]:
        return (probe.feature.name for probe in self.probes)

    def __len__(self) -> int:
        return len(self.probes)

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers that have a probe (those of a control are not among them)."""
        return _layers(self.probes)


def save_probes(
    folder: str | os.PathLike[str],
    probes: Sequence[Probe],
    class_names: Sequence[str],
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write ``probes.safetensors`` and ``probes.json``, each by way of a temporary name.

    Args:
        folder: where to write; made if missing.
        probes: the probes.
        class_names: names by class index.
        provenance: JSON-able record of what they were trained on.
    """
    from safetensors.numpy import save

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{probe.feature.name}.{part}": np.ascontiguousarray(getattr(probe, part), np.float64)
        for probe in probes
        for part in PARTS
    }
    # One entry only: safetensors writes several in an order that changes from run to run.
    data = save(tensors, metadata={"format": f"{FORMAT} {VERSION}"})
    words = {
        "format": FORMAT,
        "version": VERSION,
        "class_names": list(class_names),
        "layers": list(_layers(probes)),
        "features": [
            {
                "name": p.feature.name,
                "feature": p.feature.kind,
                "layer": p.feature.layer,
                "n_features": p.n_features,
                "C": p.C,
            }
            for p in probes
        ],
        "standardisation": "(x - mean) / deviation, with the tensors of those names",
        "logits": "weight @ standardised + bias; softmax over classes",
        "sha256": hashlib.sha256(data).hexdigest(),
        "provenance": dict(provenance or {}),
    }
    replace_file(path / TENSORS_FILE, data)
    replace_file(path / WORDS_FILE, (json.dumps(words, indent=2) + "\n").encode())


def load_probes(folder: str | os.PathLike[str]) -> Probes:
    """Read the probes of a results folder.

    Args:
        folder: a folder that holds ``probes.safetensors`` and ``probes.json``.

    Returns:
        The probes; their predictions are those of the probes that were saved, to the bit.

    Raises:
        ProbeError: a file is missing or damaged, or of a newer format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = Path(folder)
    file = path / WORDS_FILE
    try:
        content = read_json(file)
        data = read_bytes(path / TENSORS_FILE, _LARGEST)
    except FileNotFoundError as error:
        raise ProbeError(
            f"{error.filename} does not exist; give a results folder made by train_probes."
        ) from error
    except OSError as error:
        raise ProbeError(f"{error.filename} cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise ProbeError(f"{file} cannot be read ({first_line(error)}); train again.") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ProbeError(f"{file} does not describe probes; train again.")
    if str(content.get("version")).split(".")[0] != VERSION.split(".")[0]:
        raise ProbeError(
            f"{file} has format version {content.get('version')} and this SignBridge reads "
            f"{VERSION}; use the SignBridge that wrote it."
        )
    try:
        words = from_json(_Words, content)
    except ValueError as error:
        raise ProbeError(f"{file} {error}; train again.") from error
    if hashlib.sha256(data).hexdigest() != words.sha256:
        raise ProbeError(f"{path / TENSORS_FILE} is not what {WORDS_FILE} records; train again.")
    try:
        tensors = load(data)
        probes = tuple(_probe(entry, tensors, len(words.class_names)) for entry in words.features)
    except (KeyError, TypeError, ValueError, SafetensorError) as error:
        raise ProbeError(
            f"the probes in {path} are incomplete ({first_line(error)}); train again."
        ) from error
    for what, names in (
        ("class", words.class_names),
        ("feature", tuple(entry.name for entry in words.features)),
    ):
        if not names or len(set(names)) != len(names):
            raise ProbeError(f"{file} names no {what}, or one twice; train again.")
    return Probes(probes, words.class_names, words.provenance)


@dataclass(frozen=True)
class _Entry:
    """What ``probes.json`` says of one probe."""

    name: str
    C: float


@dataclass(frozen=True)
class _Words:
    """What is read of ``probes.json``."""

    sha256: str
    class_names: tuple[str, ...]
    features: tuple[_Entry, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)


def _probe(entry: _Entry, tensors: Mapping[str, npt.NDArray[Any]], n_classes: int) -> Probe:
    """One probe of the file.

    Raises:
        KeyError: a tensor is missing.
        ValueError: one has another shape than the class names and the others say, or holds what no
            fit gives.
    """
    try:
        feature = Feature.parse(entry.name)
    except ProbeError as error:
        raise ValueError(str(error)) from error
    parts = {part: tensors[f"{entry.name}.{part}"] for part in PARTS}
    width = parts["weight"].shape[-1:]
    shapes = {"weight": (n_classes, *width), "bias": (n_classes,)}
    for part, values in parts.items():
        expected = shapes.get(part, width)
        if values.shape != expected or values.dtype != np.float64:
            raise ValueError(
                f"{part} of {entry.name} is {values.dtype} of shape {values.shape}, not float64 of "
                f"{expected}"
            )
        # A class that was not trained on has the bias -inf.
        finite = np.isfinite(values) | ((values == -np.inf) & (part == "bias"))
        if not finite.all() or (part == "deviation" and (values <= 0).any()):
            raise ValueError(f"{part} of {entry.name} holds what no fit gives, such as NaN")
    if not np.isfinite(parts["bias"]).any():
        raise ValueError(f"{entry.name} knows no class")
    return Probe(feature, C=entry.C, **parts)


def _layers(probes: Sequence[Probe]) -> tuple[int, ...]:
    held = (p.feature.layer for p in probes if p.feature.kind == RESID_POST)
    return tuple(layer for layer in held if layer is not None)
