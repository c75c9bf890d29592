"""Checkpoints that are quantised already, saved by transformers itself."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from signbridge.errors import ModelError
from signbridge.extraction.extract import extract_activations
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.model.forward import CaptureRequest, run_batch, to_model
from signbridge.model.load import load_model
from signbridge.model.quantization import planned_quantization, quantized, whole_parts
from signbridge.store import open_store

DECODER, PROJECTOR, VISION = (
    f"model.{part}" for part in ("language_model", "multi_modal_projector", "vision_tower")
)
CHECKPOINTS = {
    "nf4": ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "nf4", "float32"),
    "fp4": ({"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"}, "fp4", "float32"),
    "int8": ({"load_in_8bit": True}, "int8", "float32"),
    "half-of-it": (
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "llm_int8_skip_modules": ["lm_head", PROJECTOR, VISION],
        },
        "nf4",
        "float32",
    ),
    "bfloat16": (
        {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_compute_dtype": torch.bfloat16,
        },
        "nf4",
        "bfloat16",
    ),
}


def saved(folder, settings):
    shutil.copytree(TINY_FOLDER, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    model = AutoModelForImageTextToText.from_pretrained(
        TINY_FOLDER,
        quantization_config=BitsAndBytesConfig(**settings),
        device_map={"": "cpu"},
        dtype=torch.float32,
    )
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=CHECKPOINTS)
def checkpoint(request, tmp_path_factory):
    """A name, its folder, how it is quantised, and the dtype it names."""
    settings, kind, dtype = CHECKPOINTS[request.param]
    folder = tmp_path_factory.mktemp("checkpoint") / request.param
    return request.param, saved(folder, settings), kind, dtype


def test_the_record_is_what_the_loaded_layers_are(checkpoint, prepare):
    name, folder, kind, dtype = checkpoint
    description = describe_model(str(folder))
    planned = planned_quantization(description, "auto", "cpu").record()
    model = load_model(description, "cpu")
    assert quantized(model, description.skeleton).record() == planned
    parts = [DECODER] if name == "half-of-it" else [DECODER, PROJECTOR, VISION]
    skipped = ["lm_head", PROJECTOR, VISION] if name == "half-of-it" else ["lm_head"]
    assert planned == {
        "quantization": kind,
        "quantized_modules": parts,
        "quantization_skipped": skipped,
    }
    assert model.dtype == getattr(torch, dtype)
    request = CaptureRequest((7,))
    inputs = to_model(prepare([0, 60]), model)
    read = run_batch(model, inputs, description.image_token_id, request).resid_post
    assert read.dtype == model.dtype
    if dtype == "float32":  # in bfloat16 transformers does not run what it has loaded
        plain = AutoModelForImageTextToText.from_pretrained(
            folder, device_map={"": "cpu"}, dtype=torch.float32
        )
        theirs = run_batch(plain.eval(), inputs, description.image_token_id, request).resid_post
        # It computes 4-bit layers in bfloat16 on some processors.
        assert (read - theirs).norm() / theirs.norm() < 0.02


@pytest.mark.parametrize("asked", ["nf4", "none"])
def test_what_cannot_be_had_is_refused(checkpoint, asked):
    _, folder, kind, _ = checkpoint
    description = describe_model(str(folder))
    if asked == kind:
        assert planned_quantization(description, asked, "cpu").kind == kind
        return
    with pytest.raises(ModelError, match=rf"quantised already \({kind}\), so --quantization"):
        load_model(description, "cpu", quantization=asked)


def test_a_store_says_what_was_loaded(checkpoint, few, tmp_path):
    _, folder, kind, dtype = checkpoint
    path = tmp_path / "a.h5"
    extract_activations(few, describe_model(str(folder)), path, layers=[0], max_new_tokens=0)
    with open_store(path) as store:
        assert store.provenance["quantization"] == kind
        assert store.provenance["compute_dtype"] == dtype


def test_a_configuration_that_says_otherwise_is_refused(tmp_path):
    edited = saved(tmp_path / "edited", CHECKPOINTS["nf4"][0])
    config = json.loads((edited / "config.json").read_text())
    del config["quantization_config"]
    (edited / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError):
        load_model(describe_model(str(edited)), "cpu", quantization="none")


def test_layers_are_named_by_the_largest_parts_without_others():
    names = {"model.vision.a", "model.vision.b", "model.text.a"}
    assert whole_parts(names, {"model.text.b"}) == ["model.text.a", "model.vision"]
    assert whole_parts(names, set()) == ["model.text", "model.vision"]
