"""Checkpoints that are quantised already: what is said of them is what their layers are."""

import copy
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from signbridge.errors import ModelError
from signbridge.model.certificate import certify
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.load import load_model
from signbridge.model.prompts import DEFAULT_PROMPT
from signbridge.model.quantization import (
    compute_dtype_of,
    planned_quantization,
    quantized,
    rounds_activations,
    skipped_modules,
    weight_bytes,
    whole_parts,
)

FOUR_BITS = {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float32}
NF4 = FOUR_BITS | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
VISION = ["model.multi_modal_projector", "model.vision_tower"]
KINDS = {
    "nf4": NF4,
    "fp4": FOUR_BITS | {"bnb_4bit_quant_type": "fp4"},
    "int8": {"load_in_8bit": True},
    "decoder-alone": NF4 | {"llm_int8_skip_modules": ["lm_head", *VISION]},
    "bfloat16": NF4 | {"bnb_4bit_compute_dtype": torch.bfloat16},
}


class Casting(torch.nn.Module):
    """As SigLIP 2's embeddings; ``other`` is asked with care, as Gemma 4's."""

    def __init__(self):
        super().__init__()
        self.proj, self.other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        self.conv = torch.nn.Conv2d(1, 1, 1)

    def get_output_embeddings(self):
        return None

    def forward(self, pixels):
        if (dtype := self.other.weight.dtype).is_floating_point:
            pixels = pixels.to(dtype)
        target_dtype = self.proj.weight.dtype
        return self.proj(self.conv(pixels.to(self.conv.weight.dtype)).to(target_dtype))


def test_layers_to_whose_dtype_pixels_are_cast_keep_their_point():
    assert skipped_modules(Casting()) == ["proj"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Saves the bundled model quantised, as repositories called *-bnb-4bit are; once a kind."""
    folder = tmp_path_factory.mktemp("quantised")

    def save(kind):
        place = folder / kind
        if not place.exists():
            model = AutoModelForImageTextToText.from_pretrained(
                TINY_FOLDER,
                quantization_config=BitsAndBytesConfig(**KINDS[kind]),
                dtype=torch.float32,
                device_map={"": "cpu"},
            )
            model.save_pretrained(place)
            for file in TINY_FOLDER.glob("*.json"):
                if file.name != "config.json":
                    shutil.copy(file, place)
        return describe_model(str(place))

    return save


@pytest.mark.parametrize(
    ("kind", "layers", "covered", "skipped"),
    [
        ("nf4", "nf4", ["model.language_model", *VISION], ["lm_head"]),
        ("fp4", "fp4", ["model.language_model", *VISION], ["lm_head"]),
        ("int8", "int8", ["model.language_model", *VISION], ["lm_head"]),
        ("decoder-alone", "nf4", ["model.language_model"], ["lm_head", *VISION]),
    ],
)
def test_the_record_says_what_the_loaded_layers_are(checkpoint, kind, layers, covered, skipped):
    description = checkpoint(kind)
    planned = planned_quantization(description, "auto", "cpu")
    assert planned.record() == {
        "quantization": layers,
        "quantized_modules": covered,
        "quantization_skipped": skipped,
    }
    assert quantized(load_model(description, "cpu"), description.skeleton) == planned


@pytest.mark.parametrize(
    ("kind", "asked"), [("nf4", "none"), ("fp4", "nf4"), ("int8", "nf4"), ("nf4", "int8")]
)
def test_an_option_that_cannot_be_had_is_refused(checkpoint, kind, asked):
    says = rf"is quantised already \({kind}\), so --quantization {asked} cannot be had"
    with pytest.raises(ModelError, match=says):
        load_model(checkpoint(kind), "cpu", quantization=asked)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_checkpoint_that_is_quantised_gives_the_vectors_of_the_option(
    checkpoint, tiny, prepare, kind
):
    request = CaptureRequest(tuple(range(8)))
    inputs = prepare([0, 60])
    wanted, read = (
        run_batch(load_model(one, "cpu", quantization=kind), inputs, tiny.image_token_id, request)
        for one in (tiny, checkpoint(kind))
    )
    assert torch.equal(read.resid_post, wanted.resid_post)


def test_int8_is_near_the_model_and_its_names_are_scored(tiny, model, prepare, images):
    """Near as eight bits are; a batch decides which columns stay whole, so others differ."""
    eight = load_model(tiny, "cpu", quantization="int8")
    assert quantized(eight, tiny.skeleton) == planned_quantization(tiny, "int8", "cpu")
    assert quantized(eight, tiny.skeleton).record()["quantization"] == "int8"
    inputs, request = prepare([0, 60]), CaptureRequest(tuple(range(8)), answers=((5, 6), (7,)))
    ours, wanted = (
        run_batch(one, inputs, tiny.image_token_id, request).resid_post for one in (eight, model)
    )
    change = (ours - wanted).norm(dim=-1) / wanted.norm(dim=-1)
    assert 1e-3 < change.max() < 0.05
    found = certify(eight, tiny, DEFAULT_PROMPT, images.load(0), request)
    assert found.pads
    assert found.names < 0.1
    assert not rounds_activations(model)
    assert rounds_activations(eight)


def test_the_forward_pass_computes_in_the_dtype_that_is_said(checkpoint):
    description = checkpoint("bfloat16")
    assert compute_dtype_of(description, "auto", "cpu") == torch.bfloat16
    for choice in ("auto", "float32"):
        dtype = compute_dtype_of(description, choice, "cpu")
        model = load_model(description, "cpu", compute_dtype=choice)
        plain = {p.dtype for p in model.parameters() if p.is_floating_point()}
        inside = {m.compute_dtype for m in model.modules() if type(m).__name__ == "Linear4bit"}
        assert plain == inside == {dtype}


def test_random_weights_are_made_anew_whatever_the_checkpoint_is(checkpoint):
    description = describe_model(checkpoint("fp4").spec, weights="random")
    assert planned_quantization(description, "none", "cpu").kind == "none"


def test_a_config_that_says_otherwise_than_its_weights_is_refused(checkpoint, tmp_path):
    lying = shutil.copytree(checkpoint("fp4").folder, tmp_path / "lying")
    config = json.loads((lying / "config.json").read_text())
    config["quantization_config"]["bnb_4bit_quant_type"] = "nf4"
    (lying / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"is not quantised as its config\.json says"):
        load_model(describe_model(str(lying)), "cpu")


def test_a_method_whose_package_is_missing_names_it(tmp_path):
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"needs a package to be loaded .*optimum.*: install it"):
        planned_quantization(describe_model(str(folder)), "auto", "cpu")


def packed_in_four_bits(place):
    """The bundled model as compressed-tensors packs it, and the same with its rounded weights."""
    library = pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import ModelCompressor
    from compressed_tensors.quantization import (
        QuantizationArgs,
        QuantizationConfig,
        QuantizationScheme,
        apply_quantization_config,
    )

    packed, rounded = (
        AutoModelForImageTextToText.from_pretrained(TINY_FOLDER, dtype=torch.float32)
        for _ in range(2)
    )
    numbers = QuantizationArgs(num_bits=4, strategy="group", group_size=32)
    scheme = QuantizationScheme(targets=["Linear"], weights=numbers, format="pack-quantized")
    made = QuantizationConfig(
        config_groups={"all": scheme}, ignore=["lm_head"], format="pack-quantized"
    )
    apply_quantization_config(packed, made.model_copy(deep=True))
    for name, module in packed.named_modules():
        if hasattr(module, "weight_scale"):
            groups = module.weight.data.unflatten(1, (-1, 32))
            scale = groups.abs().amax(-1) / 7
            module.weight_scale.data.copy_(scale)
            whole = (groups / scale[..., None]).round() * scale[..., None]
            rounded.get_submodule(name).weight.data.copy_(whole.flatten(1))
    ModelCompressor.from_pretrained_model(packed).compress_model(packed)
    packed.save_pretrained(place)
    config = json.loads((place / "config.json").read_text())
    said = made.model_dump(mode="json") | {"quantization_status": "compressed"}
    config["quantization_config"] = said | {"quant_method": "compressed-tensors"}
    (place / "config.json").write_text(json.dumps(config))
    for file in TINY_FOLDER.glob("*.json"):
        if file.name != "config.json":
            shutil.copy(file, place)
    assert library.__version__
    return describe_model(str(place)), rounded.eval()


@pytest.mark.slow
def test_compressed_tensors_give_the_vectors_of_their_rounded_weights(tmp_path, prepare, capfd):
    """The vision tower too, which generation runs before the forward pass that would unpack it."""
    description, rounded = packed_in_four_bits(tmp_path)
    capfd.readouterr()
    loaded = load_model(description, "cpu")
    assert quantized(loaded, description.skeleton) == planned_quantization(
        description, "auto", "cpu"
    )
    assert quantized(loaded, description.skeleton).record() == {
        "quantization": "compressed-tensors int4",
        "quantized_modules": ["model.language_model", *VISION],
        "quantization_skipped": ["lm_head"],
    }
    inputs = prepare([0, 60])
    read = run_batch(
        loaded, inputs, description.image_token_id, CaptureRequest((0, 6), sites=("vision",))
    )
    assert capfd.readouterr().err == ""
    with torch.inference_mode():
        states = rounded(**inputs, output_hidden_states=True).hidden_states
    for slot, layer in enumerate((0, 6)):
        torch.testing.assert_close(
            read.resid_post[:, slot], states[layer + 1][:, -1], rtol=1e-4, atol=1e-4
        )


def test_layers_of_other_methods_are_named_by_what_they_are():
    four, eight = (SimpleNamespace(type="int", num_bits=bits) for bits in (4, 8))
    model = torch.nn.Module()
    for name in ("packed", "rounding", "plain", "shrunk"):
        model.add_module(name, torch.nn.Linear(4, 4))
    skeleton = copy.deepcopy(model)
    model.packed.quantization_scheme = SimpleNamespace(weights=four, input_activations=None)
    model.rounding.quantization_scheme = SimpleNamespace(weights=eight, input_activations=eight)
    model.shrunk.weight.data = model.shrunk.weight.data.to(torch.float8_e4m3fn)
    model.other = skeleton.other = torch.nn.Linear(4, 4)
    model.other = type("QuantLinear", (torch.nn.Module,), {"bits": 4})()
    model.gptq = skeleton.gptq = torch.nn.Linear(4, 4)
    named = {"bits": 3, "SUPPORTS_METHODS": ["gptq"]}
    model.gptq = type("FastestKernel", (torch.nn.Module,), named)()
    found = quantized(model, skeleton)
    assert found.kinds == {
        "packed": "compressed-tensors int4",
        "rounding": "compressed-tensors int8 on int8 activations",
        "shrunk": "Linear",
        "other": "QuantLinear int4",
        "gptq": "gptq int3",
    }
    assert found.plain == ("plain",)
    assert rounds_activations(model)
    # Of each layer 16 weights, of the packed, rounding and plain ones in 16 bits, and 4 biases.
    bits = 16 * (3 * 16 + 8 + 4.5 + 3.5) + 6 * 4 * 16
    assert weight_bytes(skeleton, found, torch.float16) == bits / 8


def test_parts_are_named_as_large_as_they_are_whole():
    names = {"m.vision.0.a", "m.vision.0.b", "m.text.0.a", "head"}
    assert whole_parts(names, {"m.text.0.b"}) == ["head", "m.text.0.a", "m.vision"]
    assert whole_parts(names, set()) == ["head", "m.text", "m.vision"]
    assert whole_parts(set(), names) == []
