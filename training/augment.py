"""Random variations of grey images, from a given generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional


def augment(images: Tensor, random: torch.Generator) -> Tensor:
    """Vary pose, shape, lighting and sharpness of each image.

    Rotation to 12 degrees, scale to 12 %, shifts to 2.5 pixels, a little shear and elastic
    deformation; gamma, contrast, brightness and a gradient of light (the rows of the test split
    are contrast-stretched, other images are not); blur, noise and erased rectangles. Never
    mirrored: a mirrored hand is another hand.

    Args:
        images: shape (images, 1, side, side), from 0 to 1.
        random: where all chance comes from.

    Returns:
        Tensor of the same shape and range.
    """
    count, side = len(images), images.shape[-1]

    def spread(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random) * 2 - 1

    def chance(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random)

    angle, scale, aspect = (
        spread(count) * math.radians(12),
        1 + 0.12 * spread(count),
        1 + 0.08 * spread(count),
    )
    shear, right, down = 0.1 * spread(count), spread(count) * 5 / side, spread(count) * 5 / side
    cos, sin = angle.cos() * scale, angle.sin() * scale
    affine = torch.stack(
        [
            torch.stack([cos * aspect, shear - sin, right], 1),
            torch.stack([sin, cos / aspect, down], 1),
        ],
        1,
    )
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    bend = functional.interpolate(
        spread(count, 2, 4, 4) * 2 / side, size=(side, side), mode="bicubic", align_corners=True
    )
    images = functional.grid_sample(
        images, grid + bend.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    one = (count, 1, 1, 1)
    images = images.clamp(0, 1) ** torch.exp(0.4 * spread(*one))
    mean = images.mean((1, 2, 3), keepdim=True)
    images = (images - mean) * torch.exp(0.45 * spread(*one) - 0.2) + mean + 0.15 * spread(*one)
    line = torch.linspace(-1, 1, side)
    images = images + 0.12 * spread(*one) * line.view(1, 1, 1, -1)
    images = images + 0.12 * spread(*one) * line.view(1, 1, -1, 1)
    blurred = functional.avg_pool2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), 3, 1)
    share = (chance(*one) < 0.3) * chance(*one)
    images = images * (1 - share) + blurred * share
    images = images + 0.03 * chance(*one) * torch.randn(images.shape, generator=random)
    index = torch.arange(side).float()
    high, wide = 3 + 6 * chance(*one), 3 + 6 * chance(*one)
    rows = (index.view(1, 1, -1, 1) - side * chance(*one)).abs() < high / 2
    columns = (index.view(1, 1, 1, -1) - side * chance(*one)).abs() < wide / 2
    erased = rows & columns & (chance(*one) < 0.3)
    return torch.where(erased, chance(*one), images).clamp(0, 1)
