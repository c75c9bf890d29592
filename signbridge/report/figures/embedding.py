"""Vectors placed on a plane (UMAP; McInnes, Healy and Melville 2018, arXiv 1802.03426)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["align", "embed"]

_SPECTRAL_FROM = 30
_UMAP_FROM = 5


def embed(
    vectors: npt.NDArray[np.floating[Any]], seed: int = 42
) -> tuple[npt.NDArray[np.float64], str]:
    """Place vectors on a plane.

    Features are standardised first (residual streams have a few dimensions of huge variance), then
    UMAP with a fixed seed in one thread, so that a machine gives the same map again. Fewer than
    five distinct vectors are placed by their two principal components.

    Args:
        vectors: (n, d) feature vectors.
        seed: Seed of UMAP.

    Returns:
        (n, 2) positions and the name of the method, ``UMAP`` or ``PCA``.
    """
    x = np.asarray(vectors, dtype=np.float64)
    x = x - x.mean(axis=0)
    deviation = x.std(axis=0)
    x /= np.where(deviation > 0, deviation, 1.0)
    n = len(x)
    if n < _UMAP_FROM or len(np.unique(x, axis=0)) < _UMAP_FROM:
        u, s, _ = np.linalg.svd(x, full_matrices=False)
        plane = np.zeros((n, 2))
        plane[:, : min(2, len(s))] = (u * s)[:, :2]
        return plane, "PCA"
    import umap

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        position = umap.UMAP(
            n_neighbors=min(15, n - 1),
            min_dist=0.15,
            # The spectral start needs more samples than it has eigenvectors to find.
            init="spectral" if n >= _SPECTRAL_FROM else "random",
            random_state=seed,
            n_jobs=1,
        ).fit_transform(x.astype(np.float32))
    return np.asarray(position, dtype=np.float64), "UMAP"


def align(
    position: npt.NDArray[np.float64], reference: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Turn and mirror a map so that it lies on another of the same samples as well as it can.

    A map's direction means nothing; maps that are looked at side by side should share it. Nothing
    is stretched (orthogonal Procrustes; Schönemann 1966, Psychometrika 31).

    Args:
        position: (n, 2) positions.
        reference: (n, 2) positions of the same samples.

    Returns:
        (n, 2) positions about the origin, with all distances of ``position``.
    """
    from scipy.linalg import orthogonal_procrustes

    centred = position - position.mean(axis=0)
    turn, _ = orthogonal_procrustes(centred, reference - reference.mean(axis=0))
    return np.asarray(centred @ turn, dtype=np.float64)
