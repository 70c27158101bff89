#!/usr/bin/env python3
"""Writes tests/fixtures/gguf with the Python package `gguf` (0.19.0), from random bytes and from the tiny checkpoints.

blocks.gguf holds random blocks of every type that is read, blocks.safetensors their numbers. The models are what
tests/fixtures has as Hugging Face folders, laid out as llama.cpp's converter lays them out: rows of q and k permuted
(llama), keys and tokenizer lists by its rules; one of them in three parts. spm_llama.gguf has a tokenizer of
sentencepiece and no tensors. Needs gguf, numpy, safetensors and sentencepiece.
"""
import json
from pathlib import Path

import gguf
import numpy as np
import sentencepiece
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
OUTPUT = FIXTURES / "gguf"
BLOCK_TYPES = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K,
               Type.Q4_K, Type.Q5_K, Type.Q6_K, Type.IQ4_NL, Type.IQ4_XS, Type.MXFP4, Type.NVFP4]
# Bytes at which a block has a half, which must be a finite number.
HALVES = {Type.F16: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
          Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208], Type.IQ4_NL: [0],
          Type.IQ4_XS: [0]}


def random_blocks(rng, kind, count):
    size = gguf.GGML_QUANT_SIZES[kind][1]
    if kind == Type.F32:
        return rng.standard_normal(count).astype(np.float32).view(np.uint8).reshape(count, size)
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES.get(kind, []):
        halves = (rng.standard_normal(count) * 10.0 ** rng.integers(-6, 3, count)).astype(np.float16)
        blocks[:, at:at + 2] = halves.view(np.uint8).reshape(count, 2)
    if kind == Type.BF16:
        blocks[:, 1] = blocks[:, 1] & 0xBF  # no exponent of ones
    return blocks


def write_blocks():
    rng = np.random.default_rng(7)
    writer = gguf.GGUFWriter(OUTPUT / "blocks.gguf", "test")
    golden = {}
    for kind in BLOCK_TYPES:
        rows = 3
        blocks = random_blocks(rng, kind, rows * 2)
        shape = (rows, 2 * gguf.GGML_QUANT_SIZES[kind][1])
        data = blocks.reshape(shape)
        golden[kind.name] = gguf.quants.dequantize(data, kind).reshape(rows, -1).astype(np.float32)
        if kind == Type.F32:
            data = data.view(np.float32)
        writer.add_tensor(kind.name, data, raw_dtype=None if kind == Type.F32 else kind)
    writer.add_uint8("test.u8", 200)
    writer.add_int8("test.i8", -100)
    writer.add_int64("test.i64", -(1 << 40))
    writer.add_uint64("test.u64", (1 << 64) - 1)
    writer.add_float64("test.f64", 0.1)
    writer.add_bool("test.bool", True)
    writer.add_array("test.texts", ["a", "ü", ""])
    writer.add_array("test.numbers", [1, -2, 3])
    finish(writer)
    save_file(golden, OUTPUT / "blocks.safetensors")


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def permute(weight, heads):
    """Rows of q or k: row i of the first half of a head becomes row 2i, row i of the second half row 2i + 1."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


TEXT_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
VISION_NAMES = {
    "layer_norm1": "ln1", "layer_norm2": "ln2", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.out_proj": "attn_out", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
}


def text_name(key):
    """Of a key behind "model." or "model.text_model."; its layer's part is translated."""
    plain = {"embed_tokens.weight": "token_embd.weight", "norm.weight": "output_norm.weight"}
    if key in plain:
        return plain[key]
    _, layer, rest = key.split(".", 2)
    name, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{TEXT_NAMES[name]}.{kind}"


def vision_name(key, swaps):
    """Of a key behind "model."; with `swaps` as older converters name the layers of an MLP."""
    plain = {"vision_model.embeddings.patch_embedding.weight": "v.patch_embd.weight",
             "vision_model.embeddings.patch_embedding.bias": "v.patch_embd.bias",
             "vision_model.embeddings.position_embedding.weight": "v.position_embd.weight",
             "vision_model.post_layernorm.weight": "v.post_ln.weight",
             "vision_model.post_layernorm.bias": "v.post_ln.bias",
             "connector.modality_projection.proj.weight": "mm.model.fc.weight"}
    if key in plain:
        return plain[key]
    _, _, _, layer, rest = key.split(".", 4)
    name, kind = rest.rsplit(".", 1)
    translated = VISION_NAMES[name]
    if swaps and translated.startswith("ffn_"):
        translated = {"ffn_up": "ffn_down", "ffn_down": "ffn_up"}[translated]
    return f"v.blk.{layer}.{translated}.{kind}"


def add_tensor(writer, name, values, kind):
    values = np.ascontiguousarray(values)
    if kind == Type.F32 or values.ndim == 1 or values.shape[-1] % gguf.GGML_QUANT_SIZES[kind][0]:
        writer.add_tensor(name, values.astype(np.float32))
    else:
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)


def add_tokenizer(writer, folder, config, pre):
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocab = {text: index for text, index in tokenizer["model"]["vocab"].items()}
    added = {token["content"]: token for token in tokenizer["added_tokens"]}
    vocab |= {text: token["id"] for text, token in added.items()}
    by_id = {index: text for text, index in vocab.items()}
    tokens, types = [], []
    for index in range(config["vocab_size"]):
        text = by_id.get(index)
        tokens.append(f"[PAD{index}]" if text is None else text)
        types.append(5 if text is None else 1 if text not in added else 3 if added[text]["special"] else 4)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]])
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for key, name in [("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding"), ("unk_token", "unknown")]:
        token = settings.get(key)
        text = token["content"] if isinstance(token, dict) else token
        if text in vocab:
            writer.add_uint32(f"tokenizer.ggml.{name}_token_id", vocab[text])
    template = settings.get("chat_template")
    for name in ("chat_template.jinja", "chat_template.json"):
        if (folder / name).exists():
            text = (folder / name).read_text()
            template = json.loads(text)["chat_template"] if name.endswith("json") else text
    if template:
        writer.add_chat_template(template)


def llama3_factors(config):
    """What llama.cpp divides frequencies by, as its converter computes them."""
    scaling, head = config["rope_scaling"], config["head_dim"]
    frequencies = 1.0 / config["rope_theta"] ** (np.arange(0, head, 2, dtype=np.float64) / head)
    old, low, high = scaling["original_max_position_embeddings"], scaling["low_freq_factor"], scaling["high_freq_factor"]
    factors = []
    for frequency in frequencies:
        length = 2 * np.pi / frequency
        if length < old / high:
            factors.append(1.0)
        elif length > old / low:
            factors.append(scaling["factor"])
        else:
            smooth = (old / length - low) / (high - low)
            factors.append(1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, dtype=np.float32)


def write_text(source, name, pre, kind=Type.F32, most_tensors=0):
    """`most_tensors`: of a part, where the file is to have several."""
    folder = FIXTURES / source
    whole = json.loads((folder / "config.json").read_text())
    config = whole.get("text_config", whole)
    weights = load_file(folder / "model.safetensors")
    arch = config["model_type"]
    writer = gguf.GGUFWriter(OUTPUT / name, arch, split_max_tensors=most_tensors)
    writer.add_name(source)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    writer.add_rope_freq_base(config.get("rope_theta", rope.get("rope_theta")))
    writer.add_rope_dimension_count(config["head_dim"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)
    add_tokenizer(writer, folder, config, pre)
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config))
    for key, values in weights.items():
        part = key.removeprefix("model.").removeprefix("text_model.")
        if part.startswith(("vision_model.", "connector.")):
            continue
        if arch == "llama" and part.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in part else "num_key_value_heads"]
            values = permute(values, heads)
        gguf_name = "output.weight" if part == "lm_head.weight" else text_name(part)
        add_tensor(writer, gguf_name, values, kind)
    finish(writer)


def write_projector(source, name, swaps, kind=Type.F32):
    folder = FIXTURES / source
    config = json.loads((folder / "config.json").read_text())
    vision, image = config["vision_config"], json.loads((folder / "preprocessor_config.json").read_text())
    writer = gguf.GGUFWriter(OUTPUT / name, "clip")
    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "idefics3")
    writer.add_uint32("clip.vision.projection_dim", config["text_config"]["hidden_size"])
    writer.add_uint32("clip.vision.image_size", vision["image_size"])
    writer.add_uint32("clip.vision.patch_size", vision["patch_size"])
    writer.add_uint32("clip.vision.embedding_length", vision["hidden_size"])
    writer.add_uint32("clip.vision.feed_forward_length", vision["intermediate_size"])
    writer.add_uint32("clip.vision.block_count", vision["num_hidden_layers"])
    writer.add_uint32("clip.vision.attention.head_count", vision["num_attention_heads"])
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", vision["layer_norm_eps"])
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])
    writer.add_uint32("clip.vision.projector.scale_factor", config["scale_factor"])
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("clip.vision.preproc_image_size", image["size"]["longest_edge"])
    writer.add_file_type(0)
    for key, values in load_file(folder / "model.safetensors").items():
        part = key.removeprefix("model.")
        if part.startswith(("vision_model.", "connector.")):
            add_tensor(writer, vision_name(part, swaps), values, kind)
    finish(writer)


def write_sentencepiece(source, name):
    """The lists of llama.cpp's converter for a tokenizer.model."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(FIXTURES / "tokenizers" / source / "tokenizer.model"))
    ids = range(model.get_piece_size())
    kinds = [2 if model.is_unknown(i) else 3 if model.is_control(i) else 5 if model.is_unused(i) else 6 if model.is_byte(i)
             else 1 for i in ids]
    writer = gguf.GGUFWriter(OUTPUT / name, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([model.id_to_piece(i) for i in ids] + ["[PAD]", "[PAD]"])
    writer.add_token_scores([model.get_score(i) for i in ids] + [-10000.0] * 2)
    writer.add_token_types(kinds + [5, 5])
    writer.add_bos_token_id(model.bos_id())
    writer.add_eos_token_id(model.eos_id())
    writer.add_unk_token_id(model.unk_id())
    finish(writer)


def main():
    OUTPUT.mkdir(exist_ok=True)
    write_blocks()
    write_text("llama_tiny", "llama_tiny.gguf", "llama-bpe")
    write_text("qwen2_tiny", "qwen2_tiny.gguf", "qwen2")
    write_text("smolvlm_tiny", "smolvlm_tiny.gguf", "smollm")
    write_text("qwen2_tiny", "parts.gguf", "qwen2", most_tensors=16)
    write_sentencepiece("spm_llama", "spm_llama.gguf")
    write_projector("smolvlm_tiny", "mmproj-smolvlm_tiny.gguf", swaps=True)


if __name__ == "__main__":
    main()
