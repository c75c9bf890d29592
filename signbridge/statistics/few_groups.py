r"""Few groups: what a handful of signers permits to say.

With :math:`G` groups of which each draws its own ability, a score has :math:`G - 1` degrees of
freedom, however many images there are. Three numbers of groups part what can be done:

- below :data:`LEAST_GROUPS` there is no interval and no test: two values tell no spread from an
  accident;
- where :math:`2 / 2^G > 0.05` (five groups or fewer) no sign flip of whole groups can be
  significant, and differences are tested by :class:`PairedT`;
- below :data:`FEW_GROUPS` a bootstrap over groups has a few dozen different draws, whose tails tell
  nothing: all quantiles are Student's.

Student's quantiles assume that the groups' scores scatter like a normal sample, which so few values
cannot show. What they cover and how often the tests err was simulated with 3 to 20 groups
(``benchmarks/uncertainty.py``, ``docs/method.md``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from signbridge.statistics.sign_flips import FLIPS, Family, SignFlips

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

LEAST_GROUPS = 3
"""Fewer groups permit no interval and no test."""
FEW_GROUPS = 10
"""Below this many groups each is told by name, and intervals take Student's quantiles alone."""
ALPHA = 0.05


class PairedTests(Protocol):
    """Two-sided tests of differences between features that were scored on the same groups."""

    def family(self, first: Sequence[int], second: Sequence[int]) -> Family:
        """Comparisons of features in pairs, corrected together."""

    def against(self, peak: int, features: Sequence[int]) -> Family:
        """Comparisons with a feature that was picked because it is best."""

    def best(self, features: Sequence[int]) -> FloatArray:
        """For each feature the p-value of the hypothesis that none of the others is better."""


def flips_can_tell(n_groups: int) -> bool:
    """Whether the least p-value of two-sided sign flips, 2 of 2^G, is below 0.05."""
    return 2.0 ** (1 - min(n_groups, 60)) < ALPHA


def paired_tests(
    totals: FloatArray, size: FloatArray, *, flips: int = FLIPS, seed: int = 42
) -> PairedTests:
    """The test that this number of groups permits.

    Args:
        totals: sum over each group of what is compared, shape (n_groups, n_features).
        size: samples of each group, shape (n_groups,).
        flips: number of random sign flips.
        seed: seed of the flips.

    Returns:
        Sign flips where they can tell, else Student's t over the groups.
    """
    if flips_can_tell(len(totals)):
        return SignFlips(totals, flips=flips, seed=seed)
    return PairedT(totals, size)


@dataclass(frozen=True, eq=False)
class GroupMeans:
    r"""The mean over samples of one or several numbers, with its error over groups.

    With the shares :math:`w_g` of the samples, the groups' means :math:`m_g` and their residuals
    :math:`e_g = m_g - \sum_h w_h m_h`, the squared error and its degrees of freedom are

    .. math:: s^2 = \frac{\sum_g w_g^2}{\mathrm{tr} A} \sum_g \frac{w_g^2 e_g^2}{1 - w_g}, \qquad
        \nu = \frac{(\mathrm{tr} A)^2}{\mathrm{tr} A^2}, \qquad
        A = M^\top \mathrm{diag}\left(\frac{w_g^2}{1 - w_g}\right) M, \quad M = I - 1 w^\top .

    That is the bias-reduced estimate (CR2) with Satterthwaite's degrees of freedom, under the
    working model that all groups' means vary alike. With equal groups it is
    Student's interval of their means, :math:`\nu = G - 1`; unequal ones have fewer.

    Source: Bell & McCaffrey 2002, "Bias Reduction in Standard Errors for Linear Regression with
    Multi-Stage Samples"; Imbens & Kolesar 2016, "Robust Standard Errors in Small Samples".

    Attributes:
        value: the mean, shape (...).
        error: its standard error, same shape.
        freedom: degrees of freedom.
    """

    value: FloatArray
    error: FloatArray
    freedom: float

    @classmethod
    def of(cls, totals: FloatArray, size: FloatArray) -> GroupMeans:
        """From sums over groups.

        Args:
            totals: the sum over each group, shape (n_groups, ...), of two groups or more.
            size: samples of each group, shape (n_groups,).
        """
        share = size / size.sum()
        weight = share**2 / (1 - share)
        rest = np.eye(len(size)) - share[None, :]
        spread = rest.T @ (weight[:, None] * rest)
        trace = float(np.trace(spread))
        means = (totals.T / size).T
        value = np.tensordot(share, means, axes=1)
        squares = np.tensordot(weight, (means - value) ** 2, axes=1)
        error = np.sqrt(squares * float((share**2).sum()) / trace)
        return cls(np.asarray(value), np.asarray(error), trace**2 / float((spread**2).sum()))

    def reach(self, level: float) -> FloatArray:
        """How far the interval reaches to each side, shape (...)."""
        return np.asarray(float(stdtrit(self.freedom, (1 + level) / 2)) * self.error)


class PairedT:
    r"""Student's t of paired differences over groups, its p-values corrected by Holm's method.

    The error and the degrees of freedom of a difference are those of :class:`GroupMeans`. The test
    assumes that the groups' differences scatter like a normal sample; where their variances differ
    it is careful rather than bold (Ibragimov & Mueller 2010, "t-Statistic Based Correlation and
    Heterogeneity Robust Inference"). Nothing is assumed of the dependence between comparisons
    (Holm 1979; Bonferroni).

    Args:
        totals: sum over each group of what is compared, shape (n_groups, n_features).
        size: samples of each group, shape (n_groups,).
    """

    def __init__(self, totals: FloatArray, size: FloatArray) -> None:
        self._totals, self._size = totals, size

    def family(self, first: Sequence[int], second: Sequence[int]) -> Family:
        """Two-sided comparisons of features in pairs, corrected step-down.

        Args:
            first: features, by column.
            second: those they are compared with, as many.

        Returns:
            P-values; NaN where there are fewer than three groups, or where all groups differ by
            the same amount and so tell no spread.
        """
        p = self._two_sided(np.asarray(first, np.int64), np.asarray(second, np.int64))
        order = np.argsort(p, kind="stable")  # NaN comes last
        times = np.arange(len(p), 0, -1)
        corrected = np.empty_like(p)
        corrected[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * times))
        return Family(p, corrected)

    def against(self, peak: int, features: Sequence[int]) -> Family:
        """Two-sided comparisons with the best, corrected for all pairs among the features.

        Args:
            peak: column of the peak.
            features: columns among which it was picked, itself included.

        Returns:
            One comparison for each of the other features, in their order.
        """
        others = np.asarray([k for k in features if k != peak], dtype=np.int64)
        p = self._two_sided(others, np.full(len(others), peak))
        pairs = len(features) * (len(features) - 1) // 2
        return Family(p, np.minimum(1.0, p * pairs))

    def best(self, features: Sequence[int]) -> FloatArray:
        """For each feature the p-value of the hypothesis that none of the others is better.

        It is the least one-sided p-value of another feature against this one, times their number.

        Args:
            features: columns.

        Returns:
            Shape (n_features,); NaN where there are fewer than three groups.
        """
        chosen = np.asarray(features, dtype=np.int64)
        if len(chosen) == 1:
            return np.ones(1)
        if len(self._size) < LEAST_GROUPS:
            return np.full(len(chosen), np.nan)
        found = np.empty(len(chosen))
        for place, k in enumerate(chosen):
            others = np.delete(chosen, place)
            better = self._upper(others, np.full(len(others), k))
            # A comparison that cannot be tested excludes nothing.
            found[place] = min(1.0, float(np.nan_to_num(better, nan=1.0).min()) * len(others))
        return found

    def _two_sided(self, a: IntArray, b: IntArray) -> FloatArray:
        upper = self._upper(a, b)
        return np.asarray(2 * np.minimum(upper, 1 - upper))

    def _upper(self, a: IntArray, b: IntArray) -> FloatArray:
        """The chance of a t as large as that of ``a`` minus ``b``."""
        if len(self._size) < LEAST_GROUPS:
            return np.full(len(a), np.nan)
        found = GroupMeans.of(self._totals[:, a] - self._totals[:, b], self._size)
        same = np.abs(found.value) <= 1e-12
        nothing = found.error <= 1e-12
        t = np.where(same, 0.0, found.value) / np.where(nothing, 1.0, found.error)
        return np.where(nothing & ~same, np.nan, stdtr(found.freedom, -t))
