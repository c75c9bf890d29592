"""What probes are trained on, by name."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from signbridge.errors import ProbeError

RESID_POST = "resid_post"
RANDOM_WEIGHTS = "random_weights"
"""The decoder layers of a control store: the same architecture with random weights."""
DECODER_LAYERS = "decoder_resid_post"
"""The decoder layers of an encoder-decoder, whose ``resid_post`` is its encoder's."""

TEXT = "text"
"""The words of the generated answer."""
FORCED_CHOICE = "forced_choice"
"""The log-probability of each class name as the answer, the store's ``class_logprob``."""
SAID = (TEXT, FORCED_CHOICE)
ZERO_SHOT = "zero_shot"
"""The forced choice as the model makes it, without any probe."""
UNTRAINED = ("chance", "majority")
"""What a guess scores: all classes alike, or the largest one."""


@dataclass(frozen=True, order=True)
class Feature:
    """A vector per sample that probes are trained on.

    Attributes:
        kind: ``resid_post``, ``random_weights`` (the same layers of a control store),
            ``decoder_resid_post`` (the second stack of an encoder-decoder), the name of a baseline
            (``pixels``, ``vision``, ``projector``), or what the model says (``text``,
            ``forced_choice``).
        layer: layer of the first three; None for baselines.
    """

    kind: str
    layer: int | None = None

    @property
    def name(self) -> str:
        """Readable name: ``resid_post/5`` or ``pixels``."""
        return self.kind if self.layer is None else f"{self.kind}/{self.layer}"

    @property
    def stored_name(self) -> str:
        """What its store calls it: the layers of a control are ``resid_post`` there."""
        if self.kind == DECODER_LAYERS:
            return f"{self.kind}_{self.layer}"
        return f"{RESID_POST}/{self.layer}" if self.kind == RANDOM_WEIGHTS else self.name

    @classmethod
    def stored(cls, name: str) -> Feature:
        """The feature that a store keeps as a variable of this name, beside ``resid_post``."""
        kind, _, layer = name.rpartition("_")
        return cls(kind, int(layer)) if kind == DECODER_LAYERS and layer.isdecimal() else cls(name)

    @classmethod
    def parse(cls, name: str | int) -> Feature:
        """The feature of a name (``resid_post/5``, ``pixels``) or of a layer number.

        Raises:
            ProbeError: the name is neither.
        """
        if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
            return cls(RESID_POST, int(name))
        kind, _, layer = str(name).partition("/")
        if kind in (RESID_POST, RANDOM_WEIGHTS, DECODER_LAYERS):
            if not layer.isdecimal():
                raise ProbeError(f"feature {name!r} needs a layer number, as in {kind}/5.")
            return cls(kind, int(layer))
        if not kind or layer:
            raise ProbeError(f"feature {name!r} is not known; use {RESID_POST}/LAYER or pixels.")
        return cls(kind)
