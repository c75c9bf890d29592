"""The published protocol, against a direct transcription of its description."""

import csv
import random
from collections import Counter

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler

from signbridge import open_store
from signbridge.cli import commands
from signbridge.cli.main import main
from signbridge.images import open_images

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    """Two CSVs of the Kaggle layout, with letters of different and of equal counts."""
    folder = tmp_path_factory.mktemp("kaggle")
    generator = np.random.default_rng(5)
    values = [k for k in range(25) if k != 9]
    for split, most in (("train", 30), ("test", 8)):
        labels = [v for v in values for _ in range(generator.integers(most // 2, most))]
        generator.shuffle(labels)
        with open(folder / f"sign_mnist_{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", *(f"pixel{k}" for k in range(1, 785))])
            for label in labels:
                # a faint letter-dependent stripe, so that something can be read
                pixels = generator.integers(0, 200, 784)
                pixels[label * 28 : label * 28 + 28] += 50
                writer.writerow([label, *pixels])
    return folder


def transcription(folder):
    """The rows that the study takes, in its order: (split, row number, letter)."""
    rows = []
    for split in ("train", "test"):
        with open(folder / f"sign_mnist_{split}.csv", newline="") as file:
            for number, row in enumerate(csv.DictReader(file)):
                rows.append((split, number, LETTERS[int(row["label"])]))
    counts = Counter(letter for _, _, letter in rows)
    letters = sorted(letter for letter, _ in counts.most_common()[:20])
    random.seed(42)
    chosen = []
    for letter in letters:
        own = [row for row in rows if row[2] == letter]
        random.shuffle(own)
        chosen += own[:15]
    return chosen


def test_the_choice_of_images(kaggle):
    images = open_images(str(kaggle), classes=20, per_class=15, seed=42)
    wanted = transcription(kaggle)
    assert list(images.sample_id) == [f"{split}/{number}" for split, number, _ in wanted]
    assert [images.class_names[k] for k in images.label] == [letter for *_, letter in wanted]
    assert len(images) == 300


def test_the_choice_on_the_real_sample():
    """The bundled rows, by the same transcription."""
    everything = open_images("sample")
    letters = [everything.class_names[k] for k in everything.label]
    kept = sorted(letter for letter, _ in Counter(letters).most_common()[:20])
    random.seed(42)
    wanted = []
    for letter in kept:
        own = [i for i, one in enumerate(letters) if one == letter]
        random.shuffle(own)
        wanted += own[:10]
    images = open_images("sample", classes=20, per_class=10, seed=42)
    assert list(images.sample_id) == [everything.sample_id[i] for i in wanted]


@pytest.mark.slow
def test_the_split_and_the_score(kaggle, tmp_path, monkeypatch):
    """The config's own settings but for the model: one split, StandardScaler, C = 1."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "report", lambda results, *others: results)  # tested elsewhere
    config = str(__file__).replace(
        "tests/cli/test_original_study.py", "configs/original-study.yaml"
    )
    overrides = ["--model", "tiny", "--layers", "[1,3,5,7]", "--max_new_tokens", "2"]
    assert (
        main(
            ["extract", "--config", config, *overrides, "--images", str(kaggle)]
            + ["--compute_dtype", "float32", "--store_dtype", "float32", "--output", "a.h5"]
        )
        == 0
    )
    assert main(["train_probes", "--config", config, "--store", "a.h5", "--output", "out"]) == 0
    with open("out/scores.csv") as file:
        scores = {
            int(row["layer"]): float(row["value"])
            for row in csv.DictReader(file)
            if row["feature"] == "resid_post"
            and row["metric"] == "accuracy"
            and (row["split"], row["task"]) == ("random", "label")
        }
    with open_store("a.h5") as store:
        y = store.labels
        splitter = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=42)
        train, test = next(splitter.split(np.zeros(len(y)), y))
        for layer in (1, 3, 5, 7):
            X = store.layer(layer).astype(np.float64)
            scaler = StandardScaler().fit(X[train])
            probe = LogisticRegression(C=1.0, tol=1e-10, max_iter=100_000)
            probe.fit(scaler.transform(X[train]), y[train])
            assert scores[layer] == pytest.approx(
                probe.score(scaler.transform(X[test]), y[test]), abs=1e-9
            )
    assert set(scores) == {1, 3, 5, 7}
