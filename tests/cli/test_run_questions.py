import json

import pytest

from signbridge.cli import commands
from signbridge.cli.main import main
from signbridge.errors import ModelError

FEW = ["run", "--classes", "3", "--per_class", "6", "--layers", "[0,7]", "--num_workers", "0"]


@pytest.mark.slow
def test_run_probes_each_question_with_its_control_and_compares_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "report", lambda results, *others: results)  # tested elsewhere
    words = [
        *FEW,
        "--prompt",
        "[sign,letter]",
        "--results",
        "R",
        "--random_weights_control",
        "true",
    ]
    assert main(words) == 0
    stores = {path.name for path in (tmp_path / "activations").glob("*.h5")}
    names = ("tiny-sample", "tiny-random-sample")
    assert stores == {f"{name}-{q}.h5" for name in names for q in ("sign", "letter")}
    for question in ("sign", "letter"):
        summary = json.loads((tmp_path / "R" / question / "summary.json").read_text())
        assert summary["control"]["layers"] == [0, 7]
        assert summary["control"]["differing"] == []
    record = json.loads((tmp_path / "R" / "sign-vs-letter" / "comparison.json").read_text())
    assert list(record["differs"]) == ["prompt"]
    assert record["warnings"] == []
    rows = (tmp_path / "R" / "sign-vs-letter" / "differences.csv").read_text()
    assert "letter,sign,layers,resid_post/0,resid_post/0" in rows
    assert "letter,sign,baselines,text,text" in rows
    assert "letter,sign,baselines,forced_choice,forced_choice" in rows


def test_each_question_has_a_store_and_results_of_its_own():
    config = commands.RunConfig(prompt=["sign", "letter"], output="a/b.h5", results="R")
    assert config.outputs("none.h5") == ["a/b-sign.h5", "a/b-letter.h5"]
    assert [one.output for one in config.probings()] == ["R/sign", "R/letter"]
    plain = commands.RunConfig(prompt="sign", results="R")
    assert plain.outputs("c.h5") == ["c.h5"]
    assert [one.output for one in plain.probings()] == ["R"]


def test_more_questions_than_one_page_compares_are_refused():
    with pytest.raises(ModelError, match="run compares at most 8 questions, not 9"):
        commands.RunConfig(prompt=[f"<image>{number}" for number in range(9)])
