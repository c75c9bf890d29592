import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from signbridge.demo.panels import (
    known_and_said,
    layers_by_classes,
    likeliest_classes,
    nearest_images,
)
from signbridge.demo.reading import Reader, held_out_accuracy, said_and_read
from signbridge.errors import ModelError, ProbeError
from signbridge.images import open_images
from signbridge.results.features import Feature
from signbridge.results.probes import Probe, load_probes, save_probes
from signbridge.store import open_store


def test_a_picture_of_the_store_reads_as_it_did_there(reader, store_path, probes_folder):
    images = open_images("sample", per_class=4, groups="none")
    probes = load_probes(probes_folder)
    with open_store(store_path) as store:
        for row in (0, 17, 60):
            reading = reader.read(images.load(row))
            wanted = [probes[k].predict_proba(store.layer(k)[row : row + 1])[0] for k in range(8)]
            # a batch of one against the batch of eight of the extraction
            np.testing.assert_allclose(reading.probability, wanted, atol=0.02)
            assert reading.probability.argmax(1).tolist() == np.argmax(wanted, 1).tolist()
            assert reading.answer == store.responses[row]
            shares = np.exp(store.class_logprob[row].astype(float))
            np.testing.assert_allclose(
                reading.forced_choice, shares / shares.sum(), rtol=1e-3, atol=1e-5
            )
    assert reading.best == 5
    assert reading.class_names == images.class_names


def test_the_line_says_what_was_said_and_what_is_read(reader):
    images = open_images("sample", per_class=4, groups="none")
    reading = reader.read(images.load(0))
    line = said_and_read(reading, 2)
    top = reading.class_names[reading.probability[2].argmax()]
    assert f"“{reading.answer}”" in line
    assert f"<b>Read:</b> the probe of layer 2 reads <b>{top}</b>" in line
    assert "Known" not in line
    assert "Its nearest training image lies at" in line
    far = replace(reading, near=replace(reading.near, share=0.99))
    assert "Unlike what the probes were trained on" in said_and_read(far, 2)
    assert "Unlike" not in line
    assert "How often it is right on held-out images is not recorded." in line


SCORES = """feature,layer,solver,split,task,metric,value,ci_low,ci_high,n_train,n_test,n_classes,C
resid_post,2,exact,grouped,label,accuracy,0.8125,0.761,0.856,227,1284,24,1
resid_post,2,exact,random,label,accuracy,0.99,0.98,1,227,284,24,1
resid_post,2,exact,grouped,label,top3_accuracy,0.97,0.96,0.98,227,284,24,1
resid_post,2,exact,grouped,group_control,accuracy,0.1,0.05,0.2,227,284,24,1
random_weights,2,exact,grouped,label,accuracy,0.3,0.2,0.4,227,284,24,1
resid_post,3,exact,grouped,label,accuracy,0.5,,,227,2,24,1
resid_post,4,exact,grouped,label,accuracy,,,,227,2,24,1
pixels,,exact,grouped,label,accuracy,0.6,0.5,0.7,227,284,24,1
"""


def test_how_often_a_probe_is_right_stands_beside_what_it_reads(reader, probes_folder, tmp_path):
    from dataclasses import replace

    (tmp_path / "scores.csv").write_text(SCORES)
    probes = replace(load_probes(probes_folder), provenance={"protocol": {"split": "grouped"}})
    scores = held_out_accuracy(tmp_path, probes)
    assert {layer: score.value for layer, score in scores.items()} == {2: 0.8125, 3: 0.5}
    reading = reader.read(open_images("sample", per_class=1, groups="none").load(0))
    reading = replace(reading, held_out=tuple(scores.get(layer) for layer in reading.layers))
    right = (
        "It was right on 81&nbsp;% of 1,284 held-out images (95&nbsp;% interval 76 to 86&nbsp;%)."
    )
    assert right in said_and_read(reading, 2)
    assert "It was right on 50&nbsp;% of 2 held-out images." in said_and_read(reading, 3)
    assert "is not recorded" in said_and_read(reading, 4)


def test_an_answer_cannot_smuggle_markup_into_the_page(reader):
    images = open_images("sample", per_class=4, groups="none")
    reading = replace(reader.read(images.load(0)), answer="<img src=x onerror=alert(1)>")
    assert "<img" not in said_and_read(reading, 0)
    names = tuple(f"<b>$x{name}" for name in reading.class_names)
    reading = replace(reading, class_names=names)
    for panel in (
        known_and_said(reading),
        likeliest_classes(reading, 0),
        layers_by_classes(reading),
    ):
        assert "<img" not in panel
        assert "<b>" not in panel
        assert "&lt;b&gt;$x" in panel
    near = replace(reading.near, images=(('"><script>', "<b>"),))
    assert "<script" not in nearest_images(replace(reading, near=near))


def changed(folder, target, change):
    shutil.copytree(folder, target)
    words = json.loads((target / "probes.json").read_text())
    change(words)
    (target / "probes.json").write_text(json.dumps(words))
    return target


def test_probes_of_random_weights_are_refused(probes_folder, tmp_path):
    def change(words):
        made = words["provenance"]["store"]["provenance"]
        made.pop("weights_sha256", None)
        made["weights"] = "random"

    other = changed(probes_folder, tmp_path / "random", change)
    with pytest.raises(ModelError, match=r"trained on other weights .* give the --probes"):
        Reader("tiny", other)


def test_probes_of_other_weights_are_refused(probes_folder, tmp_path):
    def change(words):
        words["provenance"]["store"]["provenance"]["weights_sha256"] = "0" * 64

    other = changed(probes_folder, tmp_path / "other", change)
    with pytest.raises(ModelError, match=r"trained on other weights .* give the --probes"):
        Reader("tiny", other)


@pytest.mark.parametrize(
    ("key", "old", "new", "says"),
    [
        ("image_processor", '"image_mean":[0.6', '"image_mean":[0.5', r"image_mean in processor_c"),
        ("quantization", "nf4", "fp4", "quantization"),
    ],
)
def test_probes_of_other_settings_are_refused(probes_folder, tmp_path, key, old, new, says):
    def change(words):
        made = words["provenance"]["store"]["provenance"]
        assert old in made[key]
        made[key] = made[key].replace(old, new)

    with pytest.raises(ModelError, match=rf"were trained with {says}.*but of tiny it is"):
        Reader("tiny", changed(probes_folder, tmp_path / "other", change))


def test_a_folder_without_probes_is_named(tmp_path):
    with pytest.raises(ProbeError, match=r"probes.json does not exist; give a results folder"):
        Reader("tiny", tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prompt", ["USER"]),
        ("store_dtype", "object"),
        ("position", "middle"),
        ("max_new_tokens", 10**12),
        ("max_new_tokens", "many"),
        ("quantization", {"nf4": 1}),
        ("compute_dtype", 3),
    ],
)
def test_probes_that_were_made_as_none_can_be_are_refused(key, value, tmp_path):
    probe = Probe(Feature("resid_post", 0), np.ones((2, 3)), *np.ones((3, 3)), C=1.0)
    probe = replace(probe, bias=np.ones(2))
    record = {"store": {"provenance": {key: value}}}
    save_probes(tmp_path, [probe], ["A", "B"], record)
    with pytest.raises(ProbeError, match=f"were made with {key} .* train again"):
        Reader("tiny", tmp_path)
    for store in ("s", {"provenance": [1]}):
        save_probes(tmp_path, [probe], ["A", "B"], {"store": store})
        with pytest.raises(ProbeError, match="do not say how they were made"):
            Reader("tiny", tmp_path)
    save_probes(tmp_path, [probe], ["A", "B"], {"store": {"provenance": {"images_per_sample": 2}}})
    with pytest.raises(ProbeError, match="read prompts of several images, and the demo shows one"):
        Reader("tiny", tmp_path)
