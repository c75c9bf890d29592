"""One picture through the model: its answer, and what the probe of every layer reads."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from signbridge.demo.training import Near, Training, training_of
from signbridge.errors import ModelError, ProbeError
from signbridge.images import ImageSet
from signbridge.images.decode import thumbnail
from signbridge.model import ComputeDtype, Position, Quantization
from signbridge.model.answers import ClassAnswers, class_answers
from signbridge.model.certificate import certify
from signbridge.model.description import ModelDescription, describe_model
from signbridge.model.forward import CaptureRequest, cpu_threads_for, run_batch, to_model
from signbridge.model.load import load_model
from signbridge.model.processor import answer_context, prepare
from signbridge.model.prompts import DEFAULT_TEMPLATE, prompt_for_processor, resolve_prompt
from signbridge.model.quantization import quantized
from signbridge.probes.controls.answers import zero_shot_shares
from signbridge.results.answers import names_class
from signbridge.results.features import RESID_POST
from signbridge.results.format import SCORES_FILE, TASK
from signbridge.results.probes import Probes, load_probes
from signbridge.results.results import Score
from signbridge.results.tables import read_rows
from signbridge.runtime.words import some
from signbridge.store.provenance import differing_keys, in_common, shown

MAX_NEW_TOKENS = 20
_REPEATED: Mapping[str, Any] = {
    "model": str,
    "weights_sha256": str,
    "prompt": str,
    "store_dtype": ("float16", "float32"),
    "position": get_args(Position),
    "max_new_tokens": range(100_000),
    "quantization": str,
    "compute_dtype": get_args(ComputeDtype),
}
"""What the demo does as it was done for the probes, and what that may be."""


@dataclass(frozen=True, eq=False)
class Reading:
    """What one picture gave.

    Attributes:
        answer: the model's greedy answer.
        class_names: the classes that the probes know.
        layers: decoder layers with a probe, ascending.
        probability: of each class by each layer's probe, shape (layers, classes).
        forced_choice: shares of the class names as answers, shape (classes,), or None where the
            tokenizer has no way to write them.
        best: index into ``layers`` of the layer that scored best when the probes were trained.
        held_out: accuracy of each layer's probe on held-out images, None where it is not recorded.
        words: what stands for each class in an answer; None where that is its name.
        near: the nearest training images, None where they are not known.
    """

    answer: str
    class_names: tuple[str, ...]
    layers: tuple[int, ...]
    probability: npt.NDArray[np.float64]
    forced_choice: npt.NDArray[np.float64] | None
    best: int
    held_out: tuple[Score | None, ...]
    words: tuple[str, ...] | None = None
    near: Near | None = None


def said_and_read(reading: Reading, slot: int) -> str:
    """The lines of what was said and what a layer's probe reads, as HTML.

    Args:
        reading: of a picture.
        slot: index into its layers.
    """
    probability = reading.probability[slot]
    top = int(probability.argmax())
    name = reading.class_names[top]
    answer = reading.answer or "(nothing)"
    word = name if reading.words is None else reading.words[top]
    told = "names it too" if names_class(reading.answer, word) else "does not name it"
    read = (
        f"<b>Read:</b> the probe of layer {reading.layers[slot]} reads "
        f"<b>{escape(name)}</b> at {100 * probability[top]:.0f}&nbsp;%; the answer {told}. "
        f"{_how_often_right(reading.held_out[slot])}"
    )
    lines = [f"<b>Said:</b> “{escape(answer)}”.", read]
    if reading.forced_choice is not None:
        choice = int(reading.forced_choice.argmax())
        lines.append(
            "<b>Forced to choose</b> among the class names, the model takes "
            f"<b>{escape(reading.class_names[choice])}</b> at "
            f"{100 * reading.forced_choice[choice]:.0f}&nbsp;%."
        )
    return "".join(f"<p>{line}</p>" for line in [*lines, *_how_near(reading)])


def _how_near(reading: Reading) -> list[str]:
    """How far the picture is from those trained on; a warning where that is unusual."""
    near, layer = reading.near, reading.layers[reading.best]
    if near is None:
        return []
    distance = (
        f"Its nearest training image lies at {near.distance:.1f} in layer {layer}, where that of a "
        f"training image usually lies at {near.usual:.1f}"
    )
    if not near.is_far:
        return [f"{distance}."]
    return [
        f'<strong class="trouble" role="alert">Unlike what the probes were trained on:</strong> '
        f"{distance}; {100 * near.share:.0f}&nbsp;% of those have a nearer one. A probe reads one "
        "of its classes all the same: do not trust it here."
    ]


def _how_often_right(score: Score | None) -> str:
    if score is None:
        return "How often it is right on held-out images is not recorded."
    interval = ""
    if math.isfinite(score.ci_low) and math.isfinite(score.ci_high):
        low, high = 100 * score.ci_low, 100 * score.ci_high
        interval = f" (95&nbsp;% interval {low:.0f} to {high:.0f}&nbsp;%)"
    of = "held-out images" if score.n_test is None else f"{score.n_test:,} held-out images"
    return f"It was right on {100 * score.value:.0f}&nbsp;% of {of}{interval}."


def held_out_accuracy(folder: str | Path, probes: Probes) -> dict[int, Score]:
    """The accuracy of each layer's probe on held-out images, of those that are recorded.

    Args:
        folder: the results folder that holds the probes.
        probes: those.

    Raises:
        ProbeError: its ``scores.csv`` cannot be read.
    """
    path = Path(folder) / SCORES_FILE
    if not path.is_file():
        return {}
    protocol = probes.provenance.get("protocol")
    split = protocol.get("split") if isinstance(protocol, dict) else None
    return {
        score.layer: score
        for score in read_rows(path, Score, {"task": TASK})
        if score.layer is not None
        and (score.feature, score.metric, score.task) == (RESID_POST, "accuracy", TASK)
        and split in (None, score.split)
        and math.isfinite(score.value)
    }


class Reader:
    """A loaded model and its probes.

    Args:
        model: ``tiny``, a hub id or a folder.
        probes: a results folder of ``train_probes``, made with this model.

    Raises:
        ModelError: the model cannot be loaded, or is not the one that the probes were trained on.
        ProbeError: the probes or their scores cannot be read, or they hold no decoder layer.
    """

    def __init__(self, model: str, probes: str | Path) -> None:
        self.probes = load_probes(probes)
        if not self.probes.layers:
            raise ProbeError(f"the probes in {probes} read no decoder layer; train them again.")
        made = _how_made(self.probes, probes)
        self.description = describe_model(model)
        _check_same(self.description, self.probes, made, model, probes)
        processor = self.description.processor
        asked = str(made.get("prompt", DEFAULT_TEMPLATE))
        text = resolve_prompt(asked, processor, self.description.config.model_type)
        self.prompt = prompt_for_processor(text, processor)
        self.class_names = self.probes.class_names
        self.layers = tuple(sorted(self.probes.layers))
        self._store_dtype = str(made.get("store_dtype", "float16"))
        self._position: Position = made.get("position", "last_prompt")
        self._length = int(made.get("max_new_tokens") or MAX_NEW_TOKENS)
        words = made.get("answers")
        self._words: tuple[str, ...] | None = None
        if isinstance(words, list) and len(words) == len(self.class_names):
            self._words = tuple(map(str, words))
        self._answers: ClassAnswers | None
        try:
            context = answer_context(processor, self.description.config, self.prompt)
            names = self._words or self.class_names
            self._answers = class_answers(processor.tokenizer, context, names)
        except ModelError:
            self._answers = None
        device = _device()
        kind = made.get("quantization", "auto")
        with cpu_threads_for(self.description.hidden_size, device):
            self._model = load_model(
                self.description,
                device,
                quantization=kind if kind in get_args(Quantization) else "auto",
                compute_dtype=made.get("compute_dtype", "auto") if device.type == "cpu" else "auto",
            )
            loaded = quantized(self._model, self.description.skeleton).record()
            _check_settings({**self.description.settings, **loaded}, made, model, probes)
            request = CaptureRequest(
                layers=self.layers,
                position=self._position,
                max_new_tokens=self._length,
                answers=self._answers,
            )
            picture = Image.effect_noise((64, 64), 64).convert("RGB")
            found = certify(self._model, self.description, self.prompt, picture, request)
            self._request = found.request
        # Hooks belong to the model, so two pictures at once would read each other's layers.
        self._lock = threading.Lock()
        scores = held_out_accuracy(probes, self.probes)
        self.held_out = tuple(scores.get(layer) for layer in self.layers)
        best = self.probes.provenance.get("best_layer")
        self.best = self.layers.index(best) if best in self.layers else len(self.layers) - 1
        self._probe = self.probes[f"{RESID_POST}/{self.layers[self.best]}"]
        self.training: Training | None = None

    def compare_with_results(self, folder: str | Path) -> None:
        """Compare pictures with those of a results folder, if its store is there."""
        probe = self._probe
        layer = self.layers[self.best]
        self.training = training_of(folder, layer, probe.mean, probe.deviation)

    def compare_with(self, images: ImageSet, rows: Sequence[int]) -> None:
        """Compare pictures with images that the probes were trained on.

        Args:
            images: a set of images.
            rows: which of them.
        """
        request = CaptureRequest(layers=(self.layers[self.best],), position=self._position)
        found = []
        for start in range(0, len(rows), 16):
            batch = [images.load(row) for row in rows[start : start + 16]]
            found.append(self._captured(batch, request).resid_post[:, 0].float().cpu().numpy())
        vectors = np.concatenate(found).astype(self._store_dtype)
        self.training = Training(
            self._standardised(vectors),
            images.group[rows],
            [images.class_names[images.label[row]] for row in rows],
            [f"data:image/jpeg;base64,{thumbnail(images.load(row))}" for row in rows],
        )

    def _standardised(self, vectors: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        x = vectors.astype(np.float64)
        return np.asarray((x - self._probe.mean) / self._probe.deviation)

    def _captured(self, pictures: Sequence[Image.Image], request: CaptureRequest) -> Any:
        prompts = [self.prompt] * len(pictures)
        inputs = to_model(prepare(self.description.processor, prompts, pictures), self._model)
        token = self.description.image_token_id
        with self._lock, cpu_threads_for(self.description.hidden_size, self._model.device):
            return run_batch(self._model, inputs, token, request)

    def read(self, picture: Image.Image) -> Reading:
        """Run one picture through the model.

        Args:
            picture: in mode RGB, any size.
        """
        captured = self._captured([picture], self._request)
        # As the store rounds them, so that a picture of the store reads as it did there.
        vectors = captured.resid_post[0].float().cpu().numpy().astype(self._store_dtype)
        probability = np.concatenate(
            [
                self.probes[f"resid_post/{layer}"].predict_proba(vectors[slot : slot + 1])
                for slot, layer in enumerate(self.layers)
            ]
        )
        near = None
        if self.training is not None:
            near = self.training.near(self._standardised(vectors[self.best]))
        (answer,) = self.description.processor.batch_decode(
            captured.answer_ids, skip_special_tokens=True
        )
        choice = None
        if captured.class_logprob is not None:
            choice = zero_shot_shares(captured.class_logprob.cpu().numpy())[0]
        return Reading(
            answer.strip(),
            self.class_names,
            self.layers,
            probability,
            choice,
            self.best,
            self.held_out,
            self._words,
            near,
        )


def _how_made(probes: Probes, folder: str | Path) -> Mapping[str, Any]:
    """How the vectors were made that the probes were trained on, as far as the demo repeats it.

    Raises:
        ProbeError: it is recorded as nothing that could have been done.
    """
    store = probes.provenance.get("store", {})
    made = store.get("provenance", {}) if isinstance(store, Mapping) else None
    if not isinstance(made, Mapping):
        raise ProbeError(f"the probes in {folder} do not say how they were made; train again.")
    for key, allowed in _REPEATED.items():
        value = made.get(key)
        wrong = not isinstance(value, str) if allowed is str else value not in allowed
        if value is not None and wrong:
            raise ProbeError(
                f"the probes in {folder} were made with {key} {value!r:.80}, which there is not; "
                "train again."
            )
    if made.get("images_per_sample", 1) != 1:
        raise ProbeError(
            f"the probes in {folder} read prompts of several images, and the demo shows one; give "
            "probes of single images."
        )
    return made


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_same(
    description: ModelDescription, probes: Probes, made: Any, model: str, folder: str | Path
) -> None:
    """Refuse probes of another model: their numbers would look just as confident."""
    widths = {probes[f"resid_post/{layer}"].n_features for layer in probes.layers}
    trained_on = made.get("model", "another model")
    if widths != {description.hidden_size} or max(probes.layers) >= description.n_layers:
        raise ModelError(
            f"The probes in {folder} were trained on {trained_on}, whose layers have another "
            f"shape than those of {model}: give the --probes of a run with this model."
        )
    weights = made.get("weights_sha256", description.weights_sha256)
    if weights != description.weights_sha256 or made.get("weights") == "random":
        raise ModelError(
            f"The probes in {folder} were trained on other weights ({trained_on}) than those of "
            f"{model}: give the --probes of a run with this model."
        )


def _check_settings(
    settings: Mapping[str, Any], made: Mapping[str, Any], model: str, folder: str | Path
) -> None:
    """Refuse probes of the same weights under other settings, as far as those are recorded."""
    theirs = {key: value for key, value in made.items() if key in settings}
    ours = {key: value for key, value in settings.items() if key in theirs}
    differing = differing_keys(theirs, ours)
    if differing:
        key, others = differing[0], differing[1:]
        old, new = in_common(theirs, ours)
        before, now = shown(old, new, key)
        also = f" (also {some(others, 5)})" if others else ""
        raise ModelError(
            f"The probes in {folder} were trained with {key} = {before}, but of {model} it is "
            f"{now}{also}: give the --probes of a run with these settings."
        )
