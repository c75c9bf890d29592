"""The control: the same architecture with random weights, read on the same samples.

Random weights carry an image on as well (Zhang & Bowman 2018, arXiv 1809.10040), so what probes
read above chance need not have been learnt. A control is probed on the same folds and penalties as
the model's own layers; it takes no part in any choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from signbridge.errors import ProbeError
from signbridge.probes.controls.measurement import Measurement, Sweep
from signbridge.results.features import RANDOM_WEIGHTS, RESID_POST, Feature
from signbridge.store.provenance import in_common

if TYPE_CHECKING:
    from typing_extensions import Self

    from signbridge.probes.scoring import ScoredSweep
    from signbridge.store import Store

# What ought to be alike where only the weights are meant to differ.
_SETTINGS = (
    "model",
    "model_class",
    "model_revision",
    "processor_class",
    "image_processor_class",
    "processor_backend",
    "quantization",
    "compute_dtype",
    "prompt",
    "site",
    "position",
    "max_new_tokens",
    "store_dtype",
)


@dataclass(frozen=True)
class Control:
    """An open control store and what it is compared with.

    Attributes:
        store: the control, of the same samples in the same order.
        main: the store that it is a control of.
    """

    store: Store
    main: Store

    @property
    def content_sha256(self) -> str:
        """What makes two controls the same."""
        return str(self.store.content_sha256)

    def features(self, chosen: Sequence[Feature]) -> tuple[list[Feature], list[str]]:
        """The control's layers that a sweep probes too.

        Args:
            chosen: the sweep's own features.

        Returns:
            ``random_weights`` at the common layers, ascending, and sentences about what differs.

        Raises:
            ProbeError: there is no common layer.
        """
        wanted = [f.layer for f in chosen if f.kind == RESID_POST and f.layer is not None]
        common = [layer for layer in wanted if layer in self.store.layers]
        if not common:
            raise ProbeError(
                f"the control {self.store.path} holds layers {_numbers(self.store.layers)} and "
                f"none of {_numbers(wanted)}; extract those with weights=random."
            )
        notes = []
        missing = [layer for layer in wanted if layer not in common]
        if missing:
            notes.append(
                f"the control {self.store.path} lacks layers {_numbers(missing)}, so random "
                f"weights are probed at {_numbers(common)} alone; extract the others with "
                "weights=random."
            )
        differing = self.differing
        if differing:
            listed = "; ".join(
                f"{key} {theirs!r} there, {ours!r} here"
                for key, (ours, theirs) in differing.items()
            )
            notes.append(
                f"the control {self.store.path} differs in more than its weights ({listed}), so "
                "what sets it apart is not training alone; extract it with the same settings."
            )
        return [Feature(RANDOM_WEIGHTS, layer) for layer in common], notes

    @property
    def differing(self) -> dict[str, tuple[Any, Any]]:
        """Settings other than the weights that differ, as (main, control)."""
        ours, theirs = in_common(self.main.provenance, self.store.provenance)
        recorded = {*self.main.provenance, *self.store.provenance}
        wanted = (*_SETTINGS, *sorted({*ours, *theirs} - recorded))
        settings = {key: (ours.get(key), theirs.get(key)) for key in wanted}
        settings["hidden_size"] = (self.main.hidden_size, self.store.hidden_size)
        return {key: pair for key, pair in settings.items() if pair[0] != pair[1]}

    def summary(self, features: Sequence[Feature]) -> dict[str, Any]:
        """What the results record of it."""
        said = self.store.provenance
        return {
            "path": str(self.store.path),
            "fingerprint": self.store.fingerprint,
            "content_sha256": self.content_sha256,
            "weights_seed": said.get("weights_seed"),
            "weights_initialiser": said.get("weights_initialiser"),
            "layers": [feature.layer for feature in features],
            "differing": sorted(self.differing),
        }


@contextmanager
def open_control(path: str | Path | None, main: Store) -> Iterator[Control | None]:
    """Open the control of a store; None gives None.

    Args:
        path: the control store.
        main: the open store that it is to be a control of.

    Raises:
        ProbeError: it was not made with random weights, or its samples are not those of ``main``.
        StoreError: it cannot be read.
    """
    if path is None:
        yield None
        return
    from signbridge.store import open_store

    with open_store(path) as store:
        if store.content_sha256 == main.content_sha256:
            raise ProbeError(
                f"the control {path} is the store itself; extract one with weights=random."
            )
        check_random(path, store.provenance)
        check_same_samples(main, store)
        yield Control(store, main)


def check_random(path: str | Path, provenance: Mapping[str, Any]) -> None:
    """Refuse a store whose weights are not random.

    Raises:
        ProbeError: they are not; a store that does not say so has those of its model's files.
    """
    if provenance.get("weights") != "random":
        raise ProbeError(
            f"the control {path} was made with the weights of {provenance.get('model', 'a model')} "
            "and not with random ones; extract it with weights=random."
        )


def check_same_samples(main: Store, control: Store) -> None:
    """Refuse a control of other samples, or of another order of them.

    Raises:
        ProbeError: names the first difference.
    """
    where = f"{control.path} is no control of {main.path}"
    what_to_do = "extract both from the same images with the same seed and groups."
    if main.class_names != control.class_names:
        raise ProbeError(
            f"{where}: its classes are {', '.join(control.class_names[:30])} and not "
            f"{', '.join(main.class_names[:30])}; {what_to_do}"
        )
    if main.n_samples != control.n_samples:
        raise ProbeError(
            f"{where}: it holds {control.n_samples} samples and not {main.n_samples}; {what_to_do}"
        )
    for name, ours, theirs in (
        ("id", main.sample_ids, control.sample_ids),
        ("label", main.labels, control.labels),
        ("group", main.groups, control.groups),
        ("image", main.image_sha256, control.image_sha256),
    ):
        for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if a != b:
                who = f"sample {row}" if name == "id" else f"sample {main.sample_ids[row]}"
                raise ProbeError(
                    f"{where}: the {name} of {who} is {_shown(b)} and not {_shown(a)}; {what_to_do}"
                )


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def _numbers(layers: Sequence[int]) -> str:
    return ", ".join(map(str, layers))


class RandomWeights(Measurement):
    """The layers of the control, which are probed like the model's own.

    Args:
        sweep: the sweep that it belongs to.
        control: the open control store and the sweep's.
    """

    def __init__(self, sweep: Sweep, control: Control) -> None:
        super().__init__(sweep)
        self.control = control

    @classmethod
    def planned(cls, sweep: Sweep) -> tuple[Self | None, list[str]]:
        """See :class:`Measurement`."""
        if sweep.control is None:
            return None, []
        control = Control(sweep.control, sweep.store)
        return cls(sweep, control), control.features(sweep.features)[1]

    def summary(self, scored: ScoredSweep) -> Mapping[str, Any]:
        """See :class:`Measurement`."""
        layers = [feature for feature in self.sweep.features if feature.kind == RANDOM_WEIGHTS]
        return {"control": self.control.summary(layers)}
