"""Several questions about one image in one forward pass.

A packed sequence is a tree: the image is its trunk; the product's own question and a few others
are branches that see the trunk and themselves, each as if it were alone. From the last token of the
product's question, where a probe reads, follow-up turns branch off that see nothing but that token
and themselves. To answer them the model must have gathered there what the image shows beyond its
one-word answer, as a "gist token" does (Mu et al. 2023, arXiv 2304.08467).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.questions import CLOSE, GESTURE, OPEN, QUESTIONS
from training.stand_in import PATCHES


@dataclass(frozen=True)
class Packed:
    """The layout of a packed sequence; the same for every image of a batch.

    Attributes:
        tokens: int64, shape (tokens,): ids, with a placeholder where an answer stands.
        positions: int64, shape (tokens,): place in its own conversation.
        visible: bool, shape (tokens, tokens): which token (column) each token (row) sees.
        asked: for each supervised answer the token that predicts it and the question's number.
        answered: for each answer its own token and the question's number.
        ends: the answers after which the end of the text is to be predicted.
    """

    tokens: Tensor
    positions: Tensor
    visible: Tensor
    asked: list[tuple[int, int]]
    answered: list[tuple[int, int]]
    ends: list[int]


def pack(tokenizer: Any, others: list[int], follow_ups: list[int]) -> Packed:
    """Lay out the product's question, ``others`` beside it and ``follow_ups`` after it.

    Args:
        tokenizer: the stand-in's.
        others: numbers of questions that see the image themselves.
        follow_ups: numbers of questions that see only the end of the product's question.
    """

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    before, after = OPEN.split("<image>")
    image = tokenizer.convert_tokens_to_ids("<image>")
    trunk = [*ids(before), *[image] * PATCHES, *ids(after)]
    tokens = list(trunk)
    positions = list(range(len(trunk)))
    sees: list[list[int]] = [list(range(place + 1)) for place in range(len(trunk))]
    asked, answered, ends = [], [], []

    def branch(text: str, number: int, start: int, past: list[int], ends_here: bool) -> int:
        question = ids(text)
        first = len(tokens)
        for place, token in enumerate([*question, tokenizer.pad_token_id]):
            tokens.append(token)
            positions.append(start + place)
            sees.append([*past, *range(first, first + place + 1)])
        last = first + len(question) - 1
        asked.append((last, number))
        answered.append((last + 1, number))
        if ends_here:
            ends.append(last + 1)
        return last

    own = QUESTIONS.index(GESTURE)
    gist = branch(f"{GESTURE.text}{CLOSE}", own, len(trunk), list(range(len(trunk))), True)
    for number in others:
        text = f"{QUESTIONS[number].text}{CLOSE}"
        branch(text, number, len(trunk), list(range(len(trunk))), True)
    for number in follow_ups:
        text = f"USER: {QUESTIONS[number].follow_up}{CLOSE}"
        branch(text, number, positions[gist] + 2, [gist], False)
    visible = torch.zeros(len(tokens), len(tokens), dtype=torch.bool)
    for row, columns in enumerate(sees):
        visible[row, columns] = True
    return Packed(torch.tensor(tokens), torch.tensor(positions), visible, asked, answered, ends)


def tower_layers(tower: Any, pixels: Tensor) -> list[Tensor]:
    """Return the outputs of the vision tower's layers, shape (images, 1 + patches, hidden)."""
    hidden = tower.pre_layrnorm(tower.embeddings(pixels))
    layers = []
    for layer in tower.encoder.layers:
        hidden = layer(hidden, attention_mask=None)
        layers.append(hidden)
    return layers


def image_tokens(model: Any, pixels: Tensor) -> Tensor:
    """Return the projected patches of the last layer but one, shape (images, patches, hidden)."""
    patches = tower_layers(model.model.vision_tower, pixels)[-2][:, 1:]
    projected: Tensor = model.model.multi_modal_projector(patches)
    return projected


def answers_and_ends(
    model: Any, images: Tensor, packed: Packed, words: Tensor
) -> tuple[Tensor, Tensor]:
    """Run a packed batch.

    Args:
        model: the stand-in.
        images: projected patches, shape (images, patches, hidden).
        packed: the layout.
        words: ids of the right answer words, shape (images, questions).

    Returns:
        Logits over the vocabulary where answers are asked for, (images, asked, vocabulary), and
        where the text should end, (images, ends, vocabulary).
    """
    tokens = packed.tokens.repeat(len(images), 1)
    for place, number in packed.answered:
        tokens[:, place] = words[:, number]
    start = int((packed.tokens == model.config.image_token_index).nonzero()[0, 0])
    embedded = model.get_input_embeddings()(tokens)
    embedded = torch.cat(
        [embedded[:, :start], images, embedded[:, start + images.shape[1] :]], dim=1
    )
    mask = torch.zeros(packed.visible.shape).masked_fill(~packed.visible, float("-inf"))
    hidden = model.model.language_model(
        inputs_embeds=embedded,
        attention_mask=mask[None, None].expand(len(images), 1, -1, -1),
        position_ids=packed.positions[None],
        use_cache=False,
    ).last_hidden_state
    places = [place for place, _ in packed.asked]
    return model.lm_head(hidden[:, places]), model.lm_head(hidden[:, packed.ends])
