import pytest
import torch

from signbridge.images import open_images
from training.conversations import answers_and_ends, image_tokens, pack
from training.questions import QUESTIONS
from training.stand_in import make_model, make_processor


@pytest.fixture(scope="module")
def parts():
    model, processor = make_model(1).eval(), make_processor()
    images = open_images("sample", groups="none")
    pictures = [images.load(row) for row in range(3)]
    return model, processor, pictures


def run(parts, packed, words):
    model, processor, pictures = parts
    inputs = processor(
        text=[QUESTIONS[0].prompt] * len(pictures), images=pictures, return_tensors="pt"
    )
    with torch.no_grad():
        return answers_and_ends(model, image_tokens(model, inputs["pixel_values"]), packed, words)


def test_a_branch_answers_as_the_question_would_alone(parts):
    model, processor, pictures = parts
    packed = pack(processor.tokenizer, [2, 5], [1, 9])
    asked, _ = run(parts, packed, torch.full((3, len(QUESTIONS)), 7))
    for place, number in enumerate((0, 2, 5)):
        inputs = processor(
            text=[QUESTIONS[number].prompt] * 3, images=pictures, return_tensors="pt"
        )
        with torch.no_grad():
            alone = model(**inputs).logits[:, -1]
        torch.testing.assert_close(asked[:, place], alone, rtol=1e-4, atol=1e-5)


def test_the_end_is_predicted_after_the_right_answer(parts):
    model, processor, pictures = parts
    packed = pack(processor.tokenizer, [2], [1])
    fist = processor.tokenizer.convert_tokens_to_ids("fist")
    _, ends = run(parts, packed, torch.full((3, len(QUESTIONS)), fist))
    inputs = processor(
        text=[f"{QUESTIONS[0].prompt} fist"] * 3, images=pictures, return_tensors="pt"
    )
    with torch.no_grad():
        alone = model(**inputs).logits[:, -1]
    torch.testing.assert_close(ends[:, 0], alone, rtol=1e-4, atol=1e-5)


def test_a_follow_up_sees_the_image_through_one_token_only(parts):
    model, processor, _ = parts
    packed = pack(processor.tokenizer, [2], [1, 4])
    image = packed.tokens == model.config.image_token_index
    gist = packed.asked[0][0]
    for last, _ in packed.asked[2:]:
        seen = packed.visible[last]
        assert not (seen & image).any()
        before = seen[: gist + 1].nonzero().flatten().tolist()
        assert before == [gist]
    assert packed.visible[gist][image].all()


def test_follow_ups_still_depend_on_the_image(parts):
    packed = pack(parts[1].tokenizer, [], [1])
    asked, _ = run(parts, packed, torch.zeros(3, len(QUESTIONS), dtype=torch.long))
    assert (asked[0, 1] - asked[1, 1]).abs().max() > 1e-4
