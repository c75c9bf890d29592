"""The bundled weights, read as any model folder is: by transformers alone."""

from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoProcessor, LlavaForConditionalGeneration

from signbridge.images import near_duplicate_groups, open_images
from signbridge.model.description import describe_model
from signbridge.model.load import load_model
from signbridge.model.prompts import DEFAULT_PROMPT
from training.questions import ANSWERS, GESTURE, QUESTIONS
from training.stand_in import make_model, make_processor

FOLDER = Path(str(files("signbridge.assets"))) / "tiny"


@pytest.fixture(scope="module")
def model():
    return LlavaForConditionalGeneration.from_pretrained(FOLDER, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(FOLDER, backend="pil")


@pytest.fixture(scope="module")
def sample():
    return open_images("sample", groups="none")


def answers(model, processor, sample, prompt):
    """What the model says of every image, generated greedily, as text."""
    pictures = [sample.load(row) for row in range(len(sample))]
    inputs = processor(text=[prompt] * len(pictures), images=pictures, return_tensors="pt")
    made = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    new = made[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.batch_decode(new, skip_special_tokens=True)]


@pytest.fixture(scope="module")
def said(model, processor, sample):
    """What it says to the product's own prompt."""
    return answers(model, processor, sample, DEFAULT_PROMPT)


def right(sample, number):
    """The right answer of every image to one question."""
    return [
        QUESTIONS[number].answers[ANSWERS[sample.class_names[label]][number]]
        for label in sample.label
    ]


def test_weights_are_small_and_in_half_precision():
    weights = load_file(FOLDER / "model.safetensors")
    assert (FOLDER / "model.safetensors").stat().st_size < 8_000_000
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 9_000_000
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert not [path for path in FOLDER.iterdir() if path.suffix in {".py", ".pkl", ".bin"}]


def test_the_folder_is_what_the_script_would_write(model, processor):
    made = make_model(0)
    ours, theirs = (m.config.vision_config.to_diff_dict() for m in (made, model))
    assert {**ours, "dtype": None} == {**theirs, "dtype": None}
    expected = {name: weight.shape for name, weight in made.state_dict().items()}
    assert {name: weight.shape for name, weight in model.state_dict().items()} == expected
    assert processor.tokenizer.get_vocab() == make_processor().tokenizer.get_vocab()


def test_it_answers_the_products_prompt_with_one_gesture_word_and_stops(said):
    assert set(said) <= set(GESTURE.answers)
    assert len(set(said)) == len(GESTURE.answers)


def test_it_is_right_about_photographs_that_it_never_saw(said, sample):
    wanted = right(sample, 0)
    score = np.mean([a == b for a, b in zip(said, wanted, strict=True)])
    often = max(Counter(wanted).values()) / len(wanted)
    assert score > often + 0.3


@pytest.mark.parametrize(
    "number",
    [
        1,
        5,
        *(pytest.param(k, marks=pytest.mark.slow) for k in (2, 3, 4, *range(6, len(QUESTIONS)))),
    ],
)
def test_other_questions_are_answered_with_their_own_words(model, processor, sample, number):
    question = QUESTIONS[number]
    said = answers(model, processor, sample, question.prompt)
    assert set(said) <= set(question.answers)
    score = np.mean([a == b for a, b in zip(said, right(sample, number), strict=True)])
    often = max(Counter(right(sample, number)).values()) / len(said)
    assert score > often


def test_in_four_bits_it_says_nearly_the_same(said, sample):
    description = describe_model(str(FOLDER))
    quantised = load_model(description, "cpu", quantization="nf4")
    in_four_bits = answers(quantised, description.processor, sample, DEFAULT_PROMPT)
    assert np.mean([a == b for a, b in zip(said, in_four_bits, strict=True)]) > 0.85


@pytest.mark.slow
def test_a_late_layer_knows_more_of_the_letter_than_an_early_one_and_than_pixels(
    model, processor, sample
):
    pictures = [sample.load(row) for row in range(len(sample))]
    inputs = processor(text=[DEFAULT_PROMPT] * len(pictures), images=pictures, return_tensors="pt")
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True, logits_to_keep=1).hidden_states
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.03, max_iter=2000))
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=42)
    group = near_duplicate_groups(sample.pixels)

    def accuracy(features):
        return cross_val_score(probe, features, sample.label, groups=group, cv=folds).mean()

    first, late = (accuracy(states[layer + 1][:, -1].numpy()) for layer in (0, 6))
    assert late > first + 0.1
    assert late > accuracy(sample.pixels / 255) + 0.2


def test_the_model_card_says_where_it_comes_from():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for words in ("CC0", "Apache", "2011.08927", "LLaVA-1.5-7B", "training/"):
        assert words in card
