"""The optimum that batch-trained probes approach, by the exact solver where it is affordable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from signbridge.probes.dataset.features import FeatureSource
from signbridge.probes.dataset.splits import IntArray
from signbridge.probes.engines import solve

WORK = 4e9
"""Most samples x features x classes x penalties x layers that the comparison takes on: about half a
minute of a core."""


def affordable(
    source: FeatureSource, samples: int, n_classes: int, n_penalties: int, memory_bytes: int
) -> list[int]:
    """Numbers of the layers to compare: all, or as many as :data:`WORK` allows, evenly spaced."""
    one = float(samples) * source.n_features * n_classes * n_penalties
    fits = source.n_samples * source.n_features * source.dtype.itemsize <= memory_bytes
    most = min(len(source), int(WORK // max(one, 1.0))) if fits else 0
    return sorted({round(k) for k in np.linspace(0, len(source) - 1, most)})


def optima(
    source: FeatureSource,
    labels: IntArray,
    n_classes: int,
    fold: tuple[IntArray, IntArray],
    penalties: Sequence[float],
    layers: Sequence[int],
    *,
    device: str | torch.device,
    memory_bytes: int,
) -> tuple[npt.NDArray[np.float64], IntArray]:
    """Objectives at the optimum, and what it answers for the test part.

    Args:
        source: the features.
        labels: class indices, shape (n_samples,).
        n_classes: number of classes.
        fold: training and test samples.
        penalties: values of C, P of them.
        layers: numbers of the layers to fit, M of them.
        device: of the exact solver.
        memory_bytes: of the exact solver.

    Returns:
        Objectives, shape (M, P), and answers, shape (M, P, n_test).
    """
    train, test = fold
    fit = solve(
        source,
        labels,
        n_classes,
        [train],
        penalties,
        device=device,
        memory_bytes=memory_bytes,
        features=[source.features[k] for k in layers],
        coef=True,
        decision=True,
    )
    assert fit.decision is not None
    assert fit.coef is not None
    logits = torch.from_numpy(np.asarray(fit.decision)[:, 0])  # (M, P, n_samples, K)
    coef = np.asarray(fit.coef)[:, 0]
    own = torch.as_tensor(labels[train])[:, None]
    chance = logits[:, :, train].log_softmax(-1)
    loss = -chance.gather(-1, own.expand(*chance.shape[:2], *own.shape)).mean((-2, -1)).numpy()
    factor = 2.0 if len(np.unique(labels[train])) == 2 else 1.0
    decay = factor / (np.asarray(penalties) * len(train))
    objective = loss + 0.5 * decay * (coef**2).sum((-2, -1))
    answers = logits[:, :, test].argmax(-1).numpy() if len(test) else np.zeros((0,), np.int64)
    return objective, answers
