"""Random checkpoints of published shapes: true sizes and vocabulary, weights that know nothing.

make(root, name, dtype) writes root/NAME-DTYPE once (pictures cut as published) and root/NAME-DTYPE-one-tile, which
shares its files but for the image processor, that makes one small tile of every picture. A family is a module of this
folder: sizes, make_config, write_text_files, write_processor.
"""

import torch
from benchmarks import internvl, qwen_vl, smolvlm
from benchmarks.shapes import SHAPES
from oracle.text import write_json
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText

SHARD_BYTES = 5_000_000_000
# name → its family's module and what that needs to know
MODELS = {**{name: (smolvlm, shape) for name, shape in SHAPES.items()},
          "qwen2-vl-2b": (qwen_vl, None), "internvl3-1b": (internvl, None)}


def write_weights(folder, model, dtype):
    """Normal weights, norms of ones; shards of at most 5 GB with their index."""
    shapes = {name: tensor.shape for name, tensor in model.named_parameters()}  # tied ones once
    generator = torch.Generator().manual_seed(11)
    element = torch.empty(0, dtype=dtype).element_size()
    shards, size = [[]], 0
    for name, shape in shapes.items():
        size += shape.numel() * element
        if size > SHARD_BYTES:
            shards, size = shards + [[]], shape.numel() * element
        shards[-1].append(name)
    weight_map = {}
    for number, names in enumerate(shards, 1):
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: random_weight(name, shapes[name], dtype, generator) for name in names},
                  folder / file, {"format": "pt"})
        weight_map |= {name: file for name in names}
    if len(shards) > 1:
        write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


def random_weight(name, shape, dtype, generator):
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
    return torch.randn(shape, generator=generator).mul_(0.02).to(dtype)


def make_one_tile(folder, family, shape):
    """The same checkpoint with an image processor that makes one tile of every picture."""
    twin = folder.with_name(folder.name + "-one-tile")
    twin.mkdir(exist_ok=True)
    family.write_processor(twin, shape, "small")
    for file in folder.iterdir():
        link = twin / file.name
        if not link.exists():
            link.symlink_to(file)
    return twin


def sizes(name):
    family, shape = MODELS[name]
    return family.sizes(shape)


def make(root, name, dtype):
    """-> (folder, folder of its one-tile twin); makes what is not there yet."""
    folder = root.resolve() / f"{name}-{dtype}"
    family, shape = MODELS[name]
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = family.make_config(shape, dtype)
        with torch.device("meta"):
            model = AutoModelForImageTextToText.from_config(config)
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        family.write_text_files(folder, shape)
        family.write_processor(folder, shape, "large")
        write_weights(folder, model, getattr(torch, dtype))
        (folder / "complete").touch()
    return folder, make_one_tile(folder, family, shape)
