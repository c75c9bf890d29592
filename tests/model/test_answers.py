import pytest
import torch
from transformers import AutoTokenizer

from signbridge.errors import ModelError
from signbridge.model.answers import NameTree, class_answers, end_ids, forced, parts
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.prompts import DEFAULT_PROMPT

ALL = tuple(range(8))
# One token, two, three; one is the beginning of another.
NAMES = ("A", "fist", "fist up", "open palm down", "open")
PROMPTS = [DEFAULT_PROMPT, "USER: <image>\nWhat sign is this?\nASSISTANT:", DEFAULT_PROMPT]
ROWS = [3, 50, 90]


@pytest.fixture(scope="module")
def answers(tiny):
    return class_answers(tiny.processor.tokenizer, DEFAULT_PROMPT, NAMES)


def one_by_one(model, tiny, prepare, row, prompt, name):
    """The definition: the name written behind the prompt, one plain pass, no cache, no padding."""
    inputs = prepare([row], [prompt])
    ids = tiny.processor.tokenizer(name, add_special_tokens=False, return_tensors="pt").input_ids
    whole = torch.cat([inputs["input_ids"], ids], dim=1)
    with torch.inference_mode():
        logits = model(
            input_ids=whole,
            attention_mask=torch.ones_like(whole),
            pixel_values=inputs["pixel_values"],
        ).logits
    logprob = logits[0].double().log_softmax(-1)
    start = inputs["input_ids"].shape[1]
    targets = [*ids[0].tolist(), *end_ids(model)]
    return sum(logprob[start - 1 + j, token] for j, token in enumerate(targets)).item()


@pytest.mark.parametrize("tokens", [0, 5])
def test_each_name_scores_as_if_it_had_been_written_alone(model, tiny, prepare, answers, tokens):
    got = run_batch(
        model,
        prepare(ROWS, PROMPTS),
        tiny.image_token_id,
        CaptureRequest(ALL, answers=answers, max_new_tokens=tokens),
    ).class_logprob
    wanted = [
        [one_by_one(model, tiny, prepare, row, prompt, name) for name in NAMES]
        for row, prompt in zip(ROWS, PROMPTS, strict=True)
    ]
    torch.testing.assert_close(got.double(), torch.tensor(wanted).double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("scoring", ["one_pass", "continued"])
@pytest.mark.parametrize(("most", "tokens"), [(256, 6), (2, 7)])
def test_what_names_share_is_computed_once_in_passes_of_bounded_size(
    model, tiny, prepare, answers, monkeypatch, scoring, most, tokens
):
    """The names have 8 tokens and share 2; passes of 2 tokens part "open" from "open palm down"."""
    monkeypatch.setattr("signbridge.model.answers._MOST_TOKENS", most)
    inputs, run = prepare(ROWS[:1]), []
    request = CaptureRequest((0,), answers=answers, scoring=scoring)
    wanted = run_batch(
        model, inputs, tiny.image_token_id, CaptureRequest((0,), answers=answers, scoring="forced")
    )
    embedding = model.get_input_embeddings()
    with_hook = embedding.register_forward_hook(lambda _, args, out: run.append(args[0].numel()))
    got = run_batch(model, inputs, tiny.image_token_id, request)
    with_hook.remove()
    assert sum(run) - inputs["input_ids"].numel() == tokens
    torch.testing.assert_close(got.class_logprob, wanted.class_logprob, rtol=1e-5, atol=1e-4)


def test_the_tree_of_names():
    tree = NameTree.of([(5,), (5, 6), (7, 6, 8), (5, 6, 9)])
    assert tree.tokens == (5, 6, 7, 6, 8, 9)
    assert tree.parents == (-1, 0, -1, 2, 3, 1)
    assert tree.levels == ((0, 2), (1, 3), (4, 5))
    assert tree.last == (0, 1, 4, 5)
    steps = torch.tensor([[1.0, 2, 4, 8, 16, 32]])
    assert tree.scores(steps, None).tolist() == [[1, 3, 28, 35]]
    assert tree.scores(steps, 100 * steps).tolist() == [[101, 203, 1628, 3235]]


@pytest.mark.parametrize(("names", "tokens"), [(9, 99), (2, 99), (9, 3), (9, 1)])
def test_parts_hold_every_name_once_within_bounds(names, tokens):
    answers = ((7, 6, 8), (5,), (5, 6), (7,), (5, 6, 9), (4, 4, 4, 4))
    found = list(parts(answers, names, tokens))
    assert sorted(k for part in found for k in part) == list(range(6))
    for part in found:
        assert len(part) <= names
        assert len(part) == 1 or len(NameTree.of([answers[k] for k in part]).tokens) <= tokens
    assert (len(found) == 1) == (names == 9 and tokens == 99)


@pytest.mark.parametrize("position", ["last_prompt", "image_mean", "last_generated"])
def test_vectors_and_answers_are_those_without_forced_choice(
    model, tiny, prepare, answers, position
):
    inputs = prepare(ROWS, PROMPTS)
    tokens = {"max_new_tokens": 5, "position": position}
    plain = run_batch(model, inputs, tiny.image_token_id, CaptureRequest(ALL, **tokens))
    asked = run_batch(
        model, inputs, tiny.image_token_id, CaptureRequest(ALL, answers=answers, **tokens)
    )
    assert plain.class_logprob is None
    assert torch.equal(plain.answer_ids, asked.answer_ids)
    assert torch.equal(plain.resid_post, asked.resid_post)


def test_generation_settings_do_not_touch_the_probabilities(
    model, tiny, prepare, answers, monkeypatch
):
    inputs = prepare(ROWS)
    request = CaptureRequest(ALL, answers=answers, max_new_tokens=3)
    free = run_batch(model, inputs, tiny.image_token_id, request).class_logprob
    monkeypatch.setattr(model.generation_config, "suppress_tokens", [answers[0][0]])
    held = run_batch(model, inputs, tiny.image_token_id, request).class_logprob
    assert torch.equal(free, held)


def test_generated_names_score_as_written_where_no_token_ends_an_answer(
    model, tiny, prepare, answers, monkeypatch
):
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    inputs = prepare(ROWS[:1], PROMPTS[:1])
    scores = forced(model, inputs, answers)[0].tolist()
    wanted = [one_by_one(model, tiny, prepare, ROWS[0], PROMPTS[0], name) for name in NAMES]
    assert scores == pytest.approx(wanted, abs=1e-4)


def test_probabilities_of_disjoint_answers_add_up_to_less_than_one(model, tiny, prepare, answers):
    got = run_batch(
        model, prepare(ROWS), tiny.image_token_id, CaptureRequest(ALL, answers=answers)
    ).class_logprob
    assert got.dtype == torch.float32
    assert (got.exp().sum(1) < 1).all()


def test_a_name_without_a_token_is_named(tiny):
    with pytest.raises(ModelError, match=r"no token for the class name 'zebra'"):
        class_answers(tiny.processor.tokenizer, DEFAULT_PROMPT, ["A", "zebra"])


def test_names_that_are_written_alike_are_named(tiny):
    with pytest.raises(ModelError, match=r"'up down' and 'up  down' alike"):
        class_answers(tiny.processor.tokenizer, DEFAULT_PROMPT, ["up down", "up  down"])


def test_a_tokenizer_that_joins_name_and_prompt_is_refused():
    def join(text):
        return {"input_ids": [len(text)]}

    tokenizer = type(
        "Joining",
        (),
        {"unk_token_id": None, "eos_token_id": None, "__call__": lambda self, t: join(t)},
    )()
    with pytest.raises(ModelError, match=r"joins the class name 'A'"):
        class_answers(tokenizer, "is it", ["A"])


def test_subword_names_take_all_their_tokens(tmp_path):
    """A byte-pair tokenizer with a space marker, as LLaVA's."""
    from tokenizers import Tokenizer, decoders, models, normalizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "</s>", "▁", "s", "i", "g", "n", ":", "▁s", "▁si", "gn", "A", "▁A"]
    merges = [("▁", "s"), ("▁s", "i"), ("g", "n"), ("▁", "A")]
    made = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, merges, unk_token="<unk>"))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Replace("▁", " ")
    PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>").save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    found = class_answers(tokenizer, "sign:", ["A", "sign", "sig"])
    assert found == ((12,), (9, 10), (9, 5))
    # A space at the prompt's end would become part of the name's token.
    with pytest.raises(ModelError, match="end the prompt without a space"):
        class_answers(tokenizer, "sign: ", ["A"])
