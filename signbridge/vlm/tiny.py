"""The bundled stand-in model: a real, very small LLaVA made from a fixed seed.

Its weights are random, so its answers mean nothing. Its residual stream still carries the image,
as that of any network of this shape does, which is what the probes need to have something to read
and what a trained model has to beat. It has the parts of LLaVA-1.5 (CLIP tower, two-layer
projector, Llama decoder, tokenizer, processor), saved and loaded as any other model folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

SEED = 0
VOCABULARY = (
    "A B C D E F G H I J K L M N O P Q R S T U V W X Y Z "
    "USER ASSISTANT : . , ? ! What sign is being made in this image Answer with one word "
    "fist point peace hand thumb up down open closed palm finger fingers letter "
    "the a it shows yes no none zero two three four five six seven eight nine"
)
IMAGE_SIZE = 56
PATCH_SIZE = 7
HIDDEN_SIZE = 128
LAYERS = 8


def make_tiny_llava(folder: Path, seed: int = SEED) -> Path:
    """Write the stand-in model to ``folder`` as ``save_pretrained`` does, and return the folder.

    The global random state of torch is left as it was.

    Args:
        folder: a folder to write config, safetensors weights, tokenizer and processor to.
        seed: the seed of the random weights.
    """
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaProcessor, PreTrainedTokenizerFast
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    specials = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
    words = list(dict.fromkeys([*specials, *VOCABULARY.split()]))
    tokenizer_model = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    )
    tokenizer_model.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_model,
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
    )
    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    # The usual 0.02 lets a shallow random network forget its input: at 1 / sqrt(width) each layer
    # changes the stream by about its own size, so the image reaches the last token visibly.
    spread = HIDDEN_SIZE**-0.5
    llava_config: Any = transformers.LlavaConfig
    config = llava_config(
        vision_config=CLIPVisionConfig(
            hidden_size=HIDDEN_SIZE,
            intermediate_size=2 * HIDDEN_SIZE,
            num_hidden_layers=4,
            num_attention_heads=4,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            projection_dim=HIDDEN_SIZE,
            initializer_range=spread,
        ),
        text_config=LlamaConfig(
            vocab_size=len(words),
            hidden_size=HIDDEN_SIZE,
            intermediate_size=3 * HIDDEN_SIZE,
            num_hidden_layers=LAYERS,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=512,
            initializer_range=spread,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        ),
        image_token_index=words.index("<image>"),
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        initializer_range=spread,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlavaForConditionalGeneration(config)
    model.eval()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
