from itertools import combinations

import pytest
import torch

from signbridge.model.forward import CaptureRequest, cpu_threads_for, run_batch
from signbridge.model.prompts import DEFAULT_PROMPT
from signbridge.model.sites import SITES

ALL = tuple(range(8))
# Prompts of different lengths, so that a batch of them is padded.
PROMPTS = [
    DEFAULT_PROMPT,
    "USER: <image>\nWhat sign is this?\nASSISTANT:",
    "USER: <image>\nAnswer with one word. What sign is being made in this image?\nASSISTANT: the",
]


def run(model, tiny, inputs, **request):
    request = CaptureRequest(ALL, sites=tuple(SITES), **request)
    return run_batch(model, inputs, tiny.image_token_id, request)


def vectors(captured, name):
    return captured.resid_post if name == "resid_post" else captured.sites[name]


@pytest.mark.parametrize("position", ["last_prompt", "image_mean", "last_generated"])
def test_a_batch_of_n_gives_what_n_batches_of_one_give(model, tiny, prepare, position):
    tokens = 4 if position == "last_generated" else 0
    together = run(
        model, tiny, prepare([3, 50, 90], PROMPTS), position=position, max_new_tokens=tokens
    )
    for slot, (row, prompt) in enumerate(zip([3, 50, 90], PROMPTS)):
        alone = run(model, tiny, prepare([row], [prompt]), position=position, max_new_tokens=tokens)
        for name in ("resid_post", *SITES):
            ours, wanted = vectors(together, name)[slot], vectors(alone, name)[0]
            # float32 rounding: the padded batch sums in another order
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=3e-5)
        if tokens:
            assert torch.equal(together.answer_ids[slot], alone.answer_ids[0])


def test_last_prompt_does_not_change_when_text_is_generated(model, tiny, prepare):
    inputs = prepare([3, 50, 90], PROMPTS)
    silent = run(model, tiny, inputs)
    spoken = run(model, tiny, inputs, max_new_tokens=6)
    assert torch.equal(silent.resid_post, spoken.resid_post)
    assert torch.equal(silent.sites["vision"], spoken.sites["vision"])
    assert silent.answer_ids is None


def test_answers_are_those_of_generate(model, tiny, prepare):
    inputs = prepare([3, 50, 90], PROMPTS)
    with torch.inference_mode():
        wanted = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    answers = run(model, tiny, inputs, max_new_tokens=6).answer_ids
    assert torch.equal(answers, wanted[:, inputs["input_ids"].shape[1] :])


def overwriting_hook(model, inputs, max_new_tokens):
    """The original study's way: a hook that keeps the last token of whatever passed last."""
    kept = {}
    handles = [
        layer.register_forward_hook(
            lambda _m, _i, out, k=k: kept.__setitem__(
                k, (out if torch.is_tensor(out) else out[0])[:, -1]
            )
        )
        for k, layer in enumerate(model.get_decoder().layers)
    ]
    try:
        with torch.inference_mode():
            model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([kept[k] for k in range(len(kept))], dim=1)


def test_last_generated_is_each_answers_own_last_forward_pass(babbling, tiny, prepare, monkeypatch):
    """Answers of a batch end at different steps; each keeps the pass that ended it."""
    model = babbling
    rows = [3, 50, 90]
    inputs = prepare(rows, PROMPTS)
    free = run(model, tiny, inputs, max_new_tokens=6).answer_ids

    # Tokens that end the answers at different steps, chosen from what was said.
    def lengths(ends):
        found = [[i + 1 for i, token in enumerate(row) if token in ends] for row in free.tolist()]
        return {places[0] if places else 6 for places in found}

    ends = max(combinations(set(free.flatten().tolist()), 2), key=lambda pair: len(lengths(pair)))
    assert len(lengths(ends)) == 3
    monkeypatch.setattr(model.generation_config, "eos_token_id", list(ends))
    together = run(model, tiny, inputs, position="last_generated", max_new_tokens=6)
    for slot, (row, prompt) in enumerate(zip(rows, PROMPTS)):
        wanted = overwriting_hook(model, prepare([row], [prompt]), 6)[0]
        torch.testing.assert_close(together.resid_post[slot], wanted, rtol=1e-4, atol=3e-5)


def test_one_prefill_serves_capture_and_generation(babbling, tiny, prepare):
    model = babbling
    lengths = []
    handle = (
        model.get_decoder()
        .layers[0]
        .register_forward_pre_hook(
            lambda _m, args, kwargs: lengths.append(
                (args or [kwargs["hidden_states"]])[0].shape[1]
            ),
            with_kwargs=True,
        )
    )
    try:
        run(model, tiny, prepare([0]), max_new_tokens=4)
    finally:
        handle.remove()
    assert len(lengths) == 4
    assert lengths[0] > 49
    assert lengths[1:] == [1, 1, 1]


@pytest.mark.parametrize(
    ("width", "device", "wanted"), [(128, "cpu", 1), (4096, "cpu", 2), (128, "cuda", 2)]
)
def test_only_a_narrow_model_on_a_cpu_gets_one_thread(width, device, wanted):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with cpu_threads_for(width, torch.device(device)):
            assert torch.get_num_threads() == wanted
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
