"""Make the bundled probes: those of the demo, which saw none of its example pictures.

Run from the root of the repository after the stand-in itself is in place:

    python -m training.probes
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from signbridge.cli.commands import extract
from signbridge.demo.command import BUNDLED_PROBES
from signbridge.demo.examples import example_rows
from signbridge.images import open_images
from signbridge.probes import train_probes
from signbridge.probes.dataset.splits import make_split
from signbridge.results.features import RESID_POST
from signbridge.results.format import SCORES_FILE
from signbridge.results.probes import load_probes, save_probes
from signbridge.results.results import Score, load_results
from signbridge.results.tables import write_rows
from signbridge.store import open_store

FOLDS = 5
PENALTIES = [0.0001, 0.001, 0.01, 0.1, 1.0]


def write_split(path: Path) -> None:
    """Write grouped folds of the sample without the examples' photographs."""
    images = open_images("sample")
    groups, labels = np.asarray(images.group), np.asarray(images.label)
    kept = np.flatnonzero(~np.isin(groups, groups[example_rows(images)]))
    fold = make_split(labels[kept], groups[kept], folds=FOLDS).fold_of_sample
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sample_id", "fold"])
        of_row = dict(zip(kept.tolist(), fold.tolist(), strict=True))
        for row, name in enumerate(images.sample_id):
            writer.writerow([name, of_row.get(row, "ignore")])


def main() -> None:
    """Extract, train without the examples, and keep the probes of the decoder layers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = extract(output=str(folder / "sample.h5"), max_new_tokens=5, forced_choice=True)
        write_split(folder / "folds.csv")
        results = train_probes(
            store=str(store),
            output=str(folder / "results"),
            split_file=str(folder / "folds.csv"),
            C=PENALTIES,
            baselines=False,
        )
        probes = load_probes(results)
        with open_store(store) as opened:
            provenance = dict(opened.provenance)
        words = {
            "store": {"name": "sample, without the demo's examples", "provenance": provenance},
            "best_layer": probes.provenance["best_layer"],
        }
        shutil.rmtree(BUNDLED_PROBES, ignore_errors=True)
        layers = [probes[layer] for layer in probes.layers]
        save_probes(BUNDLED_PROBES, layers, probes.class_names, words)
        scored = load_results(results)
        held_out = scored.curve(RESID_POST, "accuracy", scored.split)
        write_rows(BUNDLED_PROBES / SCORES_FILE, Score, map(asdict, held_out))


if __name__ == "__main__":
    main()
