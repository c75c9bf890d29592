"""Questions that continue from one pass over an image, against plain passes of whole prompts."""

import copy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fixtures.families import FAMILIES, family_folder, plain
from fixtures.further_families import FURTHER
from PIL import Image

from signbridge.errors import SiteError
from signbridge.model.answers import class_answers
from signbridge.model.certificate import certify
from signbridge.model.description import describe_model
from signbridge.model.forward import CaptureRequest, to_model
from signbridge.model.load import load_model
from signbridge.model.processor import answer_context, prepare
from signbridge.model.prompts import prompt_for_processor, question_name, resolve_prompt
from signbridge.model.questions import NotSharedError, run_questions, shared_prefix
from signbridge.model.sites import site_widths

NAMES = ("A", "letter", "two words")
QUESTIONS = ("letter", "sign")

RUN_WHOLE = {
    "paligemma": "depends on the question behind it",
    "blip2-opt": "answers by a part of itself",
    "instructblip-vicuna": "answers by a part of itself",
    "blip2-t5": "reads image and question together",
    "instructblip-t5": "reads image and question together",
    "florence2": "reads image and question together",
    "t5gemma2": "reads image and question together",
}
QUICK = {"llava", "gemma3", "qwen3.5", "mllama", "paligemma", "blip2-opt"}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    sizes = [(40, 60), (64, 30)]
    return [Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in sizes]


def asked(description):
    processor, kind = description.processor, description.config.model_type
    return [prompt_for_processor(resolve_prompt(q, processor, kind), processor) for q in QUESTIONS]


def requests(model, description, prompts, picture, **more):
    found = []
    for prompt in prompts:
        context = answer_context(description.processor, description.config, prompt)
        answers = class_answers(description.processor.tokenizer, context, NAMES)
        layers, sites = tuple(range(description.n_layers)), tuple(site_widths(model))
        request = CaptureRequest(layers, sites=sites, answers=answers, **more)
        try:
            found.append(certify(model, description, prompt, picture, request))
        except SiteError as error:  # as an extraction does, without that baseline
            request = replace(request, sites=tuple(site for site in sites if site != error.site))
            found.append(certify(model, description, prompt, picture, request))
    return [one.request for one in found], all(one.pads for one in found)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in sorted(FAMILIES | FURTHER)
    ],
)
def test_each_question_reads_as_a_plain_pass_of_its_prompt(name, tmp_path, pictures):
    description = describe_model(str(family_folder(name, tmp_path)))
    model = load_model(description, "cpu", quantization="none")
    prompts = asked(description)
    wanted, pads = requests(model, description, prompts, pictures[0], max_new_tokens=4)
    if name in RUN_WHOLE:
        without = [replace(one, answers=None) for one in wanted]
        with pytest.raises(NotSharedError, match=RUN_WHOLE[name]):
            shared_prefix(model, description, prompts, pictures[0], without, pads=True)
        with pytest.raises(NotSharedError):
            shared_prefix(model, description, prompts, pictures[0], wanted, pads=True)
        return
    endings, off = shared_prefix(model, description, prompts, pictures[0], wanted, pads=pads)
    assert off < 1e-3
    pictures = pictures[: 2 if pads else 1]
    first = [prompts[0]] * len(pictures)
    batch = to_model(prepare(description.processor, first, pictures), model)
    read = run_questions(model, batch, description.image_token_id, endings, wanted)
    end = model.generation_config.eos_token_id
    for prompt, request, found in zip(prompts, wanted, read, strict=True):
        for row, picture in enumerate(pictures):
            alone = to_model(prepare(description.processor, [prompt], [picture]), model)
            states = plain(model, alone)[1]
            for layer in request.layers[:-1]:  # transformers hands the last one on after the norm
                torch.testing.assert_close(
                    found.resid_post[row, layer], states[layer + 1][0, -1], rtol=1e-3, atol=1e-4
                )
            if "projector" in found.sites:
                marks = alone["input_ids"][0] == description.image_token_id
                torch.testing.assert_close(
                    found.sites["projector"][row], states[0][0, marks].mean(0), rtol=1e-3, atol=1e-4
                )
            for k, tokens in enumerate(request.answers):
                steps = plain(model, alone, tokens)[0][-len(tokens) - 1 :].double().log_softmax(-1)
                score = sum(steps[place, token] for place, token in enumerate([*tokens, end]))
                assert found.class_logprob[row, k].item() == pytest.approx(score.item(), abs=1e-4)
            written: list[int] = []
            # A random model may write the image's token, which no plain pass takes.
            while len(written) < 3 and not {end, description.image_token_id} & {*written}:
                written.append(int(plain(model, alone, written)[0][-1].argmax()))
            assert found.answer_ids[row, : len(written)].tolist() == written


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    description = describe_model(str(family_folder("llava", tmp_path_factory.mktemp("llava"))))
    return description, load_model(description, "cpu", quantization="none")


def test_the_image_is_read_once_and_not_for_who_asks_nothing(llava, pictures, monkeypatch):
    description, model = llava
    prompts = asked(description)
    one = CaptureRequest((0, 1), position="image_mean", sites=("projector",))
    endings, _ = shared_prefix(model, description, prompts, pictures[0], [one, one], pads=True)
    batch = to_model(prepare(description.processor, prompts[:1], pictures[:1]), model)
    passes = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda _, __, kwargs: passes.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        first, second = run_questions(
            model, batch, description.image_token_id, endings, [one, CaptureRequest((2,))]
        )
        nothing, third = run_questions(
            model, batch, description.image_token_id, endings, [None, one]
        )
    finally:
        hook.remove()
    shared = batch["input_ids"].shape[1] - len(endings[0])
    assert passes == [shared, len(endings[1]), shared]
    assert nothing is None
    assert second.resid_post.shape[1] == 1
    torch.testing.assert_close(first.resid_post, third.resid_post)


def test_numbers_that_are_others_are_not_shared(llava, pictures, monkeypatch):
    """A cache that is damaged: the question then continues from something else."""
    description, model = llava
    one = CaptureRequest((0, 1, 2))

    def damaged(cache, _shared):
        copied = copy.deepcopy(cache)
        for layer in copied.layers:
            layer.values.mul_(0.5)
        return copied

    monkeypatch.setattr("signbridge.model.questions.copy", SimpleNamespace(deepcopy=damaged))
    with pytest.raises(NotSharedError, match="gives other numbers when it continues"):
        shared_prefix(model, description, asked(description), pictures[0], [one, one], pads=True)


def test_a_question_before_the_image_shares_nothing(llava, pictures):
    description, model = llava
    one = CaptureRequest((0,))
    prompts = ["USER: <image>\nOpen?\nASSISTANT:", "USER: Open? <image>\nASSISTANT:"]
    with pytest.raises(NotSharedError, match="differ before the end of their image"):
        shared_prefix(model, description, prompts, pictures[0], [one, one], pads=True)


def test_a_prompt_that_another_begins_with_is_shared_but_for_its_last_token(llava, pictures):
    description, model = llava
    one = CaptureRequest((0, 1, 2))
    prompts = ["<image>\nOpen", "<image>\nOpen or closed?"]
    endings, off = shared_prefix(model, description, prompts, pictures[0], [one, one], pads=True)
    assert len(endings[0]) == 1
    assert off < 1e-4


def test_names_of_questions_are_fit_for_files():
    assert question_name("letter") == "letter"
    named = [question_name(f"<image>Is {word} open / closed?") for word in ("it", "she", "手")]
    assert named[0].startswith("is-it-open-closed-")
    assert len(set(named)) == 3
    assert all(name.replace("-", "").isalnum() and name.isascii() for name in named)
