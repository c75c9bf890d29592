"""The vision-language model: load, quantise, prompt, where its parts are, forward pass, answers.

The choices that it offers are named here, where reading them loads nothing.
"""

from typing import Literal

ComputeDtype = Literal["auto", "float16", "bfloat16", "float32"]
Position = Literal["last_prompt", "last_generated", "image_mean"]
Quantization = Literal["auto", "nf4", "int8", "none"]
Weights = Literal["pretrained", "random"]

DECODER_LAYERS = "decoder_resid_post"
"""What an encoder-decoder's decoder layers are called, where ``resid_post`` is its encoder's."""
