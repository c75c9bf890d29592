import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import (
    LlavaNextImageProcessorPil,
)

from signbridge.errors import ModelError
from signbridge.model.families import (
    decoder_layers,
    image_token_id,
    projector,
    vision_size,
)
from signbridge.model.forward import CaptureRequest, run_batch
from signbridge.model.sites import SITES


def skeleton(model_type, **text):
    """A model of a family on the meta device, at its default sizes."""
    config = AutoConfig.for_model(model_type)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


@pytest.mark.parametrize(
    "model_type",
    ["llava", "llava_next", "vipllava", "llava_onevision", "paligemma", "gemma3", "idefics3"],
)
def test_decoder_layers_are_found_in_each_family(model_type):
    model = skeleton(model_type)
    layers = decoder_layers(model)
    assert len(layers) == model.config.get_text_config().num_hidden_layers
    assert all("DecoderLayer" in type(layer).__name__ for layer in layers)
    assert isinstance(image_token_id(model.config), int)


def test_vision_size_is_the_input_of_the_projector_or_the_output_of_the_tower():
    model = skeleton("llava")
    assert vision_size(model) == 1024
    assert projector(model) is model.model.multi_modal_projector
    for family, width in (("idefics3", 1152), ("cohere2_vision", 1152), ("fuyu", None)):
        assert vision_size(skeleton(family)) == width


def test_a_model_without_decoder_layers_is_refused():
    model = skeleton("llava")
    model.model.language_model = torch.nn.Linear(1, 1)
    with pytest.raises(ModelError, match="no stack of 32 layers"):
        decoder_layers(model)


@pytest.fixture(scope="module")
def llava_next(tiny):
    """A random LLaVA-NeXT, which cuts an image into tiles by its size."""
    torch.manual_seed(0)
    text = LlamaConfig(
        vocab_size=len(tiny.processor.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.2,
        pad_token_id=0,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=28,
        patch_size=7,
        initializer_range=0.2,
    )
    pinpoints = [[28, 56], [56, 28], [56, 56]]
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_grid_pinpoints=pinpoints,
        image_token_index=tiny.image_token_id,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 28},
            crop_size={"height": 28, "width": 28},
            image_grid_pinpoints=pinpoints,
        ),
        tokenizer=tiny.processor.tokenizer,
        patch_size=7,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return LlavaNextForConditionalGeneration(config).eval(), processor


SIZES = [
    *[(1, 1), (1, 300), (300, 1), (2, 3), (950, 1256), (1256, 950), (28, 28), (27, 29)],
    *[(56, 56), (20, 60), (60, 20), (57, 28), (640, 480), (100, 7), (3, 299), (224, 224)],
]
"""Widths and heights, some of a single pixel, that are cut into different numbers of tiles."""


def test_llava_next_in_batches_of_any_sizes(llava_next, images):
    model, processor = llava_next
    pictures = [images.load(i).resize(size) for i, size in enumerate(SIZES)]

    def run(some):
        inputs = processor(
            text=["USER: <image>\nWhat is this?"] * len(some),
            images=some,
            padding=True,
            return_tensors="pt",
        )
        return run_batch(
            model,
            dict(inputs),
            model.config.image_token_index,
            CaptureRequest((0, 1, 2), sites=tuple(SITES)),
        )

    alone = [run([picture]) for picture in pictures]
    for batch in (4, 16):
        for start in range(0, len(pictures), batch):
            together = run(pictures[start : start + batch])
            for slot, wanted in enumerate(alone[start : start + batch]):
                for ours, one in (
                    (together.resid_post, wanted.resid_post),
                    *((together.sites[name], wanted.sites[name]) for name in SITES),
                ):
                    torch.testing.assert_close(ours[slot], one[0], rtol=1e-4, atol=3e-5)
