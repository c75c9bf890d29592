import base64
import io

import h5py
import numpy as np
import pytest
import xarray
from fixtures.families import family_folder, plain
from PIL import Image

from signbridge import open_store
from signbridge.errors import ModelError, SignBridgeError, StoreError
from signbridge.extraction.extract import _trainer, resolve_layers
from signbridge.extraction.module import ExtractionModule
from signbridge.images import open_images
from signbridge.model.description import describe_model
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.load import load_model
from signbridge.model.processor import prepare as prepare_batch
from signbridge.model.prompts import DEFAULT_PROMPT, prompt_for_processor, resolve_prompt
from signbridge.model.sites import SITES


def test_the_store_holds_what_the_model_gives(finished, few, tiny, model, prepare):
    rows = list(range(16, 24))  # the first batch of the second shard
    inputs = dict(
        tiny.processor(
            text=[DEFAULT_PROMPT] * 8,
            images=[few.load(row) for row in rows],
            padding=True,
            return_tensors="pt",
        )
    )
    wanted = run_batch(
        model,
        inputs,
        tiny.image_token_id,
        CaptureRequest(tuple(range(8)), max_new_tokens=3, sites=tuple(SITES)),
    )
    with open_store(finished) as store:
        for k in range(8):
            np.testing.assert_array_equal(
                store.layer(k)[16:24], wanted.resid_post[:, k].numpy(), strict=True
            )
        np.testing.assert_array_equal(
            store.feature("vision")[16:24], wanted.sites["vision"].numpy()
        )
        np.testing.assert_array_equal(
            store.feature("projector")[16:24], wanted.sites["projector"].numpy()
        )
        np.testing.assert_array_equal(store.feature("pixels"), few.pixels)
        answers = tiny.processor.batch_decode(wanted.answer_ids, skip_special_tokens=True)
        for row, text in zip(rows, store.texts("thumbnail", rows), strict=True):
            with Image.open(io.BytesIO(base64.b64decode(text)), formats=["JPEG"]) as small:
                assert np.abs(np.asarray(small) - np.asarray(few.load(row), float)).mean() < 8
        assert store.responses[16:24] == [answer.strip() for answer in answers]
        assert list(store.sample_ids) == list(few.sample_id)
        assert store.labels.tolist() == few.label.tolist()
        assert store.groups.tolist() == few.group.tolist()


def test_provenance_says_how_it_was_made(finished, tiny):
    with open_store(finished) as store:
        said = store.provenance
    assert said["model"] == "tiny"
    assert said["weights_sha256"] == tiny.weights_sha256
    assert said["quantization"] == "none"
    assert said["compute_dtype"] == "float32"
    assert said["position"] == "last_prompt"
    assert "<image>" in said["prompt"]
    assert said["image_source"] == "sample"
    assert said["processor_backend"] == "pil"
    with h5py.File(finished) as file:
        assert file.attrs["model"] == "tiny"
        assert bool(file.attrs["complete"])


def test_xarray_opens_it_with_named_dimensions(finished):
    with xarray.open_dataset(finished, engine="h5netcdf") as data:
        assert data["resid_post"].dims == ("sample", "layer", "hidden")
        assert data["resid_post"].sel(layer=3).shape == (40, 128)
        assert data["vision"].dims == ("sample", "vision_feature")


def test_vectors_do_not_depend_on_what_else_is_asked_for(finished, few, tiny, tmp_path, extract):
    silent = extract(
        few, tiny, tmp_path / "a.h5", layers=[5, 2], store_dtype="float32", num_workers=2
    )
    with open_store(silent) as ours, open_store(finished) as wanted:
        assert ours.layers == (2, 5)
        assert ours.responses is None
        for k in (2, 5):
            np.testing.assert_array_equal(ours.layer(k), wanted.layer(k))


def test_nf4_runs_end_to_end(few, tiny, tmp_path, extract):
    path = extract(few, tiny, tmp_path / "a.h5", quantization="nf4", max_new_tokens=2)
    with open_store(path) as store:
        assert store.provenance["quantization"] == "nf4"
        assert "model.vision_tower" in store.provenance["quantized_modules"]
        assert store.layer(7).dtype == np.float16
        assert np.isfinite(store.layer(7)).all()


class Stop(Exception):
    pass


def test_a_run_that_died_continues_and_ends_with_the_same_content(
    finished, few, tiny, tmp_path, monkeypatch, extract, assert_same_content
):
    path = tmp_path / "a.h5"
    options = {"max_new_tokens": 3, "store_dtype": "float32"}
    step, calls = ExtractionModule.predict_step, []

    def dying(self, batch, batch_idx):
        calls.append(batch.rows)
        if len(calls) == 4:
            raise Stop
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(ExtractionModule, "predict_step", dying)
        with pytest.raises(Stop):
            extract(few, tiny, path, **options)
    assert not path.exists()
    done = []
    monkeypatch.setattr(
        ExtractionModule,
        "predict_step",
        lambda self, batch, i: (done.append(batch.rows), step(self, batch, i))[1],
    )
    extract(few, tiny, path, **options)
    assert [rows.start for rows in done] == [16, 24, 32]  # the first shard was kept
    assert_same_content(path, finished)
    assert [p.name for p in tmp_path.iterdir()] == ["a.h5"]


def test_a_finished_store_is_left_alone_without_loading_the_model(
    finished, few, tiny, monkeypatch, extract
):
    before = finished.read_bytes()
    monkeypatch.setattr(
        "signbridge.extraction.module.load_model",
        lambda *a, **k: pytest.fail("weights were loaded"),
    )
    extract(few, tiny, finished, max_new_tokens=3, store_dtype="float32")
    assert finished.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"position": "image_mean"}, "position"),
        ({"prompt": "USER: <image> which letter? ASSISTANT:"}, "prompt"),
        ({"quantization": "nf4"}, "quantization"),
        ({"max_new_tokens": 2}, "max_new_tokens"),
        ({"compute_dtype": "bfloat16"}, "compute_dtype"),
        ({"store_dtype": "float16"}, "store_dtype"),
    ],
)
def test_another_protocol_is_refused_by_name(finished, few, tiny, change, key, extract):
    before = finished.read_bytes()
    options = {"max_new_tokens": 3, "store_dtype": "float32"} | change
    with pytest.raises(StoreError, match=key):
        extract(few, tiny, finished, **options)
    assert finished.read_bytes() == before


def test_other_images_are_refused_and_overwrite_is_explicit(few, tiny, tmp_path, extract):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[0])
    other = open_images("sample", classes=10, per_class=4, seed=1)
    with pytest.raises(StoreError, match="seed"):
        extract(other, tiny, path, layers=[0])
    extract(other, tiny, path, layers=[0], overwrite=True)
    with open_store(path) as store:
        assert list(store.sample_ids) == list(other.sample_id)


def test_an_overflow_names_sample_layer_and_remedy(few, tiny, tmp_path, monkeypatch, extract):
    step = ExtractionModule.predict_step

    def loud(self, batch, batch_idx):
        copies = step(self, batch, batch_idx)
        if batch.rows.start == 8:
            copies[0][0]._host["resid_post"][3, 6, 100] = 70_000.0
        return copies

    monkeypatch.setattr(ExtractionModule, "predict_step", loud)
    with pytest.raises(StoreError, match=r"store_dtype float32") as caught:
        extract(few, tiny, tmp_path / "a.h5")
    assert few.sample_id[11] in str(caught.value)
    assert "layer 6" in str(caught.value)


def test_an_image_that_vanishes_during_the_run(tmp_path, tiny, images, extract):
    for k in range(12):
        folder = tmp_path / "images" / "AB"[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        images.load(k).save(folder / f"{k}.png")
    found = open_images(str(tmp_path / "images"))
    (tmp_path / "images" / "A" / "0.png").unlink()
    with pytest.raises(SignBridgeError, match=r"0\.png"):
        extract(found, tiny, tmp_path / "a.h5", num_workers=1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": [8]}, "decoder layers 0 to 7"),
        ({"layers": [-1]}, "Layer -1 does not exist"),
        ({"layers": []}, "at least one layer"),
        ({"layers": [1, 1]}, "each once"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"position": "last_generated"}, "max_new_tokens"),
        ({"prompt": "no image here"}, "holds <image> 0 times"),
        ({"prompt": "<image><image>"}, "holds <image> 2 times"),
        ({"devices": 0}, "devices"),
        ({"accelerator": "gpu"}, "Accelerator 'gpu'"),
        ({"strategy": "ddp_spawn"}, "'ddp_spawn'"),
    ],
)
def test_arguments_that_make_no_sense(few, tiny, tmp_path, options, said, extract):
    with pytest.raises(ModelError, match=said):
        extract(few, tiny, tmp_path / "a.h5", **options)
    assert list(tmp_path.iterdir()) == []


def test_resolve_layers_sorts():
    assert resolve_layers([31, 8], 32) == (8, 31)
    assert resolve_layers("all", 3) == (0, 1, 2)


def test_torchrun_inside_a_slurm_job_keeps_its_own_ranks(monkeypatch):
    slurm = {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "x", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    slurm |= {"SLURM_NODEID": "0", "SLURM_JOB_ID": "1", "SLURM_NODELIST": "localhost"}
    slurm |= {"SLURM_STEP_NUM_TASKS": "1"}
    torchrun = {"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    for name, value in (slurm | torchrun).items():
        monkeypatch.setenv(name, value)
    trainer = _trainer("cpu", 1, 1, "ddp")
    assert type(trainer.strategy.cluster_environment).__name__ == "TorchElasticEnvironment"
    for name in torchrun:
        monkeypatch.delenv(name)
    environment = _trainer("cpu", 1, 1, "ddp").strategy.cluster_environment
    assert type(environment).__name__ == "SLURMEnvironment"
    assert not environment.auto_requeue


def test_the_advice_after_an_overflow_can_be_followed(few, tiny, tmp_path, monkeypatch, extract):
    """Parts without one finished shard do not hold a run to its first settings."""
    step = ExtractionModule.predict_step

    def loud(self, batch, batch_idx):
        copies = step(self, batch, batch_idx)
        copies[0][0]._host["resid_post"][0, 0, 0] = 70_000.0
        return copies

    monkeypatch.setattr(ExtractionModule, "predict_step", loud)
    with pytest.raises(StoreError, match="store_dtype float32"):
        extract(few, tiny, tmp_path / "a.h5")
    extract(few, tiny, tmp_path / "a.h5", store_dtype="float32")
    with open_store(tmp_path / "a.h5") as store:
        assert store.layer(0)[0, 0] == 70_000


def test_a_damaged_finished_store_is_not_called_complete(few, tiny, tmp_path, extract):
    path = extract(few, tiny, tmp_path / "a.h5", layers=[0])
    with h5py.File(path, "r+") as file:
        file["resid_post"][7, 0, 5] += 1
    with pytest.raises(StoreError, match="damaged"):
        extract(few, tiny, path, layers=[0])


@pytest.mark.slow
def test_both_stacks_of_an_encoder_decoder_are_stored_and_layers_join_later(tmp_path, few, extract):
    described = describe_model(str(family_folder("t5gemma2", tmp_path / "t5gemma2")))
    path = tmp_path / "store.h5"
    for layers in ([1], "all"):
        extract(few, described, path, layers=layers, store_dtype="float32")
    model = load_model(described, "cpu", quantization="none")
    text = resolve_prompt("sign", described.processor, described.config.model_type)
    prompt = prompt_for_processor(text, described.processor)
    row = 5
    alone = dict(prepare_batch(described.processor, [prompt], [few.load(row)]))
    _, encoder, decoder = plain(model, alone)
    with open_store(path) as store:
        assert store.provenance["stack"] == "encoder"
        assert store.layers == (0, 1, 2)
        for layer in (0, 1):
            np.testing.assert_allclose(
                store.layer(layer)[row], encoder[layer + 1][0, -1], rtol=1e-3, atol=1e-4
            )
        first = store.feature("decoder_resid_post_0")[row]
        np.testing.assert_allclose(first, decoder[1][0, 0], rtol=1e-3, atol=1e-4)
        assert store.feature("decoder_resid_post_1").shape == (len(few.label), 32)
