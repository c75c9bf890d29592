"""What a default turned on is left out with a note; what was asked for is refused."""

from dataclasses import replace

import pytest
from rich.console import Console

from signbridge import open_store
from signbridge.cli.commands import RunConfig
from signbridge.errors import ModelError
from signbridge.extraction.extract import extract_activations

SETTINGS = {"layers": [0], "quantization": "none", "console": Console(quiet=True)}


@pytest.fixture
def unspeakable(few):
    """Images of a class whose name the bundled tokenizer cannot write."""
    return replace(few, class_names=(*few.class_names[:-1], "zebra"))


def test_a_default_is_left_out_with_a_note(unspeakable, tiny, tmp_path):
    assert RunConfig().forced_choice == "auto"
    path = tmp_path / "a.h5"
    extract_activations(unspeakable, tiny, path, forced_choice="auto", **SETTINGS)
    with open_store(path) as store:
        assert store.class_logprob is None
        assert "forced_choice" not in store.provenance
        assert store.provenance["forced_choice_left_out"].endswith("probability cannot be told")
        (note,) = [note for note in store.info["notes"] if "forced choice is left out" in note]
        assert "no token for the class name 'zebra'" in note


def test_what_was_asked_for_is_refused(unspeakable, tiny, tmp_path):
    with pytest.raises(ModelError, match="no token for the class name 'zebra'"):
        extract_activations(unspeakable, tiny, tmp_path / "a.h5", forced_choice=True, **SETTINGS)


def test_words_stand_for_classes(unspeakable, tiny, tmp_path):
    file, path = tmp_path / "answers.csv", tmp_path / "a.h5"
    words = [*unspeakable.class_names[:-1], "fist"]
    rows = zip(unspeakable.class_names, words, strict=True)
    file.write_text("class,answer\n" + "".join(f"{name},{word}\n" for name, word in rows))
    extract_activations(
        unspeakable, tiny, path, forced_choice=True, answers=str(file), max_new_tokens=2, **SETTINGS
    )
    with open_store(path) as store:
        assert store.class_logprob.shape == (len(unspeakable), len(words))
        assert store.provenance["answers"] == words
        assert store.class_names[-1] == "zebra"
