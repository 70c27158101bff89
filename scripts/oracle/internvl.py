"""Tiny random InternVL checkpoints in the layout of transformers, and what transformers gives for pictures and a clip.

save() writes a checkpoint folder, golden() runs it: pixels, features, hidden states, logits, loss, gradients and greedy
answers of prompts with no picture, one, three of different sizes, and a clip. One checkpoint is as published (names of
the hub, a head of its own although the class's default ties it), the other as transformers 5 saves it (a tied head), with
tiles of another size than the encoder's positions.
"""
import dataclasses
import json

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, InternVLConfig

from . import picture_families
from .picture_families import Shown, load, picture  # noqa: F401: for the checks of scripts/parity
from .text import write_json

NAMED = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
         "video_token": "<video>"}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *NAMED.values()]
# The published one.
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}{{'<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}")
# On the hub → in transformers 5.
PREFIXES = {"vision_tower.": "model.vision_tower.", "multi_modal_projector.": "model.multi_modal_projector.",
            "language_model.model.": "model.language_model.", "language_model.lm_head.": "lm_head."}


@dataclasses.dataclass
class InternSpec:
    name: str
    seed: int
    vision: dict
    text: dict
    tied: bool
    side: int  # of a tile
    is_published: bool = False
    patches: tuple = (1, 12)  # fewest and most tiles of a picture
    ratio: float = 0.5


def text(kind, **changes):
    return dict(model_type=kind, hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3,
                num_key_value_heads=1, max_position_embeddings=2048, rms_norm_eps=1e-5) | changes


def vision(**changes):
    return dict(hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4, image_size=[16, 16],
                patch_size=[4, 4], attention_bias=True) | changes


SPECS = [
    InternSpec("internvl_tiny", 83, vision(), text("qwen2", rope_parameters=dict(rope_type="default", rope_theta=1000.0)),
               tied=False, side=16, is_published=True),
    InternSpec("internvl3_5_tiny", 89, vision(num_hidden_layers=3, attention_bias=False, image_size=[16, 16]),
               text("qwen3", num_attention_heads=2, head_dim=16,
                    rope_parameters=dict(rope_type="default", rope_theta=800.0)),
               tied=True, side=24, patches=(2, 6)),
]


def tile_tokens(spec):
    return int(spec.side / spec.vision["patch_size"][0] * spec.ratio) ** 2


def make_config(spec, tokenizer):
    end = tokenizer.token_to_id("<|im_end|>")
    settings = dict(spec.text, vocab_size=tokenizer.get_vocab_size() + 4, bos_token_id=None, eos_token_id=end,
                    pad_token_id=tokenizer.token_to_id("<|endoftext|>"), tie_word_embeddings=spec.tied)
    config = InternVLConfig(text_config=settings, vision_config=spec.vision, tie_word_embeddings=spec.tied,
                            image_token_id=tokenizer.token_to_id("<IMG_CONTEXT>"), image_seq_length=tile_tokens(spec),
                            downsample_ratio=spec.ratio)
    config.text_config.use_cache = False
    return config


def save(spec, folder):
    tokenizer = picture_families.make_tokenizer(SPECIAL)
    save_model(spec, folder, tokenizer)
    write_text_files(folder, tokenizer)
    write_processors(spec, folder)
    return folder


def save_model(spec, folder, tokenizer):
    """Weights and config."""
    picture_families.save_model(folder, make_config(spec, tokenizer), spec.seed, spec.tied)
    rename_keys(folder, spec.is_published)
    if spec.is_published:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        config.pop("tie_word_embeddings")
        config["torch_dtype"] = config.pop("dtype")
        write_json(path, config)


def with_prefix(key, prefixes):
    """`key` with the first of `prefixes` that it begins with replaced."""
    for old, new in prefixes.items():
        if key.startswith(old):
            return new + key[len(old):]
    return key


def hub_key(key):
    return with_prefix(key, {name: published for published, name in PREFIXES.items()})


def rename_keys(folder, is_published):
    path = folder / "model.safetensors"
    weights = {hub_key(key) if is_published else with_prefix(key, PREFIXES): value
               for key, value in load_file(path).items()}
    save_file(weights, path, metadata={"format": "pt"})
    path.chmod(0o644)


def write_text_files(folder, tokenizer):
    picture_families.write_tokenizer(folder, tokenizer, SPECIAL, {**NAMED, "extra_special_tokens": NAMED})
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def write_processors(spec, folder):
    shared = {"size": {"height": spec.side, "width": spec.side}, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
              "image_std": [0.229, 0.224, 0.225]}
    write_json(folder / "preprocessor_config.json", {
        **shared, "image_processor_type": "GotOcr2ImageProcessorFast", "processor_class": "InternVLProcessor",
        "crop_to_patches": False, "min_patches": spec.patches[0], "max_patches": spec.patches[1]})
    write_json(folder / "video_preprocessor_config.json", {
        **shared, "video_processor_type": "InternVLVideoProcessor", "num_frames": 3})
    write_json(folder / "processor_config.json", {
        "image_seq_length": tile_tokens(spec), "processor_class": "InternVLProcessor"})


# A wide picture, one that is enlarged to many tiles, a square one, and a clip.
SHOWN = Shown([(29, 50, 1), (9, 12, 2), (15, 15, 3)], (22, 30, 3))


def make_processor(folder):
    return AutoProcessor.from_pretrained(folder, use_fast=False)


def model_inputs(encoded):
    return {key: encoded[key] for key in ("input_ids", "attention_mask", "pixel_values") if key in encoded}


def golden(spec, folder):
    processor = make_processor(folder)
    inputs = [model_inputs(SHOWN.encode(processor, content)) for content in SHOWN.prompts()]
    found = run(load(folder), inputs, kept_pixels=(1, 3))  # of the second the features tell as well
    return SHOWN.tensors() | picture_families.keep_gradients(found, KEPT_GRADIENTS)


def run(model, prompts, kept_pixels):
    """Every stage of each prompt, and all gradients of their mean loss."""
    def more(inputs, number):
        if "pixel_values" not in inputs:
            return {}
        pixels = inputs["pixel_values"]
        with torch.no_grad():
            features = model.model.get_image_features(pixels).pooler_output.flatten(0, 1)
        return {"features": features} | ({"pixel_values": pixels} if number in kept_pixels else {})

    return picture_families.run(model, prompts, more)


KEPT_GRADIENTS = ("layer.0.attention.q_proj", "projection_layer", "lambda_", "cls_token", "position_embeddings",
                  "patch_embeddings", "layer.1.mlp", "layernorm_after", "multi_modal_projector", "layers.0.self_attn",
                  "language_model.norm")
