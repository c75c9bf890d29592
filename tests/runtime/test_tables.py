"""CSV that no spreadsheet computes, and that reads back as what was written."""

import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from signbridge.runtime.tables import csv_lines, csv_text, quoted, unquoted


@pytest.mark.parametrize(
    "text",
    [
        '=HYPERLINK("http://x","y")', "+1+1", "-2+3+cmd|' /C calc'!A0", "@SUM(A1)",
        "\t=1", "\r=1", "\n=1", "-", "=", "'=1", "''+x",
    ],
)  # fmt: skip
def test_no_cell_begins_as_a_formula(text):
    (cell,) = next(csv.reader(io.StringIO(csv_text([text], []), newline="")))
    assert cell == f"'{text}"
    assert unquoted(cell) == text


@pytest.mark.parametrize("cell", [-1, -0.5, "-0.5", "+3", "-1e-5", "-inf", "", "A", "it's", "'a'"])
def test_numbers_and_other_texts_stay_as_they_are(cell):
    assert quoted(cell) == cell
    assert csv_text(["a", "b"], [[cell, None]]).splitlines()[1:] == [f"{cell},"]


@given(st.lists(st.lists(st.text(st.characters(codec="utf-8")), min_size=1), min_size=1))
@example([["'"], ["-5", "'-5", "''-5"], ["", ""]])
def test_every_text_reads_back(rows):
    text = csv_text(["column"], rows)
    assert [row for _, row in csv_lines(text)][1:] == rows
