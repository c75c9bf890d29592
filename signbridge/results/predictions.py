"""Held-out predictions of a results folder (``predictions.h5``)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError, first_line
from signbridge.results.format import AGAIN, VERSION, require_file
from signbridge.runtime.files import publish
from signbridge.store.hdf import DAMAGE
from signbridge.store.opening import open_plain

if TYPE_CHECKING:
    import h5py

__all__ = ["Predictions", "read_predictions", "too_many_classes", "write_predictions"]

_MOST_EMPTY_CLASSES = 1000


def too_many_classes(named: int, labels: npt.NDArray[np.int64]) -> bool:
    """Whether many more classes are named than have a sample.

    Every class is a row of each probe, and a table of classes by classes would fill the memory.

    Args:
        named: Class names.
        labels: Class indices of the samples.
    """
    return named - len(np.unique(labels)) > max(_MOST_EMPTY_CLASSES, len(labels))


@dataclass(frozen=True)
class Predictions:
    """Held-out predictions of the main split.

    Attributes:
        path: The HDF5 file.
        sample_id: Ids, one a sample.
        label: (n,) int64, index into ``class_names``.
        fold: (n,) int64, the fold that scored the sample, -1 where none did.
        group: (n,) int64, samples of one group are not independent.
        class_names: Names of the classes.
        feature_names: Names such as ``resid_post/5`` or ``pixels``.
        group_names: Names by group number, such as those of signers; None where there are none.
    """

    path: Path
    sample_id: tuple[str, ...]
    label: npt.NDArray[np.int64]
    fold: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    group_names: tuple[str, ...] | None = None

    def probability(self, feature: str) -> npt.NDArray[np.float32]:
        """Held-out class probabilities of one feature.

        Args:
            feature: One of ``feature_names``.

        Returns:
            (n, classes) float32, NaN rows where a sample was never scored.

        Raises:
            ProbeError: The file does not hold this feature, or cannot be read.
        """
        if feature not in self.feature_names:
            raise ProbeError(
                f"{self.path} has no predictions for {feature!r}, it has: "
                f"{', '.join(self.feature_names)}."
            )
        try:
            with open_plain(self.path) as file:
                dataset = file["probability"]
                probability = np.asarray(
                    dataset[self.feature_names.index(feature)], dtype=np.float32
                )
        except DAMAGE as error:
            raise ProbeError(
                f"{self.path} cannot be read ({first_line(error)}): {AGAIN}."
            ) from error
        given = probability[~np.isnan(probability)]
        if given.size and (given.min() < -1e-3 or given.max() > 1 + 1e-3):
            raise ProbeError(
                f"{self.path} holds values outside 0..1 in the probabilities of {feature!r}: "
                f"{AGAIN}."
            )
        return probability

    def predicted(self, feature: str) -> npt.NDArray[np.int64]:
        """Most probable class of every sample, -1 where a sample was never scored.

        Args:
            feature: One of ``feature_names``.

        Returns:
            (n,) int64.

        Raises:
            ProbeError: As :meth:`probability`.
        """
        probability = self.probability(feature)
        scored = np.isfinite(probability).all(axis=1)
        best = np.full(len(probability), -1, dtype=np.int64)
        if scored.any():
            best[scored] = probability[scored].argmax(axis=1)
        return best


def write_predictions(
    path: Path,
    feature_names: Sequence[str],
    class_names: Sequence[str],
    samples: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
    splits: Mapping[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]],
    group_names: Sequence[str] | None = None,
) -> None:
    """Write ``predictions.h5``, which xarray opens with ``engine="h5netcdf"``.

    Args:
        path: the file.
        feature_names: names by feature index.
        class_names: names by class index.
        samples: variables of every sample: ``label``, ``group``, ``sample_id``.
        splits: by HDF5 group (``/`` for the main split, ``/random`` for the comparison) the
            probabilities, shape (n_features, n_samples, n_classes), and the folds, shape
            (n_samples,).
        group_names: names by group number, if the groups have any.

    Raises:
        OSError: the system refuses.
    """
    import h5py

    from signbridge.store.guarded import new_hdf5

    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    partial.unlink(missing_ok=True)  # of a killed process of the same number
    with new_hdf5(partial) as (file, _):
        file.attrs["format"] = "signbridge-predictions"
        file.attrs["version"] = VERSION
        text = h5py.string_dtype()
        scales = {
            "feature": file.create_dataset("feature_name", data=list(feature_names), dtype=text),
            "class": file.create_dataset("class_name", data=list(class_names), dtype=text),
            "sample": file.create_dataset("sample", data=np.arange(len(samples["label"]))),
        }
        if group_names is not None:
            names = file.create_dataset("group_name", data=list(group_names), dtype=text)
            scales["group_number"] = names
        # A dimension is named by its scale, and class_name(class) asks for another name.
        for name in [name for name in scales if name != "sample"]:
            words = scales[name]
            scales[name] = file.create_dataset(name, data=np.arange(len(words)))
            scales[name].make_scale(name)
            words.dims[0].attach_scale(scales[name])
        scales["sample"].make_scale("sample")
        for name, values in samples.items():
            array = np.asarray(values)
            kind = text if array.dtype.kind in "OUT" else array.dtype
            data = [str(value) for value in values] if kind is text else array
            variable = file.create_dataset(name, data=data, dtype=kind)
            variable.dims[0].attach_scale(scales["sample"])
        for where, (probability, fold) in splits.items():
            group = file.require_group(where)
            values = group.create_dataset("probability", data=probability.astype(np.float32))
            for axis, name in enumerate(("feature", "sample", "class")):
                values.dims[axis].attach_scale(scales[name])
            folds = group.create_dataset("fold", data=fold)
            folds.dims[0].attach_scale(scales["sample"])
    publish(partial, path)


def read_predictions(path: Path) -> Predictions:
    """Read the samples and coordinates of ``predictions.h5``; probabilities are read later.

    Args:
        path: The file.

    Returns:
        The held-out predictions of the main split.

    Raises:
        ProbeError: The file is missing, damaged or contradicts itself.
    """
    require_file(path)
    try:
        with open_plain(path) as file:
            return _predictions(file, path)
    except DAMAGE as error:
        raise ProbeError(
            f"{path} is not a whole predictions file ({first_line(error)}): {AGAIN}."
        ) from error


def _predictions(file: h5py.File, path: Path) -> Predictions:
    def strings(name: str) -> tuple[str, ...]:
        texts = tuple(str(s) for s in file[name].asstr()[...])
        if len(set(texts)) != len(texts):
            raise ValueError(f"{name} holds a text twice")
        return texts

    def integers(name: str) -> npt.NDArray[np.int64]:
        if file[name].dtype.kind not in "iu":
            raise ValueError(f"{name} holds {file[name].dtype}, not whole numbers")
        return np.asarray(file[name][...], dtype=np.int64)

    predictions = Predictions(
        path=path,
        sample_id=strings("sample_id"),
        label=integers("label"),
        fold=integers("fold"),
        group=integers("group"),
        class_names=strings("class_name"),
        feature_names=strings("feature_name"),
        group_names=strings("group_name") if "group_name" in file else None,
    )
    n, n_classes = len(predictions.sample_id), len(predictions.class_names)
    expected = (len(predictions.feature_names), n, n_classes)
    if n == 0 or n_classes == 0:
        raise ProbeError(f"{path} holds no samples or no classes: {AGAIN}.")
    shape = tuple(file["probability"].shape)
    if shape != expected:
        raise ProbeError(
            f"{path} has probabilities of shape {shape} where "
            f"its own coordinates say {expected}: {AGAIN}."
        )
    for name in ("label", "fold", "group"):
        if getattr(predictions, name).shape != (n,):
            raise ProbeError(f"{path} does not hold one {name} for each sample: {AGAIN}.")
    if predictions.group.min() < 0 or predictions.fold.min() < -1:
        raise ProbeError(f"{path} holds a negative group or fold: {AGAIN}.")
    names = predictions.group_names
    if names is not None and not 0 <= predictions.group.min() <= predictions.group.max() < len(
        names
    ):
        raise ProbeError(f"{path} holds a group that has no name: {AGAIN}.")
    if predictions.label.min() < 0 or predictions.label.max() >= n_classes:
        raise ProbeError(f"{path} holds a label that names no class: {AGAIN}.")
    if too_many_classes(n_classes, predictions.label):
        raise ProbeError(f"{path} names {n_classes:,} classes for {n:,} samples: {AGAIN}.")
    return predictions
