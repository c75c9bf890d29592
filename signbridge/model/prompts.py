"""The question put to the model about each image."""

from __future__ import annotations

import re
from typing import Any

from signbridge.errors import ModelError
from signbridge.runtime.files import sha256_text

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


# How each family without a chat template was trained to be asked, from its published card. (Chat
# templates lie in the model's own folder.)
_LLAVA = f"USER: {IMAGE_PLACEHOLDER}\n{{}}\nASSISTANT:"  # llava-hf/llava-1.5-7b-hf
_FORMS = {
    "vipllava": (  # llava-hf/vip-llava-7b-hf
        "A chat between a curious human and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the human's questions.###Human: "
        f"{IMAGE_PLACEHOLDER}\n{{}}###Assistant:"
    ),
    "paligemma": f"{IMAGE_PLACEHOLDER}answer en {{}}",  # google/paligemma-3b-mix-224
    "blip-2": f"{IMAGE_PLACEHOLDER}Question: {{}} Answer:",  # Salesforce/blip2-opt-2.7b
    "instructblip": f"{IMAGE_PLACEHOLDER}{{}}",  # Salesforce/instructblip-vicuna-7b
    "florence2": f"{IMAGE_PLACEHOLDER}{{}}",  # microsoft/Florence-2-large, a text of its own
}

# Families without an entry that were asked in LLaVA-1.5's form.
_LLAVA_TYPES = frozenset({"llava", "llava_next", "video_llava"})

DEFAULT_PROMPT = _LLAVA.format(TEMPLATES[DEFAULT_TEMPLATE])
"""The default question for a model whose processor has no chat template, and the study's text."""


def resolve_prompt(prompt: str, processor: Any, model_type: str = "llava", images: int = 1) -> str:
    """Return the text put to the model, with ``<image>`` where each image belongs.

    Args:
        prompt: such a text itself, which is used as it is, or the name of a bundled question. The
            question is put in the turns of the processor's chat template, or, where it has none,
            in its family's published form, which is LLaVA-1.5's for a family not known here.
        processor: the model's processor.
        model_type: the family, as the model's configuration calls it.
        images: how many images a prompt has.

    Raises:
        ModelError: if the text names the images more or less often than there are, the name is not
            known, or the chat template cannot be used.
    """
    check_prompt(prompt, images)
    if prompt in TEMPLATES:
        return _in_turns(TEMPLATES[prompt], processor, model_type, images)
    return prompt


def borrowed_form(prompt: str, processor: Any, model_type: str) -> bool:
    """Whether a bundled question takes LLaVA-1.5's form for a family not known to take it."""
    known = _FORMS.keys() | _LLAVA_TYPES
    template = getattr(processor, "chat_template", None)
    return prompt in TEMPLATES and not template and model_type not in known


def check_prompt(prompt: str, images: int | None = None) -> None:
    """Refuse a prompt that is no bundled question's name and does not name each image.

    Args:
        prompt: the prompt.
        images: how many images it is about; None where that is not known yet.

    Raises:
        ModelError: says how often it does.
    """
    count = prompt.count(IMAGE_PLACEHOLDER)
    if prompt not in TEMPLATES and count != (images or max(1, count)):
        where = "exactly once, where the image belongs"
        if (images or 1) > 1:
            where = f"{images} times, where the images of a sample belong"
        raise ModelError(
            f"The prompt {prompt!r} holds {IMAGE_PLACEHOLDER} {count} times: write it {where}, "
            f"or name a bundled question ({', '.join(TEMPLATES)})."
        )


def question_name(prompt: str) -> str:
    """Return a name for a question, fit for file names: that of a bundled one is its own.

    >>> question_name("letter"), question_name("<image>Is this hand open or closed?")
    ('letter', 'is-this-hand-open-ac2707')

    Args:
        prompt: as :func:`resolve_prompt` takes it.
    """
    if prompt in TEMPLATES:
        return prompt
    before, _, behind = prompt.lower().rpartition(IMAGE_PLACEHOLDER)
    texts = [re.sub("user:|assistant:", "", text) for text in (behind, before)]
    words = re.findall("[a-z0-9]+", texts[0]) or re.findall("[a-z0-9]+", texts[1])
    return "-".join([*(word[:12] for word in words[:4]), sha256_text(prompt)[:6]])


def prompt_for_processor(prompt: str, processor: Any) -> str:
    """Return ``prompt`` with each ``<image>`` written as the model's processor wants it.

    Args:
        prompt: a text from :func:`resolve_prompt`.
        processor: the model's processor.

    Raises:
        ModelError: if the processor puts the images before the text itself, and the prompt has
            them elsewhere.
    """
    from signbridge.model.processor import image_text  # loads transformers

    marks = image_text(processor)
    places = IMAGE_PLACEHOLDER * prompt.count(IMAGE_PLACEHOLDER)
    if not marks and not prompt.startswith(places):
        raise ModelError(
            f"{type(processor).__name__} puts the image before the text, so the prompt must begin "
            f"with {places}; it is {prompt!r}."
        )
    return prompt.replace(IMAGE_PLACEHOLDER, marks)


def _in_turns(question: str, processor: Any, model_type: str, images: int) -> str:
    if not getattr(processor, "chat_template", None):
        places = IMAGE_PLACEHOLDER * images
        return _FORMS.get(model_type, _LLAVA).format(question).replace(IMAGE_PLACEHOLDER, places)
    content = [*[{"type": "image"}] * images, {"type": "text", "text": question}]
    turns = [{"role": "user", "content": content}]
    from signbridge.model.processor import image_text, rendered  # loads transformers

    (text,) = rendered(processor, turns)
    token = image_text(processor)
    if not token or text.count(token) != images:
        raise ModelError(
            f"The chat template of {type(processor).__name__} writes the image token "
            f"{str(processor.image_token)!r} {text.count(str(processor.image_token))} times for "
            f"{'one image' if images == 1 else f'{images} images'}: give --prompt a text with "
            f"{IMAGE_PLACEHOLDER} instead."
        )
    tokenizer = processor.tokenizer
    start = tokenizer.bos_token
    # Where the tokenizer opens every text itself, the template's own opening would come twice.
    if start and text.startswith(start):
        bare = text.removeprefix(start)
        if tokenizer(bare)["input_ids"][:1] == [tokenizer.bos_token_id]:
            text = bare
    return text.replace(token, IMAGE_PLACEHOLDER)
