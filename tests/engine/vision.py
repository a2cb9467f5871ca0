"""Tiny random vision-language models, saved with their processors, and plain transformers' answers to images."""

import json

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cogsmith.engine.loader import load

SIDE = 32
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "head_dim": 8,
    "bos_token_id": 257,
    "eos_token_id": 256,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
CLIP = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
GRID = [[32, 64], [64, 32], [64, 64]]


def tokenizer(*special, **named):
    """One token per byte, and special ones; `named` are those that a processor asks for by name."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    byte_level = Tokenizer(models.BPE({piece: i for i, piece in enumerate(alphabet)}, []))
    byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    byte_level.decoder = decoders.ByteLevel()
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=byte_level,
        eos_token="</s>",
        bos_token="<s>",
        pad_token="<pad>",
        extra_special_tokens=named,
    )
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


def llava(kind="Llava", **options):
    words = tokenizer("<image>")
    images = getattr(transformers, f"{'CLIP' if kind == 'Llava' else kind}ImageProcessorPil")(**CLIP, **options)
    named = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    processor = getattr(transformers, f"{kind}Processor")(images, words, image_token="<image>", **named)
    return processor, getattr(transformers, f"{kind}Config")(
        vision_config=transformers.CLIPVisionConfig(**VISION, projection_dim=32),
        text_config=transformers.LlamaConfig(vocab_size=len(words), **TEXT),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        **options,
    )


def qwen(kind):
    words = tokenizer("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
    images = transformers.Qwen2VLImageProcessorPil(
        patch_size=4, merge_size=2, size={"shortest_edge": 64, "longest_edge": 1600}
    )
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 4, "patch_size": 4}
    if kind == "Qwen2VL":
        vision |= {"embed_dim": 32, "mlp_ratio": 2}
    else:
        vision |= {"out_hidden_size": 32, "intermediate_size": 64, "window_size": 16, "fullatt_block_indexes": [1]}
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    ids = dict(zip(("vision_start", "vision_end", "image", "video"), range(259, 263), strict=True))
    config = getattr(transformers, f"{kind}Config")(
        text_config={"vocab_size": len(words), **text},
        vision_config=vision,
        **{f"{name}_token_id": id_ for name, id_ in ids.items()},
    )
    return (images, words, {"processor_class": f"{kind}Processor"}), config


def gemma3():
    words = tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")
    processor = transformers.Gemma3Processor(transformers.Gemma3ImageProcessorPil(**SQUARE), words, image_seq_length=4)
    layers = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
    ids = {name: words.convert_tokens_to_ids(getattr(words, f"{name}_token")) for name in ("boi", "eoi", "image")}
    return processor, transformers.Gemma3Config(
        text_config=transformers.Gemma3TextConfig(vocab_size=len(words), **TEXT, **layers),
        vision_config=transformers.SiglipVisionConfig(**VISION),
        mm_tokens_per_image=4,
        **{f"{name}_token_index": id_ for name, id_ in ids.items()},
    )


def paligemma():
    images = transformers.SiglipImageProcessorPil(**SQUARE)
    images.image_seq_length = 16
    processor = transformers.PaliGemmaProcessor(images, tokenizer("<image>"))
    return processor, transformers.PaliGemmaConfig(
        text_config=transformers.GemmaConfig(vocab_size=len(processor.tokenizer), **TEXT),
        vision_config=transformers.SiglipVisionConfig(**VISION, projection_dim=32, num_image_tokens=16),
        projection_dim=32,
        image_token_index=processor.image_token_id,
    )


def idefics3():
    parts = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
    words = tokenizer("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *parts)
    images = transformers.Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    return transformers.Idefics3Processor(images, words, image_seq_len=4), transformers.Idefics3Config(
        text_config=transformers.LlamaConfig(vocab_size=len(words), pad_token_id=258, **TEXT),
        vision_config=VISION,
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        pad_token_id=258,
    )


def smolvlm():
    processor, config = idefics3()
    images = transformers.SmolVLMImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    named = {"processor_class": "SmolVLMProcessor", "image_seq_len": 4}
    return (images, processor.tokenizer, named), transformers.SmolVLMConfig(
        text_config=config.text_config,
        vision_config=VISION,
        image_token_id=config.image_token_id,
        scale_factor=2,
        pad_token_id=258,
    )


def mllama():
    images = transformers.MllamaImageProcessorPil(**SQUARE, max_image_tiles=2)
    processor = transformers.MllamaProcessor(images, tokenizer("<|image|>"))
    text = {key: value for key, value in TEXT.items() if key != "head_dim"}
    tiles = {"max_num_tiles": 2, "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}
    layers = {"num_global_layers": 1, "intermediate_layers_indices": [0], "vision_output_dim": 64}
    vision = {key: value for key, value in VISION.items() if key != "num_attention_heads"}
    return processor, transformers.MllamaConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "cross_attention_layers": [1],
            "pad_token_id": 258,
            **text,
        },
        vision_config={**vision, "attention_heads": 4, **tiles, **layers},
        image_token_index=processor.image_token_id,
    )


def gemma4():
    names = {"boi": "<boi>", "eoi": "<eoi>", "image": "<img>", "audio": "<a>", "boa": "<boa>", "eoa": "<eoa>"}
    words = tokenizer(**{f"{name}_token": token for name, token in names.items()}, video_token="<video>")
    images = transformers.Gemma4ImageProcessorPil(patch_size=4, max_soft_tokens=70, pooling_kernel_size=2)
    layers = {"sliding_window": 16, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}
    text = {**TEXT, **layers, "hidden_size_per_layer_input": 8, "global_head_dim": 8, "num_kv_shared_layers": 0}
    sizes = {"vocab_size": len(words), "vocab_size_per_layer_input": len(words), "pad_token_id": 258}
    vision = {"num_key_value_heads": 4, "head_dim": 8, "patch_size": 4, "position_embedding_size": 64}
    ids = {f"{name}_token_id": words.convert_tokens_to_ids(token) for name, token in names.items() if "oa" not in name}
    config = transformers.Gemma4Config(
        text_config={**text, **sizes},
        vision_config={**VISION, **vision, "pooling_kernel_size": 2},
        audio_config=None,
        video_token_id=words.convert_tokens_to_ids("<video>"),
        **ids,
    )
    return (images, words, {"processor_class": "Gemma4Processor", "image_seq_length": 70}), config


def blip2():
    processor = transformers.Blip2Processor(
        transformers.BlipImageProcessorPil(**SQUARE), tokenizer("<image>"), num_query_tokens=4
    )
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": len(processor.tokenizer), "ffn_dim": 64, "word_embed_proj_dim": 32, **shape}
    return processor, transformers.Blip2Config(
        vision_config=VISION,
        qformer_config={**shape, "intermediate_size": 64, "encoder_hidden_size": 32, "vocab_size": 99},
        text_config={"model_type": "opt", "max_position_embeddings": 512, **text},
        num_query_tokens=4,
        image_token_index=processor.tokenizer.convert_tokens_to_ids("<image>"),
    )


def internvl():
    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    images = transformers.GotOcr2ImageProcessorPil(**SQUARE, max_patches=2, min_patches=1, crop_to_patches=True)
    vision = VISION | {"image_size": [SIDE, SIDE], "patch_size": [8, 8]}
    config = transformers.InternVLConfig(
        text_config={"model_type": "qwen2", "vocab_size": len(words), **TEXT},
        vision_config=vision,
        image_token_id=words.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    return (images, words, {"processor_class": "InternVLProcessor", "image_seq_length": 4}), config


NO_TEXT = {"blip2": blip2}
"""Those that cannot do without an image."""

FAMILIES = {
    "llava": llava,
    "llava_next": lambda: llava("LlavaNext", image_grid_pinpoints=GRID),
    "qwen2_vl": lambda: qwen("Qwen2VL"),
    "qwen2_5_vl": lambda: qwen("Qwen2_5_VL"),
    "gemma3": gemma3,
    "paligemma": paligemma,
    "idefics3": idefics3,
    "smolvlm": smolvlm,
    "mllama": mllama,
    "gemma4": gemma4,
    "internvl": internvl,
}


def save(folder, family="llava", *, scale=8.0):
    """Write a random model of a family, with its processor, as a checkpoint folder; return the model."""
    processor, config = (FAMILIES | NO_TEXT)[family]()
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config).eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
            if "mm_input_projection" in name or name.endswith("attn_gate"):
                # Gemma 3's and Mllama's are zeros until they are trained: the model would see nothing.
                parameter.normal_()
    model.save_pretrained(folder)
    if isinstance(processor, tuple):
        # These also want a part for videos, which needs torchvision: written as they save themselves without it.
        images, words, stated = processor
        images.save_pretrained(folder)
        words.save_pretrained(folder)
        (folder / "processor_config.json").write_text(json.dumps(stated))
    else:
        processor.save_pretrained(folder)
    return model


def loaded(folder, family="llava"):
    save(folder, family)
    return load(folder, {"dtype": "float32"}, name=family, task="image-text")


def picture(seed=0, size=(60, 40)):
    """An RGB image of noise, `size` wide and high."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


@torch.no_grad()
def generated(model, inputs, count):
    """The truth: transformers' own greedy tokens, and the log-probabilities `[count, head_size]` they come from."""
    given = {name: value for name, value in inputs.items() if name != "labels"}
    made = model.generate(
        **given,
        max_new_tokens=count,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        pad_token_id=258,
        eos_token_id=None,
    )
    tokens = made.sequences[0, given["input_ids"].shape[1] :].tolist()
    return tokens, torch.log_softmax(torch.cat(made.logits).float(), dim=-1)
