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

_CURVATURE_FLOOR = 1e-12  # keeps the preconditioner finite for the unpenalised intercept
_LINE_SEARCH_TRIALS = 25
_LOOSEST = 0.5  # share of the gradient that a direction may leave at most,
_FINEST = 1e-4  # and the least that it is asked to leave: float32 does not give much more
_BEYOND = 0.05  # share of the tolerance that the last direction aims at
_SLOW = 0.5  # a step that leaves more than this of the gradient has float64 make the next ones


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

    def pull(self, columns: int) -> Tensor:
        """L2 weight of every column (M, 1, columns); that of the last, the intercept's, is 0."""
        pull = self.penalty[:, None, None].repeat(1, 1, columns)
        pull[..., -1] = 0
        return pull


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
    residual.scatter_add_(1, problem.labels[:, None, :], -weight)
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
        weight = problem.weight[:, None, :]
        share = residual.scatter_add(1, problem.labels[:, None, :], weight)
        p = share / weight.clamp_min(1e-300)
        spread = share.sum(2) - (share * p).sum(2)
        # One mean for all classes keeps directions free of a common shift of the intercepts.
        curvature = spread.mean(1).clamp_min(_CURVATURE_FLOOR)[:, None, None]
        self.design, self.share, self.p = design, share.to(dtype), p.to(dtype)
        self.pull = problem.pull(columns).to(dtype)
        self.curvature = curvature.expand(-1, residual.shape[1], 1).to(dtype)

    def precondition(self, G: Tensor) -> Tensor:
        """Approximate inverse Hessian times ``G``."""
        return self.design.precondition(G, self.curvature, self.pull)

    def _times(self, D: Tensor) -> Tensor:
        """The Hessian times ``D``."""
        logits = self.design.forward(D)
        logits.sub_((self.p * logits).sum(1, keepdim=True)).mul_(self.share)
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
        size = _norm(gradient).clamp_min(1e-300)[:, None, None]
        r = (-gradient / size).to(self.p.dtype)
        leave = leave.to(r.dtype)
        x = torch.zeros_like(r)
        direction = self.precondition(r)
        rz = _dot(r, direction)
        count = torch.zeros_like(most)
        active = wanted & (most > 0)
        while bool(active.any()):
            end_if_stopped()
            curved = self._times(direction)
            bend = _dot(direction, curved)
            active = active & (bend > 0)
            length = torch.where(active, rz / bend, 0)[:, None, None]
            x.addcmul_(length, direction)
            r.addcmul_(length, curved, value=-1)
            count += active
            active = active & (_norm(r) > leave) & (count < most)
            z = self.precondition(r)
            before, rz = rz, _dot(r, z)
            direction = torch.where(active, rz / before, 0)[:, None, None] * direction + z
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
    slack = 1e4 * torch.finfo(V.dtype).eps * (1 + value.abs())
    todo = torch.arange(len(V), device=V.device)
    for _trial in range(_LINE_SEARCH_TRIALS):
        end = _dot(gradient[todo], d[todo])
        start = slope[todo]
        # The objective is convex: where it still falls at the end it has fallen all the way.
        good = (end <= 0) | ((end <= -0.8 * start) & (after[todo] <= value[todo] + slack[todo]))
        todo, start, end = todo[~good], start[~good], end[~good]
        if len(todo) == 0:
            break
        shorter = torch.nan_to_num(start / (start - end), nan=0.1).clamp(0.1, 0.5)
        step[todo] *= shorter
        moved[todo] = V[todo] + step[todo, None, None] * d[todo]
        parts = _evaluate(design.select(todo), problem.select(todo), moved[todo])
        after[todo], gradient[todo], residual[todo] = parts
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
        tol: a fit ends when ``||gradient|| <= tol * ||lambda W||``.
        floor: (M,) gradient norms below which rounding has the last word; reaching it ends a fit.
        max_iter: most iterations of a fit: of conjugate gradients, and one for every step.
    """
    result = V.clone()
    fits, _, columns = V.shape
    gradient_norm, penalty_norm = V.new_zeros(fits), V.new_zeros(fits)
    n_iter = torch.zeros(fits, dtype=torch.int64, device=V.device)
    reached = torch.zeros(fits, dtype=torch.bool, device=V.device)
    alive = torch.arange(fits, device=V.device)
    precise = torch.zeros_like(reached)  # fits for which float32 is not enough
    value, gradient, residual = _evaluate(wide, problem, V)
    while True:
        norm, scale = _norm(gradient), _norm(problem.pull(columns) * V)
        wanted = torch.maximum(tol * scale, floor[alive])
        good, used = norm <= wanted, n_iter[alive]
        ends = good | (used >= max_iter)
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
                d += part
                n_iter[alive] += count
        n_iter[alive] += 1
        slope = _dot(gradient, d)
        lost = slope >= 0
        if bool(lost.any()):
            steepest = _Newton(wide, problem, residual, V.dtype, columns).precondition(-gradient)
            d = torch.where(lost[:, None, None], steepest, d)
            slope = _dot(gradient, d)
        V, value, gradient, residual = _step(wide, problem, V, d, value, slope)
        precise |= _norm(gradient) > _SLOW * norm
