"""What decides the vectors besides the weights is recorded by content, and compared."""

import json
import shutil

import pytest
from rich.console import Console

from signbridge.errors import ModelError, StoreError
from signbridge.extraction.extract import extract_activations
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.store import merge_stores, open_store
from signbridge.store.provenance import differing_keys, in_common
from signbridge.store.settings import SETTINGS

QUIET = Console(quiet=True)


def edited(folder, file, change):
    """A copy of the bundled model with one file changed, its weights untouched."""
    shutil.copytree(TINY_FOLDER, folder)
    path = folder / file
    content = json.loads(path.read_text()) if path.suffix == ".json" else path.read_text()
    changed = change(content)
    path.write_text(json.dumps(changed) if path.suffix == ".json" else changed)
    return describe_model(str(folder))


def at(*keys, value):
    def change(content):
        inner = content
        for key in keys[:-1]:
            inner = inner[key]
        inner[keys[-1]] = value
        return content

    return change


CHANGES = {
    "mean": (
        "processor_config.json",
        at("image_processor", "image_mean", value=[0.48, 0.46, 0.41]),
    ),
    "rescale": ("processor_config.json", at("image_processor", "do_rescale", value=False)),
    "resampling": ("processor_config.json", at("image_processor", "resample", value=0)),
    "vision layer": ("config.json", at("vision_feature_layer", value=-1)),
    "rope": ("config.json", at("text_config", "rms_norm_eps", value=0.1)),
    "forced end": ("generation_config.json", at("suppress_tokens", value=[5])),
    "opening": ("tokenizer_config.json", at("bos_token", value="</s>")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_is_compared_by_content(name, tiny, tmp_path):
    file, change = CHANGES[name]
    other = edited(tmp_path / "model", file, change)
    assert other.weights_sha256 == tiny.weights_sha256
    keys = differing_keys(tiny.provenance(), other.provenance())
    assert keys, name
    assert any(file in key for key in keys)


def test_the_same_model_in_another_folder_is_the_same(tiny, tmp_path):
    """Neither its place nor what its files say of who wrote them counts."""

    def written_by_another(content):
        return {**content, "transformers_version": "9.9", "architectures": ["Other"]}

    copied = edited(tmp_path / "elsewhere", "config.json", written_by_another)
    assert differing_keys(tiny.provenance(), copied.provenance()) == []


def test_settings_that_a_newer_library_has_are_not_compared(tiny):
    old = tiny.provenance()
    record = json.loads(old["model_config"])
    newer = {**record, "_made_by": "transformers 99", "new_setting": True}
    new = {**old, "model_config": json.dumps(newer)}
    assert differing_keys(old, new) == []
    newer["vision_feature_layer"] = 5
    (key,) = differing_keys(old, {**old, "model_config": json.dumps(newer)})
    assert key == "vision_feature_layer in config.json"


def test_a_store_without_settings_is_compared_without_them(tiny):
    old = {key: value for key, value in tiny.provenance().items() if key not in SETTINGS}
    assert differing_keys(old, tiny.provenance()) == []
    assert in_common(old, tiny.provenance())[0] == old


@pytest.fixture(scope="module")
def stores(tmp_path_factory, few):
    """Two stores of the same weights and images, under other settings."""
    folder = tmp_path_factory.mktemp("stores")
    other = edited(folder / "model", *CHANGES["mean"])
    paths = folder / "ours.h5", folder / "theirs.h5"
    for path, model, layers in zip(paths, (describe_model("tiny"), other), ([0], [1]), strict=True):
        extract_activations(
            few, model, path, layers=layers, max_new_tokens=0, console=QUIET, quantization="none"
        )
    return paths, other


def test_layers_of_other_settings_are_not_added(stores, few):
    (ours, _), other = stores
    with pytest.raises(StoreError, match=r"image_mean in processor_config.json = '\[0\.6"):
        extract_activations(
            few, other, ours, layers=[0, 1], max_new_tokens=0, quantization="none", console=QUIET
        )
    with open_store(ours) as store:
        assert store.layers == (0,)


def test_stores_of_other_settings_are_not_merged(stores, tmp_path):
    (ours, theirs), _ = stores
    with pytest.raises(StoreError, match="cannot be joined, since image_mean in processor_config"):
        merge_stores([ours, theirs], tmp_path / "merged.h5")


def test_the_answers_are_generated_with_what_is_recorded(tmp_path, tiny):
    from signbridge.model.load import load_model

    other = edited(tmp_path / "model", *CHANGES["forced end"])
    assert load_model(other, "cpu", quantization="none").generation_config.suppress_tokens == [5]
    assert json.loads(other.settings["generation_config"])["suppress_tokens"] == [5]


def test_a_generation_configuration_of_a_wrong_type_is_one_sentence(tmp_path):
    with pytest.raises(ModelError, match=r"generation_config\.json cannot be used"):
        edited(tmp_path / "model", "generation_config.json", at("max_new_tokens", value="many"))


def test_the_backend_is_that_of_the_loaded_processor(tiny, monkeypatch):
    assert tiny.provenance()["processor_backend"] == "pil"
    kind = type(tiny.processor.image_processor)
    monkeypatch.setattr(kind, "backend", property(lambda _: "torchvision"))
    assert tiny.provenance()["processor_backend"] == "torchvision"
