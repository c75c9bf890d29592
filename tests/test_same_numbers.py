"""The numbers of the released code are the numbers of this one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fixtures.numbers import differing

from signbridge.probes import train_probes

RELEASED = Path(__file__).parent / "data" / "released"


def test_the_bundled_sample_gives_the_released_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "activations").mkdir()
    shutil.copy(RELEASED / "tiny-sample.h5", tmp_path / "activations")
    monkeypatch.chdir(tmp_path)
    made = train_probes("activations/tiny-sample.h5")
    assert differing(RELEASED / "results", made) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("scores.csv", "0.6275167785", "0.6275167786", "grouped label accuracy value"),
        ("comparisons.csv", "0.0446", "0.0448", "layers_vs_peak resid_post/1"),
        ("summary.json", '"p_corrected": 0.001', '"p_corrected": 0.002', "permutation_test"),
        ("summary.json", '"bits": 3.70677', '"bits": 3.70678', "said.known.bits: 3.70677"),
        ("summary.json", '"chance"', '"chances"', "summary.json.chance: missing"),
    ],
)
def test_a_changed_digit_is_told(tmp_path: Path, name: str, old: str, new: str, says: str) -> None:
    shutil.copytree(RELEASED / "results", tmp_path / "changed")
    path = tmp_path / "changed" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    found = differing(RELEASED / "results", path.parent)
    assert any(says in line for line in found)
