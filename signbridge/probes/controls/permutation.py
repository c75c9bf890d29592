r"""A permutation test of the best layer: could labels that mean nothing have scored as much?

Labels are permuted among groups, never among images of one group, and only in ways that leave the
split what it is: within each of its parts, and among groups of about one size. So every permuted
labelling has as many groups of each class in every part as the true one, and under the null
hypothesis all of them were equally likely.

The statistic is the largest held-out accuracy over the layers, so that the choice of the layer is
part of what is repeated ("max T", Westfall & Young 1993, "Resampling-Based Multiple Testing"). The
p-value counts the true labelling among the permuted ones, (b + 1) / (m + 1) (Phipson & Smyth 2010,
"Permutation P-values Should Never Be Zero").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from signbridge.errors import ProbeError
from signbridge.probes.dataset.splits import IntArray, Split
from signbridge.results.summary import LayerTest, PermutationTest

DRAWS = 999
"""Permutations that ``permutations=auto`` makes where they are affordable."""
FEW_DRAWS = 99
"""Permutations that it makes where :data:`DRAWS` of them are not."""
WORK = 1e14
"""Most multiplications that it takes on: about an hour of one CPU core, seconds of a GPU."""

_FEW_ARRANGEMENTS = 20  # below this many no p-value is under 0.05
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


def number_of_draws(
    wanted: int | str, relabelling: Relabelling, split: Split, *, n_classes: int, n_fits: int
) -> tuple[int, str | None]:
    """How many permutations to make, and why there are none where there are none.

    Args:
        wanted: the number, or ``auto``.
        relabelling: the labellings.
        split: the split that scores.
        n_classes: number of classes that occur.
        n_fits: layers times values of C.

    Returns:
        The number and, where a test was wanted and is not made or can say little, a sentence for
        the user.
    """
    if wanted == 0:
        return 0, None
    if relabelling.moving == 0:
        return 0, (
            "the permutation test was not made: no group can take another group's label, since "
            "none of another class is as large and lies in the same part of the split; "
            + ("use split=grouped." if split.name == "random" else "lower folds or add groups.")
        )
    few = None
    if relabelling.arrangements < _FEW_ARRANGEMENTS - 0.5:
        few = (
            f"the permutation test has only {relabelling.arrangements:.0f} labellings to compare, "
            "so its p-value cannot be small; lower folds or add groups."
        )
    if wanted != "auto":
        return int(wanted), few
    units = [len(np.unique(relabelling.unit[train])) * len(test) for train, test in split]
    work = 2.0 * n_classes * n_fits * sum(units)
    for draws in (DRAWS, FEW_DRAWS):
        if work * draws <= WORK:
            return draws, few
    hours = work * FEW_DRAWS / WORK
    return 0, (
        f"the permutation test was not made: {FEW_DRAWS} permutations of data of this size take "
        f"some {hours:.0f} hours of a CPU core; permutations={FEW_DRAWS} makes them."
    )


def p_value(observed: float, null: npt.ArrayLike) -> float:
    """(b + 1) / (m + 1), with b the number of permutations that reach the observed value.

    Source: Phipson & Smyth 2010, Statistical Applications in Genetics and Molecular Biology 9.

    Args:
        observed: the statistic of the true labels.
        null: the statistic of each permutation, shape (m,).
    """
    values = np.asarray(null)
    return float((np.sum(values >= observed) + 1) / (len(values) + 1))


def summarise(
    hits: Mapping[int, npt.NDArray[np.int64]],
    n_scored: int,
    relabelling: Relabelling,
    statistic: str,
) -> PermutationTest:
    """The test from each layer's correct answers.

    Args:
        hits: for each layer the number of correct answers in every labelling, shape (m + 1,), the
            true one first.
        n_scored: number of images that were scored.
        relabelling: the labellings.
        statistic: what was computed, in words.

    Returns:
        ``permutation_test`` of ``summary.json``: p-values of the largest accuracy (``p``) and of
        each layer, alone and corrected for the number of layers (single-step max T).

    Raises:
        ProbeError: there are no layers or no permutations.
    """
    if not hits or min(len(column) for column in hits.values()) < 2:
        raise ProbeError("a permutation test needs at least one layer and one permutation.")
    layers = list(hits)
    table = np.stack([hits[layer] for layer in layers])  # whole numbers, so that ties are ties
    largest = table.max(0)
    null = largest[1:]
    return PermutationTest(
        m=len(null),
        statistic=statistic,
        structure=relabelling.structure,
        n_moving=relabelling.moving,
        layer=layers[int(table[:, 0].argmax())],
        observed=float(largest[0] / n_scored),
        p=p_value(largest[0], null),
        null_mean=float(table[:, 1:].mean() / n_scored),
        null_quantile_95=float(np.quantile(null, 0.95) / n_scored),
        by_layer={
            layer: LayerTest(
                accuracy=float(column[0] / n_scored),
                p=p_value(column[0], column[1:]),
                p_corrected=p_value(column[0], null),
            )
            for layer, column in zip(layers, table, strict=True)
        },
    )


def chunks(total: int, size: int) -> Iterator[range]:
    """Ranges of at most ``size`` numbers that cover 0..total - 1."""
    for start in range(0, total, max(1, size)):
        yield range(start, min(start + max(1, size), total))
