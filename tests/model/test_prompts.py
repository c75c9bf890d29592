import copy
import sys

import pytest

from signbridge.errors import ModelError
from signbridge.model.prompts import (
    DEFAULT_PROMPT,
    TEMPLATES,
    borrowed_form,
    prompt_for_processor,
    resolve_prompt,
)

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message['role'].upper() }}: "
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    " {% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


@pytest.fixture
def chatting(tiny):
    processor = copy.deepcopy(tiny.processor)
    processor.chat_template = LLAVA_TEMPLATE
    return processor


def test_the_default_question_is_the_original_studys(tiny):
    wanted = (
        "USER: <image>\nWhat sign is being made in this image? Answer with one word.\nASSISTANT:"
    )
    assert resolve_prompt("sign", tiny.processor) == wanted == DEFAULT_PROMPT


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_question_is_put_in_the_processors_own_turns(chatting, name):
    got = resolve_prompt(name, chatting)
    assert got == f"USER: <image>\n{TEMPLATES[name]} ASSISTANT:"
    assert resolve_prompt(got, chatting) == got


def test_a_form_that_is_another_familys_is_known(tiny, chatting):
    assert borrowed_form("sign", tiny.processor, "a_new_family")
    assert not borrowed_form("see <image> now", tiny.processor, "a_new_family")
    assert not borrowed_form("sign", chatting, "a_new_family")
    assert not any(borrowed_form("sign", tiny.processor, kind) for kind in ("llava", "paligemma"))


def test_a_text_is_used_as_it_is(chatting):
    assert resolve_prompt("see <image> now", chatting) == "see <image> now"
    assert prompt_for_processor("see <image> now", chatting) == "see <image> now"
    chatting.chat_template = LLAVA_TEMPLATE.replace("<image>", "[START][IMG][END]")
    assert prompt_for_processor("see <image> now", chatting) == "see [START][IMG][END] now"


@pytest.mark.parametrize("prompt", ["", "no picture", "<image> and <image>", "Sign"])
def test_the_image_must_have_its_place(tiny, prompt):
    with pytest.raises(ModelError, match=r"exactly once.*\(sign, letter, gesture, describe\)"):
        resolve_prompt(prompt, tiny.processor)


def test_a_text_is_opened_once(chatting):
    """The template writes the opening token; a tokenizer that adds its own would double it."""
    chatting.chat_template = "{{ bos_token }}" + LLAVA_TEMPLATE
    plain = resolve_prompt("sign", chatting)
    assert plain.startswith("<s>USER")  # this tokenizer adds none
    opening = chatting.tokenizer.bos_token_id

    class Adding:
        bos_token, bos_token_id = "<s>", opening

        def __call__(self, text):
            return {"input_ids": [opening, 7]}

    chatting.tokenizer = Adding()
    chatting.apply_chat_template = lambda *_, **__: "<s>USER: <image>"
    assert resolve_prompt("sign", chatting) == "USER: <image>"


def test_a_template_that_writes_the_image_twice_is_refused(chatting):
    chatting.chat_template = "<image><image>"
    with pytest.raises(ModelError, match="2 times for one image"):
        resolve_prompt("sign", chatting)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{% for i in range(10**9) %}{% endfor %}", "[Rr]ange too big"),
        ("{{ 'a' * 10**11 }}", "GB"),
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "more than 1 second",
        ),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
        ("{{ raise_exception('no images') }}", "no images"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages.nothing.there }}", "undefined|no attribute"),
        ("{{ 1 // 0 }}", "zero"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="bounds are those of Linux")
def test_a_template_that_cannot_be_used_is_one_sentence(chatting, monkeypatch, template, says):
    monkeypatch.setattr("signbridge.model.processor._SECONDS", 1)
    monkeypatch.setattr("signbridge.model.processor._MEMORY", 1 << 30)
    chatting.chat_template = template
    with pytest.raises(ModelError, match=rf"chat template in .*tokenizer_config.*{says}"):
        prompt_for_processor("see <image> now", chatting)
