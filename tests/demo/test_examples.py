"""What the page says of its examples is compared with what the probes were trained on."""

import numpy as np
import pytest

from signbridge.demo.examples import CLASSES, example_rows, examples_label
from signbridge.images import open_images
from signbridge.images.groups import near_duplicate_groups
from signbridge.probes import train_probes
from signbridge.store import SampleTable, StoreSpec, StoreWriter

UNKNOWN = "Examples (whether the probes were trained on them is not known)"


@pytest.fixture(scope="module")
def sample():
    return open_images("sample", groups="none")


@pytest.fixture
def train(sample, tmp_path, monkeypatch):
    """Train probes on some rows of the sample, as a store of a made-up model."""
    monkeypatch.chdir(tmp_path)

    def train(rows, change=lambda pixels: pixels, hashes=True, **options):
        rows = np.asarray(rows)
        labels = sample.label[rows]
        classes = np.unique(labels)
        samples = SampleTable(
            sample_id=[sample.sample_id[row] for row in rows],
            label=np.searchsorted(classes, labels),
            class_names=[sample.class_names[k] for k in classes],
            group=np.arange(len(rows)),
            source_split=["train"] * len(rows),
            image_sha256=[sample.image_sha256[row] if hashes else "0" * 64 for row in rows],
        )
        spec = StoreSpec((0,), 4, "float32", {"pixels": (784, "uint8", {})})
        vectors = np.random.default_rng(0).normal(size=(len(rows), 1, 4)).astype(np.float32)
        with StoreWriter("s.h5", spec, samples, {"model": "made up"}) as writer:
            data = {"resid_post": vectors, "pixels": change(sample.pixels[rows])}
            for shard in writer.pending():
                writer.write_shard(shard.index, data)
            writer.consolidate()
        quick = {"permutations": 0, "bootstrap": 10, "control_task": False, "folds": 2}
        return train_probes("s.h5", "out", **{**quick, **options})

    return train


@pytest.fixture(scope="module")
def rows(sample):
    """Of the examples, and four of each class that are no near-duplicates of them."""
    examples = example_rows(sample)
    groups = near_duplicate_groups(sample.pixels)
    others = []
    for name in CLASSES:
        members = np.flatnonzero(sample.label == sample.class_names.index(name))
        others += members[~np.isin(groups[members], groups[examples])][:4].tolist()
    return examples, others


def brighter(pixels):
    """Other bytes of the same picture."""
    return (pixels.astype(float) * 0.8 + 10).astype(np.uint8)


@pytest.mark.parametrize(
    ("seen", "what", "said"),
    [
        (0, {}, "the probes were trained on none of them"),
        (12, {}, "the probes were trained on all of them, or on near-duplicates"),
        (5, {}, "the probes were trained on 5 of these 12, or on near-duplicates"),
        (5, {"hashes": False}, "the probes were trained on 5 of these 12, or on near-duplicates"),
        (
            12,
            {"hashes": False, "change": brighter},
            "the probes were trained on all of them, or on near-duplicates",
        ),
    ],
)
def test_the_examples_are_called_what_they_are(train, rows, sample, seen, what, said):
    examples, others = rows
    results = train(examples[:seen] + others, **what)
    assert examples_label(results, sample.class_names) == f"Examples ({said})"


def test_images_that_a_file_of_folds_leaves_out_were_not_trained_on(train, rows, sample, tmp_path):
    examples, others = rows
    lines = [f"{sample.sample_id[row]},{k % 2}" for k, row in enumerate(others)]
    for fold, said in (("ignore", UNKNOWN), ("0", None)):
        ignored = [f"{sample.sample_id[row]},{fold}" for row in examples]
        (tmp_path / "folds.csv").write_text("\n".join(["sample_id,fold", *lines, *ignored]))
        results = train(examples + others, split_file="folds.csv", overwrite=True)
        label = examples_label(results, sample.class_names)
        assert label == (
            said or "Examples (the probes were trained on all of them, or on near-duplicates)"
        )


def test_without_the_store_nothing_is_claimed(train, rows, sample, tmp_path, probes_folder):
    examples, others = rows
    results = train(examples + others)
    (tmp_path / "s.h5").unlink()
    assert examples_label(results, sample.class_names) == UNKNOWN
    assert examples_label(probes_folder, sample.class_names) == UNKNOWN


def test_the_bundled_probes_were_trained_on_none(sample):
    said = "Examples (no model or probe here was trained on them)"
    assert examples_label(None, sample.class_names) == said
