import csv
import json

import pytest

from signbridge.report import write_report
from signbridge.report.text.first_screen import tiles
from signbridge.report.text.said import class_answers
from signbridge.results.results import load_results


@pytest.fixture
def silent(make_results):
    return make_results(class_names=list("AB"), layers=range(2))


@pytest.fixture
def talking(silent):
    """A results folder of a store that held answers."""
    results_dir = silent
    summary = json.loads((results_dir / "summary.json").read_text())
    summary["said"] = {
        "sentence": "Layer 5 knows 2.9 of 4.6 bits; the answer says 1.2. <b>",
        "text": {"bits": 1.2, "names_class": 0.25, "distinct_answers": 7},
        "forced_choice": {"bits": 1, "zero_shot": {"accuracy": {"value": 0.125}}},
    }
    (results_dir / "summary.json").write_text(json.dumps(summary))
    with (results_dir / "answers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class_name", "answer", "count", "share", "names_class"])
        writer.writerows([["A", "fist", 3, 0.75, "false"], ["A", "a", 1, 0.25, "true"]])
        writer.writerow(["B", "", 4, 1.0, "false"])
    return results_dir


def test_the_page_tells_what_was_said(talking):
    results = load_results(talking)
    choice, names = tiles(results)[-2:]
    assert (choice.label, choice.value) == ("right by the model’s forced choice", "12.5\u00a0%")
    assert (names.value, names.detail) == ("25.0\u00a0%", "7 different answers")
    first, second = class_answers(results)
    assert (first.class_name, first.answers[0][0]) == ("A", "fist")
    assert second.answers == (("(nothing)", "100.0\u00a0%"),)
    page = write_report(talking, umap="none").read_text(encoding="utf-8")
    assert "commonest answers" in page


def test_a_folder_where_nothing_was_said_says_nothing_of_it(silent):
    results = load_results(silent)
    assert class_answers(results) == []
    assert not any("model" in tile.label for tile in tiles(results))


@pytest.mark.parametrize("damage", ["", "class_name,answer\nA,fist\n", "x\n1\n"])
def test_a_damaged_list_of_answers_is_left_out(talking, damage):
    (talking / "answers.csv").write_text(damage)
    assert class_answers(load_results(talking)) == []
