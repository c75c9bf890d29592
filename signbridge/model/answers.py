"""Forced choice: how probable each class name is as the model's whole answer.

The probability of a name is that of its tokens, one after the other, followed by the end of the
answer: ``log p(name) = sum_j log p(token_j | prompt, tokens before) + log p(end | prompt, name)``.
(Of a model that knows no end token it is that of the tokens alone.) Answers that end are disjoint
events, so names of different lengths compare as they are, with no correction for length, and no
name's probability holds that of another it begins ("A", "AB").
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

from signbridge.errors import NamesError
from signbridge.model.families import PER_TOKEN, followed_by

ClassAnswers = tuple[tuple[int, ...], ...]
"""For each class the ids of its name's tokens as they follow the prompt."""

# Rows of a pass that continues a prompt with names: more would need more memory for their caches.
_MOST_ROWS = 64

Scoring = Literal["one_pass", "continued", "forced"]
"""How the names are scored, fastest first; see the functions of those names here."""


def class_answers(tokenizer: Any, prompt: str | None, class_names: Sequence[str]) -> ClassAnswers:
    """Tokenise class names as they continue a prompt.

    A name follows the prompt after a space, or directly where the prompt ends in white space (as
    chat templates do).

    Args:
        tokenizer: the model's tokenizer.
        prompt: the prompt as text, with one image token, or None where the answer is a text of its
            own (that of an encoder-decoder).
        class_names: the names, in the order of the labels.

    Raises:
        NamesError: if the tokenizer does not keep the prompt's tokens when a name follows it, has
            no token for a name, or writes two names the same.
    """
    close = tokenizer.eos_token_id

    def tokens(text: str) -> tuple[int, ...]:
        marks = {} if prompt is not None else {"add_special_tokens": False}
        ids = tuple(tokenizer(text, **marks)["input_ids"])
        return ids[:-1] if ids[-1:] == (close,) else ids  # some tokenizers close every text

    before = tokens(prompt) if prompt else ()
    gap = "" if not prompt or prompt[-1:].isspace() else " "
    found: list[tuple[int, ...]] = []
    for name in class_names:
        whole = tokens((prompt or "") + gap + name)
        answer = whole[len(before) :]
        if whole[: len(before)] != before or not answer:
            raise NamesError(
                f"The tokenizer joins the class name {name!r} to the end of the prompt, so its "
                "probability cannot be told (it can if you end the prompt without a space)"
            )
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in answer:
            raise NamesError(
                f"The tokenizer has no token for the class name {name!r}, so its probability "
                "cannot be told"
            )
        if answer in found:
            other = class_names[found.index(answer)]
            raise NamesError(
                f"The tokenizer writes the class names {other!r} and {name!r} alike, so they "
                "cannot be told apart"
            )
        found.append(answer)
    return tuple(found)


def generates_itself(model: Any) -> bool:
    """Whether the model answers by its own forward pass, not by ``generate`` of a part of it."""
    return type(model).generate is GenerationMixin.generate


def _generation_config(model: Any) -> Any:
    """The settings of the part that generates."""
    inner = None if generates_itself(model) else getattr(model, "language_model", None)
    return (inner if inner is not None else model).generation_config


def end_ids(model: Any) -> list[int]:
    """Return the ids of the tokens that end an answer; none where the model knows none."""
    ids = _generation_config(model).eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def start_id(model: Any) -> int:
    """Return the id of the token that an encoder-decoder's answers begin with."""
    settings = _generation_config(model)
    start = settings.decoder_start_token_id
    return int(settings.bos_token_id if start is None else start)


def name_logprob(logits: torch.Tensor, name: Sequence[int], ends: Sequence[int]) -> torch.Tensor:
    """Return the log-probability of one name from the logits before each of its tokens.

    Args:
        logits: shape (batch, tokens of the name + 1, vocabulary); the last ones follow the name.
        name: ids of the name's tokens.
        ends: ids of the tokens that end an answer.

    Returns:
        float32, shape (batch,).
    """
    steps = logits.float().log_softmax(-1)
    total = sum(steps[:, place, token] for place, token in enumerate(name))
    assert isinstance(total, torch.Tensor)
    return total + steps[:, -1, list(ends)].logsumexp(-1) if ends else total


class _Force(LogitsProcessor):
    """Makes generation write the given tokens, a row of them for each row, whatever it would say.

    Behind a row's own tokens it writes what it likes.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self._rows = rows
        self._place = 0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.clone()  # the raw logits are handed on
        for row, tokens in enumerate(self._rows):
            if self._place < len(tokens):
                scores[row] = -torch.inf
                scores[row, tokens[self._place]] = 0
        self._place += 1
        return scores


def forced_logits(model: Any, rows: Sequence[Sequence[int]], **inputs: Any) -> list[torch.Tensor]:
    """Return the model's raw logits while it generates given tokens.

    Args:
        model: the model.
        rows: the tokens of each row of the batch; none gives the logits after the prompt.
        inputs: the processor's tensors of the batch, and what else ``generate`` takes.

    Returns:
        The logits before each token of the longest row and after its last, each of shape (batch,
        vocabulary).
    """
    steps = max(len(tokens) for tokens in rows) + 1
    made = model.generate(
        **inputs,
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        num_beams=1,
        logits_processor=LogitsProcessorList([_Force(rows)]),
        output_logits=True,
        return_dict_in_generate=True,
    )
    return list(made.logits)


@torch.inference_mode()
def forced(model: Any, inputs: dict[str, torch.Tensor], answers: ClassAnswers) -> torch.Tensor:
    """Score every class name by letting the model generate it: a prompt's pass for each.

    Nothing but ``generate`` is used, so it holds for every family that can generate.

    Args:
        model: the model.
        inputs: the processor's tensors of the batch.
        answers: the class names' tokens.

    Returns:
        Natural logarithms of the probabilities, float32, shape (batch, classes).
    """
    ends, batch = end_ids(model), len(inputs["input_ids"])
    scores = []
    for name in answers:
        logits = torch.stack(forced_logits(model, [name] * batch, **inputs), dim=1)
        scores.append(name_logprob(logits, name, ends))
    return torch.stack(scores, dim=1)


@contextmanager
def _position_offsets_of(model: Any, rows: torch.Tensor) -> Iterator[None]:
    """Repeat what a model with positions along several axes keeps of each row beside its cache."""
    inner = getattr(model, "model", None)
    kept = getattr(inner, "rope_deltas", None)
    if not isinstance(kept, torch.Tensor):
        yield
        return
    assert inner is not None
    inner.rope_deltas = kept[rows]
    try:
        yield
    finally:
        inner.rope_deltas = kept


@torch.inference_mode()
def continued(
    model: Any,
    inputs: dict[str, torch.Tensor],
    cache: Any,
    next_logits: torch.Tensor,
    answers: ClassAnswers,
) -> torch.Tensor:
    """Score the class names by generating them from copies of the prompt's cache.

    The model's own ``generate`` numbers the positions and masks of what follows.

    Args:
        model: the model.
        inputs: the processor's tensors of the batch.
        cache: what the model kept of the prompt, of every row. It is left as it was.
        next_logits: logits after the prompt, shape (batch, vocabulary).
        answers: the class names' tokens.

    Returns:
        Natural logarithms of the probabilities, float32, shape (batch, classes).
    """
    ends, batch, device = end_ids(model), len(next_logits), next_logits.device
    scores = torch.empty((batch, len(answers)), device=device)
    # As many names at once as do not make more rows than a batch may have; of one length first.
    order = sorted(range(len(answers)), key=lambda k: len(answers[k]))
    together = max(1, _MOST_ROWS // batch)
    for start in range(0, len(order), together):
        chosen = order[start : start + together]
        rows = torch.arange(batch, device=device).repeat_interleave(len(chosen))
        names = [answers[k] for k in chosen] * batch
        copied = copy.deepcopy(cache)
        copied.reorder_cache(rows)
        # What is one value a token goes along; the image is in the cache.
        prompt = {name: inputs[name][rows] for name in PER_TOKEN if name in inputs}
        first = torch.tensor([name[:1] for name in names], device=device)
        longer = followed_by(model, prompt, first)
        with _position_offsets_of(model, rows):
            rest = forced_logits(
                model, [name[1:] for name in names], **longer, past_key_values=copied
            )
        logits = torch.stack([next_logits[rows], *rest], dim=1)
        for place, k in enumerate(chosen):
            own = logits[place :: len(chosen), : len(answers[k]) + 1]
            scores[:, k] = name_logprob(own, answers[k], ends)
    return scores


@torch.inference_mode()
def one_pass(
    model: Any,
    cache: Any,
    next_logits: torch.Tensor,
    attention_mask: torch.Tensor,
    last_position: torch.Tensor,
    answers: ClassAnswers,
) -> torch.Tensor:
    """Score every class name as the answer, all in one forward pass over the prompt's cache.

    The names stand one after the other in that pass; an attention mask lets each token see the
    prompt and the tokens of its own name before it, at the position it would have as the answer.
    The cache is left as it was. It holds for models whose tokens see all that came before, and
    whose positions go on by one a token.

    Args:
        model: the model.
        cache: keys and values of the prompt, of every row.
        next_logits: logits after the prompt, shape (batch, vocabulary).
        attention_mask: of the prompt, shape (batch, tokens), 1 for a real token.
        last_position: position of each row's last token, shape (batch, 1), or (axes, batch, 1).
        answers: the class names' tokens.

    Returns:
        Natural logarithms of the probabilities, float32, shape (batch, classes).
    """
    device, batch = attention_mask.device, len(attention_mask)
    flat = torch.tensor([token for name in answers for token in name], device=device)
    owner = torch.tensor([k for k, name in enumerate(answers) for _ in name], device=device)
    depth = torch.tensor([j for name in answers for j in range(len(name))], device=device)
    own = (owner[:, None] == owner[None]) & (depth[:, None] >= depth[None])
    count = len(flat)
    allowed = torch.cat(
        [
            attention_mask.bool()[:, None].expand(batch, count, -1),
            own.expand(batch, count, count),
        ],
        dim=-1,
    )
    dtype = model.dtype
    mask = torch.zeros(allowed.shape, dtype=dtype, device=device)
    mask = mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]
    logits = model(
        input_ids=flat.expand(batch, count),
        attention_mask=mask,
        position_ids=last_position + 1 + depth,
        past_key_values=cache,
        use_cache=True,
    ).logits
    cache.crop(-count)

    after = logits.float().log_softmax(-1)
    first = next_logits.float().log_softmax(-1)
    # What came before each token: the prompt for a name's first, the token before for the others.
    before = torch.cat([first[:, None], after[:, :-1]], dim=1)
    before = torch.where((depth == 0)[:, None], first[:, None], before)
    steps = before.gather(-1, flat.expand(batch, count)[..., None])[..., 0]
    close = end_ids(model)
    if close:
        ends = after[..., close].logsumexp(-1)
        last = torch.ones_like(depth, dtype=torch.bool)
        last[:-1] = owner[1:] != owner[:-1]
        steps = steps + torch.where(last, ends, 0)
    total = torch.zeros((batch, len(answers)), device=device, dtype=steps.dtype)
    return total.index_add_(1, owner, steps)
