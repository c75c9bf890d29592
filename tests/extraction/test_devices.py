"""A GPU gives what the CPU gives."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console

from signbridge.extraction.extract import extract_activations
from signbridge.images import open_images
from signbridge.store import open_store

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_vectors_and_answers(tiny, tmp_path, quantization):
    """Both quantise to the same numbers and compute in float32, so rounding is all that differs."""
    images = open_images("sample", classes=10, per_class=4)
    found, said = {}, io.StringIO()
    for accelerator in ("cpu", "gpu"):
        path = tmp_path / f"{accelerator}.h5"
        extract_activations(
            images,
            tiny,
            path,
            quantization=quantization,
            compute_dtype="float32",
            store_dtype="float32",
            max_new_tokens=4,
            forced_choice=True,
            accelerator=accelerator,
            devices=1,
            console=Console(file=said, width=1000),
        )
        with open_store(path) as store:
            vectors = np.stack([store.layer(k) for k in store.layers]).astype(float)
            found[accelerator] = vectors, store.responses, store.class_logprob
    (cpu, cpu_said, cpu_choice), (gpu, gpu_said, gpu_choice) = found["cpu"], found["gpu"]
    change = np.linalg.norm(gpu - cpu, axis=2) / np.linalg.norm(cpu, axis=2)
    assert change.max() < 5e-3
    assert np.mean([a == b for a, b in zip(cpu_said, gpu_said, strict=True)]) > 0.9
    np.testing.assert_allclose(gpu_choice, cpu_choice, atol=0.1)
    assert "by the memory of cuda" in said.getvalue()
