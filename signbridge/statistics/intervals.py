r"""Ends of the intervals of scores, from what a bootstrap over groups gives.

No single bootstrap interval keeps its promise for every metric when groups are few: percentiles
have no width where all answers are right, and are too narrow and too high or low where errors sit
in few groups. The formulas below were chosen by simulation (``benchmarks/uncertainty.py``); which
metric takes which is in :data:`signbridge.statistics.bootstrap.METHODS`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

FloatArray = npt.NDArray[np.float64]
Ends = tuple[float, float]

_FEW_GROUPS = 8


def t_quantile(n_groups: int, level: float = 0.95) -> float:
    """Two-sided quantile of Student's distribution with ``n_groups - 1`` degrees of freedom.

    Infinite for a single group, which says nothing about others.
    """
    if n_groups < 2:
        return math.inf
    return float(stdtrit(n_groups - 1, (1 + level) / 2))


def logit_interval(value: float, deviation: float, quantile: float, effective: float) -> Ends:
    r"""Interval of a share, symmetric on the logit scale.

    .. math:: \mathrm{logit}^{-1}\left(\mathrm{logit}(v) \pm t \, \frac{s}{v (1 - v)}\right)

    It stays within 0..1, and reaches farther to the side where there is more room. Where the value
    is 0 or 1, or nothing varies, the deviation says nothing: Wilson's interval for ``effective``
    trials is taken, in which a group of alike images counts as one trial.

    Source: Franco, Little, Louis & Slud 2019, "Comparative Study of Confidence Intervals for
    Proportions in Complex Sample Surveys", with the quantile of Student's distribution for the
    number of groups as in Korn & Graubard 1998; Wilson 1927.

    Args:
        value: the share, 0..1.
        deviation: its standard error.
        quantile: of :func:`t_quantile`.
        effective: number of trials where the deviation says nothing.

    Returns:
        Lower and upper end.
    """
    if math.isinf(quantile):
        return 0.0, 1.0
    if 0 < value < 1 and deviation > 1e-12:
        reach = quantile * deviation / (value * (1 - value))
        return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))
    share = quantile**2 / effective
    middle = (value + share / 2) / (1 + share)
    reach = math.sqrt(value * (1 - value) * share + share**2 / 4) / (1 + share)
    return max(0.0, middle - reach), min(1.0, middle + reach)


def studentised_interval(
    value: float,
    error: float,
    drawn: FloatArray,
    errors: FloatArray,
    level: float = 0.95,
    *,
    n_groups: int,
) -> Ends:
    r"""Bootstrap-t interval: quantiles of :math:`t^* = (v^* - v) / s^*` in place of Student's.

    For a mean of skewed numbers, such as a cross-entropy, whose standard error is small whenever
    the mean is too small by chance.

    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 12.

    Args:
        value: the mean.
        error: its standard error.
        drawn: the mean in each draw, shape (repetitions,).
        errors: its standard error in each draw, same shape; draws without one are left out.
        level: confidence level.
        n_groups: number of groups. Below 8 there are too few different draws to tell quantiles,
            and Student's are taken.

    Returns:
        Lower and upper end; the value itself where nothing varies.
    """
    if n_groups < _FEW_GROUPS:
        reach = t_quantile(n_groups, level) * error if error > 0 else 0.0
        return value - reach, value + reach
    usable = errors > 1e-9 * max(error, 1e-300)
    if error <= 1e-12 * max(abs(value), 1.0) or not usable.any():
        return value, value
    t = (drawn[usable] - value) / errors[usable]
    tail = (1 - level) / 2
    low, high = np.quantile(t, [1 - tail, tail])
    return value - error * float(low), value - error * float(high)


def bracketing_interval(below: float, above: float, error: float, quantile: float) -> Ends:
    """Interval from two estimates whose biases are known in sign.

    Each end starts from the estimate that errs to its own side, so the interval is too wide where
    the biases are large and never too narrow because of them.

    Args:
        below: an estimate that is too small on average.
        above: one that is too large on average.
        error: standard error of either.
        quantile: of :func:`t_quantile`.

    Returns:
        Lower and upper end, within 0..1.
    """
    if math.isinf(quantile):
        return 0.0, 1.0
    return max(0.0, min(below, above) - quantile * error), min(1.0, above + quantile * error)


def difference_interval(
    first: tuple[float, float, float], second: tuple[float, float, float], ratio: float
) -> Ends:
    r"""Interval of a difference from the intervals of its two parts.

    .. math:: v_1 - v_2 - \sqrt{q \, \left((v_1 - l_1)^2 + (u_2 - v_2)^2\right)}, \qquad
        q = \frac{\mathrm{Var}(v_1^* - v_2^*)}{\mathrm{Var}(v_1^*) + \mathrm{Var}(v_2^*)}

    and likewise upwards. Unlike a bootstrap of the difference it keeps its width where both parts
    are near 1 and few groups tell them apart; it has none where the two are the same.

    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions",
    whose method 10 it is for independent parts, and "Improved confidence intervals for the
    difference between binomial proportions based on paired data"; Zou & Donner 2008 ("variance
    estimates recovery"). Theirs subtracts :math:`2 \rho (v_1 - l_1)(u_2 - v_2)`, which is the same
    where the reaches are in proportion to the deviations.

    Args:
        first: value and ends of the minuend.
        second: value and ends of the subtrahend.
        ratio: :math:`q` over the draws; NaN, where neither varies, counts as 1.

    Returns:
        Lower and upper end.
    """
    shrink = math.sqrt(1.0 if math.isnan(ratio) else max(0.0, ratio))

    def reach(down: float, up: float) -> float:
        return shrink * math.hypot(max(0.0, down), max(0.0, up))

    value = first[0] - second[0]
    low = value - reach(first[0] - first[1], second[2] - second[0])
    high = value + reach(first[2] - first[0], second[0] - second[1])
    return low, high
