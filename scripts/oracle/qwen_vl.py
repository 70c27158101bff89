"""Tiny random Qwen2-VL, Qwen2.5-VL and Qwen3-VL checkpoints, and what transformers gives for pictures and a clip.

save() writes a checkpoint folder, golden() runs it: pixels, positions, features, hidden states, logits, loss, gradients
and greedy answers of prompts with no picture, one, two of different sizes, and a clip. Sizes tell mistakes apart: heads,
layers and widths differ, grids aren't square, windows are smaller than pictures, sections are unequal.
"""
import dataclasses
import json

import torch
from transformers import AutoConfig, AutoProcessor

from . import picture_families
from .picture_families import Shown, load, picture  # noqa: F401: for the checks of scripts/parity
from .text import write_json

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>",
           "<|image_pad|>", "<|video_pad|>"]
# Turns of the published templates, without their tools and counters.
TEMPLATE = (
    "{% for message in messages %}SYSTEM<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
SYSTEM = ("{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant."
          "<|im_end|>\n{% endif %}")


@dataclasses.dataclass
class QwenSpec:
    name: str
    seed: int
    kind: str
    vision: dict
    text: dict
    tied: bool
    patch: int
    has_system: bool = True
    is_flat: bool = False  # text fields at the root and older key names, as on the hub
    limits: tuple = (56 * 56, 120 * 120)  # pixels


def text(**changes):
    return dict(hidden_size=24, intermediate_size=28, num_hidden_layers=2, num_attention_heads=3,
                num_key_value_heads=1, max_position_embeddings=2048, rms_norm_eps=1e-5) | changes


SPECS = [
    QwenSpec("qwen2_vl_tiny", 61, "qwen2_vl",
             dict(depth=2, embed_dim=16, hidden_size=24, num_heads=2, mlp_ratio=3, patch_size=4),
             text(rope_parameters=dict(rope_type="default", rope_theta=1000.0, mrope_section=[1, 2, 1])),
             tied=True, patch=4, is_flat=True, limits=(16 * 16, 40 * 40)),
    QwenSpec("qwen2_5_vl_tiny", 67, "qwen2_5_vl",
             dict(depth=3, hidden_size=16, out_hidden_size=24, intermediate_size=20, num_heads=2, patch_size=4,
                  window_size=16, fullatt_block_indexes=[1], tokens_per_second=3),
             text(rope_parameters=dict(rope_type="default", rope_theta=500.0, mrope_section=[2, 1, 1])),
             tied=False, patch=4, limits=(16 * 16, 60 * 60)),
    QwenSpec("qwen3_vl_tiny", 71, "qwen3_vl",
             dict(depth=3, hidden_size=16, out_hidden_size=24, intermediate_size=28, num_heads=2, patch_size=4,
                  num_position_embeddings=25, deepstack_visual_indexes=[0, 2]),
             text(num_attention_heads=2, head_dim=16, rope_parameters=dict(
                 rope_type="default", rope_theta=800.0, mrope_section=[4, 2, 2], mrope_interleaved=True)),
             tied=True, patch=4, has_system=False, limits=(16 * 16, 48 * 48)),
]


def make_config(spec, tokenizer):
    ids = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>",
           "vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
    end = tokenizer.token_to_id("<|im_end|>")
    settings = dict(spec.text, vocab_size=tokenizer.get_vocab_size() + 4, bos_token_id=None, eos_token_id=end,
                    pad_token_id=tokenizer.token_to_id("<|endoftext|>"), tie_word_embeddings=spec.tied)
    vision = dict(spec.vision, spatial_merge_size=2, temporal_patch_size=2)
    config = AutoConfig.for_model(spec.kind, text_config=settings, vision_config=vision, tie_word_embeddings=spec.tied,
                                  **{key: tokenizer.token_to_id(value) for key, value in ids.items()})
    config.text_config.use_cache = False
    return config


def save(spec, folder):
    tokenizer = picture_families.make_tokenizer(SPECIAL)
    picture_families.save_model(folder, make_config(spec, tokenizer), spec.seed, spec.tied)
    if spec.is_flat:
        write_flat(folder)
    write_text_files(spec, folder, tokenizer)
    write_processors(spec, folder)
    return folder


def write_text_files(spec, folder, tokenizer):
    picture_families.write_tokenizer(folder, tokenizer, SPECIAL, {})
    (folder / "chat_template.jinja").write_text(
        TEMPLATE.replace("SYSTEM", SYSTEM if spec.has_system else ""), encoding="utf-8")


def write_processors(spec, folder):
    is_third = spec.kind == "qwen3_vl"
    shared = {"patch_size": spec.patch, "temporal_patch_size": 2, "merge_size": 2}
    if is_third:
        shared |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    low, high = spec.limits
    pictures = {**shared, "min_pixels": low, "max_pixels": high, "image_processor_type": "Qwen2VLImageProcessor",
                "processor_class": {"qwen2_vl": "Qwen2VLProcessor", "qwen2_5_vl": "Qwen2_5_VLProcessor",
                                    "qwen3_vl": "Qwen3VLProcessor"}[spec.kind]}
    if is_third:
        pictures["size"] = {"shortest_edge": pictures.pop("min_pixels"), "longest_edge": pictures.pop("max_pixels")}
    write_json(folder / "preprocessor_config.json", pictures)
    videos = {**shared, "size": {"shortest_edge": low * (3 if is_third else 1), "longest_edge": high * (3 if is_third else 1)},
              "video_processor_type": "Qwen3VLVideoProcessor" if is_third else "Qwen2VLVideoProcessor"}
    write_json(folder / "video_preprocessor_config.json", videos)


def write_flat(folder):
    """config.json as the first published files have it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    inner = config.pop("text_config")
    rope = inner.pop("rope_parameters")
    inner["rope_theta"] = rope.pop("rope_theta")
    inner["rope_scaling"] = {"type": "mrope", "mrope_section": rope["mrope_section"]}
    for key in ("model_type", "dtype"):
        inner.pop(key, None)
    config["vision_config"]["in_chans"] = config["vision_config"].pop("in_channels", 3)
    config["torch_dtype"] = config.pop("dtype")
    write_json(path, {**inner, **config})


# Pictures of two sizes, one of them enlarged, and a clip of an odd number of frames.
SHOWN = Shown([(29, 50, 1), (9, 12, 2)], (22, 30, 5))
LAST_PATCHES = 24  # of the clip, that are kept


def golden(spec, folder):
    model = load(folder)
    processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    inputs = [SHOWN.encode(processor, content) for content in SHOWN.prompts()]

    def more(inputs, number):
        found = {}
        if number > 0:
            found["positions"] = positions(model, inputs)
        for key in ("pixel_values", "pixel_values_videos", "image_grid_thw", "video_grid_thw"):
            if key in inputs and number > 1:
                found[key] = inputs[key][-LAST_PATCHES:].clone() if key == "pixel_values_videos" else inputs[key]
        return found | features(model, inputs)

    return SHOWN.tensors() | picture_families.keep_gradients(picture_families.run(model, inputs, more), KEPT_GRADIENTS)


KEPT_GRADIENTS = ("visual.blocks.0.attn.qkv", "visual.blocks.1.mlp", "patch_embed", "pos_embed", "merger.norm",
                  "merger.ln_q", "list.1.linear_fc2", "layers.0.self_attn", "language_model.norm")


def positions(model, inputs):
    with torch.no_grad():
        return model.model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], image_grid_thw=inputs.get("image_grid_thw"),
            video_grid_thw=inputs.get("video_grid_thw"), second_per_grid_ts=inputs.get("second_per_grid_ts"),
            attention_mask=inputs["attention_mask"])[0][:, 0].contiguous()


def features(model, inputs):
    with torch.no_grad():
        if "pixel_values" in inputs:
            output = model.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        elif "pixel_values_videos" in inputs:
            output = model.model.get_video_features(inputs["pixel_values_videos"], inputs["video_grid_thw"])
        else:
            return {}
    rows = [torch.cat(list(output.pooler_output))]
    rows += [torch.cat(list(part)) if isinstance(part, (tuple, list)) else part
             for part in getattr(output, "deepstack_features", None) or []]
    return {"features": torch.cat(rows, dim=1)}
