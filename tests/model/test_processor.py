import copy

import pytest
import torch
from PIL import Image
from tokenizers import processors

from signbridge.errors import NamesError
from signbridge.model.processor import answer_context, prepare
from signbridge.model.prompts import DEFAULT_PROMPT


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


def test_a_prompt_that_its_tokenizer_closes_has_no_answer(tiny):
    processor = copy.deepcopy(tiny.processor)
    assert answer_context(processor, tiny.config, DEFAULT_PROMPT) == DEFAULT_PROMPT
    words = processor.tokenizer
    closing = (words.eos_token, words.eos_token_id)
    words.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {words.eos_token}", pair="$A $B", special_tokens=[closing]
    )
    with pytest.raises(NamesError, match="behind which no name is an answer"):
        answer_context(processor, tiny.config, DEFAULT_PROMPT)
