"""The whole way with each family: run, control of random weights, page, demo, comparison."""

import contextlib
import io
import json

import numpy as np
import pytest
from fixtures.families import FAMILIES, family_folder
from fixtures.further_families import FURTHER
from PIL import Image

from signbridge.cli.main import main
from signbridge.demo.reading import Reader
from signbridge.report.compare import write_comparison
from signbridge.results.probes import load_probes
from signbridge.store import open_store

pytestmark = pytest.mark.slow

CLASSES = ("A", "letter", "two words")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for colour, name in enumerate(CLASSES):
        (folder / name).mkdir()
        for k in range(6):
            pixels = rng.integers(0, 120, (40 + 5 * k, 60 - 3 * k, 3))
            pixels[..., colour] += 130
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{k}.png")
    return folder


def run(pictures, model, place, *more):
    """Run the command; return the store, the results folder and what was said."""
    store, results = place / f"{model.name}.h5", place / "results" / model.name
    command = ["run", "--images", str(pictures), "--model", str(model), "--output", str(store)]
    command += ["--results", str(results), "--quantization", "none", "--max_new_tokens", "3"]
    command += ["--groups", "none", "--folds", "3", "--accelerator", "cpu", *more]
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(command) == 0, said.getvalue()
    return store, results, " ".join(said.getvalue().split())


@pytest.mark.parametrize("name", sorted(FAMILIES | FURTHER))
def test_each_family_goes_the_whole_way(name, pictures, tmp_path, tmp_path_factory):
    model = family_folder(name, tmp_path / name)
    store, results, _ = run(pictures, model, tmp_path, "--random_weights_control", "true")
    with (results / "scores.csv").open() as scores:
        assert any(line.startswith("random_weights,") for line in scores)
    reader, probes = Reader(str(model), results), load_probes(results)
    with open_store(store) as stored:
        reading = reader.read(Image.open(pictures / stored.sample_ids[0]).convert("RGB"))
        wanted = [probes[k].predict_proba(stored.layer(k)[:1])[0] for k in reader.layers]
        np.testing.assert_allclose(reading.probability, wanted, atol=0.02)
        assert reading.answer == stored.responses[0]
        shares = np.exp(stored.class_logprob[0].astype(float))
        np.testing.assert_allclose(reading.forced_choice, shares / shares.sum(), atol=1e-4)
    # Beside another, of another depth where this one has not as many layers as the other.
    other = tmp_path_factory.getbasetemp() / "other"
    if not other.exists():
        deep = family_folder("qwen3.5", other / "qwen3.5")
        run(pictures, deep, other)
    page = write_comparison([results, other / "results" / "qwen3.5"], tmp_path / "both")
    assert "Run minus run, layer by layer" in page.read_text(encoding="utf-8")


def test_what_a_family_does_not_give_is_said_where_people_look(pictures, tmp_path, capsys):
    model = family_folder("qwen2-vl", tmp_path / "qwen2-vl")
    (model / "chat_template.jinja").unlink()
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    closing = {"SpecialToken": {"id": "</s>", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, closing],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}},
    }
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    store, results, said = run(pictures, model, tmp_path)
    assert main(["info", str(store)]) == 0
    info = " ".join(capsys.readouterr().out.split())
    report = (results / "report.html").read_text(encoding="utf-8")
    for place in (said, info, report):
        assert "forced choice is left out: The prompt ends with" in place
        assert "no form of its family (qwen2_vl) is known: it is asked in LLaVA-1.5" in place
