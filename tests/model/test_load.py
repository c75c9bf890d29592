import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from signbridge.errors import ModelError
from signbridge.model import load
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.load import load_model
from signbridge.model.processor import without_package
from signbridge.model.quantization import (
    compute_dtype_for,
    planned_quantization,
    quantized,
    skipped_modules,
    weight_bytes,
)


@pytest.fixture(scope="module")
def nf4(tiny):
    return load_model(tiny, "cpu", quantization="nf4")


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(TINY_FOLDER, tmp_path / "model")


def linear4bit(model):
    return {n for n, m in model.named_modules() if type(m).__name__ == "Linear4bit"}


def test_nf4_covers_what_the_record_says(tiny, nf4):
    skip = skipped_modules(tiny.skeleton)
    linears = {n for n, m in tiny.skeleton.named_modules() if isinstance(m, torch.nn.Linear)}
    assert skip == ["lm_head"]
    assert linear4bit(nf4) == linears - set(skip)
    record = {
        "quantization": "nf4",
        "quantized_modules": [
            "model.language_model",
            "model.multi_modal_projector",
            "model.vision_tower",
        ],
        "quantization_skipped": ["lm_head"],
    }
    assert planned_quantization(tiny, "auto", "cpu").record() == record
    assert quantized(nf4, tiny.skeleton).record() == record
    weight = nf4.get_decoder().layers[0].self_attn.q_proj.weight
    assert weight.quant_state.quant_type == "nf4"
    assert weight.quant_state.nested  # double quantisation


def test_nf4_vectors_are_those_of_the_dequantised_weights(tiny, nf4, prepare):
    """The same network in full precision, with NF4's own rounded weights put back."""
    import bitsandbytes.functional as bnb

    full = load_model(tiny, "cpu", quantization="none")
    rounded = dict(nf4.named_modules())
    with torch.no_grad():
        for name in linear4bit(nf4):
            weight = rounded[name].weight
            full.get_submodule(name).weight.copy_(
                bnb.dequantize_4bit(weight.data, weight.quant_state)
            )
    request = CaptureRequest(tuple(range(8)))
    inputs = prepare([0, 60, 120])
    wanted = run_batch(full, inputs, tiny.image_token_id, request).resid_post
    read = run_batch(nf4, inputs, tiny.image_token_id, request).resid_post
    torch.testing.assert_close(read, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_weight_bytes_estimates_what_is_loaded(tiny, model, nf4, quantization):
    loaded = {"nf4": nf4, "none": model}[quantization]
    planned = planned_quantization(tiny, quantization, "cpu")
    estimate = weight_bytes(tiny.skeleton, planned, torch.float32)
    actual = loaded.get_memory_footprint(return_buffers=False)
    assert actual == pytest.approx(estimate, rel=0.05)


def test_compute_dtype_by_device():
    assert compute_dtype_for("auto", "cpu") == torch.float32
    assert compute_dtype_for("auto", "cuda") == torch.float16
    assert compute_dtype_for("bfloat16", "cpu") == torch.bfloat16
    with pytest.raises(ModelError, match="float8"):
        compute_dtype_for("float8", "cpu")


def test_bfloat16_runs(tiny, prepare):
    model = load_model(tiny, "cpu", quantization="none", compute_dtype="bfloat16")
    inputs = prepare([0, 60])
    inputs["pixel_values"] = inputs["pixel_values"].to(torch.bfloat16)
    read = run_batch(model, inputs, tiny.image_token_id, CaptureRequest((7,))).resid_post
    assert read.dtype == torch.bfloat16


def test_how_a_folder_would_compute_its_answers_is_ours(tiny):
    """Some published folders name a cache of fixed length, which cannot be continued."""
    config = GenerationConfig(cache_implementation="static", eos_token_id=7, suppress_tokens=[3])
    model = load_model(replace(tiny, generation_config=config), "cpu", quantization="none")
    assert model.generation_config.cache_implementation is None
    assert model.generation_config.suppress_tokens == [3]
    assert config.cache_implementation == "static"  # as the store records it


def test_tiny_is_small_and_the_same_every_time(tiny):
    parameters = sum(p.numel() for p in tiny.skeleton.parameters())
    assert parameters < 3_000_000
    assert describe_model("tiny").weights_sha256 == tiny.weights_sha256
    assert tiny.n_layers == 8
    assert tiny.provenance()["image_processor_class"] == "CLIPImageProcessorPil"
    assert tiny.processor.tokenizer.padding_side == "left"


def test_a_local_folder_is_the_same_model(folder, tiny):
    found = describe_model(str(folder))
    assert found.kind == "folder"
    assert found.name == "model"
    assert found.weights_sha256 == tiny.weights_sha256


def test_a_hub_id_is_read_from_the_hub_cache(folder, tmp_path, monkeypatch, tiny):
    """The layout that huggingface_hub writes: refs, snapshots, files named by their SHA-256."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "hub"
    repo = cache / "models--someone--Small-LLaVA"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(folder, repo / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = describe_model("someone/Small-LLaVA")
    assert (found.kind, found.revision, found.name) == ("hub", commit, "small-llava")
    assert found.weights_sha256 == tiny.weights_sha256
    assert type(load_model(found, "cpu")).__name__ == "LlavaForConditionalGeneration"
    with pytest.raises(ModelError, match="not in the local hub cache"):
        describe_model("someone/absent")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("./nowhere", "There is no folder ./nowhere"),
        ("/no/such/folder", "There is no folder"),
        ("gpt2", "There is no folder gpt2"),
        ("own er/na me", "is no hub id"),
        ("llava-hf/llava-1.5-7b-hf", "hub cannot be reached"),
        ("", "There is no folder"),
    ],
)
def test_models_that_cannot_be_found(spec, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=said):
        describe_model(spec)


def test_a_model_without_images_is_refused(tmp_path):
    small = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(small).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="'llama' model, which is no vision-language model"):
        describe_model(str(tmp_path))


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no model.safetensors weights"):
        describe_model(str(folder))


def test_a_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        describe_model(str(folder))


def test_an_unknown_architecture_runs_no_code(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "brand_new", "auto_map": {"AutoConfig": "evil.Config"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelError, match="cannot use"):
        describe_model(str(folder))


def test_a_folder_without_processor(folder):
    for file in folder.glob("*processor*"):
        file.unlink()
    for file in folder.glob("token*"):
        file.unlink()
    with pytest.raises(ModelError, match="processor"):
        describe_model(str(folder))


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelError, match=r"model\.safetensors has .* bytes instead of "):
        describe_model(str(folder))


def change_text_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= values
    config["text_config"].pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_of_another_shape_are_not_replaced_by_noise(folder, quantization):
    change_text_config(folder, intermediate_size=192)
    with pytest.raises(ModelError, match=r"do not fit its config.json: .* shape \(.*\) instead of"):
        load_model(describe_model(str(folder)), "cpu", quantization=quantization)


def test_layers_that_the_configuration_leaves_out_are_not_ignored(folder):
    change_text_config(folder, num_hidden_layers=7)
    with pytest.raises(ModelError, match=r"more decoder layers than the 7 .*layers\.7\."):
        load_model(describe_model(str(folder)), "cpu", quantization="none")


def test_a_tokenizer_without_padding_is_named(folder):
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match=r"no padding token: its folder needs tokenizer_config"):
        describe_model(str(folder))


def test_weights_of_a_smaller_model_are_not_filled_with_noise(folder):
    change_text_config(folder, num_hidden_layers=9)
    with pytest.raises(ModelError, match="lack"):
        load_model(describe_model(str(folder)), "cpu", quantization="none")


def test_bitsandbytes_missing(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match="--quantization none"):
        load_model(tiny, "cpu", quantization="nf4")


def test_not_enough_memory_is_said_before_loading(tiny, monkeypatch):
    class Small:
        available = 1_000_000

    monkeypatch.setattr(load.psutil, "virtual_memory", lambda: Small)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
        load_model(tiny, "cpu")


def test_a_package_that_does_not_fit_is_named_with_the_reason(monkeypatch):
    fault = "torchvision 9 does not load beside torch 8 (no nms)"
    monkeypatch.setattr("signbridge.runtime.torchvision.fault", fault)
    error = ModuleNotFoundError("No module named 'torchvision.io'", name="torchvision.io")
    said = str(without_package("The processor of it", error))
    assert f"({fault}): install torchvision in the version" in said
    # As of Llama 4, whose image processor is torchvision's alone.
    error = ImportError(
        "Llama4ImageProcessor requires the Torchvision library but it was not found"
    )
    assert str(without_package("The processor of it", error)) == said
