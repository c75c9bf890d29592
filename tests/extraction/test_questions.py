"""Several questions about one image: as separate runs, for the price of one."""

from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from signbridge import open_store
from signbridge.errors import ModelError, StoreError
from signbridge.extraction.data import ExtractionDataModule
from signbridge.extraction.extract import extract_activations
from signbridge.extraction.module import ExtractionModule
from signbridge.model.processor import prepare

FREE = "USER: <image>\nIs this hand open or closed?\nASSISTANT:"


OPTIONS = {"layers": [1, 3], "store_dtype": "float32", "shard_size": 4}


@pytest.fixture(scope="module")
def ten(few):
    return replace_images(few, 10)


@pytest.fixture(scope="module")
def apart(ten, tiny, tmp_path_factory, extract):
    """A store of each of three questions, each made by itself."""
    folder = tmp_path_factory.mktemp("apart")
    return [
        extract(ten, tiny, folder / f"{number}.h5", prompt=prompt, **OPTIONS)
        for number, prompt in enumerate(("sign", "letter", FREE))
    ]


@pytest.fixture
def together(ten, tiny, tmp_path, extract):
    def together(prompts=("sign", "letter", FREE), **options):
        return extract(ten, tiny, tmp_path / "a.h5", prompt=list(prompts), **OPTIONS | options)

    return together


def replace_images(images, count):
    names = ("sample_id", "label", "source_split", "image_sha256", "pixels", "group")
    return replace(images, **{name: getattr(images, name)[:count] for name in names})


def assert_alike(ours, wanted):
    """All that two stores hold, but for rounding and for what says how they were made."""
    with open_store(ours) as one, open_store(wanted) as two:
        assert one.provenance == two.provenance
        assert one.layers == two.layers
        for layer in one.layers:
            np.testing.assert_allclose(one.layer(layer), two.layer(layer), rtol=1e-4, atol=1e-4)
        assert one.baselines == two.baselines
        for name in one.baselines:
            np.testing.assert_allclose(one.feature(name), two.feature(name), rtol=1e-4, atol=1e-4)
        np.testing.assert_equal(one.responses, two.responses)
        if two.class_logprob is not None:
            np.testing.assert_allclose(one.class_logprob, two.class_logprob, atol=1e-3)


def test_stores_are_those_of_separate_runs(apart, together, monkeypatch):
    prepared = []
    monkeypatch.setattr(
        "signbridge.extraction.data.prepare",
        lambda processor, prompts, pictures: (
            prepared.append(len(pictures)) or prepare(processor, prompts, pictures)
        ),
    )
    made = together()
    names = ["a-sign.h5", "a-letter.h5", "a-is-this-hand-open-acdcb3.h5"]
    assert [path.name for path in made] == names
    for ours, wanted in zip(made, apart, strict=True):
        assert_alike(ours, wanted)
        with open_store(ours) as store:
            assert store.info["check_shared_image"] < 1e-4
    assert sum(prepared) == 10


@pytest.mark.slow
@pytest.mark.parametrize("position", ["last_prompt", "image_mean", "last_generated"])
def test_names_answers_and_positions_are_those_of_separate_runs(
    ten, tiny, tmp_path, extract, together, position
):
    options = {"max_new_tokens": 3, "forced_choice": True, "position": position}
    for number, ours in enumerate(together(**options)):
        prompt = ("sign", "letter", FREE)[number]
        options |= OPTIONS | {"prompt": prompt}
        assert_alike(ours, extract(ten, tiny, tmp_path / f"{number}.h5", **options))


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_what_each_question_lacks(
    apart, together, monkeypatch, tmp_path
):
    """One question's store lacks a shard more than the other's."""
    step, calls = ExtractionModule.predict_step, []

    def dying(self, batch, batch_idx):
        calls.append(batch.rows)
        if len(calls) > 2:
            raise ModelError("dies here")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ExtractionModule, "predict_step", dying)
        with pytest.raises(ModelError, match="dies here"):
            together()
    (tmp_path / "a-sign.h5.parts" / "shard-00000.json").unlink()
    asked = []
    pending = ExtractionDataModule.pending

    def noted(self, rows=None):
        asked.append((rows, pending(self, rows)))
        return asked[-1][1]

    monkeypatch.setattr(ExtractionDataModule, "pending", noted)
    for ours, wanted in zip(together(), apart, strict=True):
        assert_alike(ours, wanted)
    assert {tuple(found) for rows, found in asked if rows and rows.start < 4} == {
        (True, False, False)
    }
    asked.clear()
    together()
    assert not any(found for _, all_found in asked for found in all_found)


@pytest.mark.slow
def test_a_store_that_was_made_alone_is_kept_and_layers_are_added(
    ten, tiny, together, tmp_path, extract, apart
):
    extract(ten, tiny, tmp_path / "a-letter.h5", prompt="letter", **OPTIONS | {"layers": [3]})
    for ours, wanted in zip(together(), apart, strict=True):
        assert_alike(ours, wanted)


@pytest.mark.slow
def test_questions_that_share_nothing_are_run_one_by_one(ten, tiny, tmp_path, apart):
    behind = "USER: Is it open? <image>\nASSISTANT:"
    with open(tmp_path / "said", "w+") as said:
        made = extract_activations(
            ten, tiny, tmp_path / "a.h5", prompt=["sign", behind], console=Console(file=said),
            quantization="none", **OPTIONS,
        )  # fmt: skip
        said.seek(0)
        text = said.read()
    assert "each question is run by itself, images and all: the prompts differ before" in text
    assert_alike(made[0], apart[0])
    with open_store(made[1]) as store:
        assert "check_shared_image" not in store.info


@pytest.mark.slow
def test_full_memory_makes_smaller_batches_for_every_question(apart, together, monkeypatch):
    import torch

    from signbridge.extraction import module

    run = module.run_questions

    def full(model, inputs, *rest):
        if len(inputs["input_ids"]) > 3:
            raise torch.OutOfMemoryError
        return run(model, inputs, *rest)

    monkeypatch.setattr(module, "run_questions", full)
    for ours, wanted in zip(together(batch_size=8), apart, strict=True):
        assert_alike(ours, wanted)


@pytest.mark.slow
def test_names_are_left_out_for_the_question_that_cannot_take_them(together):
    joined = FREE.replace("ASSISTANT:", "ASSISTANT: ")
    made = together(("sign", joined), forced_choice="auto", layers=[0])
    with open_store(made[0]) as one, open_store(made[1]) as two:
        assert one.class_logprob is not None
        assert (two.class_logprob is None) == ("forced_choice_left_out" in two.provenance)


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ([], r"--prompt is \[\]: give at least one question"),
        (["sign", "sign"], "--prompt asks 'sign' twice"),
        (["sign", "no question"], "The prompt 'no question' holds <image> 0 times"),
        (
            ["sign", "USER: <image>\nWhat sign is being made in this image? Answer with one word."
             "\nASSISTANT:"],
            "Two questions of --prompt are one text",
        ),
    ],
)  # fmt: skip
def test_lists_that_are_no_questions_are_refused(together, prompts, says):
    with pytest.raises(ModelError, match=says):
        together(prompts)


def test_room_for_all_stores_is_asked_before_the_work(together, monkeypatch):
    from signbridge.store import files

    monkeypatch.setattr(files, "free_bytes", lambda _: files.SPACE_RESERVE + 150_000)
    monkeypatch.setattr(ExtractionModule, "predict_step", lambda *_: pytest.fail("ran"))
    with pytest.raises(StoreError, match="not enough room"):
        together()
