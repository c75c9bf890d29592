import copy
import dataclasses
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fixtures.families import family_folder

from signbridge.errors import ModelError, SiteError
from signbridge.extraction.batch_size import BatchLimit
from signbridge.model.answers import class_answers
from signbridge.model.certificate import _has_windows, certify
from signbridge.model.description import describe_model
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.load import load_model
from signbridge.model.processor import answer_context, prepare
from signbridge.model.prompts import DEFAULT_PROMPT, prompt_for_processor, resolve_prompt
from signbridge.model.sites import SITES, ImageTokensIn


def loaded(name, folder):
    description = describe_model(str(family_folder(name, folder)))
    return description, load_model(description, "cpu", quantization="none")


def certificate(description, model, picture, **request):
    kind = description.config.model_type
    text = resolve_prompt("sign", description.processor, kind)
    prompt = prompt_for_processor(text, description.processor)
    context = answer_context(description.processor, description.config, prompt)
    answers = class_answers(description.processor.tokenizer, context, ["A", "letter B"])
    return certify(
        model, description, prompt, picture, CaptureRequest((0,), answers=answers, **request)
    )


def test_the_bundled_model_keeps_the_fastest_way(tiny, model, images):
    request = CaptureRequest(
        (3,), sites=tuple(SITES), answers=((5, 6), (7,)), position="image_mean"
    )
    found = certify(model, tiny, DEFAULT_PROMPT, images.load(0), request)
    assert found.request == request  # one pass over all names, and what was asked for
    assert found.pads
    assert found.padding < 1e-4
    assert found.names < 1e-4
    assert found.head > 0.9999
    assert found.image > 0.01
    assert found.record()["forced_choice_by"] == "one_pass"


@pytest.mark.parametrize(
    ("name", "scoring"),
    [
        ("llava-next", "one_pass"),
        ("qwen2-vl", "one_pass"),  # positions along three axes
        ("paligemma", "one_pass"),  # positions counted from 1
        ("gemma3", "continued"),  # a window shorter than the prompt
        ("qwen3.5", "continued"),  # layers of linear attention
        ("blip2-opt", "one_pass"),  # a part of the model generates
        ("florence2", "continued"),  # an encoder-decoder
        ("instructblip-t5", "continued"),  # both
    ],
)
def test_names_are_scored_in_the_fastest_way_that_is_right(name, scoring, tmp_path, images):
    found = certificate(*loaded(name, tmp_path), images.load(0))
    assert found.request.scoring == scoring
    assert found.names < 1e-4


def test_a_model_that_does_not_see_the_image_is_refused(tmp_path, images):
    description, model = loaded("mllama", tmp_path)
    for part, value in model.named_parameters():
        if part.endswith("gate"):
            torch.nn.init.zeros_(value)
    with pytest.raises(ModelError, match="same vectors for different images"):
        certificate(description, model, images.load(0))


def test_padding_that_changes_the_vectors_is_found(tmp_path, images):
    """BART counts its positions from the row's beginning, padding included."""
    description, model = loaded("florence2", tmp_path)
    description.processor.tokenizer.padding_side = "left"
    found = certificate(description, model, images.load(0))
    assert not found.pads
    assert found.padding > 0.01
    said = []
    limit = BatchLimit("auto", said.append)
    limit.one_by_one("it")
    assert limit.images == 1
    assert "one image at a time" in said[0]
    with pytest.raises(ModelError, match="use --batch_size 1"):
        BatchLimit(4).one_by_one("it")


def test_a_last_layer_that_does_not_lead_to_the_logits_is_refused(model, tiny, images, monkeypatch):
    other = torch.nn.Linear(128, model.config.get_text_config().vocab_size)
    monkeypatch.setattr(model, "get_output_embeddings", lambda: other)
    with pytest.raises(ModelError, match=r"does not lead to its logits \(cosine"):
        certify(model, tiny, DEFAULT_PROMPT, images.load(0), CaptureRequest((0,)))


def test_names_that_no_way_scores_rightly_are_refused(model, tiny, images, monkeypatch):
    monkeypatch.setattr(
        "signbridge.model.certificate._plain_logprob", lambda *_: torch.tensor(-1.0)
    )
    with pytest.raises(ModelError, match=r"no way agrees .* with --forced_choice false"):
        certify(model, tiny, DEFAULT_PROMPT, images.load(0), CaptureRequest((0,), answers=((5,),)))


def test_an_image_token_that_is_in_no_prompt_is_refused(model, tiny, images):
    config = copy.deepcopy(tiny.config)
    config.image_token_id = config.image_token_index = 9999
    with pytest.raises(
        ModelError, match=r"calls token 9999 the image's, which its processor never"
    ):
        other = dataclasses.replace(tiny, config=config)
        certify(model, other, DEFAULT_PROMPT, images.load(0), CaptureRequest((0,)))


def test_a_batch_whose_answers_would_follow_padding_is_not_used(model, tiny, images, monkeypatch):
    monkeypatch.setattr(tiny.processor.tokenizer, "padding_side", "right")
    found = certify(model, tiny, DEFAULT_PROMPT, images.load(0), CaptureRequest((0,)))
    assert found.pads is False


def test_a_processor_that_makes_no_batch_is_used_without(model, tiny, images, monkeypatch):
    def alone(processor, prompts, pictures):
        if len(prompts) > 1:
            raise ValueError("The padding token is that of images.")
        return prepare(processor, prompts, pictures)

    monkeypatch.setattr("signbridge.model.certificate.prepare", alone)
    request = CaptureRequest((0,), answers=((5, 6), (7,)))
    found = certify(model, tiny, DEFAULT_PROMPT, images.load(0), request)
    assert found.pads is False
    assert "check_padding" not in found.record()  # a store holds no infinity
    assert found.names < 1e-4


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ({"layer_types": ["full_attention"], "sliding_window": 8}, False),
        ({"layer_types": ["full_attention", "sliding_attention"]}, True),
        ({"layer_types": ["chunked_attention"]}, True),
        ({"sliding_window": 4096, "max_position_embeddings": 32768}, True),
        ({"sliding_window": 4096, "max_position_embeddings": 4096}, False),
        ({"sliding_window": None}, False),
        ({}, False),
    ],
)
def test_windows_are_known(text, windows):
    assert _has_windows(SimpleNamespace(**text)) is windows


def test_names_behind_a_prompt_that_a_model_does_not_take_are_refused(
    model, tiny, images, monkeypatch
):
    """An input of one value a token that is not known to be one stays as long as the prompt."""

    def shape(*_):
        raise IndexError("the shape of the mask at index 1 does not match")

    monkeypatch.setattr("signbridge.model.certificate.followed_by", shape)
    with pytest.raises(ModelError, match=r"takes no tokens behind a prompt .* the mask at index 1"):
        certify(model, tiny, DEFAULT_PROMPT, images.load(0), CaptureRequest((0,), answers=((5,),)))


def test_tokens_that_a_model_masks_say_nothing_of_its_last_layer(model, tiny, images):
    """Chameleon may not write the tokens of images: their logits are the least number there is."""

    def mask(_module, _inputs, output):
        output.logits[..., [7, 8]] = torch.finfo(output.logits.dtype).min

    hook = model.register_forward_hook(mask)
    try:
        found = certify(model, tiny, DEFAULT_PROMPT, images.load(0), CaptureRequest((0,)))
    finally:
        hook.remove()
    assert found.head > 0.9999


def test_a_memory_that_holds_one_image_is_no_fault_of_the_model(model, tiny, images, monkeypatch):
    def full(model, inputs, *rest):
        if len(inputs["input_ids"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")
        return run_batch(model, inputs, *rest)

    monkeypatch.setattr("signbridge.model.certificate.run_batch", full)
    request = CaptureRequest((0,), answers=((5, 6), (7,)))
    found = certify(model, tiny, DEFAULT_PROMPT, images.load(0), request)
    assert found.pads is None
    assert "check_padding" not in found.record()
    assert found.names < 1e-4


@pytest.mark.parametrize(
    ("count", "says"), [(1, "the same for different images"), (2, "not each image of a prompt")]
)
def test_a_baseline_that_not_each_image_changes_is_refused(
    model, tiny, images, monkeypatch, count, says
):
    """As one token that stands for an image, or the tokens of the last image alone."""

    class Lacking(ImageTokensIn):
        def _read(self, module, args, kwargs):
            super()._read(module, args, kwargs)
            hidden = args[0] if args else kwargs["hidden_states"]
            row, place = self._image_mask.nonzero()[-1]
            self.value = hidden[row, place][None] if count == 2 else 0 * self.value

    monkeypatch.setitem(SITES, "projector", replace(SITES["projector"], read=Lacking))
    text = resolve_prompt("sign", tiny.processor, "llava", count)
    pictures = [images.load(row) for row in range(count)]
    with pytest.raises(SiteError, match=says):
        certify(model, tiny, text, pictures, CaptureRequest((0,), sites=("projector",)))
