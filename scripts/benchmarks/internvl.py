"""InternVL3-1B in its published size. "small" pictures are one tile, "large" ones a grid and a thumbnail."""
import dataclasses

from benchmarks import vocabulary
from benchmarks.work import Sizes
from oracle import internvl

SPEC = internvl.InternSpec(
    "internvl3-1b", 0,
    dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=[448, 448],
         patch_size=[14, 14], attention_bias=True),
    dict(model_type="qwen2", hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14,
         num_key_value_heads=2, max_position_embeddings=32768, rms_norm_eps=1e-6,
         rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
    tied=False, side=448)
VOCAB = 151674
LARGE_TILES = 10  # of a picture of 1024 x 1024 pixels: 3 x 3 and the thumbnail


def sizes(_):
    vision, text = SPEC.vision, SPEC.text
    patches = (SPEC.side // vision["patch_size"][0]) ** 2 + 1  # and the class token
    head_width = text["hidden_size"] // text["num_attention_heads"]
    return Sizes(
        vision_width=vision["hidden_size"], vision_inner=vision["intermediate_size"],
        vision_layers=vision["num_hidden_layers"], patch_values=3 * vision["patch_size"][0] ** 2,
        connector=text["hidden_size"] * (4 * vision["hidden_size"] + text["hidden_size"]), patches_per_feature=4,
        hidden=text["hidden_size"], inner=text["intermediate_size"], layers=text["num_hidden_layers"],
        query_width=text["hidden_size"], key_width=text["num_key_value_heads"] * head_width, vocabulary=VOCAB,
        tied=SPEC.tied, pictures={"small": [patches], "large": [patches] * LARGE_TILES},
        labels={"small": "1 tile", "large": f"{LARGE_TILES} tiles"})


def make_config(_, dtype):
    return vocabulary.complete(internvl.make_config(SPEC, vocabulary.make_qwen(internvl.SPECIAL)), VOCAB, dtype)


def write_text_files(folder, _):
    internvl.write_text_files(folder, vocabulary.make_qwen(internvl.SPECIAL))


def write_processor(folder, _, size):
    internvl.write_processors(dataclasses.replace(SPEC, patches=(1, 1 if size == "small" else 12)), folder)
