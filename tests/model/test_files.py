import json
import os
import shutil

import pytest
from safetensors.numpy import save_file

from signbridge.errors import ModelError
from signbridge.model.files import check_model, check_model_folder, check_processor_files

POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)


@pytest.fixture
def folder(tiny, tmp_path):
    return shutil.copytree(tiny.folder, tmp_path / "model")


def test_a_whole_folder_is_taken(folder):
    check_model_folder(folder)
    check_processor_files(folder)


def test_weights_in_parts_and_empty_tensors_are_taken(folder):
    import numpy as np

    (folder / "model.safetensors").unlink()
    save_file({"a": np.zeros((0, 3)), "b": np.ones(4)}, folder / "one.safetensors", {"x": "y"})
    save_file({"c": np.ones((2, 2), np.float16)}, folder / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    check_model_folder(folder)
    (folder / "two.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks two\.safetensors, which its index names"):
        check_model_folder(folder)
    check_model_folder(folder, weights=False)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_recognised(folder, name):
    (folder / name).write_text(POINTER)
    with pytest.raises(ModelError, match=rf"{name} is a Git LFS pointer.*: run 'git lfs pull'"):
        check_model_folder(folder)


@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
def test_truncated_weights_are_recognised_by_their_size(folder, share):
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=r"bytes instead of|beginning is damaged"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    "content",
    [b"", b"x" * 7, b"x" * 5000, b"\x02" + bytes(7) + b"[]", b"\x04" + bytes(7) + b"null"],
)
def test_what_is_no_safetensors_file_is_named(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.safetensors is no safetensors file"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("config.json", "{oops", r"config\.json is damaged \(line 1, column 2"),
        ("config.json", "{}", "names no model_type"),
        ("config.json", "[]", "names no model_type"),
        ("config.json", '{"a":' * 100_000 + "1" + "}" * 100_000, "nests too deep"),
        ("config.json", '{"model_type": "llava", "a": ' + "[" * 70 + "]" * 70 + "}", "too deep"),
        ("config.json", '{"model_type": "llava", "num_labels": 1000000000}', "asks for a num_lab"),
        ("config.json", '{"text_config": {"n_layer": 1e9}, "model_type": "x"}', "n_layer of 1,000"),
        ("config.json", '{"model_type": "x", "depths": [2, 99999]}', "depths of 99,999"),
        ("tokenizer.json", "[" * 100_000 + "]" * 100_000, "nests too deep"),
        ("generation_config.json", '{"temperature": NaN}', "'temperature' is NaN"),
        (
            "processor_config.json",
            '{"image_processor": {"image_mean": [NaN]}}',
            "'image_mean' is NaN",
        ),
        ("special_tokens_map.json", "{", "damaged"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../b"}}', "no file of its folder"),
        ("model.safetensors.index.json", '{"weight_map": {"a": 3}}', "no file of its folder"),
        ("chat_template.jinja", "x" * (1 << 21), "1,048,576 are the most"),
        ("preprocessor_config.json", '"' + "x" * (1 << 25) + '"', "16,777,216 are the most"),
        ("processor_config.json", "", "damaged"),
        ("model.safetensors.index.json", "{", "damaged"),
        ("model.safetensors.index.json", "{}", "weight files are not known"),
        ("model.safetensors.index.json", '{"weight_map": 3}', "weight files are not known"),
    ],
)
def test_damaged_settings_are_named(folder, name, text, says):
    (folder / name).write_text(text)
    with pytest.raises(ModelError, match=says) as told:
        check_model_folder(folder)
    assert str(folder / name) in str(told.value)


def test_a_second_tokenizers_files_are_looked_at_too(folder):
    (folder / "qformer_tokenizer").mkdir()
    (folder / "qformer_tokenizer" / "tokenizer_config.json").write_text("{oops")
    with pytest.raises(ModelError, match=r"qformer_tokenizer/tokenizer_config\.json is damaged"):
        check_model_folder(folder)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no such device here")
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_device_is_not_read(folder, name):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("/dev/zero")
    with pytest.raises(ModelError, match=rf"{name} is no file|no config\.json"):
        check_model_folder(folder)


def test_a_header_that_nests_or_has_no_end_is_refused(folder):
    deep = b"[" * 100_000 + b"]" * 100_000
    for content in (len(deep).to_bytes(8, "little") + deep, (1 << 62).to_bytes(8, "little")):
        (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors is no safetensors file"):
            check_model_folder(folder)


def test_the_folder_inside_is_suggested(folder):
    with pytest.raises(ModelError, match=rf"no config.json, .*: give {folder}, which does"):
        check_model_folder(folder.parent)


@pytest.mark.parametrize(
    ("lost", "says"),
    [
        ("processor_config.json", "neither processor_config.json nor"),
        ("tokenizer.json", "tokenizer"),
    ],
)
def test_missing_processor_files_are_named(folder, lost, says):
    (folder / lost).unlink()
    with pytest.raises(ModelError, match=says):
        check_processor_files(folder)


def test_of_a_hub_id_nothing_is_fetched_before_it_is_needed(monkeypatch, tmp_path):
    monkeypatch.setattr("signbridge.model.files._from_hub", lambda _: pytest.fail("fetched"))
    check_model("owner/name")
    check_model("owner/name@main")
    check_model("tiny")
    for wrong in ("no-such-model", "./owner/name", "a/b/c", ""):
        with pytest.raises(ModelError, match="no hub id either"):
            check_model(wrong)
