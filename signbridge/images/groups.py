"""Groups of images that are not independent: near-duplicates, signers, or as given in a file.

Splits that part near-duplicates measure recognition of photographs instead of signs. The measure
here is the Pearson correlation of the grey 28 × 28 images, which ignores brightness and contrast,
linked transitively (single linkage).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from signbridge.errors import ImagesError
from signbridge.runtime.reading import read_text
from signbridge.runtime.tables import unquoted
from signbridge.runtime.words import composed

DEFAULT_THRESHOLD = 0.95
"""Correlation from which two images count as near-duplicates."""

_BLOCK = 2048  # 2048 x 2048 float32 correlations are 16 MiB
_EXACT_BLOCK = 4096  # pairs whose products are taken at once in float64: 2 x 25 MiB
_COORDINATES = 63  # with them the bound lets through 7 % more pairs of real hands than are linked
_FEW = 16  # pairs a row up to which they are looked at singly instead of by a matrix product
_ROUNDING = 1e-4  # bounds the float32 error of a correlation over 784 pixels (784 * 2**-24 < 5e-5)


def consecutive(values: Iterable[Hashable]) -> NDArray[np.int64]:
    """Number values from 0 in order of first appearance.

    >>> consecutive(["b", "a", "b"]).tolist()
    [0, 1, 0]
    """
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def near_duplicate_groups(
    pixels: NDArray[np.uint8], threshold: float = DEFAULT_THRESHOLD
) -> NDArray[np.int64]:
    """Group images by single linkage over the Pearson correlation of their pixels.

    Two images are linked where their correlation is at least ``threshold``; a group is a connected
    component of these links. Constant images have no correlation and show nothing that would tell
    them apart: they form one group. Time grows with the square of the number of images
    (blocked matrix products), memory linearly. The result depends on the pixels alone: where
    float32 cannot decide a link, exact integer sums do.

    Args:
        pixels: uint8, shape (samples, features).
        threshold: Correlation above 0 and up to 1.

    Returns:
        int64, shape (samples,): group numbers, consecutive from 0 in order of first appearance.

    Raises:
        ImagesError: The threshold is not above 0 and up to 1.
        TypeError: ``pixels`` is not a two-dimensional uint8 array.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 2:
        raise TypeError("pixels must be a uint8 array of shape (samples, features)")
    if not 0 < threshold <= 1:
        raise ImagesError(
            f"The duplicate threshold {threshold!r} is not a correlation above 0 and up to 1; "
            f"the default is {DEFAULT_THRESHOLD}."
        )
    if len(pixels) == 0:
        return np.zeros(0, dtype=np.int64)
    return _Linkage(pixels, threshold).groups()


class _Linkage:
    """Single linkage, block of pairs by block; keeps only the current components.

    Most pairs are ruled out by an upper bound of their correlation: the product of their first
    principal coordinates plus, by Cauchy and Schwarz, that of the lengths of what these leave out.
    """

    def __init__(self, pixels: NDArray[np.uint8], threshold: float) -> None:
        self.pixels = pixels
        self.threshold = threshold
        count, features = pixels.shape
        self.sums = np.empty(count, dtype=np.int64)
        self.scaled_variance = np.empty(count, dtype=np.int64)  # features**2 times the variance
        self.unit = np.empty(pixels.shape, dtype=np.float32)  # centred, of length 1
        for start in range(0, count, _BLOCK):
            rows = slice(start, start + _BLOCK)
            block = pixels[rows].astype(np.float64)  # sums of these integers are exact
            sums = block.sum(axis=1)
            scaled = features * np.einsum("ij,ij->i", block, block) - sums * sums
            block -= sums[:, None] / features
            block /= np.sqrt(np.maximum(scaled, 1) / features)[:, None]
            self.sums[rows], self.scaled_variance[rows], self.unit[rows] = sums, scaled, block
        self.sketch = self._sketch() if count > 2 * _BLOCK else None
        self.component = np.arange(count)
        constant = np.flatnonzero(self.scaled_variance == 0)
        if len(constant):
            self.component[constant] = constant[0]

    def _sketch(self) -> NDArray[np.float32] | None:
        """First principal coordinates of each image and the length of the rest, if of use."""
        count = len(self.unit)
        some = self.unit[:: count // _BLOCK].astype(np.float64)
        basis = np.linalg.eigh(some.T @ some)[1][:, -_COORDINATES:]
        sketch = np.empty((count, basis.shape[1] + 1), dtype=np.float32)
        for start in range(0, count, _BLOCK):
            rows = slice(start, start + _BLOCK)
            coordinates = self.unit[rows].astype(np.float64) @ basis
            left_out = 1 - np.einsum("ij,ij->i", coordinates, coordinates)
            sketch[rows, :-1] = coordinates
            sketch[rows, -1] = np.sqrt(np.maximum(left_out, 0) + 1e-6)  # rounded up, never down
        if np.mean(sketch[:, -1] ** 2) > self.threshold / 2:
            return None  # such as noise: the bound would rule out little
        return sketch

    def groups(self) -> NDArray[np.int64]:
        count = len(self.pixels)
        for start in range(0, count, _BLOCK):
            for other in range(start, count, _BLOCK):
                self._link_block(start, other)
        return consecutive(self.component.tolist())

    def _link_block(self, start: int, other: int) -> None:
        left, right = self.component[start : start + _BLOCK], self.component[other : other + _BLOCK]
        if left.min() == left.max() == right.min() == right.max():
            return
        if self.sketch is not None:
            _, open_pairs = self._products(self.sketch, start, other)
            if np.count_nonzero(open_pairs) <= _FEW * len(left):
                self._link_exactly(*_indices(open_pairs, start, other))
                return
        correlation, open_pairs = self._products(self.unit, start, other)
        certain = correlation >= self.threshold + _ROUNDING
        self._merge(*_indices(open_pairs & certain, start, other))
        self._link_exactly(*_indices(open_pairs & ~certain, start, other))

    def _products(
        self, vectors: NDArray[np.float32], start: int, other: int
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Products of a block, and which pairs may reach the threshold and are not joined yet."""
        product = vectors[start : start + _BLOCK] @ vectors[other : other + _BLOCK].T
        open_pairs = product >= self.threshold - _ROUNDING
        if open_pairs.any():
            left, right = self.component[start : start + _BLOCK], self.component[other:]
            open_pairs &= left[:, None] != right[None, :_BLOCK]
        return product, open_pairs

    def _link_exactly(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        features = self.pixels.shape[1]
        # One pair of each row first: of the others, few are then still to be decided.
        later = np.diff(rows, prepend=-1) == 0
        order = np.argsort(later, kind="stable")
        rows, columns = rows[order], columns[order]
        while len(rows):
            apart = self.component[rows] != self.component[columns]
            rows, columns = rows[apart], columns[apart]
            i, j = rows[:_EXACT_BLOCK], columns[:_EXACT_BLOCK]
            rows, columns = rows[_EXACT_BLOCK:], columns[_EXACT_BLOCK:]
            products = np.einsum(
                "ij,ij->i", self.pixels[i].astype(np.float64), self.pixels[j].astype(np.float64)
            )
            covariance = features * products - self.sums[i].astype(np.float64) * self.sums[j]
            scale = np.sqrt(self.scaled_variance[i].astype(np.float64) * self.scaled_variance[j])
            linked = (covariance >= self.threshold * scale) & (scale > 0)
            self._merge(i[linked], j[linked])

    def _merge(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        """Join the components of linked images."""
        if not len(rows):
            return
        # One link of each row alone joins most of what a block of duplicates joins.
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        self._join(rows[first], columns[first])
        apart = self.component[rows] != self.component[columns]
        if apart.any():
            self._join(rows[apart], columns[apart])

    def _join(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self.component)
        edges = (self.component[rows], self.component[columns])
        graph = coo_array((np.ones(len(rows), dtype=np.int8), edges), shape=(count, count))
        merged = connected_components(graph, directed=False)[1]
        self.component = merged[self.component].astype(np.int64)


def _indices(
    pairs: NDArray[np.bool_], start: int, other: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows, columns = np.divmod(np.flatnonzero(pairs), pairs.shape[1])  # faster than np.nonzero
    return rows + start, columns + other


def groups_by_pattern(pattern: str, sample_ids: Sequence[str]) -> list[str]:
    """Take the group of each sample out of its id with a regular expression.

    Args:
        pattern: Looked for anywhere in the id; its group ``signer`` or ``group`` counts, else its
            first group.
        sample_ids: The samples, in order.

    Returns:
        The name of each sample's group.

    Raises:
        ImagesError: It is no regular expression with a group, or does not fit every sample.
    """
    try:
        compiled = re.compile(composed(pattern))
    except re.error as error:
        raise ImagesError(f"--groups is {pattern!r}, no regular expression ({error}).") from None
    if not compiled.groups:
        raise ImagesError(
            f"--groups is {pattern!r}, which has no group in brackets; give one, such as "
            "'hand(\\d+)_'."
        )
    which = next((name for name in ("signer", "group") if name in compiled.groupindex), 1)
    found = [compiled.search(composed(sample)) for sample in sample_ids]
    names = [match[which] if match else None for match in found]
    for sample, name in zip(sample_ids, names, strict=True):
        if not name:
            raise ImagesError(
                f"--groups {pattern!r} finds nothing in {sample!r}, one of "
                f"{sum(not name for name in names):,} of {len(names):,} such samples; correct it."
            )
    return [name for name in names if name]


def read_groups(path: Path, sample_ids: Sequence[str]) -> dict[str, str]:
    """Read the groups of samples from a CSV with the columns ``sample_id,group``.

    Args:
        path: The CSV file (UTF-8). Ids that are not asked for are passed over.
        sample_ids: The samples, of which the file may lack some.

    Returns:
        The name of the group of each sample that the file names.

    Raises:
        ImagesError: The file cannot be read, lacks a column, or contradicts itself.
    """
    wanted = {composed(sample): sample for sample in sample_ids}
    given: dict[str, str] = {}
    try:
        with io.StringIO(read_text(path), newline="") as file:
            reader = csv.DictReader(file)
            if not {"sample_id", "group"} <= set(reader.fieldnames or ()):
                raise ImagesError(
                    f"{path} has no header with the columns sample_id,group; add it as line 1."
                )
            for row in reader:
                sample = wanted.get(composed(unquoted(row["sample_id"] or "")))
                if sample is None:
                    continue
                group = composed(row["group"] or "").strip()
                if not group:
                    raise ImagesError(
                        f"{path}, line {reader.line_num}: sample {sample!r} has no group; "
                        "write one in the column group."
                    )
                if given.setdefault(sample, group) != group:
                    raise ImagesError(
                        f"{path}, line {reader.line_num}: sample {sample!r} has the groups "
                        f"{given[sample]!r} and {group!r}; keep one."
                    )
    except OSError as error:
        raise ImagesError(
            f"The groups file {path} cannot be read ({error.strerror}); give a CSV with the "
            "columns sample_id,group."
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImagesError(
            f"The groups file {path} is not a UTF-8 CSV ({error}); save it as one."
        ) from None
    return given


def check_complete(given: Mapping[str, str], path: Path, sample_ids: Sequence[str]) -> list[str]:
    """Return the group of each sample.

    Args:
        given: From :func:`read_groups`.
        path: The file, as the message names it.
        sample_ids: The samples, in order.

    Raises:
        ImagesError: The file lacks a sample.
    """
    missing = [sample for sample in sample_ids if sample not in given]
    if missing:
        raise ImagesError(
            f"{path} gives no group for {len(missing):,} of {len(sample_ids):,} samples, the first "
            f"of them {missing[0]!r}; add a line for each."
        )
    return [given[sample] for sample in sample_ids]
