"""Random checkpoints of the published SmolVLM2 shapes: true sizes and vocabulary, weights that
know nothing.

make(root, name, dtype) writes root/NAME-DTYPE once (tiles as published: a square picture becomes
17) and root/NAME-DTYPE-one-tile, which shares its files but for the image processor. The
tokenizer has the published vocabulary's size, pipeline and special ids; its merges are learnt
from a few sentences and then filled up at random, so that reading it costs what it costs.
"""
import json
import random

import torch
from benchmarks.shapes import HEAD_DIM, MAX_POSITIONS, SHAPES, VOCAB
from oracle.text import CHAT_TEMPLATE, CORPUS, special, write_json
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

BASE_VOCAB = 49152
IMAGE_ID, EOS_ID, PAD_ID = 49190, 49279, 2
GRID = 6
SHARD_BYTES = 5_000_000_000


def make_config(name, dtype):
    shape = SHAPES[name]
    return SmolVLMConfig(
        image_token_id=IMAGE_ID, scale_factor=shape["scale_factor"], pad_token_id=PAD_ID,
        tie_word_embeddings=False, dtype=dtype, vision_config=shape["vision"],
        text_config=dict(model_type="llama", vocab_size=VOCAB, head_dim=HEAD_DIM,
                         max_position_embeddings=MAX_POSITIONS, rms_norm_eps=1e-5, pad_token_id=PAD_ID,
                         bos_token_id=1, eos_token_id=2, **shape["text"]))


def fill_vocabulary(tokenizer):
    """Adds random merges of short tokens until the vocabulary is full."""
    state = json.loads(tokenizer.to_str())
    vocab, merges = state["model"]["vocab"], state["model"]["merges"]
    short = [token for token in vocab if len(token) <= 6 and not token.startswith("<|")]
    chance = random.Random(5)
    while len(vocab) < BASE_VOCAB:
        left, right = chance.choice(short), chance.choice(short)
        if left + right in vocab or "Ġ" in right:
            continue
        vocab[left + right] = len(vocab)
        merges.append([left, right])
        if len(left + right) <= 6:
            short.append(left + right)
    return Tokenizer.from_str(json.dumps(state))


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=1000, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")],
        show_progress=False))
    tokenizer = fill_vocabulary(tokenizer)
    cells = [f"<row_{r}_col_{c}>" for r in range(1, GRID + 1) for c in range(1, GRID + 1)]
    added = ["<global-img>", *cells, "<fake_token_around_image>", "<image>"]
    reserved = EOS_ID - BASE_VOCAB - len(added)
    added += [f"<|reserved_special_token_{i}|>" for i in range(reserved)] + ["<end_of_utterance>"]
    tokenizer.add_special_tokens([special(t) for t in added])
    assert tokenizer.token_to_id("<image>") == IMAGE_ID
    assert tokenizer.token_to_id("<end_of_utterance>") == EOS_ID
    return tokenizer


def write_text_files(folder):
    make_tokenizer().save(str(folder / "tokenizer.json"))
    names = dict(bos_token="<|im_start|>", eos_token="<end_of_utterance>",
                 pad_token="<|im_end|>", unk_token="<|endoftext|>")
    write_json(folder / "special_tokens_map.json", names)
    write_json(folder / "tokenizer_config.json", {
        **names, "tokenizer_class": "GPT2Tokenizer", "processor_class": "SmolVLMProcessor",
        "model_max_length": 8192, "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>", "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>"})
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})


def write_image_processor(folder, shape, split):
    tile = shape["vision"]["image_size"]
    write_json(folder / "preprocessor_config.json", {
        "image_processor_type": "SmolVLMImageProcessor", "processor_class": "SmolVLMProcessor",
        "do_convert_rgb": True, "do_image_splitting": split, "do_normalize": True, "do_pad": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "max_image_size": {"longest_edge": tile}, "resample": 1, "rescale_factor": 1 / 255,
        "size": {"longest_edge": shape["longest_edge"] if split else tile},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": tile}}})


def write_weights(folder, config, dtype):
    """Normal weights, norms of ones; shards of at most 5 GB with their index."""
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
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


def make_one_tile(folder, shape):
    """The same checkpoint with an image processor that makes one tile of every picture."""
    twin = folder.with_name(folder.name + "-one-tile")
    twin.mkdir(exist_ok=True)
    for file in folder.iterdir():
        link = twin / file.name
        if file.name != "preprocessor_config.json" and not link.exists():
            link.symlink_to(file)
    write_image_processor(twin, shape, split=False)
    return twin


def count_parts(name):
    """Parameters of the matrices: a vision block, a text block, the connector, the head."""
    shape = SHAPES[name]
    vision, text = shape["vision"], shape["text"]
    wide, hidden = vision["hidden_size"], text["hidden_size"]
    kv_width = text["num_key_value_heads"] * 64
    return {
        "vision_block": 4 * wide**2 + 2 * wide * vision["intermediate_size"],
        "text_block": 2 * hidden**2 + 2 * hidden * kv_width
        + 3 * hidden * text["intermediate_size"],
        "connector": wide * shape["scale_factor"]**2 * hidden,
        "head": hidden * VOCAB,
    }


def count_parameters(name):
    """Parameters of the whole model but for norms, biases, patches and positions."""
    shape, parts = SHAPES[name], count_parts(name)
    return (shape["vision"]["num_hidden_layers"] * parts["vision_block"] + parts["connector"]
            + shape["text"]["num_hidden_layers"] * parts["text_block"] + 2 * parts["head"])


def count_work(name, prompt_tokens):
    """Operations of one tile and of each prompt, and the weights that a new token reads."""
    shape, parts = SHAPES[name], count_parts(name)
    vision, text = shape["vision"], shape["text"]
    patches = (vision["image_size"] // vision["patch_size"])**2
    block = 2 * patches * parts["vision_block"] + 4 * patches**2 * vision["hidden_size"]
    stem = 2 * patches * 3 * vision["patch_size"]**2 * vision["hidden_size"]
    tokens_per_tile = patches // shape["scale_factor"]**2
    layers = text["num_hidden_layers"]
    work = {
        "parameters": count_parameters(name),
        "tile_flop": vision["num_hidden_layers"] * block + stem
        + 2 * tokens_per_tile * parts["connector"],
        "decode_weights": layers * parts["text_block"] + parts["head"],
        "head_weights": parts["head"],
    }
    for tiles, count in prompt_tokens.items():
        attention = 2 * count**2 * text["hidden_size"]  # half of the square is masked
        work[f"prefill_{tiles}_flop"] = (
            layers * (2 * count * parts["text_block"] + attention) + 2 * parts["head"])
    return work


def make(root, name, dtype):
    """-> (folder, folder of its one-tile twin); makes what is not there yet."""
    folder = root.resolve() / f"{name}-{dtype}"
    shape = SHAPES[name]
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        config = make_config(name, dtype)
        config.save_pretrained(folder)
        stored = json.loads((folder / "config.json").read_text())
        write_json(folder / "config.json",
                   {**stored, "architectures": ["SmolVLMForConditionalGeneration"]})
        write_json(folder / "generation_config.json", {
            "bos_token_id": 0, "eos_token_id": EOS_ID, "pad_token_id": PAD_ID})
        write_json(folder / "processor_config.json", {
            "processor_class": "SmolVLMProcessor",
            "image_seq_len": (shape["vision"]["image_size"] // shape["vision"]["patch_size"]
                              // shape["scale_factor"]) ** 2})
        write_text_files(folder)
        write_image_processor(folder, shape, split=True)
        write_weights(folder, config, getattr(torch, dtype))
        (folder / "complete").touch()
    return folder, make_one_tile(folder, shape)
