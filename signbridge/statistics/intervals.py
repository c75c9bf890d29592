r"""Ends of the intervals of scores, from what a bootstrap over groups gives.

No single bootstrap interval keeps its promise for every metric when groups are few: percentiles
have no width where all answers are right, and are too narrow and too high or low where errors sit
in few groups. The formulas below were chosen by simulation (``benchmarks/uncertainty.py``); which
metric takes which is in :data:`signbridge.statistics.metrics.METRICS`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit, stdtrit

FloatArray = npt.NDArray[np.float64]
Ends = tuple[float, float]


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
    trials is taken.

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

    Returns:
        Lower and upper end; the value itself where nothing varies.
    """
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
        Lower and upper end; NaN where one of the parts has none.
    """
    if any(map(math.isnan, (*first, *second))):
        return math.nan, math.nan
    shrink = math.sqrt(1.0 if math.isnan(ratio) else max(0.0, ratio))

    def reach(down: float, up: float) -> float:
        return shrink * math.hypot(max(0.0, down), max(0.0, up))

    value = first[0] - second[0]
    low = value - reach(first[0] - first[1], second[2] - second[0])
    high = value + reach(first[2] - first[0], second[0] - second[1])
    return low, high


def share_intervals(
    right: npt.ArrayLike,
    part: npt.ArrayLike,
    group: npt.ArrayLike,
    n_parts: int,
    level: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    r"""Interval of the share of successes in each part, such as a class, of grouped trials.

    A class has some ten photographs, each seen several times. A binomial interval over its images
    is too narrow; a bootstrap over so few groups is too, and has no width where all are right. Here
    the interval of Wilson (1927) is taken with an effective number of trials, as Korn & Graubard
    (1998, Survey Methodology 24) do with that of Clopper and Pearson. How alike the trials of a
    group are is estimated over all classes together: a single class has too few groups to tell.

    Part :math:`k` has :math:`n` trials in :math:`G` groups, of which group :math:`g` holds
    :math:`n_g`, and the share :math:`r_k`. With the residuals :math:`e_i = x_i - r_k` of successes
    :math:`x_i`, the correlation of two trials of a group is taken from all parts,

    .. math:: \rho = \max\left(0, \frac{\sum_k \sum_g [(\sum_{i \in g} e_i)^2 - \sum_{i \in g}
        e_i^2]} {\sum_k r_k (1 - r_k) \sum_g n_g (n_g - 1)} \right) ,

    at most 1, and the effective number of trials is

    .. math:: n^* = \frac{n}{1 + (\sum_g n_g^2 / n - 1) \rho}
        \left( \frac{t_{n-1}}{t_{G-1}} \right)^2

    with the quantiles :math:`t` of Student's distribution. Wilson's interval of :math:`r_k` with
    :math:`n^*` trials follows; where every group is one trial it is Wilson's own. A single group
    says nothing about others: 0 to 1.

    Args:
        right: whether each trial succeeded, shape (n,).
        part: part of each trial, 0 to ``n_parts`` - 1, shape (n,).
        group: group of each trial, shape (n,); any integers.
        n_parts: number of parts.
        level: confidence level.

    Returns:
        Lower and upper ends, shape (n_parts,); NaN for a part without trials.
    """
    x = np.asarray(right, dtype=np.float64)
    of = np.asarray(part, dtype=np.int64)
    low, high = np.full(n_parts, np.nan), np.full(n_parts, np.nan)
    if not len(x):
        return low, high
    number = np.unique(np.asarray(group), return_inverse=True)[1].astype(np.int64)
    # A group may reach into several parts: there it counts as one in each.
    cell, of_trial, size = np.unique(
        of * (int(number.max()) + 1) + number, return_inverse=True, return_counts=True
    )
    of_cell = cell // (int(number.max()) + 1)
    n = np.bincount(of, minlength=n_parts).astype(np.float64)
    n_groups = np.bincount(of_cell, minlength=n_parts)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.bincount(of, weights=x, minlength=n_parts) / n
        crowding = np.bincount(of_cell, weights=size.astype(np.float64) ** 2, minlength=n_parts) / n
    residual = x - share[of]
    alike = float((np.bincount(of_trial, weights=residual) ** 2).sum() - (residual**2).sum())
    pairs = (share * (1 - share))[of_cell] * size * (size - 1)
    possible = float(pairs.sum())
    # Where no class has both hits and misses, nothing tells: a group then counts as one trial.
    correlation = min(1.0, max(0.0, alike / possible)) if possible > 0 else 1.0
    tail = (1 + level) / 2
    z = float(stdtrit(np.inf, tail))
    for k in np.flatnonzero(n):
        if n_groups[k] == 1:
            low[k], high[k] = 0.0, 1.0
            continue
        effective = n[k] / (1 + (crowding[k] - 1) * correlation)
        effective *= float(stdtrit(n[k] - 1, tail) / stdtrit(n_groups[k] - 1, tail)) ** 2
        scale = 1 + z * z / effective
        middle = (share[k] + z * z / (2 * effective)) / scale
        variance = share[k] * (1 - share[k]) / effective + (z / (2 * effective)) ** 2
        reach = z / scale * float(np.sqrt(variance))
        low[k], high[k] = max(0.0, middle - reach), min(1.0, middle + reach)
    return low, high
