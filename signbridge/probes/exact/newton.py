"""Batched Newton's method with conjugate gradients, for the L2 multinomial logistic regression.

Every step solves for the Newton direction by preconditioned conjugate gradients, no more exactly
than the step is worth (Dembo, Eisenstat & Steihaug 1982, "Inexact Newton Methods"), and then
searches along it by derivatives (the "approximate Wolfe" conditions of Hager & Zhang 2005), because
function values cannot tell gradients below 1e-8 apart. Parameters, logits and gradients are
float64. The products inside a direction run in float32: their rounding makes a direction less
exact, and the next gradient says by how much.

Every fit of a batch has its own directions, line search and end, so a fit's result does not depend
on the others beside it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from signbridge.probes.exact.design import Design
from signbridge.runtime.threads import end_if_stopped

_UNASKED = 4  # iterations of conjugate gradients between two looks at whether a card is done
_CURVATURE_FLOOR = 1e-12  # keeps the preconditioner finite for the unpenalised intercept
_LINE_SEARCH_TRIALS = 25
_LOOSEST = 0.5  # share of the gradient that a direction may leave at most,
_FINEST = 1e-4  # and the least that it is asked to leave: float32 does not give much more
_BEYOND = 0.05  # share of the tolerance that the last direction aims at
_SLOW = 0.5  # a step that leaves more than this of the gradient has float64 make the next ones
_GAIN = 0.9  # a step that leaves more than this, and the objective where it was, gained nothing;
_IDLE_STEPS = 20  # after so many of them rounding has the last word


@dataclass(frozen=True)
class Problem:
    """M fits with n samples and K classes.

    Attributes:
        labels: (M, n) class indices.
        weight: (M, n) sample weights that sum to one in every fit; zero leaves a sample out.
        penalty: (M,) L2 weight lambda of ``mean CE + lambda / 2 * ||W||^2``.
        share: (M,) what the intercept's part of the gradient counts beside the features'; None
            where it counts alike everywhere.
        plain: (M,) 1 where all features are constant, so that W is 0 and the gradient is measured
            against 1; else 0.
        absent: (M, K, 1), -inf where a class has no sample in the fit and 0 elsewhere; None where
            every fit has every class.
    """

    labels: Tensor
    weight: Tensor
    penalty: Tensor
    share: Tensor | None
    plain: Tensor
    absent: Tensor | None

    def select(self, keep: Tensor) -> Problem:
        """The problem of the fits at the indices ``keep``."""
        absent = None if self.absent is None else self.absent[keep]
        return Problem(
            labels=self.labels[keep],
            weight=self.weight[keep],
            penalty=self.penalty[keep],
            share=None if self.share is None else self.share[keep],
            plain=self.plain[keep],
            absent=absent,
        )

    def pull(self, columns: int) -> Tensor:
        """L2 weight of every column (M, 1, columns); that of the last, the intercept's, is 0."""
        pull = self.penalty[:, None, None].repeat(1, 1, columns)
        pull[..., -1] = 0
        return pull

    def norm(self, gradient: Tensor) -> Tensor:
        """Norms (M,) of gradients (M, K, r)."""
        if self.share is None:
            return _norm(gradient)
        scaled = gradient.clone()
        scaled[..., -1] *= self.share[:, None]
        return _norm(scaled)


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


def _norm(a: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return norm


def _evaluate(design: Design, problem: Problem, V: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Objective (M,), its gradient (M, K, r) and the weighted softmax residuals (M, K, n)."""
    logits = design.forward(V)
    own = logits.gather(1, problem.labels[:, None, :])
    if problem.absent is not None:
        logits.add_(problem.absent)
    top = logits.amax(1, keepdim=True)
    logits.sub_(top).exp_()
    total = logits.sum(1, keepdim=True)
    value = torch.linalg.vecdot(problem.weight, (total.log() + top - own)[:, 0])
    weight = problem.weight[:, None, :]
    residual = logits.mul_(weight / total)
    # The own class's as the sum of the others: p - 1 would lose the digits of a p close to 1.
    labels = problem.labels[:, None, :]
    residual.scatter_(1, labels, 0)
    residual.scatter_(1, labels, -residual.sum(1, keepdim=True))
    pulled = problem.pull(V.shape[2]) * V
    gradient = design.adjoint(residual).add_(pulled)
    return value + 0.5 * _dot(pulled, V), gradient, residual


class _Newton:
    """The Hessian of M fits at a point, and the directions it gives.

    Args:
        design: the data, in the precision in which directions are computed.
        problem: the fits.
        residual: (M, K, n) weighted softmax residuals at the point.
        dtype: of the directions.
        columns: r.
    """

    def __init__(
        self, design: Design, problem: Problem, residual: Tensor, dtype: torch.dtype, columns: int
    ) -> None:
        weight, self.labels = problem.weight[:, None, :], problem.labels[:, None, :]
        share = residual.scatter_add(1, self.labels, weight)
        excess = residual / weight.clamp_min(1e-300)  # p, and p - 1 of the own class
        rest = (1 - excess).scatter_(1, self.labels, -excess.gather(1, self.labels))
        # One mean for all classes keeps directions free of a common shift of the intercepts.
        curvature = (share * rest).sum(2).mean(1).clamp_min(_CURVATURE_FLOOR)[:, None, None]
        self.design, self.problem = design, problem
        self.share, self.excess = share.to(dtype), excess.to(dtype)
        self.against = -self.share.gather(1, self.labels)
        self.pull = problem.pull(columns).to(dtype)
        least = self.pull.clamp_min(torch.finfo(dtype).tiny)  # a divisor above 0
        each = curvature.expand(-1, residual.shape[1], 1).to(dtype)
        self.precondition = design.preconditioner(each, least)

    def _times(self, D: Tensor) -> Tensor:
        """The Hessian times ``D``."""
        logits = self.design.forward(D)
        # Measured from the own class's, which keeps the digits of a p close to 1.
        mean = torch.linalg.vecdot(self.excess, logits, dim=1)[:, None]
        own = logits.gather(1, self.labels)
        logits.sub_(own.add_(mean)).mul_(self.share)
        logits.scatter_(1, self.labels, self.against * mean)
        return self.design.adjoint(logits).addcmul_(self.pull, D)

    def direction(
        self, gradient: Tensor, leave: Tensor, wanted: Tensor, most: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Newton directions (M, K, r) by conjugate gradients, and their iterations (M,).

        Args:
            gradient: (M, K, r).
            leave: (M,) share of the gradient's norm that may be left.
            wanted: (M,) fits to work for; the others get the direction zero.
            most: (M,) most iterations.
        """
        size = self.problem.norm(gradient).clamp_min(1e-300)[:, None, None]
        r = (-gradient / size).to(self.share.dtype)
        leave = leave.to(r.dtype)
        x = torch.zeros_like(r)
        direction = self.precondition(r)
        rz = _dot(r, direction)
        count = torch.zeros_like(most)
        active, zero, least = wanted & (most > 0), torch.zeros_like(rz), int(most.min())
        # A card is asked for its answer now and then; until then fits that are through stand still.
        unasked = 1 if r.device.type == "cpu" else _UNASKED
        made = 0
        while made % unasked or bool(active.any()):
            made += 1
            end_if_stopped()
            curved = self._times(direction)
            bend = _dot(direction, curved)
            active = active & (bend > 0)
            length = torch.where(active, rz / bend, zero)[:, None, None]
            x.addcmul_(length, direction)
            r.addcmul_(length, curved, value=-1)
            count += active
            active &= self.problem.norm(r) > leave
            if made >= least:
                active &= count < most
            z = self.precondition(r)
            before, rz = rz, _dot(r, z)
            ratio = torch.where(active, rz / before, zero)[:, None, None]
            direction = torch.addcmul(z, ratio, direction)
        return x.to(gradient.dtype) * size, count


def _step(
    design: Design,
    problem: Problem,
    V: Tensor,
    d: Tensor,
    value: Tensor,
    slope: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Parameters after a step along ``d``, with objective, gradient and residuals there.

    Args:
        design: the data.
        problem: the fits.
        V: (M, K, r) parameters.
        d: (M, K, r) directions.
        value: (M,) objective at ``V``.
        slope: (M,) its derivative along ``d``, below zero.
    """
    step = torch.ones_like(slope)
    moved = V + d
    after, gradient, residual = _evaluate(design, problem, moved)
    most = value + 1e4 * torch.finfo(V.dtype).eps * (1 + value.abs())
    todo, end, start = torch.arange(len(V), device=V.device), _dot(gradient, d), slope
    for _trial in range(_LINE_SEARCH_TRIALS):
        # The objective is convex: where it still falls at the end it has fallen all the way.
        bad = ~((end <= 0) | ((end <= -0.8 * start) & (after[todo] <= most[todo])))
        if not bool(bad.any()):
            break
        todo, start, end = todo[bad], start[bad], end[bad]
        shorter = torch.nan_to_num(start / (start - end), nan=0.1).clamp(0.1, 0.5)
        step[todo] *= shorter
        moved[todo] = V[todo] + step[todo, None, None] * d[todo]
        parts = _evaluate(design.select(todo), problem.select(todo), moved[todo])
        after[todo], gradient[todo], residual[todo] = parts
        end, start = _dot(gradient[todo], d[todo]), slope[todo]
    lost = (~torch.isfinite(after + _norm(gradient))).nonzero()[:, 0]
    if len(lost):  # beyond float64: stay
        moved[lost] = V[lost]
        parts = _evaluate(design.select(lost), problem.select(lost), V[lost])
        after[lost], gradient[lost], residual[lost] = parts
    return moved, after, gradient, residual


def minimise(
    wide: Design,
    narrow: Design,
    problem: Problem,
    V: Tensor,
    *,
    tol: float,
    floor: Tensor,
    max_iter: int,
) -> Solution:
    """Minimise all fits of a batch.

    Args:
        wide: the data in float64, with r columns.
        narrow: the data in float32.
        problem: labels, weights and penalties of M fits.
        V: (M, K, r) start; left as it is.
        tol: a fit has converged when ``||gradient|| <= tol * ||lambda W||``.
        floor: (M,) gradient norms below which rounding has the last word as soon as a step fails to
            halve the gradient; that, or twenty steps without gain, ends a fit too.
        max_iter: most iterations of a fit: of conjugate gradients, and one for every step.
    """
    result = V.clone()
    fits, _, columns = V.shape
    gradient_norm, penalty_norm = V.new_zeros(fits), V.new_zeros(fits)
    n_iter = torch.zeros(fits, dtype=torch.int64, device=V.device)
    reached = torch.zeros(fits, dtype=torch.bool, device=V.device)
    alive = torch.arange(fits, device=V.device)
    precise = torch.zeros_like(reached)  # fits for which float32 is not enough
    idle = torch.zeros_like(n_iter)
    value, gradient, residual = _evaluate(wide, problem, V)
    lowest, best = torch.full_like(value, torch.inf), torch.full_like(value, torch.inf)
    while True:
        scale = problem.penalty * _norm(V[..., :-1]) + problem.plain
        norm = problem.norm(gradient)
        wanted = tol * scale
        gained = (norm < _GAIN * best) | (value < lowest - 1e-13 * lowest.abs())
        idle = torch.where(gained, 0, idle + 1)
        stuck = (idle == _IDLE_STEPS) | ((norm <= floor[alive]) & (norm > _SLOW * best))
        lowest, best = torch.minimum(lowest, value), torch.minimum(best, norm)
        good, used = norm <= wanted, n_iter[alive]
        ends = good | stuck | (used >= max_iter)
        if bool(ends.any()):
            to = alive[ends]
            result[to], gradient_norm[to], penalty_norm[to] = V[ends], norm[ends], scale[ends]
            reached[to] = good[ends]
            keep = (~ends).nonzero()[:, 0]
            if len(keep) == 0:
                return Solution(result, gradient_norm, penalty_norm, n_iter, reached)
            alive, V, value, gradient = alive[keep], V[keep], value[keep], gradient[keep]
            residual, precise, used = residual[keep], precise[keep], used[keep]
            norm, scale, wanted = norm[keep], scale[keep], wanted[keep]
            idle, lowest, best = idle[keep], lowest[keep], best[keep]
            wide, narrow, problem = wide.select(keep), narrow.select(keep), problem.select(keep)
        leave = torch.where(scale > 0, (norm / scale).sqrt(), _LOOSEST).clamp(_FINEST, _LOOSEST)
        leave = torch.maximum(leave, _BEYOND * wanted / norm)
        d = torch.zeros_like(V)
        for design, dtype, which in (
            (narrow, torch.float32, ~precise),
            (wide, torch.float64, precise),
        ):
            if bool(which.any()):
                newton = _Newton(design, problem, residual, dtype, columns)
                part, count = newton.direction(gradient, leave, which, max_iter - used - 1)
                d += torch.where(which[:, None, None], part, 0)
                n_iter[alive] += count
        n_iter[alive] += 1
        slope = _dot(gradient, d)
        lost = ~(slope < 0)
        if bool(lost.any()):
            steepest = _Newton(wide, problem, residual, V.dtype, columns).precondition(-gradient)
            d = torch.where(lost[:, None, None], steepest, d)
            slope = _dot(gradient, d)
            d = torch.where((slope < 0)[:, None, None], d, 0)  # what overflowed goes nowhere
        V, value, gradient, residual = _step(wide, problem, V, d, value, slope)
        precise |= problem.norm(gradient) > _SLOW * norm
