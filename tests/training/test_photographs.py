from collections import Counter

import numpy as np
import torch

from training.augment import augment
from training.photographs import letters
from training.questions import ANSWERS


def test_photographs_of_the_sample_are_left_out(kaggle_folder):
    photographs = letters(kaggle_folder)
    assert photographs.left_out == 2
    assert len(photographs.sign) == 72
    assert photographs.pixels.shape == (72, 1, 28, 28)
    assert photographs.answers[1].tolist() == list(ANSWERS[photographs.sign[1]])


def test_signs_are_drawn_equally_often_and_reproducibly(kaggle_folder):
    photographs = letters(kaggle_folder)
    rows = photographs.draw(24_000, np.random.default_rng(1))
    counts = Counter(photographs.sign[row] for row in rows)
    assert len(counts) == 24
    assert max(counts.values()) < 1_150  # 1,000 each, with a standard deviation of 31
    again = photographs.draw(24_000, np.random.default_rng(1))
    assert np.array_equal(rows, again)


def test_augmentation_is_reproducible_bounded_and_changes_every_image():
    images = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    one = augment(images, torch.Generator().manual_seed(3))
    assert torch.equal(one, augment(images, torch.Generator().manual_seed(3)))
    assert one.shape == images.shape
    assert one.min() >= 0
    assert one.max() <= 1
    assert ((one - images).abs().amax((1, 2, 3)) > 0.05).all()


def test_augmentation_never_mirrors():
    # A bright left half stays on the left.
    images = torch.zeros(200, 1, 28, 28)
    images[..., :14] = 0.9
    varied = augment(images, torch.Generator().manual_seed(0))
    left, right = varied[..., :8].mean((1, 2, 3)), varied[..., 20:].mean((1, 2, 3))
    assert (left > right).all()
