"""What a default turned on is left out with a note; what was asked for is refused."""

from dataclasses import replace

import pytest
from rich.console import Console

from signbridge import open_store
from signbridge.cli.commands import RunConfig
from signbridge.errors import Interrupted, ModelError, NamesError, SiteError
from signbridge.extraction.data import ExtractionDataModule
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


def test_what_only_the_loaded_model_tells_is_left_out_too(
    few, tiny, tmp_path, monkeypatch, extract
):
    tried = ExtractionDataModule.certify

    def certify(data, model, description, request, *rest):
        if request.answers is not None:
            raise NamesError("No way agrees")
        return tried(data, model, description, request, *rest)

    monkeypatch.setattr(ExtractionDataModule, "certify", certify)
    path = extract(few, tiny, tmp_path / "a.h5", layers=[1], forced_choice="auto")
    with open_store(path) as store:
        assert store.class_logprob is None
        assert store.provenance["forced_choice_left_out"].endswith(": No way agrees")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["names", "vision"])
def test_what_is_left_out_stays_out_when_a_run_goes_on(
    few, tiny, tmp_path, monkeypatch, extract, what
):
    """Neither the unfinished store nor the finished one is refused for what it lacks."""

    def certify(data, model, description, request, *rest):
        if what == "names" and request.answers is not None:
            raise NamesError("No way agrees")
        if what == "vision" and "vision" in request.sites:
            raise SiteError("vision", "its rows cannot be told apart")
        return tried(data, model, description, request, *rest)

    def stop(store):
        raise KeyboardInterrupt

    tried = ExtractionDataModule.certify
    monkeypatch.setattr(ExtractionDataModule, "certify", certify)
    options = {"layers": [1], "forced_choice": "auto"}
    path = tmp_path / "a.h5"
    with monkeypatch.context() as stopped, pytest.raises(Interrupted):
        stopped.setattr("signbridge.store.StoreWriter.consolidate", stop)
        extract(few, tiny, path, **options)
    for _ in range(2):
        extract(few, tiny, path, **options)
        with open_store(path) as store:
            assert ("vision" in store.baselines) == (what == "names")
            assert (store.class_logprob is not None) == (what == "vision")
            (note,) = [note for note in store.info["notes"] if "is left out: " in note]
            assert what == "names" or note.startswith("the baseline vision is left out: ")
            assert store.info.get("model_notes") == (None if what == "names" else [note])


def test_words_that_nothing_asks_for_are_refused(few, tiny, tmp_path, extract):
    with pytest.raises(ModelError, match="--answers names the words of answers, and none are"):
        extract(few, tiny, tmp_path / "a.h5", answers="words.csv")
