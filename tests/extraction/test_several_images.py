"""A folder of images that stand in one prompt."""

import pytest
import torch
from fixtures.families import plain

from signbridge import open_store
from signbridge.errors import ModelError
from signbridge.extraction.config import ExtractConfig
from signbridge.extraction.data import BatchDataset
from signbridge.images import open_images
from signbridge.model.prompts import prompt_for_processor, resolve_prompt


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Two classes with three samples of two images each."""
    sample = open_images("sample", classes=2, per_class=6)
    root = tmp_path_factory.mktemp("pairs")
    for row in range(len(sample)):
        folder = root / sample.class_names[sample.label[row]] / str(row // 2)
        folder.mkdir(parents=True, exist_ok=True)
        sample.load(row).save(folder / f"{row % 2}.png")
    return open_images(root, layout="class/sample", groups="none")


def asked_of(tiny):
    text = resolve_prompt("sign", tiny.processor, "llava", 2)
    assert text.count("<image>") == 2
    return prompt_for_processor(text, tiny.processor)


def test_a_batch_holds_all_images_of_its_samples(pairs, tiny):
    batch = BatchDataset(pairs, tiny.processor, asked_of(tiny))[range(3)]
    ids, pixels = batch.inputs["input_ids"], batch.inputs["pixel_values"]
    assert (len(ids), len(pixels)) == (3, 6)
    each = (ids == tiny.image_token_id).sum(1)
    assert torch.equal(each, torch.full((3,), each[0]))
    alone = tiny.processor.image_processor(pairs.load_all(1)[1], return_tensors="pt")
    assert torch.equal(pixels[3], alone["pixel_values"][0])


@pytest.mark.slow
def test_a_store_holds_what_a_plain_pass_over_both_images_gives(
    pairs, tiny, model, tmp_path, extract
):
    path = extract(pairs, tiny, tmp_path / "a.h5", store_dtype="float32")
    with open_store(path) as store:
        assert store.provenance["images_per_sample"] == 2
        for row in (0, 4):
            inputs = tiny.processor(
                text=[asked_of(tiny)], images=pairs.load_all(row), return_tensors="pt"
            )
            states = plain(model, dict(inputs))[1]
            marks = inputs["input_ids"][0] == tiny.image_token_id
            for ours, wanted in (
                (store.layer(1)[row], states[2][0, -1]),
                (store.feature("projector")[row], states[0][0, marks].mean(0)),
            ):
                torch.testing.assert_close(torch.tensor(ours), wanted, rtol=1e-3, atol=1e-4)


def test_a_prompt_names_each_image(pairs, tiny, tmp_path, extract):
    with pytest.raises(ModelError, match="holds <image> 1 times: write it 2 times, where the"):
        extract(pairs, tiny, tmp_path / "a.h5", prompt="<image> What is this?")
    with pytest.raises(ModelError, match="holds <image> 2 times: write it exactly once"):
        ExtractConfig(prompt="<image><image>")  # before any image is looked for
    assert ExtractConfig(prompt="<image><image>", layout="signer/class/sample").prompt
