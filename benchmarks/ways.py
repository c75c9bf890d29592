"""The ways to read every decoder layer at the prompt's last token that ``peers.py`` compares.

Each is a function that takes a :class:`Workbench` and returns one that reads a batch. What they
import is imported there, so that it counts as theirs when memory is measured.
"""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from extraction import replace_images
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Reader = Callable[[int], Vectors]


@dataclass(frozen=True)
class Setting:
    """What all ways are given; cheap to hand to another process.

    Attributes:
        model: as ``--model`` of an extraction takes it.
        n_images: how many of the bundled images.
        batch_size: the most images of a forward pass.
    """

    model: str
    n_images: int
    batch_size: int

    def batches(self) -> list[range]:
        """The rows of each batch."""
        starts = range(0, self.n_images, self.batch_size)
        return [range(k, min(k + self.batch_size, self.n_images)) for k in starts]


@dataclass
class Workbench:
    """The setting made real in one process: description, images, prepared batches and model."""

    setting: Setting
    description: Any = field(init=False)
    images: Any = field(init=False)
    inputs: list[dict[str, Any]] = field(init=False)
    model: Any = field(init=False)

    def __post_init__(self) -> None:
        from signbridge.extraction.data import BatchDataset
        from signbridge.images import open_images
        from signbridge.model.description import describe_model
        from signbridge.model.load import load_model
        from signbridge.model.prompts import DEFAULT_PROMPT

        self.description = describe_model(self.setting.model)
        self.images = open_images("sample")
        dataset: Any = BatchDataset(self.images, self.description.processor, DEFAULT_PROMPT)
        self.inputs = [dataset[rows].inputs for rows in self.setting.batches()]
        self.model = load_model(self.description, "cpu", quantization="none")
        for tensor in self.model.state_dict().values():
            tensor.sum()  # so that no weight is still on the disk when memory is looked at

    @property
    def layers(self) -> Any:
        """The decoder layers."""
        return self.model.get_decoder().layers


def capture(bench: Workbench) -> Reader:
    """SignBridge's hooks, one batch to arrays on the host."""
    from signbridge.extraction.module import HostCopy
    from signbridge.model.forward import CaptureRequest, run_batch
    from signbridge.model.sites import SITES

    request = CaptureRequest(tuple(range(len(bench.layers))), sites=tuple(SITES))
    token = bench.description.image_token_id

    def read(batch: int) -> Vectors:
        seen = run_batch(bench.model, bench.inputs[batch], token, request)
        vectors: Any = HostCopy({"resid_post": seen.resid_post}).arrays()["resid_post"]
        return np.asarray(vectors, np.float32)

    return read


def extraction(bench: Workbench) -> Reader:
    """SignBridge's extraction into a store, of all images at once, whatever the batch."""
    import h5py
    from rich.console import Console

    from signbridge.extraction.extract import extract_activations

    folder = tempfile.TemporaryDirectory()
    images = replace_images(bench.images, bench.setting.n_images)

    def read(_batch: int) -> Vectors:
        # The folder lives as long as this function refers to it.
        with mock.patch("signbridge.extraction.module.load_model", return_value=bench.model):
            store = extract_activations(
                images,
                bench.description,
                Path(folder.name) / "store.h5",
                quantization="none",
                store_dtype="float32",
                batch_size=bench.setting.batch_size,
                num_workers=0,
                overwrite=True,
                console=Console(quiet=True),
            )
        with h5py.File(store) as file:  # some milliseconds beside the seconds of the run
            return np.asarray(file["resid_post"][...], np.float32)

    return read


@contextmanager
def hooked(layers: Any, take: Callable[[Any], Any]) -> Iterator[list[Any]]:
    """A list that fills with what ``take`` makes of each layer's output."""
    import torch

    kept: list[Any] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        # transformers 5 gives a tensor, 4 a tuple
        kept.append(take(output if isinstance(output, torch.Tensor) else output[0]))

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def hooks(bench: Workbench) -> Reader:
    """Forward hooks as most people write them."""
    import torch

    def read(batch: int) -> Vectors:
        with torch.no_grad(), hooked(bench.layers, lambda hidden: hidden[:, -1].cpu()) as kept:
            bench.model(**bench.inputs[batch])
        return as_array(torch.stack(kept, dim=1))

    return read


def careful_hooks(bench: Workbench) -> Reader:
    """Forward hooks that leave out what is not wanted."""
    import torch

    def read(batch: int) -> Vectors:
        with (
            torch.inference_mode(),
            hooked(bench.layers, lambda hidden: hidden[:, -1].clone()) as kept,
        ):
            bench.model.model(**bench.inputs[batch], use_cache=False)
        return as_array(torch.stack(kept, dim=1))

    return read


def hidden_states(bench: Workbench) -> Reader:
    """The model's own ``output_hidden_states``; the first entry is the decoder's input."""
    import torch

    def read(batch: int) -> Vectors:
        with torch.no_grad():
            output = bench.model(**bench.inputs[batch], output_hidden_states=True)
        return as_array(torch.stack([each[:, -1] for each in output.hidden_states[1:]], dim=1))

    return read


def nnsight(bench: Workbench) -> Reader:
    """A trace of nnsight."""
    import torch

    processor = bench.description.processor
    traced = importlib.import_module("nnsight").TransformersModel(
        bench.model,
        task="image-text-to-text",
        processor=processor,
        tokenizer=processor.tokenizer,
    )
    layers = traced.model.language_model.layers

    def read(batch: int) -> Vectors:
        with torch.no_grad(), traced.trace(bench.inputs[batch]):
            seen: Any = torch.stack([layer.output[:, -1] for layer in layers], dim=1)
            kept = seen.cpu().save()
        return as_array(kept)

    return read


def transformer_lens(bench: Workbench) -> Reader:
    """TransformerLens's bridge to the models of transformers."""
    import torch

    bridge = importlib.import_module("transformer_lens.model_bridge").TransformerBridge
    names = [f"blocks.{k}.hook_resid_post" for k in range(len(bench.layers))]
    bridged = bridge.boot_transformers(
        bench.setting.model,
        hf_model=bench.model,
        tokenizer=bench.description.processor.tokenizer,
    )

    def read(batch: int) -> Vectors:
        inputs = dict(bench.inputs[batch])
        ids = inputs.pop("input_ids")
        with torch.no_grad():
            _, cache = bridged.run_with_cache(
                ids, **inputs, names_filter=names, pos_slice=-1, return_type=None
            )
        return as_array(torch.cat([cache[name] for name in names], dim=1).cpu())

    return read


def as_array(stacked: Any) -> Vectors:
    """A tensor of shape (batch, layers, hidden) as an array."""
    array: Vectors = stacked.numpy()
    return array


@dataclass(frozen=True)
class Way:
    """One way to read the layers.

    Attributes:
        label: its row's name.
        begin: makes the function that reads a batch.
        package: what must be installed for it, or None; it may change the model it is given.
        at_once: whether it takes all images in one go, not a batch.
    """

    label: str
    begin: Callable[[Workbench], Reader]
    package: str | None = None
    at_once: bool = False

    def title(self) -> str:
        """The name of its row, with the package's version."""
        return self.label if self.package is None else f"{self.label} {version(self.package)}"


WAYS = {
    "capture": Way("SignBridge, capture", capture),
    "extraction": Way("SignBridge, images prepared and stored too", extraction, at_once=True),
    "hooks": Way("forward hooks", hooks),
    "careful_hooks": Way("forward hooks, no logits, no cache", careful_hooks),
    "hidden_states": Way("`output_hidden_states`", hidden_states),
    "nnsight": Way("nnsight", nnsight, "nnsight"),
    "transformer_lens": Way("TransformerLens", transformer_lens, "transformer-lens"),
}
