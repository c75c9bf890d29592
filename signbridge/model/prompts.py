"""The question put to the model about each image."""

from __future__ import annotations

from typing import Any

from signbridge.errors import ModelError

IMAGE_PLACEHOLDER = "<image>"

TEMPLATES = {
    # The question of the original study.
    "sign": "What sign is being made in this image? Answer with one word.",
    "letter": "Which letter of American Sign Language does this hand show? Answer with one letter.",
    "gesture": "What gesture is this hand making? Answer with one word.",
    "describe": "Describe the hand in this image.",
}
"""Bundled questions by name."""

DEFAULT_TEMPLATE = "sign"


def llava_turns(question: str) -> str:
    """Return a question in the turn format that LLaVA-1.5 was trained with."""
    return f"USER: {IMAGE_PLACEHOLDER}\n{question}\nASSISTANT:"


DEFAULT_PROMPT = llava_turns(TEMPLATES[DEFAULT_TEMPLATE])
"""The default question for a model whose processor has no chat template, and the study's text."""


def resolve_prompt(prompt: str, processor: Any) -> str:
    """Return the text put to the model, with ``<image>`` once where the image belongs.

    Args:
        prompt: such a text itself, which is used as it is, or the name of a bundled question. The
            question is put in the turns of the processor's chat template, or, where it has none,
            in LLaVA-1.5's.
        processor: the model's processor.

    Raises:
        ModelError: if the text names the image never or more than once, the name is not known, or
            the chat template cannot be used.
    """
    check_prompt(prompt)
    if prompt in TEMPLATES:
        return _in_turns(TEMPLATES[prompt], processor)
    return prompt


def check_prompt(prompt: str) -> None:
    """Refuse a prompt that is no bundled question's name and does not hold ``<image>`` once.

    Raises:
        ModelError: says how often it does.
    """
    count = prompt.count(IMAGE_PLACEHOLDER)
    if prompt not in TEMPLATES and count != 1:
        raise ModelError(
            f"The prompt {prompt!r} holds {IMAGE_PLACEHOLDER} {count} times: write it exactly "
            f"once, where the image belongs, or name a bundled question ({', '.join(TEMPLATES)})."
        )


def prompt_for_processor(prompt: str, image_token: str) -> str:
    """Return ``prompt`` with its one ``<image>`` written as the processor's own image token.

    Args:
        prompt: a text from :func:`resolve_prompt`.
        image_token: the token that the processor expands into one token per image patch.
    """
    return prompt.replace(IMAGE_PLACEHOLDER, image_token)


def _in_turns(question: str, processor: Any) -> str:
    if not getattr(processor, "chat_template", None):
        return llava_turns(question)
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    token = processor.image_token
    if text.count(token) != 1:
        raise ModelError(
            f"The chat template of {type(processor).__name__} writes the image token {token!r} "
            f"{text.count(token)} times for one image: give --prompt a text with "
            f"{IMAGE_PLACEHOLDER} instead."
        )
    tokenizer = processor.tokenizer
    start = tokenizer.bos_token
    # Where the tokenizer opens every text itself, the template's own opening would come twice.
    if start and text.startswith(start):
        bare = text.removeprefix(start)
        if tokenizer(bare)["input_ids"][:1] == [tokenizer.bos_token_id]:
            text = bare
    return str(text).replace(token, IMAGE_PLACEHOLDER)
