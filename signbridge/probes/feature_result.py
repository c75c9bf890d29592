"""What a sweep holds of one feature, and how it is kept among a folder's parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from signbridge.results.features import Feature
from signbridge.results.probes import Probe

if TYPE_CHECKING:
    from signbridge.probes.engines import Record
    from signbridge.results.folder import ResultsFolder


@dataclass(frozen=True, eq=False)
class FeatureResult:
    """One feature's held-out predictions, choices and refitted probe.

    Attributes:
        feature: which.
        probability: main split, shape (n_samples, n_classes), float32, NaN where never scored.
        C: value used in each fold, shape (n_folds,).
        inner_accuracy: shape (n_folds,), NaN without inner folds.
        inner_cross_entropy: shape (n_folds,).
        random: the same probabilities under the random comparison, or None.
        C_random: shape (n_random_folds,), or None.
        probe: refitted on all samples.
        not_converged: records of fits that missed their tolerance.
        sgd: what sgd chose and how far it came, a record for every C.
    """

    feature: Feature
    probability: npt.NDArray[np.float32]
    C: npt.NDArray[np.float64]
    inner_accuracy: npt.NDArray[np.float64]
    inner_cross_entropy: npt.NDArray[np.float64]
    random: npt.NDArray[np.float32] | None
    C_random: npt.NDArray[np.float64] | None
    probe: Probe
    not_converged: list[Record]
    sgd: list[dict[str, Any]] = field(default_factory=list)

    _ARRAYS = ("probability", "C", "inner_accuracy", "inner_cross_entropy", "random", "C_random")
    _PROBE = ("weight", "bias", "mean", "deviation")

    def save(self, folder: ResultsFolder) -> None:
        """Keep it among the folder's parts."""
        arrays = {name: getattr(self, name) for name in self._ARRAYS}
        arrays |= {f"probe_{name}": getattr(self.probe, name) for name in self._PROBE}
        words = {"C": self.probe.C, "not_converged": self.not_converged, "sgd": self.sgd}
        kept = {name: value for name, value in arrays.items() if value is not None}
        folder.save_part(self.feature.name, kept, words)

    @classmethod
    def load(cls, folder: ResultsFolder, feature: Feature) -> FeatureResult | None:
        """From the folder's parts, or None where it is not there."""
        found = folder.load_part(feature.name)
        if found is None:
            return None
        arrays, words = found
        parameters = {name: arrays[f"probe_{name}"] for name in cls._PROBE}
        values: dict[str, Any] = {name: arrays.get(name) for name in cls._ARRAYS}
        return cls(
            feature=feature,
            probe=Probe(feature, C=words["C"], **parameters),
            not_converged=words["not_converged"],
            sgd=words.get("sgd", []),
            **values,
        )
