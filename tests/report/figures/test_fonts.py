"""Names in any script: drawn with an installed font that has it, or said."""

from __future__ import annotations

import csv
import io
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import h5py
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

from signbridge.report import write_report
from signbridge.report.figures import fonts
from signbridge.report.figures.plot import Canvas, render

ODD = ["esc\x1b[31mred", "two\nlines", "rtl\u202egnp.exe", "你好", "👍 ok"]


@pytest.fixture(autouse=True)
def _as_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_found", [])


def _characters(family: str) -> set[int]:
    return set(FT2Font(font_manager.findfont(family)).get_charmap())


def _drawn(text: str) -> tuple[bytes, frozenset[str]]:
    def draw(canvas: Canvas) -> None:
        canvas.figure.text(0.1, 0.5, text, parse_math=False)

    drawing = render(draw, 2, 1, dpi=60)
    return drawing.png, drawing.missing


def test_a_font_that_has_the_character_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """STIX comes with matplotlib, and has letters that DejaVu Sans lacks."""
    odd = chr(min(_characters("STIXGeneral") - _characters("DejaVu Sans") - set(range(33))))
    found, missing = _drawn(odd)
    assert missing == frozenset()
    assert len(fonts.families()) == 2
    monkeypatch.setattr(fonts, "_found", [])
    monkeypatch.setattr(fonts, "_family_with", lambda character: None)
    boxes, missing = _drawn(odd)
    assert missing == {odd}
    assert boxes != found


def test_fonts_of_boxes_are_no_help() -> None:
    names = fonts._charmaps()
    assert not [name for name in names if "Last" in name or name.startswith("cm")]
    unassigned = "\u0378"
    assert unicodedata.category(unassigned) == "Cn"
    assert _drawn(unassigned)[1] == {unassigned}


def test_the_page_names_what_figures_show_as_boxes(
    make_results: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "_family_with", lambda character: None)
    folder = make_results(class_names=[*ODD, "plain"], layers=range(2), per_class=6)
    page = write_report(folder, umap="none").read_text(encoding="utf-8")
    note = page.partition("No installed font has the characters")[2].partition("</li>")[0]
    for character in "你好👍":
        assert character in note
    assert "of 你好, 👍 ok, which figures show as boxes" in note
    assert "plain" not in note


def test_no_control_character_reaches_page_or_tables(make_results: Callable[..., Path]) -> None:
    folder = make_results(class_names=[*ODD, "plain"], layers=range(2), per_class=6)
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["warnings"] = [f"class {name} is small." for name in ODD]
    path.write_text(json.dumps(summary))
    page = write_report(folder, umap="none").read_text(encoding="utf-8")
    texts = {"report.html": page}
    for table in (folder / "figures").glob("*.csv"):
        texts[table.name] = table.read_text(encoding="utf-8")
    for name, text in texts.items():
        raw = {c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c not in "\n\t"}
        assert raw == set(), name
    assert "esc\\x1b[31mred" in page
    assert "rtl\\u202egnp.exe" in page
    rows = list(csv.DictReader(io.StringIO(texts["class_grid.csv"])))
    assert "two\\nlines" in {value for row in rows for value in row.values()}
    with h5py.File(folder / "predictions.h5") as file:
        assert [str(n) for n in file["class_name"].asstr()[:5]] == ODD
