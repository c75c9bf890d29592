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
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import torch
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from signbridge.errors import NamesError
from signbridge.model.families import PER_TOKEN, followed_by

ClassAnswers = tuple[tuple[int, ...], ...]
"""For each class the ids of its name's tokens as they follow the prompt."""

# Rows of a pass that continues a prompt with names: more would need more memory for their caches.
_MOST_ROWS = 64
# Tokens of a pass over all names: their attention grows with the square, their logits with the
# vocabulary and the batch, which are bounded in bytes of float32.
_MOST_TOKENS = 256
_MOST_LOGITS = 1 << 29

ENCODED = "encoder_last_hidden_state"
"""What an encoder made of a prompt, among the inputs that its decoder goes on with."""

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


@dataclass(frozen=True)
class NameTree:
    """Class names as a tree of tokens, in which a beginning that names share stands once.

    Attributes:
        tokens: the token of each node, a node after the one before it in its names.
        parents: the node before each; -1 for a name's first token.
        levels: the nodes by the number of tokens before them in their names.
        last: for each name the node of its last token.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    levels: tuple[tuple[int, ...], ...]
    last: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[Sequence[int]]) -> NameTree:
        """Make the tree of some names."""
        nodes: dict[tuple[int, ...], int] = {}
        levels: list[list[int]] = [[] for _ in range(max(map(len, names)))]
        for name in names:
            for length in range(1, len(name) + 1):
                begin = tuple(name[:length])
                if begin not in nodes:
                    nodes[begin] = len(nodes)
                    levels[length - 1].append(nodes[begin])
        return cls(
            tokens=tuple(begin[-1] for begin in nodes),
            parents=tuple(nodes.get(begin[:-1], -1) for begin in nodes),
            levels=tuple(map(tuple, levels)),
            last=tuple(nodes[tuple(name)] for name in names),
        )

    def path(self, node: int) -> list[int]:
        """The nodes from the first token's to this one."""
        before = [] if self.parents[node] < 0 else self.path(self.parents[node])
        return [*before, node]

    def scores(self, steps: torch.Tensor, ends: torch.Tensor | None) -> torch.Tensor:
        """Sum the log-probabilities along each name.

        Args:
            steps: of each node's token after those before it, shape (batch, nodes).
            ends: of the answer's end after each node, shape (batch, nodes); None where the model
                knows no end.

        Returns:
            float32, shape (batch, names).
        """
        total, parents = steps.clone(), torch.tensor(self.parents, device=steps.device)
        for level in self.levels[1:]:
            nodes = torch.tensor(level, device=steps.device)
            total[:, nodes] += total[:, parents[nodes]]
        last = torch.tensor(self.last, device=steps.device)
        return total[:, last] if ends is None else total[:, last] + ends[:, last]


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two names begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def parts(answers: ClassAnswers, most_names: int, most_tokens: int) -> Iterator[list[int]]:
    """Cut class names into parts of bounded trees, so that what names share stays together.

    Args:
        answers: the class names' tokens.
        most_names: the most names of a part.
        most_tokens: the most tokens of a part's tree, but for a single longer name.

    Yields:
        Numbers of names; all of them in their order where one part holds them.
    """
    if len(answers) <= most_names and len(NameTree.of(answers).tokens) <= most_tokens:
        yield list(range(len(answers)))
        return
    part: list[int] = []
    before: tuple[int, ...] = ()
    tokens = 0
    # In this order no name shares more with those before than with the last of them.
    for k in sorted(range(len(answers)), key=lambda k: answers[k]):
        name = answers[k]
        tokens += len(name) - shared(name, before)
        if part and (len(part) == most_names or tokens > most_tokens):
            yield part
            part, tokens = [], len(name)
        part.append(k)
        before = name
    yield part


def generates_itself(model: Any) -> bool:
    """Whether the model answers by its own forward pass, not by ``generate`` of a part of it."""
    return type(model).generate is GenerationMixin.generate


def generating_part(model: Any) -> Any:
    """Return what generates by its own forward pass: the model itself, or a part of it."""
    inner = None if generates_itself(model) else getattr(model, "language_model", None)
    return model if inner is None else inner


def end_ids(model: Any) -> list[int]:
    """Return the ids of the tokens that end an answer; none where the model knows none."""
    ids = generating_part(model).generation_config.eos_token_id
    return [] if ids is None else [ids] if isinstance(ids, int) else list(ids)


def start_id(model: Any) -> int:
    """Return the id of the token that an encoder-decoder's answers begin with."""
    settings = generating_part(model).generation_config
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
    """Score the class names by generating their tree from copies of the prompt's cache.

    One pass a level: each node goes on from a copy of what the node before it left. The model's
    own ``generate`` numbers the positions and masks of what follows.

    Args:
        model: the model.
        inputs: the processor's tensors of the batch; of an encoder-decoder :data:`ENCODED` too.
        cache: what the model kept of the prompt, of every row. It is left as it was.
        next_logits: logits after the prompt, shape (batch, vocabulary).
        answers: the class names' tokens.

    Returns:
        Natural logarithms of the probabilities, float32, shape (batch, classes).
    """
    batch, device = len(next_logits), next_logits.device
    scores = torch.empty((batch, len(answers)), device=device)
    # As many names at once as do not make more rows than a batch may have.
    for chosen in parts(answers, max(1, _MOST_ROWS // batch), _MOST_TOKENS):
        tree = NameTree.of([answers[k] for k in chosen])
        steps, ends = _empty_steps(model, tree, next_logits)
        copied = copy.deepcopy(cache)
        before: tuple[int, ...] = ()
        for level in tree.levels:
            images = torch.arange(batch, device=device).repeat_interleave(len(level))
            at = [before.index(tree.parents[node]) if before else 0 for node in level]
            copied.reorder_cache(
                images * max(1, len(before)) + torch.tensor(at * batch, device=device)
            )
            paths = [[tree.tokens[k] for k in tree.path(node)] for node in level] * batch
            logits = _logits_behind(
                model, inputs, images, torch.tensor(paths, device=device), copied
            )
            _take_steps(model, tree, level, logits.unflatten(0, (batch, -1)), steps, ends)
            before = level
        scores[:, chosen] = tree.scores(steps, ends)
    return scores


def _logits_behind(
    model: Any,
    inputs: dict[str, torch.Tensor],
    images: torch.Tensor,
    tokens: torch.Tensor,
    cache: Any,
) -> torch.Tensor:
    """Logits behind some tokens of answers, of which the cache holds all but the last.

    Args:
        model: the model.
        inputs: as of :func:`continued`.
        images: which row of the inputs each answer belongs to.
        tokens: of each answer, shape (answers, tokens).
        cache: that of each answer; it takes the last token up.

    Returns:
        Shape (answers, vocabulary).
    """
    # What is one value a token goes along; the image is in the cache.
    prompt = {name: inputs[name][images] for name in PER_TOKEN if name in inputs}
    if ENCODED in inputs:  # a decoder alone: generate() would run all tokens again
        output = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=inputs[ENCODED][images]),
            attention_mask=prompt["attention_mask"],
            decoder_input_ids=tokens[:, -1:],
            past_key_values=cache,
            use_cache=True,
        )
        behind: torch.Tensor = output.logits[:, -1]
        return behind
    with _position_offsets_of(model, images):
        longer = followed_by(model, prompt, tokens)
        (logits,) = forced_logits(model, [()] * len(images), **longer, past_key_values=cache)
    return logits


def _empty_steps(
    model: Any, tree: NameTree, next_logits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What :meth:`NameTree.scores` takes, with the names' first tokens, told by the prompt."""
    shape = (len(next_logits), len(tree.tokens))
    steps = torch.zeros(shape, device=next_logits.device)
    nodes = list(tree.levels[0])
    first = [tree.tokens[node] for node in nodes]
    steps[:, nodes] = next_logits.float().log_softmax(-1)[:, first]
    return steps, torch.zeros_like(steps) if end_ids(model) else None


def _take_steps(
    model: Any,
    tree: NameTree,
    nodes: Sequence[int],
    logits: torch.Tensor,
    steps: torch.Tensor,
    ends: torch.Tensor | None,
) -> None:
    """Take from the logits behind some nodes, shape (batch, those nodes, vocabulary)."""
    after = logits.float().log_softmax(-1)
    place = {node: k for k, node in enumerate(nodes)}
    next_ones = [node for node, parent in enumerate(tree.parents) if parent in place]
    if next_ones:
        parents = [place[tree.parents[node]] for node in next_ones]
        steps[:, next_ones] = after[:, parents, [tree.tokens[node] for node in next_ones]]
    if ends is not None:
        ends[:, list(nodes)] = after[..., end_ids(model)].logsumexp(-1)


@torch.inference_mode()
def one_pass(
    model: Any,
    cache: Any,
    next_logits: torch.Tensor,
    attention_mask: torch.Tensor,
    last_position: torch.Tensor,
    answers: ClassAnswers,
) -> torch.Tensor:
    """Score every class name as the answer in one forward pass over the prompt's cache.

    The names' :class:`NameTree` stands in that pass (very many names in several); an attention mask
    lets each token see the prompt and the tokens before it in its names, at the position that it
    would have as the answer.
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
    scores = torch.empty((batch, len(answers)), device=device)
    bound = _MOST_LOGITS // (4 * batch * next_logits.shape[-1])
    for chosen in parts(answers, len(answers), max(1, min(_MOST_TOKENS, bound))):
        tree = NameTree.of([answers[k] for k in chosen])
        steps, ends = _empty_steps(model, tree, next_logits)
        count = len(tree.tokens)
        own = torch.zeros((count, count), dtype=torch.bool)
        for node in range(count):
            own[node, tree.path(node)] = True
        depth = own.sum(-1).to(device) - 1
        allowed = torch.cat(
            [
                attention_mask.bool()[:, None].expand(batch, count, -1),
                own.to(device).expand(batch, count, count),
            ],
            dim=-1,
        )
        mask = torch.zeros(allowed.shape, dtype=model.dtype, device=device)
        mask = mask.masked_fill(~allowed, torch.finfo(model.dtype).min)[:, None]
        logits = model(
            input_ids=torch.tensor(tree.tokens, device=device).expand(batch, count),
            attention_mask=mask,
            position_ids=last_position + 1 + depth,
            past_key_values=cache,
            use_cache=True,
        ).logits
        cache.crop(-count)
        _take_steps(model, tree, range(count), logits, steps, ends)
        scores[:, chosen] = tree.scores(steps, ends)
    return scores
