"""Batched, preconditioned L-BFGS for the L2 multinomial logistic regression.

Every fit of a batch has its own line search and its own end, so a fit's result does not depend on
the others beside it. The logits are affine in the step length: a trial step costs one softmax and
no matrix product. The line search decides on derivatives (the "approximate Wolfe" conditions of
Hager & Zhang 2005), because function values cannot tell gradients below 1e-8 apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from signbridge.probes.exact.design import Design
from signbridge.runtime.threads import end_if_stopped

_CURVATURE_FLOOR = 1e-12  # keeps the preconditioner finite for the unpenalised intercept
_LINE_SEARCH_TRIALS = 25
# Shares of the first slope between which a step's slope must end. The first step is searched
# almost exactly: at zero the curvature says little about how far away the minimum is.
_WINDOW = (0.9, 0.1)
_FIRST_WINDOW = (0.01, 0.01)
_REFRESH = 25  # iterations after which the logits are computed afresh, against drift


@dataclass(frozen=True)
class Problem:
    """M fits with n samples and K classes.

    Attributes:
        labels: (M, n) class indices.
        weight: (M, n) sample weights that sum to one in every fit; zero leaves a sample out.
        penalty: (M,) L2 weight lambda of ``mean CE + lambda / 2 * ||W||^2``.
        absent: (M, K, 1), -inf where a class has no sample in the fit and 0 elsewhere; None where
            every fit has every class.
    """

    labels: Tensor
    weight: Tensor
    penalty: Tensor
    absent: Tensor | None

    def select(self, keep: Tensor) -> Problem:
        """The problem of the fits at the indices ``keep``."""
        absent = None if self.absent is None else self.absent[keep]
        return Problem(self.labels[keep], self.weight[keep], self.penalty[keep], absent)


@dataclass(frozen=True)
class Solution:
    """Minimisers (M, K, r) with their certificate: gradient, scale and iterations, all (M,)."""

    V: Tensor
    gradient_norm: Tensor
    penalty_norm: Tensor  # ||lambda W||, what the gradient is measured against
    n_iter: Tensor
    converged: Tensor


def _dot(a: Tensor, b: Tensor) -> Tensor:
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product


def _residual(problem: Problem, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted softmax residuals (M, K, n), written over ``logits``, and the cross-entropy (M,)."""
    own = logits.gather(1, problem.labels[:, None, :])
    if problem.absent is not None:
        logits.add_(problem.absent)
    top = logits.amax(1, keepdim=True)
    logits.sub_(top).exp_()
    total = logits.sum(1, keepdim=True)
    value = torch.linalg.vecdot(problem.weight, (total.log() + top - own)[:, 0])
    weight = problem.weight[:, None, :]
    logits.mul_(weight / total)
    logits.scatter_add_(1, problem.labels[:, None, :], -weight)
    return logits, value


def _curvature(problem: Problem, residual: Tensor) -> Tensor:
    """Mean of p (1 - p) per fit and class (M, K, 1), floored."""
    weight = problem.weight[:, None, :]
    p = residual.scatter_add(1, problem.labels[:, None, :], weight)
    spread = p.sum(2) - (p * (p / weight.clamp_min(1e-30))).sum(2)
    return (
        spread.mean(1, keepdim=True)
        .clamp_min(_CURVATURE_FLOOR)[:, :, None]
        .expand(-1, residual.shape[1], 1)
    )


class _History:
    """The last pairs of steps and gradient changes of M fits with d parameters each."""

    def __init__(self, fits: int, size: int, memory: int, like: Tensor) -> None:
        self.S = like.new_zeros(memory, fits, size)
        self.Y = like.new_zeros(memory, fits, size)
        self.rho = like.new_zeros(memory, fits)
        self.pushed = 0

    def push(self, s: Tensor, y: Tensor) -> None:
        """Remember a pair; a pair without positive curvature is given no say."""
        slot = self.pushed % len(self.rho)
        self.S[slot] = s.flatten(1)
        self.Y[slot] = y.flatten(1)
        sy = _dot(s, y)
        sound = sy > 16 * torch.finfo(s.dtype).eps * (_dot(s, s) * _dot(y, y)).sqrt()
        self.rho[slot] = torch.where(sound, 1 / sy, 0)
        self.pushed += 1

    def order(self) -> list[int]:
        """Slots from the newest to the oldest pair."""
        memory = len(self.rho)
        return [(self.pushed - 1 - i) % memory for i in range(min(self.pushed, memory))]

    def select(self, keep: Tensor) -> None:
        """Keep only the fits at the indices ``keep``."""
        self.S, self.Y, self.rho = self.S[:, keep], self.Y[:, keep], self.rho[:, keep]


def _direction(
    gradient: Tensor, history: _History, design: Design, curvature: Tensor, penalty: Tensor
) -> Tensor:
    """The two-loop recursion (Nocedal 1980) around the design's preconditioner."""
    q = -gradient.flatten(1)
    taken = []
    for slot in history.order():
        alpha = history.rho[slot] * torch.linalg.vecdot(history.S[slot], q)
        q.addcmul_(history.Y[slot], alpha[:, None], value=-1)
        taken.append((slot, alpha))
    d = design.precondition(q.view_as(gradient), curvature, penalty).flatten(1)
    if taken:
        # Scale the preconditioner to the newest pair, as L-BFGS scales its identity.
        newest = taken[0][0]
        y = history.Y[newest]
        against = _dot(y, design.precondition(y.view_as(gradient), curvature, penalty))
        gamma = _dot(history.S[newest], y) / against
        sound = torch.isfinite(gamma) & (gamma > 0)
        d = d * torch.where(sound, gamma, torch.ones_like(gamma))[:, None]
    for slot, alpha in reversed(taken):
        beta = history.rho[slot] * torch.linalg.vecdot(history.Y[slot], d)
        d.addcmul_(history.S[slot], (alpha - beta)[:, None])
    return d.view_as(gradient)


def _line_search(
    problem: Problem,
    logits: Tensor,
    residual0: Tensor,
    change: Tensor,
    value0: Tensor,
    slope0: Tensor,
    linear: Tensor,
    quadratic: Tensor,
    window: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:
    """Step lengths (M,), with the residuals and cross-entropies there.

    ``linear`` and ``quadratic`` are the penalty's first and second derivative at step zero.
    A fit with a slope of zero or above is left where it is.
    """
    fits = len(slope0)
    step = (slope0 < 0).to(slope0)
    low = torch.zeros_like(slope0)
    low_slope = slope0.clone()
    high = torch.full_like(slope0, torch.inf)
    high_slope = torch.full_like(slope0, torch.inf)
    slack = 1e4 * torch.finfo(slope0.dtype).eps
    every = torch.arange(fits, device=slope0.device)
    todo = every
    residual_all: Tensor | None = None
    value_all: Tensor | None = None
    for _trial in range(_LINE_SEARCH_TRIALS):
        whole = len(todo) == fits
        part = problem if whole else problem.select(todo)
        t = step[todo]
        moved_by = change if whole else change[todo]
        moved = torch.addcmul(logits if whole else logits[todo], moved_by, t[:, None, None])
        residual, value = _residual(part, moved)
        # From differences: residual and penalty cancel at the optimum, and would leave rounding.
        bend = _dot(residual - (residual0 if whole else residual0[todo]), moved_by)
        slope = slope0[todo] + bend + t * quadratic[todo]
        if residual_all is None or value_all is None:
            residual_all, value_all = residual, value
        else:
            residual_all[todo], value_all[todo] = residual, value
        start = slope0[todo]
        rise = value - value0[todo] + t * (linear[todo] + 0.5 * t * quadratic[todo])
        size = 1 + value0[todo].abs()
        too_short = slope < window[0] * start
        too_long = (slope > -window[1] * start) | (
            (rise > slack * size) & (t * start.abs() > 1e4 * slack * size)
        )
        too_long |= ~torch.isfinite(slope)
        too_short &= ~too_long
        open_ = (too_short | too_long) & (start < 0)
        low[todo] = torch.where(too_short, t, low[todo])
        low_slope[todo] = torch.where(too_short, slope, low_slope[todo])
        high[todo] = torch.where(too_long, t, high[todo])
        high_slope[todo] = torch.where(too_long, slope, high_slope[todo])
        todo = todo[open_]
        if len(todo) == 0:
            break
        left, right = low[todo], high[todo]
        width = right - left
        fraction = low_slope[todo] / (low_slope[todo] - high_slope[todo])
        fraction = torch.where(torch.isfinite(fraction), fraction, 0.5).clamp(0.05, 0.9)
        inside = left + fraction * width
        step[todo] = torch.where(torch.isfinite(right), inside, 4 * step[todo])
    assert residual_all is not None
    assert value_all is not None
    return step, residual_all, value_all


def minimise(
    design: Design,
    problem: Problem,
    V: Tensor,
    *,
    tol: float,
    floor: Tensor,
    max_iter: Tensor,
    memory: int = 5,
    narrow: Design | None = None,
) -> Solution:
    """Minimise all fits of a batch.

    Args:
        design: the data, with r columns.
        problem: labels, weights and penalties of M fits.
        V: (M, K, r) start; left as it is.
        tol: a fit ends when ``||gradient|| <= tol * ||lambda W||``.
        floor: (M,) gradient norms below which rounding has the last word; reaching it ends a fit.
        max_iter: (M,) most iterations of each fit.
        memory: pairs that L-BFGS remembers.
        narrow: the design in float32. With it only differences are multiplied in float32 (the
            logits along a direction, the gradient's change), whose rounding shrinks as the steps
            do; logits and gradient themselves stay float64 and are computed afresh in float64 after
            every thousandfold decrease of the gradient, and before a fit ends.
    """
    V = V.clone()
    fits, classes, columns = V.shape
    gradient_norm = V.new_zeros(fits)
    penalty_norm = V.new_zeros(fits)
    n_iter = torch.zeros(fits, dtype=torch.int64, device=V.device)
    reached = torch.zeros(fits, dtype=torch.bool, device=V.device)
    alive = torch.arange(fits, device=V.device)
    result = V.clone()

    def evaluate(
        design: Design, problem: Problem, penalty: Tensor, V: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits = design.forward(V)
        residual, value = _residual(problem, logits.clone())
        return logits, residual, value, design.adjoint(residual).addcmul_(penalty, V)

    def penalties() -> Tensor:
        lam = problem.penalty[:, None, None].repeat(1, 1, columns)
        lam[..., -1] = 0
        return lam

    penalty = penalties()
    history = _History(fits, classes * columns, memory, V)
    logits, residual, value, gradient = evaluate(design, problem, penalty, V)
    anchor = gradient.flatten(1).norm(dim=1)
    frozen = torch.zeros(fits, dtype=torch.bool, device=V.device)
    fresh = True
    iteration = 0
    while True:
        end_if_stopped()
        norm = gradient.flatten(1).norm(dim=1)
        scale = (penalty * V).flatten(1).norm(dim=1)
        ending = (norm <= torch.maximum(tol * scale, floor[alive])) & ~frozen
        spent = (iteration >= max_iter[alive]) & ~frozen
        ending |= spent
        if bool(ending.any()):
            at = ending.nonzero()[:, 0]
            if not fresh:  # a fit only ends on a gradient from logits computed afresh
                parts = evaluate(design.select(at), problem.select(at), penalty[at], V[at])
                logits[at], residual[at], value[at], gradient[at] = parts
                norm[at] = gradient[at].flatten(1).norm(dim=1)
            good = norm[at] <= torch.maximum(tol * scale[at], floor[alive[at]])
            leaves = good | spent[at]
            at, good = at[leaves], good[leaves]
            to = alive[at]
            result[to], gradient_norm[to], penalty_norm[to] = V[at], norm[at], scale[at]
            n_iter[to], reached[to] = iteration, good
            frozen[at] = True
            left = int((~frozen).sum())
            if left == 0:
                break
            if left <= 0.75 * len(frozen):
                keep = (~frozen).nonzero()[:, 0]
                alive, V, logits, frozen = alive[keep], V[keep], logits[keep], frozen[keep]
                residual, value, gradient = residual[keep], value[keep], gradient[keep]
                design, problem = design.select(keep), problem.select(keep)
                narrow = None if narrow is None else narrow.select(keep)
                anchor = anchor[keep]
                penalty = penalties()
                history.select(keep)
        curvature = _curvature(problem, residual)
        d = _direction(gradient, history, design, curvature, penalty)
        slope = _dot(gradient, d)
        bad = slope >= 0
        if bool(bad.any()):
            d[bad] = design.precondition(-gradient, curvature, penalty)[bad]
            slope = _dot(gradient, d)
        slope = torch.where(frozen, 0, slope)
        change = design.forward(d) if narrow is None else narrow.forward(d.float()).to(d)
        pulled = penalty * d
        step, after, value = _line_search(
            problem,
            logits,
            residual,
            change,
            value,
            slope,
            _dot(pulled, V),
            _dot(pulled, d),
            _WINDOW if iteration else _FIRST_WINDOW,
        )
        d *= step[:, None, None]
        V += d
        logits.addcmul_(change, step[:, None, None])
        iteration += 1
        moved = after - residual
        residual = after
        turn = design.adjoint(moved) if narrow is None else narrow.adjoint(moved.float()).to(d)
        turn.addcmul_(penalty, d)
        history.push(d, turn)
        gradient = gradient + turn
        norm = gradient.flatten(1).norm(dim=1)
        fresh = iteration % _REFRESH == 0 or bool(((norm < 1e-3 * anchor) & ~frozen).any())
        if fresh:
            logits, residual, value, gradient = evaluate(design, problem, penalty, V)
            anchor = gradient.flatten(1).norm(dim=1)
    return Solution(result, gradient_norm, penalty_norm, n_iter, reached)
