"""State of all fits of a training, and when each of them stops.

Training runs in rounds. At the start of a round the whole training part is measured: objective and
gradient of every fit at its *anchor*, the best point it has reached. The steps of the round correct
each batch's gradient by what the same batch says of the anchor, whose gradient is known (variance
reduction: Johnson & Zhang 2013, "Accelerating Stochastic Gradient Descent using Predictive Variance
Reduction"), so that a fit reaches its optimum without letting its rate decay. A fit whose objective
has grown goes back to its anchor and goes on at half the rate.

There are two stages. In the *search* every learning rate is tried, on the training part without its
validation part. In the *finish* the best rate of each layer and penalty goes on with all of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from signbridge.probes.sgd.linear import BatchedLinearProbes, Gradients

RUNNING, TOLERANCE, VALIDATION, OBJECTIVE, OVERTAKEN, STEPS = range(6)
REASONS = ("running", "tolerance", "validation", "objective", "overtaken", "max_steps")
"""Why a fit stopped, in words."""

PATIENCE = 3
"""Rounds over which nothing may change before a fit stops."""
VALIDATION_CHANGE = 1e-3
"""Relative change of the validation cross-entropy that counts as none."""
OBJECTIVE_CHANGE = 1e-5
"""Relative fall of the objective that counts as none."""
RELATIVE_GRADIENT = 1e-3
"""A fit stops where its gradient is this small beside the penalty's."""
_SLOWEST = 2.0**-15
_LEAST_SPREAD = 2e-3

SEARCH, FINISH, DONE = range(3)

Index = tuple[Tensor, Tensor]


class Schedule(nn.Module):
    """Anchors, rates and records of L x S fits, where S runs over learning rates and penalties.

    Setting ``s`` has the learning rate ``s // P`` and the penalty ``s % P``.

    Args:
        model: the probes that are trained.
        rates: learning rates, R of them.
        n_penalties: number of penalties P.
        max_steps: most steps of either stage.
    """

    def __init__(
        self,
        model: BatchedLinearProbes,
        rates: Sequence[float],
        n_penalties: int,
        max_steps: int,
    ) -> None:
        super().__init__()
        fits = model.weight.shape[:2]
        self.n_rates, self.n_penalties, self.max_steps = len(rates), n_penalties, max_steps
        self.penalty_factor = model.penalty_factor

        def keep(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))

        for name, like in (("weight", model.weight), ("bias", model.bias)):
            keep(f"anchor_{name}", *like.shape)
            keep(f"slope_{name}", *like.shape)
        keep("spread", *model.bias.shape)
        for name in ("objective", "relative", "validation"):
            keep(name, *fits, dtype=torch.float64)
        keep("objectives", PATIENCE + 1, *fits, dtype=torch.float64)
        keep("validations", PATIENCE + 1, *fits, dtype=torch.float64)
        for name in ("reason", "steps"):
            keep(name, *fits, dtype=torch.int64)
        for name in ("picked", "search_steps", "search_reason"):
            keep(name, fits[0], n_penalties, dtype=torch.int64)
        keep("stage", dtype=torch.int64)
        keep("step", dtype=torch.int64)
        keep("samples", dtype=torch.int64)
        self.register_buffer("start_rate", torch.tensor(rates).repeat_interleave(n_penalties))
        self.register_buffer("rate", self.start_rate.expand(fits).clone())
        self.register_buffer("penalties", model.penalties.clone())
        self.picked.copy_(torch.arange(n_penalties).expand(self.picked.shape))
        self._index: Index | None = None
        self.restart_records()

    anchor_weight: Tensor
    anchor_bias: Tensor
    slope_weight: Tensor
    slope_bias: Tensor
    spread: Tensor
    objective: Tensor
    relative: Tensor
    validation: Tensor
    objectives: Tensor
    validations: Tensor
    reason: Tensor
    steps: Tensor
    picked: Tensor
    search_steps: Tensor
    search_reason: Tensor
    stage: Tensor
    step: Tensor
    samples: Tensor
    start_rate: Tensor
    rate: Tensor
    penalties: Tensor

    def restart_records(self) -> None:
        """Forget objectives, which those of another training part do not compare with."""
        self.objective.fill_(torch.inf)
        self.relative.fill_(torch.inf)
        self.objectives.fill_(torch.nan)
        self.validations.fill_(torch.nan)

    @property
    def active(self) -> Tensor:
        """Fits that go on, (L, S)."""
        return self.reason == RUNNING

    @property
    def index(self) -> Index:
        """Layers (La, 1) and settings (La, Q) that hold all active fits, and few others."""
        if self._index is None:
            active = self.active
            layers = active.any(1).nonzero()[:, 0]
            most = int(active.sum(1).max()) if len(layers) else 0
            # A stable order, so that what is computed beside does not change a fit's rounding.
            settings = torch.argsort(active[layers].int(), dim=1, descending=True, stable=True)[
                :, :most
            ]
            self._index = layers[:, None], settings.sort(1).values
        return self._index

    @property
    def decay(self) -> Tensor:
        """Weight of the squared norm's gradient, (S,): 1 / (C N), doubled for two classes."""
        return self.penalty_factor / (self.penalties * self.samples)

    def penalty(self, weight: Tensor, settings: Tensor) -> Tensor:
        """Penalty of weights (La, Q, K, D) at the settings, (La, Q), float64."""
        return 0.5 * self.decay[settings].double() * weight.double().square().sum((-2, -1))

    def curvature(self, at: Index) -> Tensor:
        """Mean p (1 - p) of every class at the anchors, (La, Q, K), not below a floor."""
        return self.spread[at].clamp_min(_LEAST_SPREAD)

    def judge(self, model: BatchedLinearProbes, training: Gradients, validation: Tensor) -> None:
        """Take or refuse the point that every active fit has reached, and stop those at rest.

        Args:
            model: the probes.
            training: means over the training samples, of the fits at the index.
            validation: their mean cross-entropy over the validation samples, (La, Q), float64, NaN
                without any.
        """
        at = self.index
        weight, bias = model.weight.data[at], model.bias.data[at]
        value = training.loss + self.penalty(weight, at[1])
        active = self.active[at]
        better = active & torch.isfinite(value) & (value < self.objective[at])
        worse = active & ~better
        wide = better[..., None]
        for name, new in (("weight", weight), ("bias", bias)):
            mask = wide[..., None] if name == "weight" else wide
            anchor, slope = getattr(self, f"anchor_{name}"), getattr(self, f"slope_{name}")
            anchor[at] = torch.where(mask, new, anchor[at])
            slope[at] = torch.where(mask, getattr(training, name), slope[at])
        self.spread[at] = torch.where(wide, training.spread, self.spread[at])
        self.objective[at] = torch.where(better, value, self.objective[at])
        self.validation[at] = torch.where(better, validation, self.validation[at])
        self.rate[at] = torch.where(worse, 0.5 * self.rate[at], self.rate[at])
        model.weight.data[at] = self.anchor_weight[at]
        model.bias.data[at] = self.anchor_bias[at]
        self.relative[at] = self._relative(at)
        taken = torch.zeros_like(self.active)
        taken[at] = better
        for record, new in ((self.objectives, self.objective), (self.validations, self.validation)):
            record.copy_(torch.where(taken, torch.cat([record[1:], new[None]]), record))
        self._stop()

    def _relative(self, at: Index) -> Tensor:
        pull = self.decay[at[1]][..., None, None] * self.anchor_weight[at]
        slope = (self.slope_weight[at] + pull).flatten(2).norm(dim=-1)
        size = torch.hypot(slope, self.slope_bias[at].norm(dim=-1))
        return size.div(pull.flatten(2).norm(dim=-1).clamp_min(1e-30)).double()

    def _stop(self) -> None:
        """Note why fits stop; the first reason that holds counts."""
        searching = int(self.stage) == SEARCH
        change, held = self.validations, bool(torch.isfinite(self.validations[-1]).any())
        moved = change.max(0).values - change.min(0).values
        settled = moved <= VALIDATION_CHANGE * change[-1].abs()  # false while there is a NaN
        fallen = self.objectives[0] - self.objectives[-1] <= OBJECTIVE_CHANGE * self.objectives[-1]
        fallen |= self.rate < _SLOWEST * self.start_rate
        self._set(self.relative <= RELATIVE_GRADIENT, TOLERANCE)
        if searching and held:
            self._set(settled, VALIDATION)
        self._set(fallen, OBJECTIVE)
        best = torch.where(self.active, torch.inf, self.objective).unflatten(1, self.grid)
        self._set(self.objective > best.min(1).values.repeat(1, self.n_rates), OVERTAKEN)
        self._set(self.step >= self.max_steps, STEPS)
        self._index = None

    def _set(self, which: Tensor, reason: int) -> None:
        new = self.active & which
        self.reason.masked_fill_(new, reason)
        self.steps.copy_(torch.where(new, self.step, self.steps))

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of learning rates and of penalties."""
        return self.n_rates, self.n_penalties

    def forget_index(self) -> None:
        """Look again which fits are active, as after a checkpoint was loaded."""
        self._index = None

    @property
    def at_rest(self) -> bool:
        """Whether no fit goes on."""
        return not bool(self.active.any())

    def pick(self) -> None:
        """Choose for every layer and penalty the learning rate with the lowest objective."""
        objective = self.objective.unflatten(1, self.grid)
        rate = torch.nan_to_num(objective, nan=torch.inf).argmin(1)
        self.picked.copy_(rate * self.n_penalties + torch.arange(self.n_penalties).to(rate))
        self.search_steps.copy_(self.steps.gather(1, self.picked))
        self.search_reason.copy_(self.reason.gather(1, self.picked))

    def finish(self, model: BatchedLinearProbes) -> None:
        """Go on with the fits that were picked, on all of the training part."""
        self.stage.fill_(FINISH)
        self.step.zero_()
        self.reason.fill_(OVERTAKEN).scatter_(1, self.picked, RUNNING)
        self.restart_records()
        self._index = None

    def chosen(self, values: Tensor) -> Tensor:
        """Values (L, S, ...) of the picked fits, (L, P, ...)."""
        layers = torch.arange(len(values), device=values.device)[:, None]
        return values[layers, self.picked]
