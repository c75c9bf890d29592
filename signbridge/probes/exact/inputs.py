"""Check and encode what fit_logistic is given: features by layer, labels, folds and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from signbridge.errors import ProbeError

_BLOCK_BYTES = 32 << 20


class Layers:
    """Layers of features, one at a time on the solver's device.

    Takes an array (layers, samples, features) or (samples, features), or any sequence whose items
    are (samples, features); only the item in use is converted, so a memory map or a lazy sequence
    is never held as a whole.
    """

    def __init__(self, X: Any, device: torch.device | str | None) -> None:
        if isinstance(X, (list, tuple)) and len(X) and np.ndim(X[0]) < 2:
            X = np.asarray(X, dtype=np.float64)
        ndim = getattr(X, "ndim", 3)
        if ndim not in (2, 3):
            raise ProbeError(
                f"Features have {ndim} dimensions: pass (samples, features) or "
                "(layers, samples, features)."
            )
        self.layered = ndim == 3
        self.items: Any = X if self.layered else [X]
        if len(self.items) == 0:
            raise ProbeError("There are no layers to fit: pass at least one.")
        first = self.items[0]
        self.samples, self.features = (int(size) for size in first.shape)
        if device is None:
            device = first.device if isinstance(first, Tensor) else "cpu"
        self.device = torch.device(device)
        self.torch = isinstance(first, Tensor)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, layer: int) -> Tensor:
        """Features (samples, features) of a layer, in their own floating type.

        Raises:
            ProbeError: if a value is not finite, or the layer has another shape than the first.
        """
        item = self.items[layer]
        tensor = item if isinstance(item, Tensor) else torch.from_numpy(np.require(item, None, "W"))
        tensor = tensor.detach().to(self.device)
        if tuple(tensor.shape) != (self.samples, self.features):
            raise ProbeError(
                f"Layer {layer} has the shape {tuple(tensor.shape)}, not "
                f"{(self.samples, self.features)} as the first one: give all layers one shape."
            )
        if not tensor.is_floating_point():
            tensor = tensor.to(torch.float64)
        elif not _finite(tensor):
            raise ProbeError(
                f"Layer {layer} holds a value that is not finite: extract it again or leave it out."
            )
        return tensor


def _finite(X: Tensor) -> bool:
    """Whether all values are; torch sums float16 in float64 through a copy, so in blocks."""
    rows = max(1, _BLOCK_BYTES // (8 * max(1, X.shape[1])))
    return all(bool(torch.isfinite(part.sum(dtype=torch.float64))) for part in X.split(rows))


def encode_labels(
    y: ArrayLike | Tensor, samples: int, classes: ArrayLike | None
) -> tuple[NDArray[Any], Tensor, bool]:
    """Classes (K,), class indices (label vectors, samples), and whether ``y`` had two axes."""
    values = y.cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if values.ndim not in (1, 2) or values.shape[-1] != samples:
        raise ProbeError(
            f"Labels of shape {values.shape} do not fit {samples} samples: pass (samples,) or "
            "(label vectors, samples)."
        )
    known = np.unique(values if classes is None else np.asarray(classes))
    codes = np.searchsorted(known, values).clip(max=len(known) - 1)
    if not (known[codes] == values).all():
        strange = values[known[codes] != values][0]
        raise ProbeError(f"Label {strange!r} is not among the classes given: add it to classes.")
    if len(known) < 2:
        raise ProbeError(f"A probe needs at least two classes, and the labels hold {len(known)}.")
    return known, torch.from_numpy(np.atleast_2d(codes).astype(np.int64)), values.ndim == 2


def training_weights(
    train: Any, sample_weight: ArrayLike | Tensor | None, samples: int
) -> tuple[Tensor, bool]:
    """Sample weights (folds, samples), 0 outside a fold's training part, and if there are folds."""
    folded = train is not None
    if train is None:
        mask = np.ones((1, samples))
    else:
        mask = _masks(train, samples)
    if sample_weight is not None:
        raw = sample_weight.cpu() if isinstance(sample_weight, Tensor) else sample_weight
        weight = np.asarray(raw, dtype=np.float64)
        if weight.ndim not in (0, 1) or (weight.ndim == 1 and len(weight) != samples):
            raise ProbeError(
                f"sample_weight has the shape {weight.shape}: pass one weight per sample."
            )
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise ProbeError(
                "sample_weight holds a negative or non-finite value: pass weights >= 0."
            )
        mask = mask * weight
    empty = np.flatnonzero(mask.sum(1) == 0)
    if len(empty):
        raise ProbeError(f"Fold {empty[0]} has no training samples of positive weight.")
    return torch.from_numpy(mask), folded


def _masks(train: Any, samples: int) -> NDArray[np.float64]:
    if isinstance(train, Tensor):
        train = train.cpu().numpy()
    if isinstance(train, np.ndarray) and train.dtype == bool:
        masks = np.atleast_2d(train)
        if masks.shape[1] != samples:
            raise ProbeError(f"The fold masks cover {masks.shape[1]} samples instead of {samples}.")
        return masks.astype(np.float64)
    out = np.zeros((len(train), samples))
    for row, indices in zip(out, train, strict=True):
        chosen = np.asarray(indices)
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen) if len(chosen) == samples else np.array([samples])
        if len(chosen) and (chosen.min() < 0 or chosen.max() >= samples):
            raise ProbeError(
                f"A fold names a sample outside 0..{samples - 1}: pass sample indices."
            )
        row[chosen.astype(np.int64)] = 1
    return out


def class_weights(
    class_weight: Mapping[Any, float] | str | None,
    classes: NDArray[Any],
    codes: Tensor,
    weight: Tensor,
) -> Tensor:
    """Weights (label vectors, folds, samples): ``weight`` (folds, samples) times the classes'."""
    spread = weight.expand(len(codes), -1, -1)
    if class_weight is None:
        return spread
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ProbeError(f"class_weight is {class_weight!r}: pass 'balanced' or a dictionary.")
        onehot = torch.nn.functional.one_hot(codes, len(classes)).to(torch.float64)
        mass = torch.einsum("fn,pnk->pfk", weight, onehot)
        present = (mass > 0).sum(-1, keepdim=True)
        factor = mass.sum(-1, keepdim=True) / (present * mass)
        factor = torch.where(mass > 0, factor, 0.0)
    else:
        unknown = set(class_weight) - set(classes.tolist())
        if unknown:
            raise ProbeError(
                f"class_weight names {unknown.pop()!r}, which is not among the labels."
            )
        row = torch.tensor([float(class_weight.get(c, 1.0)) for c in classes.tolist()])
        factor = row.to(torch.float64).expand(len(codes), len(weight), -1)
    index = codes[:, None, :].expand(-1, len(weight), -1)
    return spread * factor.gather(2, index)


def penalties(C: float | Sequence[float] | ArrayLike) -> tuple[NDArray[np.float64], bool]:
    """Inverse penalties (values,), and whether a path was given."""
    values = np.asarray(C, dtype=np.float64)
    if values.ndim > 1 or values.size == 0 or not (values > 0).all() or np.isinf(values).any():
        raise ProbeError(f"C is {C!r}: pass a positive finite number or a list of them.")
    return np.atleast_1d(values), values.ndim == 1
