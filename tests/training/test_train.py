import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from training.train import main


def train(kaggle_folder, output, *more):
    main(
        ["--data", str(kaggle_folder), "--output", str(output), "--batch", "8"]
        + ["--steps", "2", "2", "2", *more]
    )
    return load_file(output / "model.safetensors")


@pytest.mark.slow
def test_two_steps_of_each_stage_write_a_model_that_transformers_loads(kaggle_folder, tmp_path):
    state = torch.get_rng_state()
    first = train(kaggle_folder, tmp_path / "first", "--workers", "1")
    assert all(weight.isfinite().all() for weight in first.values())
    assert {weight.dtype for weight in first.values()} == {torch.bfloat16}
    LlavaForConditionalGeneration.from_pretrained(tmp_path / "first")
    AutoProcessor.from_pretrained(tmp_path / "first", backend="pil")
    torch.set_rng_state(state)
    again = train(kaggle_folder, tmp_path / "again", "--workers", "1")
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = train(kaggle_folder, tmp_path / "other", "--workers", "1", "--seed", "6")
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.slow
def test_two_workers_agree_on_the_weights(kaggle_folder, tmp_path):
    weights = train(kaggle_folder, tmp_path / "two", "--workers", "2")
    assert all(weight.isfinite().all() for weight in weights.values())
