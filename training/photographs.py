"""The photographs to train on: real rows without any twin in the bundled sample, and digits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signbridge.images import near_duplicate_groups, open_images
from signbridge.images.sources.kaggle import LETTERS, TEST_FILE, read_csv
from training.questions import ANSWERS

SIDE = 28


@dataclass(frozen=True)
class Photographs:
    """Grey images with the answers to every question.

    Attributes:
        pixels: float32, shape (images, 1, 28, 28), from 0 (black) to 1.
        answers: int64, shape (images, questions); -1 where a picture does not tell.
        sign: the letter or digit of each image; used for balanced drawing, never as a target.
        groups: rows of each photograph, by sign: near-duplicates are drawn as one.
        left_out: rows that were left out because the bundled sample holds their photograph.
    """

    pixels: Tensor
    answers: Tensor
    sign: list[str]
    groups: dict[str, list[NDArray[np.int64]]]
    left_out: int = 0

    def draw(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Draw rows: a sign, one of its photographs, one row of it, each with equal chances."""
        signs = sorted(self.groups)
        rows = []
        for number in random.integers(len(signs), size=count):
            groups = self.groups[signs[number]]
            rows.append(random.choice(groups[random.integers(len(groups))]))
        return np.array(rows, dtype=np.int64)


def _gather(
    pixels: NDArray[np.uint8], sign: list[str], group: NDArray[np.int64], left_out: int
) -> Photographs:
    named = np.array(sign)
    groups = {
        one: [np.flatnonzero((group == g) & (named == one)) for g in np.unique(group[named == one])]
        for one in sorted(set(sign))
    }
    return Photographs(
        pixels=torch.from_numpy(pixels.reshape(-1, 1, SIDE, SIDE).astype(np.float32) / 255),
        answers=torch.tensor([ANSWERS[one] for one in sign]),
        sign=sign,
        groups=groups,
        left_out=left_out,
    )


def letters(folder: Path) -> Photographs:
    """Read the test split of Sign Language MNIST, less all that the bundled sample holds.

    A row is left out when its group of near-duplicates (correlation of 0.95 and more, linked
    transitively over test rows and sample together) has a member in the sample.

    Args:
        folder: where ``sign_mnist_test.csv`` lies.
    """
    labels, pixels = read_csv(folder / TEST_FILE)
    sample = open_images("sample", groups="none").pixels
    group = near_duplicate_groups(np.concatenate([sample, pixels]))
    seen, group = group[: len(sample)], group[len(sample) :]
    keep = ~np.isin(group, seen)
    return _gather(
        pixels[keep],
        [LETTERS[number] for number in labels[keep]],
        group[keep],
        int((~keep).sum()),
    )


def digits(folder: Path) -> Photographs:
    """Read the digit photographs: a folder with one folder a digit, ``0`` to ``9``."""
    images = open_images(str(folder), groups="none")
    sign = [images.class_names[label] for label in images.label]
    return _gather(images.pixels, sign, np.arange(len(sign), dtype=np.int64), 0)
