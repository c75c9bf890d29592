"""The question put to the model about each image."""

from __future__ import annotations

from signbridge.errors import ModelError

IMAGE_PLACEHOLDER = "<image>"

# The prompt of the original study, in the turn format that LLaVA-1.5 was trained with.
DEFAULT_PROMPT = (
    "USER: <image>\nWhat sign is being made in this image? Answer with one word.\nASSISTANT:"
)


def prompt_for_processor(prompt: str, image_token: str) -> str:
    """Return ``prompt`` with its one ``<image>`` written as the processor's own image token.

    Args:
        prompt: a text that holds ``<image>`` exactly once.
        image_token: the token that the processor expands into one token per image patch.

    Raises:
        ModelError: if the prompt names the image never or more than once.
    """
    count = prompt.count(IMAGE_PLACEHOLDER)
    if count != 1:
        raise ModelError(
            f"The prompt {prompt!r} holds {IMAGE_PLACEHOLDER} {count} times: write it exactly "
            "once, where the image belongs."
        )
    return prompt.replace(IMAGE_PLACEHOLDER, image_token)
