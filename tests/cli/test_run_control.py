import json

import pytest

from signbridge import open_store
from signbridge.cli import commands
from signbridge.cli.main import main

FEW = ["run", "--classes", "3", "--per_class", "6", "--layers", "[0,7]", "--num_workers", "0"]


CHOICE = "the training part of fold 0 is too small to choose C inside it; give one value of C."


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "report", lambda results, *others: results)  # tested elsewhere
    return tmp_path


def test_run_extracts_and_probes_the_control(here):
    words = [*FEW, "--random_weights_control", "true", "--weights_seed", "4"]
    assert main(words) == 0
    with open_store("activations/tiny-random4-sample.h5") as control:
        assert control.provenance["weights_seed"] == 4
        with open_store("activations/tiny-sample.h5") as store:
            assert control.sample_ids == store.sample_ids
            assert control.layers == store.layers == (0, 7)
    results = here / "results" / "tiny-sample"
    summary = json.loads((results / "summary.json").read_text())
    assert summary["control"]["layers"] == [0, 7]
    assert summary["control"]["differing"] == []
    assert "random_weights,7," in (results / "scores.csv").read_text()
    before = (results / "summary.json").read_bytes()
    assert main(words) == 0
    assert (results / "summary.json").read_bytes() == before


def test_run_names_the_control_after_the_store():
    options = {"weights": "pretrained", "weights_seed": 2, "output": "a/b.h5", "layers": [1]}
    own, control = commands.RunConfig(**options, random_weights_control=True).extractions()
    assert (control.weights, control.weights_seed) == ("random", 2)
    assert (control.output, control.layers) == ("a/b-random.h5", [1])
    assert (own.weights, own.weights_seed) == ("pretrained", 0)
    assert (own.output, own.layers) == ("a/b.h5", [1])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--random_weights_control", "true", "--weights", "random"], "leave out --weights random"),
        (["--split_file", "no.csv"], "no.csv cannot be read"),
        (["--split_file", "no.csv", "--split", "source"], "contradict"),
        (["--weights_seed", "4"], "give --weights random with it"),
        (["--folds", "1000"], "folds need as many groups"),
        (["--folds", "1000", "--split", "random"], "folds"),
        (["--split", "source"], "split=source needs the data's own training and test part"),
        (["--split_file", "other.csv"], "the store has no sample 'x'"),
        (["--split_file", "other.csv", "--random_weights_control", "true"], "no sample 'x'"),
        (["--per_class", "1", "--split", "random"], "every class has a single image"),
        (["--per_class", "2", "--C", "[0.1,1]", "--folds", "2", "--split", "random"], CHOICE),
    ],
)
def test_run_refuses_before_it_extracts(words, said, here, capsys, monkeypatch):
    monkeypatch.setattr(commands, "_extract", lambda *_: pytest.fail("the model was loaded"))
    (here / "other.csv").write_text("sample_id,fold\nx,1\n")
    assert main([*FEW, *words]) == 2
    assert said in capsys.readouterr().err
    assert not (here / "activations").exists()


def test_split_file_on_the_command_line(here, capsys):
    assert main(["extract", "--classes", "3", "--per_class", "6", "--layers", "[0]"]) == 0
    with open_store("activations/tiny-sample.h5") as store:
        rows = [f"{name},{k % 2}\n" for k, name in enumerate(store.sample_ids)]
    (here / "own.csv").write_text("sample_id,fold\n" + "".join(rows))
    words = ["train_probes", "--bootstrap", "20", "--permutations", "0", "--control_task", "false"]
    assert main([*words, "--split_file", "own.csv"]) == 0
    summary = json.loads((here / "results/tiny-sample/summary.json").read_text())
    assert (summary["protocol"]["split"], summary["protocol"]["folds"]) == ("file", 2)
    capsys.readouterr()
    assert main([*words, "--split", "grouped", "--split_file", "own.csv"]) == 2
    assert "contradict" in capsys.readouterr().err
    assert main([*words, "--split", "source", "--output", "r"]) == 2
    assert "no image is of the part 'test' (18 of 'train')" in capsys.readouterr().err
