"""Steps of all active fits in coordinates in which the curvature is about the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from signbridge.probes.dataset.standardise import Reduce
from signbridge.probes.exact.design import sketch_of_image, sketch_rank, trial_matrix
from signbridge.probes.sgd.linear import BatchedLinearProbes
from signbridge.probes.sgd.schedule import Index, Schedule

MOMENTUM = 0.9
_FLOAT32 = float(torch.finfo(torch.float32).eps)


class Preconditioner(nn.Module):
    """Approximate inverse Hessian of every fit: the exact solver's, from a Nystroem sketch.

    The Hessian of class k is taken as a_k S + lambda, with S the features' second moments and a_k
    the mean of p_k (1 - p_k) over the training part.

    Args:
        n_layers: number of layers L.
        n_features: width D.

    Attributes:
        vectors: shape (L, D, rank), orthonormal columns, zero where a layer has fewer.
        values: eigenvalues, shape (L, rank).
        tail: what stands for the eigenvalue of all other directions, shape (L,).
    """

    def __init__(self, n_layers: int, n_features: int) -> None:
        super().__init__()
        rank = sketch_rank(n_features)
        self.register_buffer("vectors", torch.zeros(n_layers, n_features, rank))
        self.register_buffer("values", torch.zeros(n_layers, rank))
        self.register_buffer("tail", torch.zeros(n_layers))

    vectors: Tensor
    values: Tensor
    tail: Tensor

    def measure(self, blocks: Iterable[Tensor], samples: int, seed: int, reduce: Reduce) -> None:
        """Sketch each layer's second moments, in one pass.

        Args:
            blocks: standardised features (samples, L, D) of this process's share.
            samples: number of samples over all processes.
            seed: of the random matrix.
            reduce: over the processes.
        """
        layers, features, _ = self.vectors.shape
        trial = trial_matrix(features, seed)
        narrow = trial.float()
        image = torch.zeros(layers, *trial.shape, dtype=torch.float64)
        trace = torch.zeros(layers, dtype=torch.float64)
        for block in blocks:
            x = block.transpose(0, 1)
            image += torch.bmm(x.mT, x @ narrow)
            trace += x.square().sum((1, 2))
        image = reduce(image, "sum") / samples
        trace = reduce(trace, "sum") / samples
        for k in range(layers):
            sketch = sketch_of_image(image[k], trial, float(trace[k]), _FLOAT32)
            rank = len(sketch.values)
            self.vectors[k, :, :rank] = sketch.vectors
            self.values[k, :rank] = sketch.values
            self.tail[k] = sketch.tail

    def forward(self, G: Tensor, layers: Tensor, curvature: Tensor, decay: Tensor) -> Tensor:
        """Precondition gradients.

        Args:
            G: (La, Q, K, D).
            layers: (La,).
            curvature: a, (La, Q, K).
            decay: lambda, (La, Q).
        """
        vectors, lam = self.vectors[layers], decay[..., None]
        rest = torch.addcmul(lam, curvature, self.tail[layers][:, None, None])
        within = curvature[..., None] * self.values[layers][:, None, None] + lam[..., None]
        gain = 1 / within - 1 / rest[..., None]
        along = torch.bmm(G.flatten(1, 2), vectors) * gain.flatten(1, 2)
        return torch.bmm(along, vectors.mT).view(G.shape) + G / rest[..., None]


class PreconditionedMomentum(Optimizer):
    """Heavy ball (Polyak 1964) with a rate for every fit.

    Args:
        model: the probes.
        schedule: says which fits go on, and at which rate.
        preconditioner: of the weights.
    """

    words = "preconditioned steps with momentum"

    def __init__(
        self, model: BatchedLinearProbes, schedule: Schedule, preconditioner: Preconditioner
    ) -> None:
        super().__init__([model.weight, model.bias], {})
        self.model, self.schedule, self.preconditioner = model, schedule, preconditioner

    def reset_momentum(self) -> None:
        """Take the momentum away."""
        for state in self.state.values():
            state["velocity"].zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step of every active fit."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        schedule, at = self.schedule, self.schedule.index
        rate = torch.where(schedule.active[at], schedule.rate[at], 0.0)
        curvature = schedule.curvature(at)
        weight = self._velocity(self.model.weight, at)
        weight = self.preconditioner(weight, at[0][:, 0], curvature, schedule.decay[at[1]])
        self.model.weight[at] -= rate[..., None, None] * weight
        self.model.bias[at] -= rate[..., None] * self._velocity(self.model.bias, at) / curvature
        return loss

    def _velocity(self, parameter: Tensor, at: Index) -> Tensor:
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        new = torch.lerp(parameter.grad[at], state["velocity"][at], MOMENTUM)
        state["velocity"][at] = new
        return new
