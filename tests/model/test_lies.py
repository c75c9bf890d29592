"""Model folders that say what no model is: each is described or refused in one sentence."""

import json
import shutil

import pytest
from PIL import Image

from signbridge.errors import ModelError
from signbridge.model.certificate import certify
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.model.forward import CaptureRequest
from signbridge.model.load import load_model
from signbridge.model.prompts import DEFAULT_PROMPT, prompt_for_processor

DELETED = object()
WRONG = [DELETED, None, "x", -1, 0, [1], {"a": 1}, 3_000_000_000]


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY_FOLDER, tmp_path / "model")


def change(folder, name, place, value):
    content = json.loads((TINY_FOLDER / name).read_text())
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if value is DELETED:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    (folder / name).write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "place", "value", "says"),
    [
        ("config.json", ("text_config", "num_hidden_layers"), 10**9, "num_hidden_layers of 1,000"),
        ("config.json", ("text_config", "num_hidden_layers"), 9000, "more than 1,[0-9]+ weight"),
        ("config.json", ("vision_config", "num_hidden_layers"), 9000, "more than 1,[0-9]+ weight"),
        ("config.json", ("text_config", "hidden_act"), "x", r"config\.json"),
        ("config.json", ("text_config", "num_attention_heads"), 0, r"config\.json"),
        ("config.json", ("text_config", "head_dim"), -1, r"config\.json"),
        ("config.json", ("model_type",), ["llava"], r"config\.json"),
        ("config.json", ("dtype",), "x", r"config\.json"),
        ("config.json", ("pad_token_id",), "x", r"config\.json"),
        ("generation_config.json", ("pad_token_id",), [1], r"generation_config\.json"),
        ("tokenizer_config.json", ("extra_special_tokens",), 3, "tokenizer"),
        ("processor_config.json", ("patch_size",), DELETED, "there is no patch_size"),
        ("processor_config.json", ("patch_size",), "x", r"processor_config\.json"),
        ("processor_config.json", ("image_processor", "image_std"), [0, 0, 0], "no finite numbers"),
        ("processor_config.json", ("image_processor", "image_std"), [float("nan")], "_std' is NaN"),
        ("processor_config.json", ("image_processor", "image_mean"), [1], r"processor_config\.js"),
        (
            "processor_config.json",
            ("image_processor", "crop_size"),
            {"height": 10**5, "width": 10**5},
            r"GB.*processor_config\.json",
        ),
    ],
)
def test_a_value_that_cannot_be_is_one_sentence(folder, name, place, value, says):
    change(folder, name, place, value)
    with pytest.raises(ModelError, match=says) as told:
        describe_model(str(folder))
    assert str(told.value).endswith(".")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("config.json", ("image_token_index",)),
        ("config.json", ("text_config",)),
        ("config.json", ("text_config", "rope_parameters")),
        ("config.json", ("text_config", "vocab_size")),
        ("config.json", ("vision_config", "image_size")),
        ("generation_config.json", ("eos_token_id",)),
        ("tokenizer_config.json", ("pad_token",)),
        ("processor_config.json", ("image_token",)),
        ("processor_config.json", ("image_processor", "size")),
    ],
)
def test_whatever_a_value_is_the_folder_is_described_or_refused(folder, name, place):
    for value in WRONG:
        change(folder, name, place, value)
        said = str(folder)
        try:
            describe_model(str(folder)).provenance()
        except ModelError as error:
            said = str(error)
        assert str(folder) in said or "configuration" in said


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("processor_config.json", ("patch_size",), 5),
        ("config.json", ("image_token_index",), 5),
        ("config.json", ("vision_feature_layer",), 77),
        ("generation_config.json", ("eos_token_id",), "x"),
    ],
)
def test_files_that_do_not_fit_each_other_are_one_sentence(folder, name, place, value):
    change(folder, name, place, value)
    description = describe_model(str(folder))
    prompt = prompt_for_processor(DEFAULT_PROMPT, description.processor)
    model = load_model(description, "cpu", quantization="none")
    picture = Image.effect_noise((40, 30), 50).convert("RGB")
    with pytest.raises(ModelError, match=r"model does not run on one image .*config\.json"):
        certify(model, description, prompt, picture, CaptureRequest((0,)))
