import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit
from torch import nn

from training.quantised import nf4, rounded


def test_weights_are_rounded_as_bitsandbytes_rounds_them():
    weight = torch.randn(128, 192, generator=torch.Generator().manual_seed(0)) * 0.05
    packed, state = quantize_4bit(weight, quant_type="nf4", blocksize=64, compress_statistics=False)
    reference = dequantize_4bit(packed, state)
    torch.testing.assert_close(nf4(weight), reference, rtol=1e-5, atol=1e-7)


def test_a_block_of_zeros_stays_zero():
    assert torch.equal(nf4(torch.zeros(2, 64)), torch.zeros(2, 64))


def test_weights_come_back_even_after_an_error_and_gradients_stay():
    layer = nn.Linear(64, 8)
    exact = layer.weight.detach().clone()
    with rounded([layer]):
        assert not torch.equal(layer.weight, exact)
        layer(torch.ones(1, 64)).sum().backward()
    assert torch.equal(layer.weight, exact)
    assert layer.weight.grad is not None
    with pytest.raises(ValueError, match="stop"), rounded([layer]):
        raise ValueError("stop")
    assert torch.equal(layer.weight, exact)
