"""Check and encode what fit_logistic is given: features by layer, labels, folds and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from signbridge.errors import ProbeError

_LARGEST = 1e140  # the squares of larger values, summed, may overflow
_MOST_THREADS = 1024


class Layers:
    """Layers of features, one at a time on the solver's device.

    Takes an array (layers, samples, features) or (samples, features), or any sequence whose items
    are (samples, features); only the item in use is converted, so a memory map or a lazy sequence
    is never held as a whole.
    """

    def __init__(self, X: Any, device: torch.device | str | None) -> None:
        if isinstance(X, (list, tuple)) and len(X) and np.ndim(X[0]) < 2:
            try:
                X = np.asarray(X)
            except ValueError:
                raise ProbeError(
                    "The features are rows of different lengths: pad or cut them."
                ) from None
        ndim = getattr(X, "ndim", 3)
        if ndim not in (2, 3):
            raise _wrong_dimensions(ndim)
        self.layered = ndim == 3
        self.items: Any = X if self.layered else [X]
        if len(self.items) == 0:
            raise ProbeError("There are no layers to fit: pass at least one.")
        first = self.items[0]
        shape = np.shape(first)
        if len(shape) != 2:
            raise _wrong_dimensions(len(shape) + self.layered)
        self.samples, self.features = int(shape[0]), int(shape[1])
        if device is None:
            device = first.device if isinstance(first, Tensor) else "cpu"
        self.device = usable_device(device)
        self.torch = isinstance(first, Tensor)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, layer: int) -> Tensor:
        """Features (samples, features) of a layer, in their own floating type.

        Raises:
            ProbeError: if a value is no finite real number or too large, or the layer has another
                shape than the first.
        """
        tensor = real_tensor(self.items[layer], f"Layer {layer}").detach().to(self.device)
        if tuple(tensor.shape) != (self.samples, self.features):
            raise ProbeError(
                f"Layer {layer} has the shape {tuple(tensor.shape)}, not "
                f"{(self.samples, self.features)} as the first one: give all layers one shape."
            )
        if tensor.numel():
            largest = float(torch.stack(tensor.aminmax()).abs().max())
            if not np.isfinite(largest):
                raise ProbeError(
                    f"Layer {layer} holds a value that is not finite: extract it again or leave it "
                    "out."
                )
            if largest > _LARGEST:
                raise ProbeError(
                    f"Layer {layer} holds values as large as {largest:.0e}, whose squares "
                    "overflow: divide the features by a constant."
                )
        return tensor


def _wrong_dimensions(ndim: int) -> ProbeError:
    return ProbeError(
        f"Features have {ndim} dimensions: pass (samples, features) or (layers, samples, features)."
    )


def real_tensor(values: Any, name: str) -> Tensor:
    """An array or tensor of real numbers as a tensor of a floating type.

    What torch does not take is copied: views with negative strides, foreign byte orders, long
    doubles; whole numbers become float64.

    Args:
        values: the numbers.
        name: what they are, for the error, such as ``Layer 3``.

    Raises:
        ProbeError: if they are complex, masked or no numbers.
    """
    if isinstance(values, Tensor):
        if values.is_complex():
            raise _not_real(name, values.dtype)
        return values if values.is_floating_point() else values.to(torch.float64)
    if np.ma.is_masked(values):
        raise ProbeError(f"{name} has masked values: fill them or leave their samples out.")
    array = np.asarray(values)
    if array.dtype.kind == "O":
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise _not_real(name, array.dtype) from None
    if array.dtype.kind not in "fiub":
        raise _not_real(name, array.dtype)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(np.require(array, array.dtype.newbyteorder("="), "W"))


def _not_real(name: str, dtype: Any) -> ProbeError:
    return ProbeError(f"{name} is of the type {dtype}: pass real numbers.")


def usable_device(device: Any) -> torch.device:
    """A torch device on which float64 can be computed.

    Raises:
        ProbeError: if there is no such device here.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, dtype=torch.float64, device=found).cpu()
    except (AssertionError, NotImplementedError, RuntimeError, TypeError):
        raise ProbeError(
            f"device is {device!r}, which this machine does not offer for float64: pass 'cpu' or, "
            "where there is a GPU, 'cuda'."
        ) from None
    return found


def whole_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return ``value``, or refuse what is no whole number from ``least`` to ``most``."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not good or value < least or (most is not None and value > most):
        end = " or more" if most is None else f" to {most}"
        raise ProbeError(f"{name} is {value!r}: pass a whole number, {least}{end}.")
    return int(value)


def thread_number(threads: int | None) -> int | None:
    """Return the number of CPU threads, or refuse one that torch cannot start."""
    return None if threads is None else whole_number(threads, "threads", 1, _MOST_THREADS)


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
    try:
        known = np.unique(values if classes is None else np.asarray(classes))
    except TypeError:
        raise ProbeError(
            "The labels are of types that have no order among them, such as names and numbers: "
            "pass labels of one type."
        ) from None
    if known.dtype.kind in "fc" and not np.isfinite(known).all():
        raise ProbeError("The labels hold a value that is not finite: leave its samples out.")
    codes = np.searchsorted(known, values).clip(max=len(known) - 1)
    if len(known) and not (known[codes] == values).all():
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
        weight = real_tensor(sample_weight, "sample_weight").to("cpu", torch.float64).numpy()
        if weight.ndim not in (0, 1) or (weight.ndim == 1 and len(weight) != samples):
            raise ProbeError(
                f"sample_weight has the shape {weight.shape}: pass one weight per sample."
            )
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise ProbeError(
                "sample_weight holds a negative or non-finite value: pass weights >= 0."
            )
        mask = mask * weight
    with np.errstate(over="ignore"):
        total = mask.sum(1)
    if not np.isfinite(total).all():
        raise ProbeError("The sum of sample_weight overflows: divide the weights by a constant.")
    if len(mask) == 0:
        raise ProbeError("train holds no folds: pass one training part or more.")
    empty = np.flatnonzero(total == 0)
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
    try:
        parts = [np.asarray(indices) for indices in train]
    except (TypeError, ValueError):
        parts = []
        train = None
    if train is None or any(part.ndim != 1 for part in parts):
        raise ProbeError("train is no list of folds: pass one array of sample indices for each.")
    out = np.zeros((len(parts), samples))
    for row, chosen in zip(out, parts, strict=True):
        if chosen.dtype == bool:
            chosen = np.flatnonzero(chosen) if len(chosen) == samples else np.array([samples])
        if len(chosen) and chosen.dtype.kind not in "iu":
            raise ProbeError(
                f"A fold holds values of the type {chosen.dtype}: pass sample indices, which are "
                "whole numbers."
            )
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
        if not isinstance(class_weight, Mapping):
            raise ProbeError(f"class_weight is {class_weight!r}: pass 'balanced' or a dictionary.")
        unknown = set(class_weight) - set(classes.tolist())
        if unknown:
            raise ProbeError(
                f"class_weight names {unknown.pop()!r}, which is not among the labels."
            )
        for label, value in class_weight.items():
            good = isinstance(value, Real) and np.isfinite(float(value)) and value >= 0
            if not good:
                raise ProbeError(
                    f"class_weight gives {label!r} the weight {value!r}: pass a finite number, 0 "
                    "or more."
                )
        row = [float(class_weight.get(c, 1.0)) for c in classes.tolist()]
        factor = torch.tensor(row, dtype=torch.float64).expand(len(codes), len(weight), -1)
    index = codes[:, None, :].expand(-1, len(weight), -1)
    weighted = spread * factor.gather(2, index)
    if not bool(torch.isfinite(weighted.sum(-1)).all()):
        raise ProbeError("The weights' sum overflows: divide class_weight by a constant.")
    if bool((weighted.sum(-1) == 0).any()):
        raise ProbeError("class_weight leaves a fold without training samples of positive weight.")
    return weighted


def penalties(C: float | Sequence[float] | ArrayLike) -> tuple[NDArray[np.float64], bool]:
    """Inverse penalties (values,), and whether a path was given."""
    try:
        values = real_tensor(C, "C").to(torch.float64).numpy()
    except ProbeError:
        values = np.empty(0)
    if values.ndim > 1 or values.size == 0 or not (values > 0).all() or np.isinf(values).any():
        raise ProbeError(f"C is {C!r}: pass a positive finite number or a list of them.")
    return np.atleast_1d(values), values.ndim == 1
