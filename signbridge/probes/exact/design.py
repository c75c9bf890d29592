"""Design matrices of a batch of fits: logits, their adjoint, and the matching preconditioner.

A fit's parameters are ``V`` of shape (classes, columns); its logits are ``V @ Z.T``. The last
column of every design is the intercept's column of ones (or zeros where no intercept is fitted),
which carries no penalty.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Design(Protocol):
    """What the minimiser asks of the data of M fits with n samples and r columns each."""

    def forward(self, V: Tensor) -> Tensor:
        """Logits (M, classes, n) of parameters (M, classes, r)."""

    def adjoint(self, R: Tensor) -> Tensor:
        """Parameters' gradient (M, classes, r) of residuals (M, classes, n)."""

    def precondition(self, G: Tensor, curvature: Tensor, penalty: Tensor) -> Tensor:
        """Approximate inverse Hessian times ``G`` (M, classes, r).

        ``curvature`` (M, classes, 1) is the mean of p (1 - p), ``penalty`` (M, 1, r) the L2 weight.
        """

    def select(self, keep: Tensor) -> Design:
        """The design of the fits at the indices ``keep``."""


class BatchedDesign:
    """One rotated design matrix per fit.

    Args:
        Z: (M, n, r), columns orthogonal under the sample weights, the last one the intercept's.
        spectrum: (M, r), the weighted mean square of every column.
    """

    def __init__(self, Z: Tensor, spectrum: Tensor) -> None:
        self.Z = Z
        self.spectrum = spectrum

    def forward(self, V: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.bmm(V, self.Z.mT)

    def adjoint(self, R: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.bmm(R, self.Z)

    def precondition(self, G: Tensor, curvature: Tensor, penalty: Tensor) -> Tensor:
        """See :class:`Design`; diagonal, because the columns are orthogonal."""
        return G / torch.addcmul(penalty, curvature, self.spectrum[:, None, :])

    def narrow(self) -> BatchedDesign:
        """The same in float32."""
        return BatchedDesign(self.Z.float(), self.spectrum.float())

    def select(self, keep: Tensor) -> BatchedDesign:
        """See :class:`Design`."""
        return BatchedDesign(self.Z[keep], self.spectrum[keep])


class SharedDesign:
    """One rotated design matrix (n, r) that all fits share, with its ``spectrum`` (r,)."""

    def __init__(self, Z: Tensor, spectrum: Tensor) -> None:
        self.Z = Z
        self.spectrum = spectrum

    def forward(self, V: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.mm(V.flatten(0, 1), self.Z.mT).view(*V.shape[:2], -1)

    def adjoint(self, R: Tensor) -> Tensor:
        """See :class:`Design`."""
        return torch.mm(R.flatten(0, 1), self.Z).view(*R.shape[:2], -1)

    def precondition(self, G: Tensor, curvature: Tensor, penalty: Tensor) -> Tensor:
        """See :class:`Design`."""
        return G / torch.addcmul(penalty, curvature, self.spectrum)

    def narrow(self) -> SharedDesign:
        """The same in float32."""
        return SharedDesign(self.Z.float(), self.spectrum.float())

    def select(self, keep: Tensor) -> SharedDesign:
        """See :class:`Design`."""
        return self
