"""Tiny random InternVL checkpoints in the original layout (internvl_chat), and what transformers gives for them.

The vendor's code isn't in transformers, so the oracle is its "-hf" layout: save() makes a checkpoint of oracle.internvl and
converts its keys back (convert), golden() runs the "-hf" model on prompts that are put together here from the vendor's
conversations, with tokenizers and pixels by the packages that the vendor's code uses (sentencepiece or Qwen2Tokenizer,
Pillow and torchvision). One checkpoint has Qwen2 inside with vocab.json and merges.txt, the other InternLM2 with its
sentencepiece model, an encoder of InternViT-6B's kind (RMS norms, normalised q and k, no bias) and tiles of another size
than its positions.
"""
import dataclasses
import io
import json
import re
import shutil

import sentencepiece
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision import transforms
from transformers import Qwen2Tokenizer

from . import internvl, picture_families
from .picture_families import added_token
from .text import CORPUS, write_json

# The ones that the vendor adds behind a language model's tokens.
MEDIA_TOKENS = ["<img>", "</img>", "<IMG_CONTEXT>", "<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"]
QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# InternLM2's spare pieces and the tokens that take their ids.
SPARE = [f"[UNUSED_TOKEN_{number}]" for number in range(141, 147)]
INTERN_TOKENS = ["<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>"]

SYSTEM = {
    "internlm2-chat": "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。",
    "internvl2_5": "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。",
}
SYSTEM["Hermes-2"] = SYSTEM["internlm2-chat"]
SEPARATOR = {"internlm2-chat": "<|im_end|>", "Hermes-2": "<|im_end|>", "internvl2_5": "<|im_end|>\n"}

RENAMED = [  # "-hf" → original, in this order
    (r"^vision_tower\.embeddings\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^vision_tower\.embeddings\.position_embeddings$", "vision_model.embeddings.position_embedding"),
    (r"^vision_tower\.embeddings\.patch_embeddings\.projection\.", "vision_model.embeddings.patch_embedding."),
    (r"^vision_tower\.encoder\.layer\.", "vision_model.encoder.layers."),
    (r"\.attention\.projection_layer\.", ".attn.proj."),
    (r"\.attention\.(q|k)_norm\.", r".attn.\1_norm."),
    (r"\.layernorm_before\.", ".norm1."), (r"\.layernorm_after\.", ".norm2."),
    (r"\.lambda_(\d)$", r".ls\1"),
    (r"^multi_modal_projector\.layer_norm\.", "mlp1.0."), (r"^multi_modal_projector\.linear_1\.", "mlp1.1."),
    (r"^multi_modal_projector\.linear_2\.", "mlp1.3."),
]
INTERNLM2 = [
    (r"^language_model\.lm_head\.", "language_model.output."),
    (r"\.embed_tokens\.", ".tok_embeddings."),
    (r"\.self_attn\.o_proj\.", ".attention.wo."),
    (r"\.mlp\.gate_proj\.", ".feed_forward.w1."), (r"\.mlp\.up_proj\.", ".feed_forward.w3."),
    (r"\.mlp\.down_proj\.", ".feed_forward.w2."),
    (r"\.input_layernorm\.", ".attention_norm."), (r"\.post_attention_layernorm\.", ".ffn_norm."),
]


@dataclasses.dataclass
class ChatSpec:
    base: internvl.InternSpec
    template: str
    gradients: tuple  # that the golden file keeps, by parts of their names
    pixels: int       # the prompt whose pixels it keeps, or -1
    thumbnail: bool = True

    @property
    def name(self):
        return self.base.name

    @property
    def is_internlm2(self):
        return self.base.text["model_type"] == "llama"


SPECS = [
    ChatSpec(internvl.InternSpec(
        "internvl_chat_tiny", 107, internvl.vision(),
        internvl.text("qwen2", hidden_size=16, intermediate_size=20, num_attention_heads=4, num_key_value_heads=2,
                      rope_parameters=dict(rope_type="default", rope_theta=1000.0)), tied=False, side=16, is_published=True,
        patches=(1, 4)),
        "internvl2_5", ("layers.0.attn", "ls1", "class_embedding", "mlp1.1", "layers.1.self_attn.q_proj"), 1),
    ChatSpec(internvl.InternSpec(
        "internvl_internlm2_tiny", 109,
        internvl.vision(attention_bias=False, use_qk_norm=True, norm_type="rms_norm", num_hidden_layers=1),
        internvl.text("llama", hidden_size=16, intermediate_size=20, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
                      rope_parameters=dict(rope_type="default", rope_theta=900.0)),
        tied=False, side=24, is_published=True, patches=(1, 4)),
        "internlm2-chat", ("position_embedding", "norm1", "attn.q_norm", "attention.wqkv", "feed_forward.w3", "mlp1.0"), -1,
        thumbnail=False),
]


# ----------------------------------------------------------------------------------------------------------- the keys


def rename(key, rules):
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def convert(weights, spec):
    """The "-hf" keys of the hub → the original ones. What is one matrix in the original is put together."""
    text, left, converted = spec.base.text, dict(weights), {}
    for key in sorted(left):
        if key not in left:
            continue
        if match := re.match(r"^vision_tower\.encoder\.layer\.(\d+)\.attention\.[qkv]_proj\.(weight|bias)$", key):
            parts = [left.pop(f"vision_tower.encoder.layer.{match[1]}.attention.{name}_proj.{match[2]}") for name in "qkv"]
            converted[f"vision_model.encoder.layers.{match[1]}.attn.qkv.{match[2]}"] = torch.cat(parts)
        elif spec.is_internlm2 and (match := re.match(r"^(language_model\.model\.layers\.\d+)\.self_attn\.[qkv]_proj\.weight$", key)):
            q, k, v = (left.pop(f"{match[1]}.self_attn.{name}_proj.weight") for name in "qkv")
            converted[f"{match[1]}.attention.wqkv.weight"] = join_groups(q, k, v, text["num_key_value_heads"])
        else:
            converted[rename(key, RENAMED + (INTERNLM2 if spec.is_internlm2 else []))] = left.pop(key)
    return converted


def join_groups(q, k, v, groups):
    """Rows of each key-value head: its queries, k, v."""
    split = [part.unflatten(0, (groups, -1)) for part in (q, k, v)]
    return torch.cat(split, 1).flatten(0, 1).contiguous()


# ------------------------------------------------------------------------------------------------------- the tokenizer


def train_sentencepiece(folder):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, model_type="bpe", vocab_size=335, hard_vocab_limit=False,
        byte_fallback=True, add_dummy_prefix=False, remove_extra_whitespaces=False, normalization_rule_name="identity",
        user_defined_symbols=SPARE, minloglevel=2, num_threads=1)
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def write_tokenizer(spec, folder):
    """Vocabulary and added tokens as the vendor's folders have them."""
    if spec.is_internlm2:
        train_sentencepiece(folder)
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        ids = {token: model.piece_to_id(piece) for token, piece in zip(INTERN_TOKENS, SPARE, strict=True)}
        ids |= {token: model.get_piece_size() + number for number, token in enumerate(MEDIA_TOKENS)}
        named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>"}
        listed = {0: "<unk>", 1: "<s>", 2: "</s>"} | {number: token for token, number in ids.items()}
        write_json(folder / "tokenizer_config.json", {
            "added_tokens_decoder": {str(number): added_token(token) for number, token in sorted(listed.items())},
            "additional_special_tokens": INTERN_TOKENS + MEDIA_TOKENS, **named, "tokenizer_class": "InternLM2Tokenizer",
            "chat_template": "{{ 'not what the model was trained with' }}"})
        return
    tokenizer = picture_families.make_tokenizer(internvl.SPECIAL)
    tokenizer.model.save(str(folder))
    size = len(json.loads((folder / "vocab.json").read_text()))
    ids = {token: size + number for number, token in enumerate(QWEN_TOKENS + MEDIA_TOKENS)}
    write_json(folder / "added_tokens.json", ids)
    write_json(folder / "special_tokens_map.json", {
        "additional_special_tokens": QWEN_TOKENS[1:] + MEDIA_TOKENS, "eos_token": added_token("<|im_end|>") | {"special": None},
        "pad_token": added_token("<|endoftext|>") | {"special": None}})
    write_json(folder / "tokenizer_config.json", {
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "tokenizer_class": "Qwen2Tokenizer",
        "chat_template": "{{ 'not what the model was trained with' }}"})


class Ids:
    """Texts → ids as the vendor's tokenizers give them."""

    def __init__(self, spec, folder):
        self.qwen = None if spec.is_internlm2 else Qwen2Tokenizer.from_pretrained(folder)
        if spec.is_internlm2:
            self.model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
            listed = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
            self.added = {token["content"]: int(number) for number, token in listed.items()}

    def token_to_id(self, token):
        token = "</s>" if token == "<|endoftext|>" and not self.qwen else token
        return self.qwen.convert_tokens_to_ids(token) if self.qwen else self.added[token]

    def get_vocab_size(self):
        return len(self.qwen) if self.qwen else 1 + max(self.added.values())

    def __call__(self, text):
        if self.qwen:
            return self.qwen(text)["input_ids"]
        ids = [self.model.bos_id()]
        for piece in re.split("(" + "|".join(map(re.escape, self.added)) + ")", text):
            ids += [self.added[piece]] if piece in self.added else self.model.encode(piece)
        return ids


# ------------------------------------------------------------------------------------------------------ the checkpoint


def write_config(spec, folder, hf):
    text, vision = hf["text_config"], spec.base.vision
    kept = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
            "max_position_embeddings", "rms_norm_eps", "vocab_size", "initializer_range", "hidden_act")
    llm = {key: text[key] for key in kept} | {"rope_theta": text["rope_parameters"]["rope_theta"], "torch_dtype": "float32"}
    llm |= {"rope_scaling": {"type": "dynamic", "factor": 2.0}}
    if spec.is_internlm2:
        llm |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"], "bias": False}
    elif text["model_type"] == "qwen3":
        llm |= {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "head_dim": text["head_dim"]}
    else:
        llm |= {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
    write_json(folder / "config.json", {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
                     "AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "downsample_ratio": spec.base.ratio, "dynamic_image_size": True, "force_image_size": spec.base.side,
        "llm_config": llm, "max_dynamic_patch": spec.base.patches[1], "min_dynamic_patch": spec.base.patches[0],
        "model_type": "internvl_chat", "pad2square": False, "ps_version": "v2", "select_layer": -1, "system_message": None,
        "template": spec.template, "torch_dtype": "float32", "use_backbone_lora": 0, "use_llm_lora": 0,
        "use_thumbnail": spec.thumbnail,
        "vision_config": {
            "architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_act": "gelu",
            "hidden_size": vision["hidden_size"], "image_size": vision["image_size"][0],
            "intermediate_size": vision["intermediate_size"], "layer_norm_eps": 1e-6,
            "norm_type": vision.get("norm_type", "layer_norm"), "num_attention_heads": vision["num_attention_heads"],
            "num_hidden_layers": vision["num_hidden_layers"], "patch_size": vision["patch_size"][0],
            "qk_normalization": vision.get("use_qk_norm", False), "qkv_bias": vision["attention_bias"]}})


def save(spec, folder, hf_folder):
    """The checkpoint in both layouts."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_tokenizer(spec, folder)
    internvl.save_model(spec.base, hf_folder, Ids(spec, folder))
    write_config(spec, folder, json.loads((hf_folder / "config.json").read_text()))
    save_file(convert(load_file(hf_folder / "model.safetensors"), spec), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    return folder


# ------------------------------------------------------------------------------------------- what the vendor's code does


def conversation(template, turns, is_open=True):
    """The prompt of user's and assistant's texts."""
    separator = SEPARATOR[template]
    text = "<|im_start|>system\n" + SYSTEM[template] + separator
    for number, turn in enumerate(turns):
        text += f"<|im_start|>{'assistant' if number % 2 else 'user'}\n" + turn + separator
    return text + ("<|im_start|>assistant\n" if is_open else "")


def tile_grid(spec, width, height):
    """(columns, rows) of the vendor's search."""
    fewest, most = spec.base.patches
    grids = sorted({(i, j) for i in range(1, most + 1) for j in range(1, most + 1) if fewest <= i * j <= most},
                   key=lambda grid: grid[0] * grid[1])
    best, least = (1, 1), float("inf")
    for i, j in grids:
        difference = abs(width / height - i / j)
        if difference < least or (difference == least and width * height > 0.5 * spec.base.side ** 2 * i * j):
            best, least = (i, j), difference
    return best


def tiles(spec, pixels, is_whole=False):
    """Pictures as a stack of tiles, [N, 3, S, S]."""
    side, image = spec.base.side, Image.fromarray(pixels)
    columns, rows = (1, 1) if is_whole else tile_grid(spec, image.width, image.height)
    resized = image.resize((columns * side, rows * side), Image.BICUBIC)
    parts = [resized.crop((i * side, j * side, (i + 1) * side, (j + 1) * side)) for j in range(rows) for i in range(columns)]
    if len(parts) > 1 and spec.thumbnail:
        parts.append(image.resize((side, side), Image.BICUBIC))
    norm = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return torch.stack([norm(transforms.ToTensor()(part)) for part in parts])


def picture_text(spec, stack):
    return "<img>" + "<IMG_CONTEXT>" * (internvl.tile_tokens(spec.base) * len(stack)) + "</img>"


def encode(spec, ids, turn, stacks, answer=None):
    """A user's text with "<image>" in the places of `stacks`."""
    for stack in stacks:
        turn = turn.replace("<image>", picture_text(spec, stack), 1)
    turns = [turn] if answer is None else [turn, answer]
    numbers = torch.tensor([ids(conversation(spec.template, turns, answer is None))])
    inputs = {"input_ids": numbers, "attention_mask": torch.ones_like(numbers)}
    return inputs | ({"pixel_values": torch.cat(stacks)} if stacks else {})


def prompts(spec):
    """Texts and tiles of the prompts of tests/support/family_prompts.h."""
    shown = [tiles(spec, internvl.picture(*size)) for size in internvl.SHOWN.pictures]
    frames = [tiles(spec, frame, is_whole=True) for frame in internvl.SHOWN.frames()]
    clip = "".join(f"Frame{number + 1}: <image>\n" for number in range(len(frames)))
    return [("What colour is", []), ("<image>\nHow many dogs are there?", shown[:1]),
            ("First <image> then <image><image>?", [shown[1], shown[0], shown[2]]), (clip + "And now? ", frames)]


def golden(spec, folder, hf_folder):
    ids = Ids(spec, folder)
    inputs = [encode(spec, ids, text, stacks) for text, stacks in prompts(spec)]
    found = internvl.run(internvl.load(hf_folder), inputs, kept_pixels=[spec.pixels])
    gradients = {key: found.pop(key) for key in list(found) if key.startswith("grad.")}
    published = {}
    for key, value in gradients.items():
        name = key[len("grad."):]
        for old, new in internvl.PREFIXES.items():
            if name.startswith(new):
                name = old + name[len(new):]
                break
        published[name] = value
    kept = {f"grad.{key}": value for key, value in convert(published, spec).items()
            if any(part in key for part in spec.gradients)}
    return internvl.SHOWN.tensors() | found | kept
