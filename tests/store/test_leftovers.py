"""What stopped runs leave beside a store: cleaned where nothing is lost, named otherwise."""

import io
import shutil

import pytest
from rich.console import Console

from signbridge.store import StoreWriter, open_store
from signbridge.store.info import print_info
from signbridge.store.leftovers import adding_path, addings, tidy_addings, unfinished
from signbridge.store.parts import Parts


def info(path):
    out = io.StringIO()
    print_info(path, Console(file=out, width=2000))
    return out.getvalue()


@pytest.fixture
def base(make_store):
    return make_store("s.h5", n=40, baselines={}, responses=False, class_logprob=False)


ADDED = {"n": 40, "baselines": {}, "responses": False, "class_logprob": False}


def test_info_on_an_unfinished_extraction(producer, tmp_path):
    path = tmp_path / "s.h5"
    producer.begin(path, n=40)
    said = info(path)
    for words in (
        "not finished: run the same extraction again",
        "32 of 40 are done",
        f"2 of 3 in {path}.parts, the newest written 0.",
        "layers 0, 2, 5",
        "stand-in",
    ):
        assert words in said
    (tmp_path / "s.h5.parts" / "shard-00001.h5").unlink()
    assert "16 of 40 are done" in info(path)


@pytest.mark.parametrize("plan", ["{", "{}", '{"format": "signbridge-parts", "version": "1.0"}'])
def test_info_on_a_damaged_plan_is_one_sentence(plan, tmp_path, capsys):
    from signbridge.cli.main import main

    (tmp_path / "s.h5.parts").mkdir()
    (tmp_path / "s.h5.parts" / "plan.json").write_text(plan)
    assert main(["info", str(tmp_path / "s.h5")]) == 2
    assert "not finished yet" in capsys.readouterr().err


def test_an_adding_that_could_go_on_stays_and_is_named(base, producer):
    added = adding_path(base, (3, 4))
    producer.begin(added, layers=(3, 4), **ADDED)
    assert addings(base) == [added]
    said = info(base)
    assert "unfinished" in said
    assert f"more layers: 32 of 40 samples at layers 3, 4, in {added}.parts" in said
    assert tidy_addings(base) == [f"32 of 40 samples at layers 3, 4, in {added}.parts"]
    assert tidy_addings(base, added) == []  # it is continued now
    assert unfinished(added).shards_done == 2


def test_an_adding_whose_layers_are_there_goes(base, producer):
    added = adding_path(base, (2, 5))
    producer.begin(added, layers=(2, 5), **ADDED)
    assert tidy_addings(base) == []
    assert [p.name for p in base.parent.iterdir()] == ["s.h5"]


def test_a_joined_adding_goes_and_an_unjoined_one_stays(base, producer, make_store):
    joined, other = adding_path(base, (2,)), adding_path(base, (7,))
    make_store(joined.name, **{**ADDED, "layers": (2,)})
    make_store(other.name, **{**ADDED, "layers": (7,)})
    assert tidy_addings(base) == [f"layer 7, finished but not joined, in {other}"]
    assert not joined.exists()
    assert f"still to be joined, in {other}" in info(base)
    other.write_text("damaged")
    assert tidy_addings(base) == [f"{other}, which cannot be read"]


def test_an_adding_to_a_store_that_was_replaced_since(base, producer):
    """It could never be continued, and would keep the same layers from being added."""
    added = adding_path(base, (3, 4))
    producer.begin(added, layers=(3, 4), change={"prompt": "before"}, **ADDED)
    assert len(tidy_addings(base)) == 1  # not what is wanted now, so it is only named
    assert tidy_addings(base, added) == []
    assert [p.name for p in base.parent.iterdir()] == ["s.h5"]


def test_an_adding_that_another_process_works_on_is_left_alone(base, producer):
    added = adding_path(base, (2,))
    producer.begin(added, layers=(2,), **ADDED)
    parts = Parts(added)
    parts.lock()
    try:
        assert tidy_addings(base) == []
        assert unfinished(added).shards_done == 2
    finally:
        parts.unlock()
    tidy_addings(base)
    assert unfinished(added) is None


def test_other_files_are_no_addings(base):
    for name in ("s.h5.adding-1234", "s.h5.adding-12345678x", "t.h5.adding-12345678"):
        (base.parent / name).write_text("mine")
    assert addings(base) == []


def test_a_stopped_overwrite_survives_the_old_command(base, producer):
    """Hours of work with new settings do not go because the old settings are complete."""
    producer.begin(base, change={"prompt": "new"}, overwrite=True, **ADDED)
    old = base.read_bytes()
    spec, samples, provenance, data = producer.inputs(**ADDED)
    with StoreWriter(base, spec, samples, provenance) as writer:
        assert writer.complete
    assert f"a replacement: 32 of 40 samples at layers 0, 2, 5, in {base}.parts" in info(base)
    new = {**provenance, "prompt": "new"}
    with StoreWriter(base, spec, samples, new, overwrite=True) as writer:
        assert [shard.index for shard in writer.pending()] == [2]
        writer.write_shard(2, producer.rows(data, 32, 40))
        assert base.read_bytes() == old
        writer.consolidate()
    with open_store(base) as store:
        assert store.provenance["prompt"] == "new"
    assert [p.name for p in base.parent.iterdir()] == ["s.h5"]
    assert "unfinished" not in info(base)


def test_what_a_killed_clean_up_left_goes(base, producer, tmp_path):
    producer.begin(tmp_path / "other.h5", **ADDED)
    shutil.move(tmp_path / "other.h5.parts", tmp_path / "s.h5.parts")
    assert "unfinished" not in info(base)  # nothing in it is missing in the store
    with StoreWriter(base, *producer.inputs(**ADDED)[:3]) as writer:
        assert writer.complete
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


@pytest.mark.slow
def test_the_extract_command_names_and_cleans(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from signbridge.extraction.extract import extract_activations
    from signbridge.extraction.module import ExtractionModule
    from signbridge.images import open_images
    from signbridge.model.description import describe_model

    class Stop(Exception):
        pass

    images, tiny = open_images("sample", classes=2, per_class=6), describe_model("tiny")
    path, out = tmp_path / "a.h5", io.StringIO()
    options = {"accelerator": "cpu", "devices": 1, "num_workers": 0, "quantization": "none"}
    options |= {"shard_size": 4, "batch_size": 4, "console": Console(file=out, width=1000)}

    def extract(layers):
        extract_activations(images, tiny, path, layers=layers, **options)

    extract([0])
    step = ExtractionModule.predict_step

    def die(self, batch, index):
        if index == 2:
            raise Stop
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(ExtractionModule, "predict_step", die)
        with pytest.raises(Stop):
            extract([0, 3])
    left = adding_path(path, (3,))
    assert unfinished(left) is not None
    extract([0])
    assert f"samples at layer 3, in {left}.parts; it continues there" in out.getvalue()
    extract([0, 3, 4])  # the layer comes another way
    extract([0])
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]
    with open_store(path) as store:
        assert store.layers == (0, 3, 4)
