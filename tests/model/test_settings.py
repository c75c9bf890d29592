"""What decides a model's vectors besides its weights, by content."""

import json
import shutil

import pytest
from rich.console import Console
from transformers import AutoProcessor

from signbridge.errors import ModelError, StoreError
from signbridge.extraction.extract import extract_activations
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.model.load import load_model
from signbridge.store import merge_stores
from signbridge.store.provenance import checked_provenance, differing_keys


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY_FOLDER, tmp_path / "model")


def edit(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def differing(folder, tiny):
    ours, theirs = (
        checked_provenance(one.provenance()) for one in (tiny, describe_model(str(folder)))
    )
    return differing_keys(ours, theirs)


IMAGE, MODEL, ANSWER = "processor_config.json", "config.json", "generation_config.json"


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        (IMAGE, "image_processor.do_rescale", False),
        (IMAGE, "image_processor.resample", 2),
        (IMAGE, "image_processor.size.shortest_edge", 32),
        (IMAGE, "vision_feature_select_strategy", "full"),
        (MODEL, "vision_feature_layer", -1),
        (MODEL, "text_config.rms_norm_eps", 1e-5),
        (MODEL, "text_config.rope_parameters.rope_theta", 5e5),
        (ANSWER, "repetition_penalty", 1.5),
        (ANSWER, "eos_token_id", 3),
        ("tokenizer.json", "pre_tokenizer.type", "WhitespaceSplit"),
        ("tokenizer_config.json", "eos_token", "<unk>"),
    ],
)
def test_what_decides_the_vectors_is_named_with_its_file(folder, tiny, file, place, value):
    def change(content):
        *parts, last = place.split(".")
        for part in parts:
            content = content[part]
        content[last] = value

    edit(folder / file, change)
    assert f"{place.removeprefix('image_processor.')} in {file}" in differing(folder, tiny)


def test_two_words_of_a_vocabulary_that_change_places_are_a_difference(folder, tiny):
    def swap(content):
        words = content["model"]["vocab"]
        words["USER"], words["What"] = words["What"], words["USER"]

    edit(folder / "tokenizer.json", swap)
    assert differing(folder, tiny) == ["model.vocab in tokenizer.json"]


def test_a_chat_template_is_recorded(folder, tiny):
    (folder / "chat_template.jinja").write_text("<image>{{ messages[0].role }}")
    record = json.loads(describe_model(str(folder)).provenance()["chat_template"])
    assert record["chat_template"] == "<image>{{ messages[0].role }}"
    assert record["_file"] == "chat_template.jinja"
    assert "chat_template" not in tiny.provenance()


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("config.json", lambda c: c.update(transformers_version="4.1", _name_or_path="/x")),
        ("config.json", lambda c: c.update(architectures=["B", "A"])),
        ("config.json", lambda c: (c.pop("dtype"), c.update(torch_dtype="float32"))),
        ("config.json", lambda c: c["text_config"].update(use_cache=False)),
        ("config.json", lambda c: c.pop("projector_hidden_act")),  # the default of its class
        ("processor_config.json", lambda c: c["image_processor"].update(size=28, crop_size=28)),
        ("processor_config.json", lambda c: c["image_processor"].update(image_mean=[0.60] * 3)),
        ("generation_config.json", lambda c: c.update(transformers_version="4.1")),
        ("generation_config.json", lambda c: c.update(do_sample=True, temperature=0.2, top_p=0.9)),
    ],
)
def test_what_says_nothing_of_the_vectors_is_no_difference(folder, tiny, file, change):
    edit(folder / file, change)
    assert differing(folder, tiny) == []


def test_a_folder_saved_anew_by_transformers_is_the_same_model(tmp_path, tiny):
    shutil.copytree(TINY_FOLDER, tmp_path / "model")
    tiny.config.save_pretrained(tmp_path / "model")
    tiny.generation_config.save_pretrained(tmp_path / "model")
    AutoProcessor.from_pretrained(TINY_FOLDER, backend="pil").save_pretrained(tmp_path / "model")
    assert differing(tmp_path / "model", tiny) == []


def test_image_settings_in_a_file_of_their_own_are_named_with_it(folder, tiny):
    content = json.loads((folder / "processor_config.json").read_text())
    image = content.pop("image_processor") | {"image_std": [0.3] * 3}
    (folder / "processor_config.json").write_text(json.dumps(content))
    (folder / "preprocessor_config.json").write_text(json.dumps(image))
    assert differing(folder, tiny) == ["image_std in preprocessor_config.json"]


def test_the_answers_are_generated_with_what_is_recorded(folder):
    edit(folder / ANSWER, lambda content: content.update(suppress_tokens=[5]))
    other = describe_model(str(folder))
    assert load_model(other, "cpu", quantization="none").generation_config.suppress_tokens == [5]
    assert json.loads(other.settings["generation_config"])["suppress_tokens"] == [5]


def test_a_generation_configuration_of_a_wrong_type_is_one_sentence(folder):
    edit(folder / ANSWER, lambda content: content.update(max_new_tokens="many"))
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        describe_model(str(folder))


def test_stores_of_other_settings_are_not_merged(folder, tiny, few, tmp_path):
    edit(folder / IMAGE, lambda content: content["image_processor"].update(image_mean=[0.5] * 3))
    paths = [tmp_path / "ours.h5", tmp_path / "theirs.h5"]
    models = [tiny, describe_model(str(folder))]
    for layer, (model, path) in enumerate(zip(models, paths, strict=True)):
        extract_activations(
            few, model, path, layers=[layer], quantization="none", console=Console(quiet=True)
        )
    with pytest.raises(StoreError, match="cannot be joined, since image_mean in processor_config"):
        merge_stores(paths, tmp_path / "merged.h5")
