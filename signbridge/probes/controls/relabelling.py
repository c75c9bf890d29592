"""Labellings of a permutation test: labels move among groups, never within one.

They are permuted only in ways that leave the split what it is, within each of its parts and among
groups of about one size. So every permuted labelling has as many groups of each class in every part
as the true one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from signbridge.probes.dataset.splits import IntArray, Split

_STREAM = 1  # keeps these draws apart from others of the same seed


@dataclass(frozen=True, eq=False)
class Relabelling:
    """The labellings that a permutation test compares.

    A *unit* is what keeps one label: a group whose images all have the same label, or one image of
    a group that holds several labels. Labels are permuted among the units of a *stratum*:

    - groups of one label that lie in one part of the split and are of about one size (1, 2, 3,
      4 to 5, 6 to 7, 8 to 11, and so on in steps of the root of 2);
    - groups of one label that the split parts, if they have equally many images in each part;
    - images of one group with several labels, within one part.

    Attributes:
        unit: unit of each sample, shape (n_samples,).
        label: true label of each unit, shape (n_units,).
        stratum: stratum of each unit, shape (n_units,).
        seed: seed of the permutations.
        structure: ``between groups``, ``within groups`` or ``between and within groups``.
        moving: number of units that can get another label.
    """

    unit: IntArray
    label: IntArray
    stratum: IntArray
    seed: int
    structure: str
    moving: int

    @classmethod
    def of(
        cls, labels: npt.ArrayLike, groups: npt.ArrayLike, split: Split, *, seed: int = 42
    ) -> Relabelling:
        """Find units and strata.

        Args:
            labels: class indices, shape (n_samples,).
            groups: group of each sample, shape (n_samples,).
            split: the split that scores, whose parts keep their labels.
            seed: seed of the permutations.
        """
        y = np.asarray(labels, dtype=np.int64)
        g = np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)
        n_groups, part = int(g.max()) + 1, _parts(split)
        low, high = np.full(n_groups, y.max()), np.zeros(n_groups, dtype=np.int64)
        np.minimum.at(low, g, y)
        np.maximum.at(high, g, y)
        mixed = low != high
        # Pure groups get the units 0.., images of mixed groups the ones after them.
        unit = np.where(mixed[g], 0, np.cumsum(~mixed)[g] - 1)
        alone = np.flatnonzero(mixed[g])
        n_pure = int((~mixed).sum())
        unit[alone] = n_pure + np.arange(len(alone))
        counts = np.zeros((n_groups, int(part.max()) + 1), dtype=np.int64)
        np.add.at(counts, (g, part), 1)
        keys: list[tuple[Any, ...]] = []
        for count in counts[~mixed]:
            held = np.flatnonzero(count)
            keys.append(
                ("part", int(held[0]), size_class(int(count.sum())))
                if len(held) == 1
                else ("parted", *count.tolist())
            )
        keys += [("group", int(g[i]), int(part[i])) for i in alone]
        number: dict[tuple[Any, ...], int] = {}
        stratum = np.array([number.setdefault(key, len(number)) for key in keys], dtype=np.int64)
        label = np.empty(len(keys), dtype=np.int64)
        label[unit] = y
        movable = _movable(label, stratum)
        between, within = bool(movable[:n_pure].any()), bool(movable[n_pure:].any())
        structure = "between and within groups" if between and within else "between groups"
        if within and not between:
            structure = "within groups"
        return cls(unit, label, stratum, seed, structure, int(movable.sum()))

    def labels(self, number: int) -> IntArray:
        """Labels of the units in one labelling, shape (n_units,).

        Args:
            number: 0 is the true labelling, any other a permutation of it.
        """
        if number == 0:
            return self.label
        sequence = np.random.SeedSequence(self.seed, spawn_key=(_STREAM, number))
        keys = np.random.default_rng(sequence).random(len(self.label))
        out = np.empty_like(self.label)
        out[np.argsort(self.stratum, kind="stable")] = self.label[np.lexsort((keys, self.stratum))]
        return out

    @property
    def arrangements(self) -> float:
        """How many different labellings there are (infinity where the number is beyond a float)."""
        pairs = np.stack([self.stratum, self.label])
        of_class = np.unique(pairs, axis=1, return_counts=True)[1]
        total = float(gammaln(np.bincount(self.stratum) + 1).sum() - gammaln(of_class + 1).sum())
        return math.exp(total) if total < 700 else math.inf


class Labellings:
    """The true labelling and a number of permutations, kept where they fit into memory.

    Args:
        relabelling: makes them.
        draws: number of permutations.
        memory_bytes: bound on what is kept; beyond it they are drawn anew each time.
    """

    def __init__(self, relabelling: Relabelling, draws: int, memory_bytes: int = 256 << 20) -> None:
        self.relabelling = relabelling
        self.draws = draws
        self._kept: npt.NDArray[np.int32] | None = None
        if 4 * (draws + 1) * len(relabelling.label) <= memory_bytes:
            self._kept = self._made(range(draws + 1))

    def __len__(self) -> int:
        return self.draws + 1

    def __getitem__(self, numbers: range) -> npt.NDArray[np.int32]:
        """Labels of the units, shape (len(numbers), n_units); number 0 is the true labelling."""
        if self._kept is None:
            return self._made(numbers)
        return self._kept[numbers.start : numbers.stop]

    def _made(self, numbers: range) -> npt.NDArray[np.int32]:
        rows = np.empty((len(numbers), len(self.relabelling.label)), dtype=np.int32)
        for row, number in zip(rows, numbers, strict=True):
            row[:] = self.relabelling.labels(number)
        return rows


def size_class(size: int) -> int:
    """Number that groups of about one size share: 1, 2, 3, 4 to 5, 6 to 7, 8 to 11, and so on."""
    return (size * size).bit_length()


def _parts(split: Split) -> IntArray:
    """Part of each sample: those that every fold treats alike share one."""
    place = np.zeros((split.n_samples, len(split)), dtype=np.int8)
    for number, (train, test) in enumerate(split):
        place[train, number] = 1
        place[test, number] = 2
    return np.unique(place, axis=0, return_inverse=True)[1].astype(np.int64).ravel()


def _movable(label: IntArray, stratum: IntArray) -> npt.NDArray[np.bool_]:
    """Whether a unit's stratum holds more than one label."""
    n = int(stratum.max()) + 1
    low, high = np.full(n, label.max()), np.zeros(n, dtype=np.int64)
    np.minimum.at(low, stratum, label)
    np.maximum.at(high, stratum, label)
    return np.asarray((low != high)[stratum])


def chunks(total: int, size: int) -> Iterator[range]:
    """Ranges of at most ``size`` numbers that cover 0..total - 1."""
    for start in range(0, total, max(1, size)):
        yield range(start, min(start + max(1, size), total))
