#!/usr/bin/env python3
"""Gives an untrained model folder first weights from a smaller trained model of the same widths.

    scripts/grow_model.py models/easy-vqa-emoji .data/labels_init

Layers are copied and further ones begin as the identity; positions of patches are interpolated; tokens that both
tokenizers know keep their rows, others are drawn. Written as NEW/model.safetensors. Needs torch and safetensors.
"""
import argparse
import json
import math
import pathlib
import re

import torch
from safetensors.torch import load_file, save_file

INITIAL_STD = 0.085  # make_default_model.py's
# part of a layer's name: (its config, the projections whose zero makes a layer the identity)
STACKS = {
    "vision_model.encoder.layers": ("vision_config", ("out_proj", "fc2")),
    "text_model.layers": ("text_config", ("o_proj", "down_proj")),
}


def read_tokens(folder):
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return {**tokenizer["model"]["vocab"], **{token["content"]: token["id"] for token in tokenizer["added_tokens"]}}


def interpolate_positions(rows, side):
    old = math.isqrt(rows.shape[0])
    grid = rows.reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return grid.permute(0, 2, 3, 1).reshape(side * side, -1)


def move_rows(rows, old_tokens, new_tokens):
    moved = torch.randn(len(new_tokens), rows.shape[1]) * rows.std()
    for token, row in new_tokens.items():
        if token in old_tokens:
            moved[row] = rows[old_tokens[token]]
    return moved


def identity_layer(name, like, zero):
    """First weights of one tensor of an added layer: nothing is added to the residual stream until it is trained."""
    if name.endswith("bias") or any(part in name for part in zero):
        return torch.zeros_like(like)
    return torch.randn_like(like) * INITIAL_STD if like.dim() == 2 else torch.ones_like(like)


def grow(old, new):
    torch.manual_seed(1)
    weights = {name: tensor.float() for name, tensor in load_file(old / "model.safetensors").items()}
    config = json.loads((new / "config.json").read_text(encoding="utf-8"))
    side = config["vision_config"]["image_size"] // config["vision_config"]["patch_size"]
    old_tokens, new_tokens = read_tokens(old), read_tokens(new)
    grown = {}
    for name, tensor in weights.items():
        if "position_embedding" in name:
            tensor = interpolate_positions(tensor, side)
        elif "embed_tokens" in name or "lm_head" in name:
            tensor = move_rows(tensor, old_tokens, new_tokens)
        grown[name] = tensor.contiguous()
    for stack, (part, zero) in STACKS.items():
        numbers = [int(match[1]) for name in weights if (match := re.search(rf"{re.escape(stack)}\.(\d+)\.", name))]
        last = max(numbers)
        for added in range(last + 1, config[part]["num_hidden_layers"]):
            for name, tensor in weights.items():
                if f"{stack}.{last}." in name:
                    grown[name.replace(f"{stack}.{last}.", f"{stack}.{added}.")] = identity_layer(name, tensor, zero)
    save_file(grown, new / "model.safetensors", metadata={"format": "pt"})
    print(f"{new}: {sum(tensor.numel() for tensor in grown.values())} parameters")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", type=pathlib.Path, help="the trained model")
    parser.add_argument("new", type=pathlib.Path, help="folder of make_default_model.py")
    options = parser.parse_args()
    grow(options.old, options.new)


if __name__ == "__main__":
    main()
