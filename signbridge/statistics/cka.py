r"""How alike the layers' geometries are: linear centred kernel alignment (CKA), debiased.

CKA (Kornblith et al. 2019, arXiv 1905.00414) compares two features by the similarities that they
give to all pairs of images, whatever their widths, rotations and scale. The plain estimate grows
towards 1 where there are fewer images than dimensions, even for unrelated features (Murphy et al.
2024, arXiv 2405.01012), which is the common case here; the unbiased estimate of the Hilbert-Schmidt
independence criterion (HSIC; Song et al. 2012, JMLR 13) removes that (Nguyen et al. 2021, arXiv
2010.15327, for CKA).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from signbridge.errors import ProbeError

__all__ = ["cka_matrix", "debiased_cka", "unbiased_hsic"]

FloatArray = npt.NDArray[np.float64]
MEMORY = 512 * 2**20
"""Bytes of Gram matrices that :func:`cka_matrix` holds at once."""


def unbiased_hsic(K: npt.ArrayLike, L: npt.ArrayLike) -> float:
    r"""Unbiased estimate of HSIC from two Gram matrices.

    With :math:`\tilde K, \tilde L` the matrices with their diagonals set to 0,

    .. math:: \frac{1}{n (n - 3)} \left[ \mathrm{tr}(\tilde K \tilde L)
        + \frac{1^T \tilde K 1 \; 1^T \tilde L 1}{(n - 1)(n - 2)}
        - \frac{2}{n - 2} 1^T \tilde K \tilde L 1 \right]

    (Song et al. 2012, JMLR 13, equation 5).

    Args:
        K: shape (n, n), symmetric, n at least 4.
        L: the same.

    Returns:
        The estimate; it may be negative.

    Raises:
        ProbeError: fewer than 4 samples.
    """
    n = len(np.asarray(K))
    a, b = _centred(np.array(K, dtype=np.float64)), _centred(np.array(L, dtype=np.float64))
    return float(2 * (a @ b) / (n * (n - 3)))


def debiased_cka(X: npt.ArrayLike, Y: npt.ArrayLike) -> float:
    """Debiased linear CKA of two features of the same samples.

    Args:
        X: shape (n, d), n at least 4. Not standardised here.
        Y: shape (n, e).

    Returns:
        1 for features that are equal up to rotation, shift and scale; about 0, and not only from
        above, for unrelated ones. NaN where a feature is constant.

    Raises:
        ProbeError: fewer than 4 samples.
    """
    a, b = (_centred(x @ x.T) for x in (_float(X), _float(Y)))
    return float(_ratio(np.array([[a @ a, a @ b], [a @ b, b @ b]]))[0, 1])


def cka_matrix(
    features: Sequence[Callable[[], npt.NDArray[Any]]], *, memory: int = MEMORY
) -> FloatArray:
    """Debiased linear CKA between all pairs of features, each standardised first.

    Standardising matters for residual streams, where a few dimensions of huge variance would
    otherwise decide alone. Gram matrices of as many features as fit into ``memory`` are held at
    once, and the others made again where they are needed, so memory does not grow with the number
    of features: ``memory`` and one feature.

    Args:
        features: functions that return one feature each, shape (n, own width), the same n samples
            in the same order; called once or more.
        memory: bytes for Gram matrices (half of a symmetric float32 matrix each).

    Returns:
        Shape (n_features, n_features), symmetric; NaN in the row of a constant feature.

    Raises:
        ProbeError: fewer than 4 samples, or features of different samples.
    """
    first = _gram(features[0]())
    most = max(2, int(memory // max(1, first.nbytes)))
    size = len(features) if len(features) <= most else most // 2
    blocks = [range(k, min(k + size, len(features))) for k in range(0, len(features), size)]
    product = np.zeros((len(features), len(features)))
    for i, rows in enumerate(blocks):
        own = np.stack([_same(_gram(features[k]()), first) for k in rows])
        product[rows.start : rows.stop, rows.start : rows.stop] = _inner(own, own)
        for columns in blocks[i + 1 :]:
            other = np.stack([_same(_gram(features[k]()), first) for k in columns])
            part = _inner(own, other)
            product[rows.start : rows.stop, columns.start : columns.stop] = part
            product[columns.start : columns.stop, rows.start : rows.stop] = part.T
    return _ratio(product)


def _float(x: npt.ArrayLike) -> FloatArray:
    array: FloatArray = np.asarray(x, dtype=np.float64)
    # Shift-invariant anyway; near 0 the products lose no digits.
    return np.asarray(array - array.mean(axis=0))


def _gram(feature: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The centred Gram matrix of a standardised feature, as float32."""
    x = _float(feature)
    deviation = x.std(axis=0)
    x /= np.where(deviation > 0, deviation, 1.0)
    return _centred(x @ x.T / x.shape[1]).astype(np.float32)


def _centred(gram: FloatArray) -> FloatArray:
    """Entries above the diagonal of the U-centred matrix (Székely & Rizzo 2014, Ann. Stat. 42).

    Twice the inner product of two such vectors is n (n - 3) times the unbiased HSIC.
    """
    n = len(gram)
    if n < 4:
        raise ProbeError(f"CKA needs 4 or more images, not {n}: use more images.")
    np.fill_diagonal(gram, 0.0)
    total = gram.sum(axis=0)
    gram -= total[:, None] / (n - 2)
    gram -= total[None, :] / (n - 2)
    gram += total.sum() / ((n - 1) * (n - 2))
    return np.asarray(gram[np.triu_indices(n, 1)], dtype=np.float64)


def _same(gram: npt.NDArray[np.float32], first: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if len(gram) != len(first):
        raise ProbeError("CKA compares features of the same images: these differ in number.")
    return gram


def _inner(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> FloatArray:
    """All inner products, with sums of float32 products carried on in float64."""
    step = 2**16
    total = np.zeros((len(a), len(b)))
    for start in range(0, a.shape[1], step):
        piece = slice(start, start + step)
        total += a[:, piece].astype(np.float64) @ b[:, piece].astype(np.float64).T
    return total


def _ratio(product: FloatArray) -> FloatArray:
    own = np.diagonal(product)
    scale = np.sqrt(np.where(own > 0, own, np.nan))
    return np.asarray(product / (scale[:, None] * scale[None, :]))
