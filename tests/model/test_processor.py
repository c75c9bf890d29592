import pytest
import torch
from PIL import Image

from signbridge.model.processor import prepare


class Flat:
    """Takes images as one flat list, as GOT-OCR2's processor does."""

    def __call__(self, text, images, **_):
        if isinstance(images[0], list):
            raise ValueError("Nested images are only supported with multi_page")
        if any(image.width < 2 for image in images):
            raise ZeroDivisionError("no patches")
        return {"input_ids": torch.zeros(len(text), 3), "pixel_values": torch.ones(len(images), 1)}


def test_images_are_given_as_the_processor_takes_them():
    made = prepare(Flat(), ["?", "?"], [Image.new("RGB", (4, 4))] * 2)
    assert made["pixel_values"].shape == (2, 1)
    with pytest.raises(ValueError, match="Nested images"):  # what was wrong at first
        prepare(Flat(), ["?"], [Image.new("RGB", (1, 1))])
