import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from signbridge.images import open_images
from signbridge.model.description import describe_model
from signbridge.model.load import load_model


@pytest.fixture(scope="module")
def full_size(script):
    return script("full_size")


@pytest.fixture(scope="module")
def model(script):
    return script("full_size_model")


@pytest.mark.slow
def test_the_small_size_runs_and_compares_every_way(full_size, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(full_size, "ANSWER", 3)  # twenty words take no other path
    file = tmp_path / "found.json"
    options = ["--config", "small", "--images", "4", "--batch_sizes", "2", "--json", str(file)]
    full_size.main(options)
    printed = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert {row["way"] for row in found["rows"]} == {
        "the study's loop, with answers",
        "the study's loop, one token",
        "bare forward pass",
        "bare answers",
        "output_hidden_states",
        "SignBridge",
        "SignBridge, with answers",
        "SignBridge, layers 0 to 3",
        "SignBridge, layers 0 to 7",
    }
    assert all(row["speed"] > 0 for row in found["rows"])
    assert "nan" not in printed
    assert "| capture / the study's loop | " in printed


def test_operations_are_those_that_torch_counts(model, tmp_path):
    """The counter of torch leaves attention on a CPU out; that is two products a head."""
    model.write_model_folder(tmp_path / "model", model.CONFIGS["small"])
    description = describe_model(str(tmp_path / "model"), weights="random")
    llava = load_model(description, "cpu", quantization="none").model
    inputs = description.processor(
        text="<image> what", images=open_images("sample").load(0), return_tensors="pt"
    )
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        found = model.multiply_adds(llava, lambda: llava(**inputs, use_cache=False))
    counts = {str(kind): n for kind, n in counter.get_flop_counts()["Global"].items()}
    products = sum(n for kind, n in counts.items() if "attention" not in kind)
    text, vision = llava.config.text_config, llava.config.vision_config
    tokens, patches = inputs["input_ids"].shape[1], (56 // 14) ** 2 + 1
    causal = text.num_hidden_layers * 2 * tokens**2 * text.hidden_size
    full = vision.num_hidden_layers * 4 * patches**2 * vision.hidden_size
    assert found == products + causal + full


def test_the_full_size_is_that_of_llava_1_5_7b(model, tmp_path):
    """The parameters that the published checkpoint has."""
    model.write_model_folder(tmp_path / "model", model.CONFIGS["full"])
    description = describe_model(str(tmp_path / "model"), weights="random")
    assert sum(p.numel() for p in description.skeleton.parameters()) == 7_063_427_072
    prompt = description.processor(
        text="<image> what", images=open_images("sample").load(0), return_tensors="pt"
    )
    assert (prompt["input_ids"] == description.image_token_id).sum() == 576
    assert prompt["pixel_values"].shape == (1, 3, 336, 336)


def test_without_a_gpu_the_full_size_says_what_to_do(full_size, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="give --config small"):
        full_size.main([])


def test_repeated_images_have_ids_of_their_own(model):
    images = open_images("sample", classes=2, per_class=3)
    many = model.repeated(images, 14)
    assert len(set(many.sample_id)) == len(many) == 14
    assert (many.pixels[13] == images.pixels[1]).all()
    assert many.load(13).tobytes() == images.load(1).tobytes()
