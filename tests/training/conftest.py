import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the training scripts are not part of the installed package


def pytest_configure():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kaggle_folder(tmp_path_factory):
    """A test split of a few random images a letter, and two photographs of the sample."""
    from signbridge.images import open_images
    from signbridge.images.sources.kaggle import LETTERS

    random = np.random.default_rng(0)
    signs = [letter for letter in LETTERS if letter not in "JZ"] * 3
    pixels = random.integers(0, 256, (len(signs), 784))
    sample = open_images("sample", groups="none")
    for row in (4, 9):  # with another contrast: a twin all the same
        signs.append(sample.class_names[sample.label[row]])
        pixels = np.vstack([pixels, np.round(sample.pixels[row] * 0.8 + 10).astype(int)])
    folder = tmp_path_factory.mktemp("kaggle")
    header = ",".join(["label", *(f"pixel{number}" for number in range(1, 785))])
    lines = [
        ",".join(map(str, [LETTERS.index(sign), *row]))
        for sign, row in zip(signs, pixels, strict=True)
    ]
    (folder / "sign_mnist_test.csv").write_text("\n".join([header, *lines]) + "\n")
    return folder
