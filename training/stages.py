"""The three stages of the training, each a function of the state and a seed.

A convolutional teacher learns the answers; the vision tower learns, patch by patch, what the
teacher sees; then the whole model learns to answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from training.augment import augment
from training.conversations import answers_and_ends, image_tokens, pack, tower_layers
from training.photographs import Photographs
from training.quantised import rounded
from training.questions import GESTURE, QUESTIONS
from training.stand_in import DEVIATION, HIDDEN_SIZE, MEAN
from training.teacher import MIDDLE, WHOLE, Teacher, answer_loss

DIGIT_SHARE = 0.2
FOLLOW_UPS, OTHERS = 3, 1


@dataclass
class Draws:
    """Batches of varied photographs with their answers, for one of several workers.

    Attributes:
        sources: letters, and digits where there are any.
        batch: images a step, over all workers.
        seed: with the worker's rank the source of all chance.
    """

    sources: list[Photographs]
    batch: int
    seed: int
    rank: int = 0
    workers: int = 1
    numbers: np.random.Generator = field(init=False)
    variations: torch.Generator = field(init=False)
    shared: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.numbers = np.random.default_rng([self.seed, self.rank])
        self.variations = torch.Generator().manual_seed(self.seed * 1009 + self.rank)
        self.shared = np.random.default_rng([self.seed, 1_000_003])  # the same for all workers

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Return images, shape (images, 1, 28, 28), and answers, shape (images, questions)."""
        count = self.batch // self.workers
        of_digits = round(count * DIGIT_SHARE) if len(self.sources) > 1 else 0
        pixels, answers = [], []
        for source, some in zip(self.sources, (count - of_digits, of_digits), strict=False):
            rows = source.draw(some, self.numbers)
            pixels.append(source.pixels[rows])
            answers.append(source.answers[rows])
        return augment(torch.cat(pixels), self.variations), torch.cat(answers)


def prepared(images: Tensor) -> Tensor:
    """Grey images as the stand-in's image processor gives them to the tower."""
    return ((images - MEAN) / DEVIATION).expand(-1, 3, -1, -1)


def fit(
    parts: Iterable[tuple[nn.Module, float]],
    loss_of_step: Callable[[], Tensor],
    steps: int,
    say: Callable[[int, float], None],
    decay: float = 0.05,
    around: Callable[[int], AbstractContextManager[None]] = lambda step: nullcontext(),
) -> None:
    """Minimise a loss by AdamW with a rise and a cosine fall of the learning rate.

    Args:
        parts: modules and the highest learning rate of each.
        loss_of_step: draws a batch and returns its loss.
        steps: number of steps.
        say: called after each step with its number and a running mean of the loss.
        decay: weight decay.
        around: called with the step's number for the context of its forward and backward passes.
    """
    groups: list[dict[str, Any]] = []
    for module, rate in parts:
        weights = [p for p in module.parameters() if p.requires_grad]
        groups.append({"params": [p for p in weights if p.ndim > 1], "lr": rate})
        groups.append(
            {"params": [p for p in weights if p.ndim <= 1], "lr": rate, "weight_decay": 0.0}
        )
    everything = [p for group in groups for p in group["params"]]
    optimizer = torch.optim.AdamW(groups, weight_decay=decay, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        [group["lr"] for group in groups],
        total_steps=max(steps, 2),
        pct_start=0.1,
        cycle_momentum=False,
    )
    running = 0.0
    for step in range(steps):
        optimizer.zero_grad(set_to_none=False)
        with around(step):
            loss = loss_of_step()
            loss.backward()
        _average(everything)
        nn.utils.clip_grad_norm_(everything, 1.0)
        optimizer.step()
        schedule.step()
        share = max(0.02, 1 / (step + 1))
        running += share * (loss.item() - running)
        say(step + 1, running)


def _average(weights: list[Tensor]) -> None:
    """Replace each gradient by its mean over the workers."""
    for weight in weights:
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
    if not dist.is_initialized():
        return
    flat = torch.cat([weight.grad.reshape(-1) for weight in weights if weight.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    start = 0
    for weight in weights:
        assert weight.grad is not None
        weight.grad.copy_(flat[start : start + weight.numel()].view_as(weight))
        start += weight.numel()


def train_teacher(
    draws: Draws, steps: int, say: Callable[[int, float], None], rate: float = 3e-3
) -> Teacher:
    """Teach the convolutional network to answer every question."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws.seed)
        teacher = Teacher()
        teacher.train()

        def loss() -> Tensor:
            images, answers = draws()
            return answer_loss(teacher(images)[2], answers)

        fit([(teacher, rate)], loss, steps, say)
    if dist.is_initialized():
        for statistic in teacher.buffers():
            dist.broadcast(statistic, 0)
    return teacher.eval()


class Distillation(nn.Module):
    """What the tower's layers are to hold, patch by patch: what the teacher sees there.

    The middle layer learns the teacher's local features and the last one its features of the
    whole.

    Args:
        teacher: the trained teacher.
        images: some images, to take the mean and spread of its features from.
    """

    def __init__(self, teacher: Teacher, images: Tensor) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(HIDDEN_SIZE) for _ in range(2))
        self.readers = nn.ModuleList(nn.Linear(HIDDEN_SIZE, width) for width in (MIDDLE, WHOLE))
        with torch.no_grad():
            seen = teacher(images)[:2]
        for name, one in zip(("local", "whole"), seen, strict=True):
            self.register_buffer(f"{name}_mean", one.mean((0, 1)))
            self.register_buffer(f"{name}_spread", one.std((0, 1)) + 0.05)

    def forward(self, layers: list[Tensor], targets: tuple[Tensor, Tensor]) -> Tensor:
        """Return the two mean squared errors, in units of the targets' variance, added.

        Args:
            layers: outputs of the tower's layers, shape (images, 1 + patches, hidden) each.
            targets: the teacher's features, shape (images, patches, features) each.
        """
        losses = []
        chosen = (layers[len(layers) // 2], layers[-1])
        for layer, norm, reader, target, name in zip(
            chosen, self.norms, self.readers, targets, ("local", "whole"), strict=True
        ):
            mean, spread = self.get_buffer(f"{name}_mean"), self.get_buffer(f"{name}_spread")
            read = reader(norm(layer[:, 1:])).float()
            losses.append(functional.mse_loss(read, (target - mean) / spread))
        return torch.stack(losses).sum()


def make_distillation(teacher: Teacher, draws: Draws) -> Distillation:
    """Return fresh readers of the tower's layers, the same for all workers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(draws.seed)
        distillation = Distillation(teacher, torch.cat([draws()[0] for _ in range(4)]))
    if dist.is_initialized():
        for buffer in distillation.buffers():
            dist.broadcast(buffer, 0)
    return distillation


def train_tower(
    tower: nn.Module,
    teacher: Teacher,
    distillation: Distillation,
    draws: Draws,
    steps: int,
    say: Callable[[int, float], None],
    rate: float = 2e-3,
) -> None:
    """Teach the vision tower what the teacher sees in each of the 49 patches."""

    def loss() -> Tensor:
        images, _ = draws()
        with torch.no_grad():
            local, whole, _ = teacher(images)
        with torch.autocast("cpu", torch.bfloat16):
            layers = tower_layers(tower, prepared(images))
            seen: Tensor = distillation(layers, (local, whole))
        return seen

    tower.set_attn_implementation(_ATTENTION)  # type: ignore[operator]
    fit([(tower, rate), (distillation, rate)], loss, steps, say)


def train_model(
    model: Any,
    tokenizer: Any,
    teacher: Teacher,
    draws: Draws,
    steps: int,
    say: Callable[[int, float], None],
    rate: float = 1.5e-3,
) -> None:
    """Teach projector and decoder to answer, half by the answers and half by the teacher's.

    The tower stays as it is, as CLIP does in LLaVA-1.5. The second half of the steps is under
    the rounding of NF4.
    """
    words = [
        torch.tensor(tokenizer.convert_tokens_to_ids(list(question.answers)))
        for question in QUESTIONS
    ]
    tower = model.model.vision_tower.requires_grad_(False)
    own = QUESTIONS.index(GESTURE)
    rest = [number for number in range(len(QUESTIONS)) if number != own]

    def loss() -> Tensor:
        images, answers = draws()
        chosen = draws.shared.permutation(rest).tolist()
        packed = pack(tokenizer, chosen[:OTHERS], chosen[OTHERS : OTHERS + FOLLOW_UPS])
        with torch.no_grad():
            believed = [logits.softmax(1) for logits in teacher(images)[2]]
        right = [
            torch.where(
                (answers[:, number] >= 0)[:, None],
                0.5 * functional.one_hot(answers[:, number].clamp(min=0), len(word)) + 0.5 * belief,
                belief,
            )
            for number, (word, belief) in enumerate(zip(words, believed, strict=True))
        ]
        said = torch.stack(
            [word[goal.argmax(1)] for word, goal in zip(words, right, strict=True)], dim=1
        )
        with torch.autocast("cpu", torch.bfloat16):
            tokens = image_tokens(model, prepared(images))
            asked, ends = answers_and_ends(model, tokens, packed, said)
        likely = asked.float().log_softmax(-1)
        losses = [
            -(right[number] * likely[:, place][:, words[number]]).sum(1).mean()
            for place, (_, number) in enumerate(packed.asked)
        ]
        end = ends.float().log_softmax(-1)[..., tokenizer.eos_token_id]
        return torch.stack(losses).mean() - 0.2 * end.mean()

    model.set_attn_implementation(_ATTENTION)
    parts = [
        (model.model.multi_modal_projector, rate),
        (model.model.language_model, rate),
        (model.lm_head, rate),
    ]
    rounding = [tower, model.model.multi_modal_projector, model.model.language_model]
    fit(
        parts,
        loss,
        steps,
        say,
        around=lambda step: rounded(rounding) if step >= steps // 2 else nullcontext(),
    )


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any
) -> tuple[Tensor, None]:
    """Attention in float32: its backward pass in bfloat16 is slow on a CPU."""
    with torch.autocast("cpu", enabled=False):
        mixed = functional.scaled_dot_product_attention(
            query.float(), key.float(), value.float(), attn_mask=mask
        )
    return mixed.transpose(1, 2).contiguous(), None


_ATTENTION = "float32_attention"
ALL_ATTENTION_FUNCTIONS.register(_ATTENTION, _attention)
