"""Try every family of vision-language models that the tests know, and say how far each agrees.

    python benchmarks/families.py             # prints the table; no network, about a minute
    python benchmarks/families.py --write     # and puts it into docs/families.md

Each row is a tiny model of the family with random weights, run with transformers alone (one image,
one plain forward pass, no padding, no cache) and by SignBridge (a padded batch of images of two
sizes, hooks, the way of scoring that the check at load has chosen). The numbers are the largest
differences between the two.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from fixtures.families import FAMILIES, family_folder, plain, plain_vision
from fixtures.further_families import FURTHER

from signbridge.errors import ModelError, SiteError
from signbridge.model.answers import class_answers
from signbridge.model.certificate import Certificate, certify
from signbridge.model.description import ModelDescription, describe_model
from signbridge.model.families import is_encoder_decoder
from signbridge.model.forward import Captured, CaptureRequest, run_batch, to_model
from signbridge.model.load import load_model
from signbridge.model.processor import answer_context, check_images, prepare
from signbridge.model.prompts import prompt_for_processor, resolve_prompt
from signbridge.model.questions import NotSharedError, run_questions, shared_prefix
from signbridge.model.sites import site_widths
from signbridge.runtime.terminal import quiet_transformers

ALL = FAMILIES | FURTHER
COLUMNS = (
    "family",
    "stack",
    "vectors",
    "`projector`",
    "`vision`",
    "names by",
    "names",
    "answers",
    "questions",
    "two images",
    "NF4",
)
PAGE = Path(__file__).parents[1] / "docs" / "families.md"
NO_REFERENCE = {"granite4_vision"}  # its own functions give no features to compare with
MARKS = "<!-- table -->", "<!-- end of table -->"


def relative(ours: torch.Tensor, wanted: torch.Tensor) -> float:
    """Length of the difference, relative to that of the second."""
    return float((ours.float() - wanted.float()).norm() / wanted.float().norm())


def row(name: str, folder: Path) -> list[str]:
    """What was found of one family, as the cells of its row."""
    try:
        description = describe_model(str(family_folder(name, folder)))
    except ModelError as error:
        needs = re.search(r"install (\w+)", str(error))
        return [name, f"refused: {f'needs {needs[1]}' if needs else error}"]
    model = load_model(description, "cpu", quantization="none")
    found = measured(description, model)
    stack = "encoder" if is_encoder_decoder(description.config) else "decoder"
    four_bits = load_model(description, "cpu", quantization="nf4")
    again = measured(description, four_bits)
    return [name, stack, *found, two_images(description, model), again[0]]


def measured(description: ModelDescription, model: Any) -> list[str]:
    """Differences between SignBridge and plain passes of the same loaded model."""
    pictures = two_pictures()
    processor, kind = description.processor, description.config.model_type
    prompt = prompt_for_processor(resolve_prompt("letter", processor, kind), processor)
    context = answer_context(processor, description.config, prompt)
    answers = class_answers(processor.tokenizer, context, ("A", "letter", "two words"))
    sites = tuple(site_widths(model))
    layers = tuple(range(description.n_layers))
    request = CaptureRequest(layers, sites=sites, answers=answers, max_new_tokens=5)
    found = certified(model, description, prompt, pictures[:1], request)
    request, batch = found.request, [prompt, prompt + " Now answer it."]
    if not found.pads:
        batch = batch[:1]
    inputs = to_model(prepare(processor, batch, pictures[: len(batch)]), model)
    read = run_batch(model, inputs, description.image_token_id, request)
    alone = to_model(prepare(processor, [prompt], pictures[:1]), model)
    off = {
        name: f"{value:.0e}" for name, value in differences(description, model, alone, read).items()
    }
    if "vision" in read.sites and "vision" not in off:
        off["vision"] = "stored"
    cells = [off["vectors"] if found.pads else f"{off['vectors']} alone"]
    cells += [off.get("projector", "–"), off.get("vision", "–")]
    (end,) = [model.generation_config.eos_token_id]
    assert read.class_logprob is not None
    assert read.answer_ids is not None
    names = max(
        abs(float(read.class_logprob[0, k]) - logprob(model, alone, [*answer, end]))
        for k, answer in enumerate(answers)
    )
    same = written(model, alone, end, 4) == read.answer_ids[0, :4].tolist()
    cells += [request.scoring.replace("_", " "), f"{names:.0e}", "same" if same else "OTHER"]
    return [*cells, second_question(description, model, pictures[: len(batch)], request)]


def two_pictures() -> list[Image.Image]:
    """Two images of different sizes."""
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8))
        for size in ((40, 60), (64, 30))
    ]


def two_images(description: ModelDescription, model: Any) -> str:
    """Largest difference, of vectors and baselines, where two images stand in one prompt."""
    processor, pictures = description.processor, two_pictures()
    text = resolve_prompt("letter", processor, description.config.model_type, 2)
    prompt = prompt_for_processor(text, processor)
    request = CaptureRequest(tuple(range(description.n_layers)), sites=tuple(site_widths(model)))
    try:
        check_images(description.spec, processor, prompt, 2)
        tried = certified(model, description, prompt, pictures, request)
    except ModelError:
        return "refused"
    samples = {prompt: pictures}
    if tried.pads:
        samples[prompt + " Now answer it."] = pictures[::-1]
    batch = to_model(prepare(processor, list(samples), list(samples.values())), model)
    read = run_batch(model, batch, description.image_token_id, tried.request)
    alone = to_model(prepare(processor, [prompt], [pictures]), model)
    return f"{max(differences(description, model, alone, read).values()):.0e}"


def certified(
    model: Any,
    description: ModelDescription,
    prompt: str,
    pictures: Sequence[Image.Image],
    request: CaptureRequest,
) -> Certificate:
    """What a load finds out, without the baseline that an extraction would leave out."""
    try:
        return certify(model, description, prompt, pictures, request)
    except SiteError as error:
        sites = tuple(site for site in request.sites if site != error.site)
        return certify(model, description, prompt, pictures, replace(request, sites=sites))


def differences(
    description: ModelDescription, model: Any, alone: dict[str, torch.Tensor], read: Captured
) -> dict[str, float]:
    """How far the first of a batch is off its own plain pass: ``vectors`` and each baseline."""
    states = plain(model, alone)[1]
    pairs = zip(read.resid_post[0, :-1], states[1:], strict=False)
    found = {"vectors": max(relative(ours, state[0, -1]) for ours, state in pairs)}
    if "projector" in read.sites:
        marks = alone["input_ids"][0] == description.image_token_id
        found["projector"] = relative(read.sites["projector"][0], states[0][0, marks].mean(0))
    if "vision" in read.sites and description.config.model_type not in NO_REFERENCE:
        found["vision"] = relative(read.sites["vision"][0], plain_vision(model, alone))
    return found


def second_question(
    description: ModelDescription,
    model: Any,
    pictures: Sequence[Image.Image],
    request: CaptureRequest,
) -> str:
    """Difference of a question that continues from an image's end from a plain pass of it whole."""
    processor, kind = description.processor, description.config.model_type
    prompts = [
        prompt_for_processor(resolve_prompt(question, processor, kind), processor)
        for question in ("letter", "sign")
    ]
    requests = [replace(request, answers=None)] * 2
    try:
        endings, _ = shared_prefix(
            model, description, prompts, pictures[0], requests, pads=len(pictures) > 1
        )
    except NotSharedError:
        return "whole"
    inputs = to_model(prepare(processor, [prompts[0]] * len(pictures), pictures), model)
    read = run_questions(model, inputs, description.image_token_id, endings, requests)[1]
    assert read is not None
    alone = to_model(prepare(processor, prompts[1:], pictures[:1]), model)
    states = plain(model, alone)[1]
    return "{:.0e}".format(
        max(
            relative(read.resid_post[0, layer], states[layer + 1][0, -1])
            for layer in request.layers[:-1]
        )
    )


def logprob(model: Any, alone: dict[str, torch.Tensor], tokens: Sequence[int]) -> float:
    """Log-probability of tokens by one plain pass over prompt and tokens."""
    logits = plain(model, alone, tokens[:-1])[0][-len(tokens) :].double().log_softmax(-1)
    return sum(float(logits[place, token]) for place, token in enumerate(tokens))


def written(model: Any, alone: dict[str, torch.Tensor], end: int, length: int) -> list[int]:
    """The greedy answer by plain passes, one a token."""
    tokens: list[int] = []
    while len(tokens) < length and end not in tokens:
        tokens.append(int(plain(model, alone, tokens)[0][-1].argmax()))
    return tokens + [model.generation_config.pad_token_id or 0] * (length - len(tokens))


def as_table(rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a short row's last cell stands alone."""
    lines = [f"| {' | '.join(COLUMNS)} |", f"| {' | '.join('---' for _ in COLUMNS)} |"]
    lines += [f"| {' | '.join([*cells, *[''] * (len(COLUMNS) - len(cells))])} |" for cells in rows]
    return "\n".join(lines)


def main() -> None:
    """Try the families and print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/families.md")
    parser.add_argument("--families", nargs="*", default=sorted(ALL), choices=sorted(ALL))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, quiet_transformers():
        rows = [row(name, Path(folder) / name) for name in options.families]
    table = as_table(rows)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, CPU, float32\n")
    print(table)
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        PAGE.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
