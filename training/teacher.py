"""A small convolutional network: learns from few photographs what a transformer cannot."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from training.questions import QUESTIONS

MIDDLE, WHOLE = 64, 128
GRID = 7


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Teacher(nn.Module):
    """Three blocks of two convolutions, and one linear layer for the answers to each question."""

    def __init__(self) -> None:
        super().__init__()
        self.local = nn.Sequential(
            _block(1, 32), nn.MaxPool2d(2), _block(32, MIDDLE), nn.MaxPool2d(2)
        )
        self.whole = _block(MIDDLE, WHOLE)
        self.heads = nn.ModuleList(nn.Linear(WHOLE, len(q.answers)) for q in QUESTIONS)
        self.dropout = nn.Dropout(0.2)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Return local features, features of the whole, and logits of every question.

        Args:
            images: shape (images, 1, 28, 28).

        Returns:
            Features of shape (images, 49, 64) and (images, 49, 128), in the order of the patches
            of the transformer; for each question logits of shape (images, answers).
        """
        local = self.local(images - 0.6)
        whole = self.whole(local)
        pooled = self.dropout(whole.amax((2, 3)))
        logits = [head(pooled) for head in self.heads]
        return local.flatten(2).mT, whole.flatten(2).mT, logits


def answer_loss(logits: list[Tensor], answers: Tensor, smoothing: float = 0.1) -> Tensor:
    """Mean cross-entropy over the questions; unknown answers do not count."""
    losses = [
        torch.nn.functional.cross_entropy(
            one, answers[:, number], ignore_index=-1, label_smoothing=smoothing
        )
        for number, one in enumerate(logits)
    ]
    return torch.stack(losses).mean()
