"""Forced choice: how probable each class name is as the model's whole answer.

The probability of a name is that of its tokens, one after the other, followed by the end of the
answer: ``log p(name) = sum_j log p(token_j | prompt, tokens before) + log p(end | prompt, name)``.
(Of a model that knows no end token it is that of the tokens alone.) Answers that end are disjoint
events, so names of different lengths compare as they are, with no correction for length, and no
name's probability holds that of another it begins ("A", "AB").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from signbridge.errors import ModelError
from signbridge.model.families import position_ids

ClassAnswers = tuple[tuple[int, ...], ...]
"""For each class the ids of its name's tokens as they follow the prompt."""


def class_answers(tokenizer: Any, prompt: str, class_names: Sequence[str]) -> ClassAnswers:
    """Tokenise class names as they continue a prompt.

    A name follows the prompt after a space, or directly where the prompt ends in white space (as
    chat templates do).

    Args:
        tokenizer: the model's tokenizer.
        prompt: the prompt as text, with one image token.
        class_names: the names, in the order of the labels.

    Raises:
        ModelError: if the tokenizer does not keep the prompt's tokens when a name follows it, has
            no token for a name, or writes two names the same.
    """
    close = tokenizer.eos_token_id

    def tokens(text: str) -> tuple[int, ...]:
        ids = tuple(tokenizer(text)["input_ids"])
        return ids[:-1] if ids[-1:] == (close,) else ids  # some tokenizers close every text

    before = tokens(prompt)
    gap = "" if prompt[-1:].isspace() else " "
    found: list[tuple[int, ...]] = []
    for name in class_names:
        whole = tokens(prompt + gap + name)
        answer = whole[len(before) :]
        if whole[: len(before)] != before or not answer:
            raise ModelError(
                f"The tokenizer joins the class name {name!r} to the end of the prompt, so its "
                "probability cannot be told: end the prompt without a space or use "
                "--forced_choice false."
            )
        if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in answer:
            raise ModelError(
                f"The tokenizer has no token for the class name {name!r}, so its probability "
                "cannot be told: use --forced_choice false."
            )
        if answer in found:
            other = class_names[found.index(answer)]
            raise ModelError(
                f"The tokenizer writes the class names {other!r} and {name!r} alike, so they "
                "cannot be told apart: use --forced_choice false."
            )
        found.append(answer)
    return tuple(found)


def end_ids(model: Any) -> list[int]:
    """Return the ids of the tokens that end an answer; none where the model knows none."""
    ids = model.generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


@torch.inference_mode()
def score_answers(
    model: Any,
    cache: DynamicCache,
    next_logits: torch.Tensor,
    attention_mask: torch.Tensor,
    answers: ClassAnswers,
) -> torch.Tensor:
    """Score every class name as the answer, all in one forward pass over the prompt's cache.

    The names stand one after the other in that pass; an attention mask lets each token see the
    prompt and the tokens of its own name before it, at the position it would have as the answer.
    The cache is left as it was.

    Args:
        model: the model.
        cache: keys and values of the prompt, of every row.
        next_logits: logits after the prompt, shape (batch, vocabulary).
        attention_mask: of the prompt, shape (batch, tokens), 1 for a real token.
        answers: the class names' tokens.

    Returns:
        Natural logarithms of the probabilities, float32, shape (batch, classes).

    Raises:
        ModelError: if the model numbers its positions in a way that cannot be continued so.
    """
    if not position_ids(model, attention_mask):
        raise ModelError(
            f"Forced choice is not available for {type(model).__name__}, which numbers its "
            "positions along several axes: use --forced_choice false."
        )
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
        position_ids=attention_mask.long().sum(-1, keepdim=True) + depth,
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
