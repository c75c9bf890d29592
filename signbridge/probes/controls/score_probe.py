r"""Accuracy of a probe in closed form, for thousands of labellings of the same images.

The *score probe* is the logistic probe after one Newton step from zero, where every class is as
likely as any other: for standardised training vectors :math:`Z` (n, D), one-hot labels :math:`Y`
(n, K) and the class shares :math:`\bar y`

.. math:: W' = (Z' Z / K + I / C)^{-1} Z' Y, \qquad b = K \bar y - 1 .

It is the gradient of the log-likelihood at "nothing is known", weighted by its curvature there, as
in a score test (Rao 1948), and it has the logistic probe's penalty. Its answers are those of
scikit-learn's ``RidgeClassifier(alpha=K / C)`` (``4 / C`` for two classes). As :math:`Y` stands
outside the inverse, another labelling costs one matrix product.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from signbridge.probes.controls.relabelling import Labellings, chunks
from signbridge.probes.dataset.splits import Split
from signbridge.probes.dataset.standardise import standardisation
from signbridge.probes.exact.design import RowBlocks

_LEAST_RIDGE = 1e-12  # share of the mean eigenvalue below which rounding decides
_CHUNK_BYTES = 128 << 20


def held_out_hits(
    X: Tensor,
    labellings: Labellings,
    split: Split,
    C: Sequence[float],
    *,
    memory_bytes: int = 1 << 30,
) -> npt.NDArray[np.int64]:
    """Correct held-out answers of the score probe in every labelling.

    Args:
        X: one layer as stored, shape (n_samples, n_features), any floating type and device.
        labellings: what the units are labelled in each.
        split: the folds; those that are in no test part are not counted.
        C: inverse penalties; of several each labelling has the best, chosen by these very answers.
        memory_bytes: bound on the products' memory; on top come one layer's Gram matrix and the
            unit sums, at most the size of its training part in float64.

    Returns:
        Shape (len(labellings),), the true labelling first.
    """
    relabelling = labellings.relabelling
    known, codes = np.unique(relabelling.label, return_inverse=True)
    code_of = np.searchsorted(known, np.arange(int(known.max()) + 1))
    hits = np.zeros((len(C), len(labellings)), dtype=np.int64)
    for train, test in split:
        units, unit_of_row = np.unique(relabelling.unit[train], return_inverse=True)
        counts = np.bincount(unit_of_row)
        present = len(np.unique(codes[units]))
        blocks = _responses(X, train, test, unit_of_row, present, C, memory_bytes // 4)
        for rows, penalty, response in blocks:
            wide = 4 * len(known) * (len(units) + 2 * len(rows))
            for numbers in chunks(len(labellings), min(memory_bytes // 4, _CHUNK_BYTES) // wide):
                drawn = code_of[labellings[numbers]]
                answer = _answers(response, drawn[:, units], counts, len(known))
                right = answer == drawn[:, relabelling.unit[rows]]
                hits[penalty, numbers.start : numbers.stop] += right.sum(1)
    return np.asarray(hits.max(0))


def _responses(
    X: Tensor,
    train: npt.NDArray[np.int64],
    test: npt.NDArray[np.int64],
    unit_of_row: npt.NDArray[np.int64],
    present: int,
    C: Sequence[float],
    memory_bytes: int,
) -> Iterator[tuple[npt.NDArray[np.int64], int, Tensor]]:
    """Logits per unit label: blocks of test rows, index of C, float32 (rows, units)."""
    rows = torch.as_tensor(train, device=X.device)
    scaling = standardisation(X, rows)
    zero = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
    place = torch.as_tensor(unit_of_row, device=X.device)
    n_units = int(unit_of_row.max()) + 1
    made = RowBlocks(X, rows, scaling, zero)
    dual = len(train) <= X.shape[1]
    if dual:
        Z = torch.cat([block for _, block in made])
        gram = Z @ Z.mT
        target = torch.zeros(len(train), n_units, dtype=torch.float64, device=X.device)
        target[torch.arange(len(train), device=X.device), place] = 1
    else:
        gram = torch.zeros(X.shape[1], X.shape[1], dtype=torch.float64, device=X.device)
        sums = torch.zeros(n_units, X.shape[1], dtype=torch.float64, device=X.device)
        for part, block in made:
            gram.addmm_(block.mT, block)
            sums.index_add_(0, place[part], block)
        target = sums.mT
    gram /= present
    binary = 2 if present == 2 else 1  # as in the logistic probe's objective
    mean = float(gram.diagonal().mean())
    step = max(1, memory_bytes // (8 * (n_units + X.shape[1] + (len(train) if dual else 0))))
    for number, value in enumerate(C):
        shifted = gram.clone()
        shifted.diagonal().add_(max(binary / value, _LEAST_RIDGE * mean))
        solved = torch.cholesky_solve(target, torch.linalg.cholesky(shifted))
        for some in chunks(len(test), step):
            picked = test[some.start : some.stop]
            z = scaling.apply(X[torch.as_tensor(picked, device=X.device)])
            yield picked, number, ((z @ Z.mT if dual else z) @ solved).float()


def _answers(
    response: Tensor, drawn: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], n_classes: int
) -> npt.NDArray[np.int64]:
    """Answers (labellings, rows) of the probes trained on labels ``drawn`` (labellings, units)."""
    labels = torch.as_tensor(drawn, device=response.device)
    number, n_units = labels.shape
    onehot = response.new_zeros(n_units, number, n_classes)
    onehot.scatter_(2, labels.mT[:, :, None], 1)
    weight = torch.as_tensor(counts, device=response.device).to(response)
    share = torch.tensordot(weight / weight.sum(), onehot, 1)
    there = share > 0
    intercept = torch.where(there, there.sum(1, keepdim=True) * share - 1, -torch.inf)
    logits = (response @ onehot.flatten(1)).unflatten(1, (number, n_classes)) + intercept
    return np.asarray(logits.argmax(2).mT.cpu().numpy())
