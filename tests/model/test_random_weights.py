import copy
import errno
import io
import json
import os
import shutil
import tempfile

import numpy as np
import pytest
import torch
from fixtures.families import family_folder
from rich.console import Console
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
)

from signbridge import open_store
from signbridge.errors import ModelError, StoreError
from signbridge.extraction.extract import extract_activations
from signbridge.images import open_images
from signbridge.model import random_weights
from signbridge.model.description import TINY_FOLDER, describe_model
from signbridge.model.families import SHUT_AT_FIRST
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.load import load_model
from signbridge.model.quantization import bitsandbytes_config
from signbridge.model.random_weights import initial_weights, random_model


def from_config(config, seed):
    """What anyone gets from transformers alone."""
    torch.manual_seed(seed)
    return AutoModelForImageTextToText.from_config(copy.deepcopy(config), dtype=torch.float32)


def assert_same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name


@pytest.fixture
def in_a_file(monkeypatch, tmp_path):
    """Make even small weights in a file, as those of a large model."""
    monkeypatch.setattr(random_weights, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(random_weights, "_SMALL_TENSOR", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def bare(tmp_path):
    """A model's folder without its weights."""
    folder = shutil.copytree(TINY_FOLDER, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.mark.parametrize("seed", [0, 7])
def test_the_weights_are_transformers_own(tiny, seed):
    theirs = from_config(tiny.config, seed).state_dict()
    assert_same(initial_weights(tiny.config, seed), theirs)
    assert all(tensor.dtype == torch.float32 for tensor in theirs.values())


def test_weights_made_in_a_file_are_the_same(tiny, in_a_file):
    ours = initial_weights(tiny.config, 7)
    assert_same(ours, from_config(tiny.config, 7).state_dict())
    storages = {tensor.untyped_storage().data_ptr() for tensor in ours.values()}
    assert len(storages) < len(ours) / 2  # most lie in one
    assert os.listdir(in_a_file) == []  # and the file has no name any more


def test_threads_and_random_state_make_no_difference(tiny):
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    one = initial_weights(tiny.config, 3)
    assert torch.equal(torch.rand(3), wanted)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_same(initial_weights(tiny.config, 3), one)
    finally:
        torch.set_num_threads(threads)
    assert not torch.equal(initial_weights(tiny.config, 4)["lm_head.weight"], one["lm_head.weight"])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_it_is_loaded_as_a_checkpoint_of_these_numbers_is(tiny, tmp_path, quantization, dtype):
    """transformers' own model, saved and loaded by the way of every other folder."""
    saved = shutil.copytree(tiny.folder, tmp_path / "saved")
    from_config(tiny.config, 5).save_pretrained(saved)
    options = {"quantization": quantization, "compute_dtype": dtype}
    theirs = load_model(describe_model(str(saved)), "cpu", **options)
    ours = load_model(describe_model("tiny", weights="random", weights_seed=5), "cpu", **options)
    assert_same(ours.state_dict(), theirs.state_dict())
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    assert not ours.training
    for (name, a), b in zip(ours.named_modules(), theirs.modules(), strict=True):
        assert type(a) is type(b), name
        if type(a).__name__ == "Linear4bit":
            assert a.compute_dtype == b.compute_dtype
            assert torch.equal(a.weight.quant_state.absmax, b.weight.quant_state.absmax)
            assert a.weight.quant_state.nested


def test_a_large_model_is_built_from_its_configuration_alone(in_a_file):
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
        ),
    )
    model = random_model(
        config,
        1,
        dtype=torch.bfloat16,
        quantization_config=bitsandbytes_config("nf4", torch.bfloat16, ["lm_head"]),
    )
    kinds = {type(module).__name__ for module in model.modules()}
    assert "Linear4bit" in kinds
    assert type(model.lm_head) is torch.nn.Linear
    assert model.lm_head.weight.dtype == torch.bfloat16
    wanted = from_config(config, 1).lm_head.weight.bfloat16()
    assert torch.equal(model.lm_head.weight, wanted)
    assert [name for name in os.listdir(in_a_file) if not name.endswith(".lock")] == []


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
SMALL |= {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 300}


@pytest.mark.parametrize(
    "family",
    ["llava", "llava_next", "vipllava", "llava_onevision", "paligemma", "gemma3", "idefics3"],
)
def test_each_family_takes_back_its_own_names(family):
    config = AutoConfig.for_model(family)
    for key, value in SMALL.items():
        for part in (config.get_text_config(), config.vision_config):
            if hasattr(part, key):
                setattr(part, key, value)
    config.get_text_config().pad_token_id = 0
    for key in ("layer_types", "sliding_window_pattern"):
        if getattr(config.get_text_config(), key, None) is not None:
            setattr(config.get_text_config(), key, ["full_attention"] * 2)
    config.vision_config.image_size, config.vision_config.patch_size = 56, 14
    if hasattr(config.vision_config, "projection_dim"):
        config.vision_config.projection_dim = 32
    theirs = from_config(config, 2).state_dict()
    ours = random_model(config, 2, dtype=torch.float32).state_dict()
    for name in [name for name in theirs if name.endswith(SHUT_AT_FIRST)]:
        assert not theirs.pop(name).any()
        assert 0.01 < ours.pop(name).std() < 0.03  # the image comes in
    assert_same(ours, theirs)


def test_random_weights_have_their_gates_open(tmp_path):
    description = describe_model(str(family_folder("mllama", tmp_path)), weights="random")
    named = load_model(description, "cpu", quantization="none").named_parameters()
    gates = [value for name, value in named if name.endswith(SHUT_AT_FIRST)]
    assert len(gates) == 4
    assert all(float(value) == 1 for value in gates)


def test_no_weights_are_needed(bare, prepare, tiny):
    with pytest.raises(ModelError, match=r"no model.safetensors weights"):
        describe_model(str(bare))
    found = describe_model(str(bare), weights="random")
    assert (found.kind, found.name) == ("folder", "model-random")
    assert describe_model(str(bare), weights="random", weights_seed=4).name == "model-random4"
    read = [
        run_batch(
            load_model(one, "cpu"), prepare([0, 60]), tiny.image_token_id, CaptureRequest((7,))
        ).resid_post
        for one in (found, describe_model("tiny", weights="random"))
    ]
    assert torch.equal(*read)


def test_of_a_hub_id_only_the_other_files_are_fetched(bare, monkeypatch):
    asked = []
    commit = bare.rename(bare.parent / ("0" * 40))

    def snapshot_download(name, revision=None, allow_patterns=()):
        asked.append((name, allow_patterns))
        return str(commit)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    found = describe_model("owner/Some-LLaVA", weights="random")
    assert (found.name, found.revision) == ("some-llava-random", "0" * 40)
    ((name, patterns),) = asked
    assert name == "owner/Some-LLaVA"
    assert "*.json" in patterns
    assert not any("safetensors" in pattern or pattern == "*" for pattern in patterns)


def test_the_quantisation_of_a_checkpoint_that_is_not_read_is_left_out(bare):
    config = json.loads((bare / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (bare / "config.json").write_text(json.dumps(config))
    model = load_model(describe_model(str(bare), weights="random"), "cpu", quantization="none")
    assert {type(m).__name__ for m in model.modules() if "Linear" in type(m).__name__} == {"Linear"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "trained"}, "'trained': give 'pretrained' or 'random'"),
        ({"weights": "random", "weights_seed": -1}, "--weights_seed is -1"),
        ({"weights": "random", "weights_seed": 2**32}, "--weights_seed is 4294967296"),
        ({"weights_seed": 3}, "give --weights random with it"),
    ],
)
def test_choices_that_make_no_sense(options, message):
    with pytest.raises(ModelError, match=message):
        describe_model("tiny", **options)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space cannot be reserved here")
def test_a_full_disk_is_said_and_leaves_nothing(tiny, in_a_file, monkeypatch):
    def full(handle, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ModelError, match=r"No space left on device.*set TMPDIR"):
        load_model(describe_model("tiny", weights="random"), "cpu")
    assert [name for name in os.listdir(in_a_file) if not name.endswith(".lock")] == []


def test_too_little_memory_is_said_before_anything_is_made(monkeypatch):
    class Small:
        available = 1_000_000

    monkeypatch.setattr("signbridge.model.load.psutil.virtual_memory", lambda: Small)
    with pytest.raises(ModelError, match="does not fit into the memory of cpu"):
        load_model(describe_model("tiny", weights="random"), "cpu")


@pytest.fixture(scope="module")
def few():
    return open_images("sample", classes=5, per_class=4)


def extract(images, description, path, **options):
    options = {
        "quantization": "none",
        "num_workers": 0,
        "shard_size": 8,
        "layers": [0, 7],
    } | options
    console = Console(file=io.StringIO())
    return extract_activations(images, description, path, console=console, **options)


def test_a_store_says_that_its_weights_are_random(few, tmp_path):
    control = describe_model("tiny", weights="random", weights_seed=3)
    with open_store(extract(few, control, tmp_path / "r.h5", store_dtype="float32")) as store:
        said = store.provenance
        vectors = store.layer(7)
    assert (said["weights"], said["weights_seed"]) == ("random", 3)
    assert said["weights_initialiser"].startswith("transformers ")
    assert len(said["config_sha256"]) == 64
    assert "weights_sha256" not in said
    inputs = dict(
        control.processor(
            text=[said["prompt"]] * 8,
            images=[few.load(row) for row in range(8)],
            padding=True,
            return_tensors="pt",
        )
    )
    model = from_config(control.config, 3).eval()
    wanted = run_batch(model, inputs, control.image_token_id, CaptureRequest((7,))).resid_post
    np.testing.assert_array_equal(vectors[:8], wanted[:, 0].numpy())


def test_pretrained_stores_are_what_they_were(few, tiny, tmp_path):
    """No key is new in them, so that what was begun or finished before can go on."""
    path = extract(few, tiny, tmp_path / "p.h5")
    with open_store(path) as store:
        assert not {"weights", "weights_seed", "weights_initialiser"} & set(store.provenance)
        assert store.provenance["weights_sha256"] == tiny.weights_sha256
    extract(few, tiny, path, layers=[0, 3, 7])
    with open_store(path) as store:
        assert store.layers == (0, 3, 7)


def test_other_weights_never_continue_a_store(few, tiny, tmp_path):
    first = describe_model("tiny", weights="random", weights_seed=1)
    path = extract(few, first, tmp_path / "r.h5")
    for other, key in (
        (describe_model("tiny", weights="random", weights_seed=2), "weights_seed"),
        (tiny, "weights"),
    ):
        with pytest.raises(StoreError, match=key):
            extract(few, other, path)
        with pytest.raises(StoreError, match=key):
            extract(few, other, path, layers=[1])
