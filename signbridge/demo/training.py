"""The images that probes were trained on: which are nearest to a picture, and how near that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from signbridge.errors import SignBridgeError
from signbridge.report.images import pictures
from signbridge.report.inputs import open_inputs
from signbridge.results.features import RESID_POST
from signbridge.results.results import load_results

__all__ = ["Near", "Training", "training_of"]

SHOWN = 5
FAR = 0.95
"""Share of training images with a nearer neighbour from which on a picture is called far."""
_MOST = 2000  # images that a picture is compared with


@dataclass(frozen=True)
class Near:
    """What lies nearest to a picture among the training images.

    Attributes:
        distance: Euclidean, of standardised vectors of the best layer.
        usual: Median distance of a training image to its nearest one of another group.
        share: Share of training images whose own nearest one is nearer than that.
        images: Data URIs and class names of the nearest ones, the nearest first.
    """

    distance: float
    usual: float
    share: float
    images: tuple[tuple[str, str], ...]

    @property
    def is_far(self) -> bool:
        """Whether the picture is unlike those trained on."""
        return self.share >= FAR


class Training:
    """Training images in one layer.

    Args:
        vectors: (n, d) vectors, standardised as the probe does it.
        group: (n,) images of one group are not independent: near-duplicates would make every
            picture look far.
        names: The class of each.
        images: Data URIs of each.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float64],
        group: npt.NDArray[np.int64],
        names: Sequence[str],
        images: Sequence[str],
    ) -> None:
        from sklearn.metrics import pairwise_distances

        self._vectors, self._names, self._images = vectors, names, images
        between = pairwise_distances(vectors)
        between[group[:, None] == group[None]] = np.inf
        own = between.min(axis=1)
        self._own = own[np.isfinite(own)]

    def near(self, vector: npt.NDArray[np.float64]) -> Near | None:
        """The training images nearest to a picture; None where they are all of one group.

        Args:
            vector: (d,) of the picture, standardised.
        """
        if not len(self._own):
            return None
        distance = np.linalg.norm(self._vectors - vector, axis=1)
        order = np.argsort(distance, kind="stable")[:SHOWN]
        least = float(distance[order[0]])
        return Near(
            least,
            float(np.median(self._own)),
            float((self._own < least).mean()),
            tuple((self._images[k], self._names[k]) for k in order),
        )


def training_of(
    folder: str | Path,
    layer: int,
    mean: npt.NDArray[np.float64],
    deviation: npt.NDArray[np.float64],
) -> Training | None:
    """The training images of a results folder; None where its store is not there.

    Args:
        folder: The results.
        layer: The layer to compare in.
        mean: (d,) what the layer's probe subtracts.
        deviation: (d,) what it divides by.
    """
    try:
        results = load_results(folder)
        with open_inputs(results, None) as inputs:
            if inputs.store is None:
                return None
            p = results.predictions
            # A file of folds may leave images out, which no probe saw.
            rows = np.flatnonzero((p.fold >= 0) | (results.split != "file"))
            if len(rows) > _MOST:
                rows = np.sort(np.random.default_rng(0).choice(rows, _MOST, replace=False))
            vectors = inputs.vectors(f"{RESID_POST}/{layer}", rows)
            small = pictures(inputs.store, rows.tolist())
            names = [results.class_names[k] for k in p.label[rows]]
            images = [small.get(row, "") for row in rows.tolist()]
            return Training((vectors - mean) / deviation, p.group[rows], names, images)
    except SignBridgeError:
        return None
