import pytest
import torch

from signbridge.errors import ModelError
from signbridge.model.capture import ResidualCapture, last_token_index, masked_mean
from signbridge.model.families import decoder_layers
from signbridge.model.forward import CaptureRequest, run_batch

ALL = tuple(range(8))


@pytest.fixture(scope="module")
def batch(prepare):
    return prepare([0, 40, 80, 120])


@pytest.fixture(scope="module")
def hidden_states(model, batch):
    """Transformers' own record: the embeddings, then each layer, the last one after the norm."""
    with torch.inference_mode():
        return model(**batch, output_hidden_states=True, use_cache=False).hidden_states


def capture(model, tiny, batch, **request):
    return run_batch(model, batch, tiny.image_token_id, CaptureRequest(**request))


def test_every_layer_equals_transformers_hidden_states(model, tiny, batch, hidden_states):
    read = capture(model, tiny, batch, layers=ALL).resid_post
    assert read.shape == (4, 8, 128)
    for layer in ALL[:-1]:
        torch.testing.assert_close(read[:, layer], hidden_states[layer + 1][:, -1], rtol=0, atol=0)


def test_last_layer_is_before_the_final_norm(model, tiny, batch, hidden_states):
    read = capture(model, tiny, batch, layers=ALL).resid_post[:, -1]
    after = hidden_states[-1][:, -1]
    with torch.inference_mode():
        torch.testing.assert_close(model.get_decoder().norm(read), after, rtol=0, atol=0)
    assert not torch.allclose(read, after, atol=0.1)


def test_image_mean_is_the_mean_over_image_tokens(model, tiny, batch, hidden_states):
    read = capture(model, tiny, batch, layers=(2, 5), position="image_mean").resid_post
    where = batch["input_ids"] == tiny.image_token_id
    assert where.sum(dim=1).tolist() == [49] * 4
    for slot, layer in enumerate((2, 5)):
        wanted = torch.stack(
            [states[mask].mean(dim=0) for states, mask in zip(hidden_states[layer + 1], where)]
        )
        torch.testing.assert_close(read[:, slot], wanted)


def test_projector_baseline_is_what_enters_the_decoder(model, tiny, batch, hidden_states):
    where = batch["input_ids"] == tiny.image_token_id
    wanted = torch.stack(
        [states[mask].mean(dim=0) for states, mask in zip(hidden_states[0], where)]
    )
    torch.testing.assert_close(
        capture(model, tiny, batch, layers=(0,), sites=("projector",)).sites["projector"], wanted
    )


def test_vision_baseline_is_the_mean_of_the_selected_patch_features(model, tiny, batch):
    with torch.inference_mode():
        states = model.model.vision_tower(
            batch["pixel_values"], output_hidden_states=True
        ).hidden_states
    wanted = states[model.config.vision_feature_layer][:, 1:].mean(dim=1)
    torch.testing.assert_close(
        capture(model, tiny, batch, layers=(0,), sites=("vision",)).sites["vision"], wanted
    )


def test_early_stop_gives_identical_vectors_and_runs_nothing_above(model, tiny, batch):
    everything = capture(model, tiny, batch, layers=ALL).resid_post
    ran = []
    watched = {f"layer {k}": layer for k, layer in enumerate(decoder_layers(model))}
    watched |= {"norm": model.get_decoder().norm, "lm_head": model.lm_head}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.append(name))
        for name, module in watched.items()
    ]
    try:
        early = capture(model, tiny, batch, layers=(1, 3)).resid_post
        assert ran == ["layer 0", "layer 1", "layer 2", "layer 3"]
        ran.clear()
        capture(model, tiny, batch, layers=ALL)
        assert "lm_head" not in ran
        assert "norm" not in ran
    finally:
        for handle in handles:
            handle.remove()
    assert torch.equal(early, everything[:, [1, 3]])


def test_hooks_are_removed_whatever_happens(model, batch):
    layers = decoder_layers(model)
    mask = batch["attention_mask"]

    def hooks():
        return sum(len(k._forward_hooks) + len(k._forward_pre_hooks) for k in layers)

    before = hooks()
    with (
        pytest.raises(RuntimeError, match="boom"),
        ResidualCapture(
            layers,
            (0, 7),
            position="last_prompt",
            attention_mask=mask,
            image_mask=mask.bool(),
            stop_after_deepest=True,
        ),
    ):
        assert hooks() == before + 3
        raise RuntimeError("boom")
    assert hooks() == before


def test_a_layer_that_never_ran_is_named(model, batch):
    mask = batch["attention_mask"]
    silent = ResidualCapture(
        decoder_layers(model),
        (4,),
        position="last_prompt",
        attention_mask=mask,
        image_mask=mask.bool(),
        stop_after_deepest=True,
    )
    with pytest.raises(ModelError, match="Decoder layer 4 never ran"), silent:
        silent.vectors()


def test_an_output_that_is_no_residual_stream_is_named():
    class Odd(torch.nn.Module):
        def forward(self, hidden_states):
            return (hidden_states[:, 0],)

    layers = torch.nn.ModuleList([Odd()])
    mask = torch.ones(2, 3)
    reader = ResidualCapture(
        layers,
        (0,),
        position="last_prompt",
        attention_mask=mask,
        image_mask=mask.bool(),
        stop_after_deepest=False,
    )
    with pytest.raises(ModelError, match=r"output of decoder layer 0 has shape \(2, 4\)"), reader:
        layers[0](torch.zeros(2, 3, 4))


@pytest.mark.parametrize(
    ("mask", "last"),
    [([[0, 0, 1, 1]], 3), ([[1, 1, 0, 0]], 1), ([[1, 1, 1, 1]], 3), ([[0, 1, 1, 0]], 2)],
)
def test_last_token_index_for_either_padding(mask, last):
    assert last_token_index(torch.tensor(mask)).tolist() == [last]


def test_masked_mean_accumulates_in_float32():
    hidden = torch.full((1, 4096, 1), 0.1, dtype=torch.float16)
    mean = masked_mean(hidden, torch.ones(1, 4096, dtype=torch.bool))
    assert mean.dtype == torch.float32
    torch.testing.assert_close(mean[0, 0], hidden[0, 0, 0].float(), rtol=1e-6, atol=0)


def test_masked_mean_ignores_infinities_elsewhere():
    hidden = torch.tensor([[[1.0], [torch.inf], [3.0]]])
    assert masked_mean(hidden, torch.tensor([[True, False, True]])).item() == 2
