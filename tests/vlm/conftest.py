import pytest
import torch

from signbridge.images import open_images
from signbridge.vlm.description import describe_model
from signbridge.vlm.load import load_model
from signbridge.vlm.prompts import DEFAULT_PROMPT


@pytest.fixture(scope="session")
def tiny():
    return describe_model("tiny")


@pytest.fixture(scope="session")
def model(tiny):
    return load_model(tiny, "cpu", quantization="none")


@pytest.fixture(scope="session")
def babbling():
    """The same architecture with random weights: its answers go on and on."""
    return load_model(
        describe_model("tiny", weights="random", weights_seed=4), "cpu", quantization="none"
    )


@pytest.fixture(scope="session")
def images():
    return open_images("sample")


@pytest.fixture(scope="session")
def prepare(tiny, images):
    """Make the processor's inputs for some rows of the sample, with one prompt each."""

    def inputs(rows, prompts=None):
        return dict(
            tiny.processor(
                text=list(prompts or [DEFAULT_PROMPT] * len(rows)),
                images=[images.load(row) for row in rows],
                padding=True,
                return_tensors="pt",
            )
        )

    return inputs


def pytest_configure():
    torch.set_num_threads(1)
