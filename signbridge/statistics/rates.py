r"""Intervals of shares when the trials come in groups.

A class has some ten photographs, each seen several times. A binomial interval over its images is
too narrow; a bootstrap over so few groups is too, and has no width where all are right. Here the
interval of Wilson (1927) is taken with an effective number of trials, as Korn & Graubard (1998,
Survey Methodology 24) do with that of Clopper and Pearson. How alike the trials of a group are is
estimated over all classes together: a single class has too few groups to tell.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["share_intervals"]

FloatArray = npt.NDArray[np.float64]


def share_intervals(
    right: npt.ArrayLike,
    part: npt.ArrayLike,
    group: npt.ArrayLike,
    n_parts: int,
    level: float = 0.95,
) -> tuple[FloatArray, FloatArray]:
    r"""Interval of the share of successes in each part, such as a class, of grouped trials.

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
    from scipy.special import stdtrit

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
