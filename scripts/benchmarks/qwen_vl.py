"""Qwen2-VL-2B in its published size. "small" pictures are of 448 x 448 pixels, "large" ones as they are."""
import dataclasses

from benchmarks import vocabulary
from benchmarks.work import Sizes
from oracle import qwen_vl

SPEC = qwen_vl.QwenSpec(
    "qwen2-vl-2b", 0, "qwen2_vl",
    dict(depth=32, embed_dim=1280, hidden_size=1536, num_heads=16, mlp_ratio=4, patch_size=14),
    dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
         max_position_embeddings=32768, rms_norm_eps=1e-6,
         rope_parameters=dict(rope_type="default", rope_theta=1000000.0, mrope_section=[16, 24, 24])),
    tied=True, patch=14)
VOCAB = 151936
SIDE = 1024  # of the pictures that are measured
LIMITS = {"small": (56 * 56, 448 * 448), "large": (56 * 56, 28 * 28 * 16384)}  # pixels


def sizes(_):
    vision, text = SPEC.vision, SPEC.text
    wide, merged = vision["embed_dim"], 4 * vision["embed_dim"]
    head_width = text["hidden_size"] // text["num_attention_heads"]
    large = round(SIDE / (2 * SPEC.patch)) * 2
    return Sizes(
        vision_width=wide, vision_inner=wide * vision["mlp_ratio"], vision_layers=vision["depth"],
        patch_values=2 * 3 * SPEC.patch**2, connector=merged * (merged + text["hidden_size"]), patches_per_feature=4,
        hidden=text["hidden_size"], inner=text["intermediate_size"], layers=text["num_hidden_layers"],
        query_width=text["hidden_size"], key_width=text["num_key_value_heads"] * head_width, vocabulary=VOCAB,
        tied=SPEC.tied, pictures={"small": [(448 // SPEC.patch) ** 2], "large": [large**2]},
        labels={"small": "448 pixels", "large": f"{SIDE} pixels"})


def make_config(_, dtype):
    return vocabulary.complete(qwen_vl.make_config(SPEC, vocabulary.make_qwen(qwen_vl.SPECIAL)), VOCAB, dtype)


def write_text_files(folder, _):
    qwen_vl.write_text_files(SPEC, folder, vocabulary.make_qwen(qwen_vl.SPECIAL))


def write_processor(folder, _, size):
    qwen_vl.write_processors(dataclasses.replace(SPEC, limits=LIMITS[size]), folder)
