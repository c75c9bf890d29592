r"""P-values of paired differences by sign flips of whole groups, corrected for looking at many.

Under the hypothesis that two features do equally well, a group's sum of differences is as likely to
be :math:`d` as :math:`-d`. Flipping the signs of all groups at random gives the distribution of the
statistic

.. math:: t = \frac{\sum_g d_g}{\sqrt{\sum_g d_g^2}} ,

exactly where the differences are symmetric about 0, and in the limit of many groups where only
their mean is 0: it is the wild cluster bootstrap-t with the hypothesis imposed (Cameron, Gelbach &
Miller 2008, "Bootstrap-Based Improvements for Inference with Clustered Errors"; Canay, Romano &
Shaikh 2017, "Randomization Tests under an Approximate Symmetry Assumption"). All comparisons take
the same flips, so their dependence is kept: the correction by the largest statistic (Westfall &
Young 1993; step-down as in Romano & Wolf 2005) costs little where neighbouring layers agree, which
Holm's does not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FLIPS = 4999
"""Random flips; no p-value is below 1 / (FLIPS + 1)."""

_BLOCK = 64 * 2**20  # bytes of one block of flips


@dataclass(frozen=True, eq=False)
class Family:
    """P-values of comparisons that belong together.

    Attributes:
        p: of each comparison alone, two-sided, shape (n_comparisons,).
        corrected: the chance that any true hypothesis of the family is rejected at this value or
            below is no more than it, same shape.
    """

    p: FloatArray
    corrected: FloatArray


class SignFlips:
    """Sums over groups of several features under common random signs.

    Args:
        totals: sum over each group of what is compared, such as correct answers, shape
            (n_groups, n_features).
        flips: number of random flips.
        seed: seed of the flips.
    """

    def __init__(self, totals: FloatArray, *, flips: int = FLIPS, seed: int = 42) -> None:
        # Groups in which all features agree add nothing to any difference.
        centred = totals - totals[:, :1]
        centred = centred[(centred != 0).any(1)]
        self.observed: FloatArray = centred.sum(0)
        self.flipped: FloatArray = np.zeros((flips, totals.shape[1]))
        generator = np.random.default_rng(seed)
        step = max(1, _BLOCK // (8 * max(len(centred), 1)))
        for start in range(0, flips, step):
            rows = self.flipped[start : start + step]
            signs = generator.integers(2, size=(len(rows), len(centred)), dtype=np.int8)
            rows[:] = (2.0 * signs - 1.0) @ centred
        product = centred.T @ centred
        size = np.diag(product)
        square = size[:, None] + size[None, :] - 2 * product
        # What cancels but for rounding is no difference.
        square[square <= 1e-12 * (size[:, None] + size[None, :])] = 0.0
        self._length: FloatArray = np.sqrt(square)

    def family(self, first: Sequence[int], second: Sequence[int]) -> Family:
        """Two-sided comparisons of features in pairs, corrected step-down.

        Args:
            first: features, by column.
            second: those they are compared with, as many.
        """
        a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        observed = np.abs(self._t(self.observed[None], a, b))[0]
        flipped = np.abs(self._t(self.flipped, a, b))
        order = np.argsort(-observed, kind="stable")
        # The largest of those at least as far down in the order.
        most = np.maximum.accumulate(flipped[:, order[::-1]], axis=1)[:, ::-1]
        corrected = np.empty(len(order))
        corrected[order] = np.maximum.accumulate(_share(most, observed[order]))
        return Family(_share(flipped, observed), corrected)

    def against(self, peak: int, features: Sequence[int]) -> Family:
        """Two-sided comparisons with a feature that was picked because it is best.

        The correction is for all pairs among the features, so that the choice of the peak is paid
        for as well.

        Args:
            peak: column of the peak.
            features: columns among which it was picked, itself included.

        Returns:
            One comparison for each of the other features, in their order.
        """
        chosen = np.asarray(features, dtype=np.int64)
        others = chosen[chosen != peak]
        with_peak = np.full(len(others), peak)
        observed = np.abs(self._t(self.observed[None], others, with_peak))[0]
        most = np.concatenate([block.max((1, 2)) for block in self._all_pairs(chosen)])
        flipped = np.abs(self._t(self.flipped, others, with_peak))
        return Family(_share(flipped, observed), _share(most[:, None], observed))

    def best(self, features: Sequence[int]) -> FloatArray:
        r"""For each feature the p-value of the hypothesis that none of the others is better.

        The statistic is the largest one-sided :math:`t` of another feature against this one. The
        features with a p-value above :math:`\alpha` hold the best with a probability of at least
        :math:`1 - \alpha`, whichever it is: each of several equal ones.

        Source: Hsu 1981, "Simultaneous Confidence Intervals for all Distances from the Best";
        Mogstad, Romano, Shaikh & Wilhelm 2024, "Inference for Ranks", for the general case.

        Args:
            features: columns.

        Returns:
            Shape (n_features,).
        """
        chosen = np.asarray(features, dtype=np.int64)
        if len(chosen) == 1:
            return np.ones(1)
        observed = next(self._all_pairs(chosen, self.observed[None])).max(1)[0]
        flipped = np.concatenate([block.max(1) for block in self._all_pairs(chosen)])
        return _share(flipped, observed)

    def _t(self, sums: FloatArray, a: IntArray, b: IntArray) -> FloatArray:
        length = self._length[a, b]
        difference = sums[:, a] - sums[:, b]
        return np.divide(difference, length, out=np.zeros_like(difference), where=length > 0)

    def _all_pairs(self, chosen: IntArray, sums: FloatArray | None = None) -> Iterator[FloatArray]:
        """Statistics of every feature (axis 1) minus every other one (axis 2), in blocks."""
        sums = self.flipped if sums is None else sums
        length = self._length[np.ix_(chosen, chosen)]
        step = max(1, _BLOCK // (8 * max(1, len(chosen) ** 2)))
        for start in range(0, max(len(sums), 1), step):
            block = sums[start : start + step][:, chosen]
            difference = block[:, :, None] - block[:, None, :]
            yield np.divide(
                difference, length, out=np.zeros_like(difference), where=length[None] > 0
            )


def _share(flipped: FloatArray, observed: FloatArray) -> FloatArray:
    """(b + 1) / (m + 1) for b of m values at least as large; ties survive rounding."""
    bound = observed - 1e-9 * np.maximum(np.abs(observed), 1.0)
    reached: FloatArray = (flipped >= bound).sum(0) + 1.0
    return np.asarray(reached / (len(flipped) + 1))
