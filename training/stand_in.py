"""The stand-in's architecture, tokenizer and processor: LLaVA-1.5's parts, very small."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPVisionConfig, LlamaConfig, LlavaProcessor, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from training.questions import vocabulary

IMAGE_SIZE, PATCH_SIZE = 28, 4
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
# Multiples of 64, the block size of NF4.
HIDDEN_SIZE, VISION_MLP, TEXT_MLP = 128, 384, 256
TEXT_LAYERS, HEADS = 8, 4
# The tower learns with five layers and keeps three, of which LLaVA reads the last but one. Read
# further up, the image tokens tell the letters apart before the decoder has done anything.
TAUGHT_LAYERS, VISION_LAYERS = 5, 3
MEAN, DEVIATION = 0.6, 0.25
SPECIALS = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OTHER_WORDS = (
    "a an and be can sign letter hand finger fingers gesture it shows palm open closed left right "
    "yes no not of on or what which name describe five six seven eight nine to you see"
)


def words() -> list[str]:
    """Return the vocabulary: special tokens, the questions' words, letters and a few others.

    Letters have tokens so that they can be named in a forced choice; none is ever an answer.
    """
    return list(dict.fromkeys([*SPECIALS, *vocabulary(), *LETTERS, *OTHER_WORDS.split()]))


def make_processor() -> LlavaProcessor:
    """Return the word-level tokenizer and the image processor of CLIP, in one processor."""
    model = models.WordLevel({word: n for n, word in enumerate(words())}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        padding_side="left",
    )
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        image_mean=[MEAN] * 3,
        image_std=[DEVIATION] * 3,
    )
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=fast,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )


def make_model(seed: int, vision_layers: int = VISION_LAYERS) -> Any:
    """Return the model with random weights from ``seed``; torch's global state is left alone."""
    tokens = words()
    llava_config: Any = transformers.LlavaConfig
    config = llava_config(
        vision_config=CLIPVisionConfig(
            hidden_size=HIDDEN_SIZE,
            intermediate_size=VISION_MLP,
            num_hidden_layers=vision_layers,
            num_attention_heads=HEADS,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=HIDDEN_SIZE,
            initializer_range=0.04,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokens),
            hidden_size=HIDDEN_SIZE,
            intermediate_size=TEXT_MLP,
            num_hidden_layers=TEXT_LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=512,
            initializer_range=0.04,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=tokens.index("<image>"),
        image_seq_length=PATCHES,
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        initializer_range=0.04,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return transformers.LlavaForConditionalGeneration(config)
