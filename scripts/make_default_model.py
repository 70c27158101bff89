#!/usr/bin/env python3
"""Writes the untrained default model: a SmolVLM2-architecture folder with its own tokenizer and random weights.

    scripts/make_default_model.py --data .data --out .data/default_init [--seed 0]

Input: the JSON lines that scripts/make_data.py wrote (they are the tokenizer's corpus). Output: everything that
transformers' AutoProcessor and AutoModelForImageTextToText read. The same data and seed give the same folder. Training
it is the job of `vlm finetune` with configs/default_model.json; nothing here looks at a picture. Needs transformers.
"""
import argparse
import json
import math
import pathlib

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

END_OF_TEXT, START, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
GLOBAL, FAKE, IMAGE, END = "<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"
SPECIAL = [END_OF_TEXT, START, PAD, GLOBAL, FAKE, IMAGE, END]

CORPUS = ["easyvqa/easyvqa_all_train.jsonl", "easyvqa/easyvqa_caption_train.jsonl", "emoji/emoji_train.jsonl"]
VOCABULARY = 1000
IMAGE_SIZE = 64
PATCH = 8
SCALE_FACTOR = 2
VISION_WIDTH, VISION_LAYERS = 192, 4
TEXT_WIDTH, TEXT_LAYERS, TEXT_INTERMEDIATE = 192, 4, 512
HEAD_DIM = 64
MAX_POSITIONS = 2048

# Identical to the published SmolVLM2 checkpoints' template.
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def corpus(data):
    """Questions and answers as they stand in a prompt, one line each."""
    for name in CORPUS:
        with open(data / name, encoding="utf-8") as lines:
            for line in lines:
                question, answer = (message["content"][-1]["text"] for message in json.loads(line)["messages"])
                yield f"User:{question}"
                yield f"Assistant: {answer}"


def train_tokenizer(data):
    """A byte-level BPE in SmolVLM2's pipeline: digits alone, GPT-2's pattern, all 256 bytes in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, min_frequency=2, show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(corpus(data), trainer)
    return tokenizer


def model_config(tokenizer):
    token = tokenizer.token_to_id
    return SmolVLMConfig(
        vision_config={
            "hidden_size": VISION_WIDTH, "intermediate_size": 4 * VISION_WIDTH, "num_hidden_layers": VISION_LAYERS,
            "num_attention_heads": VISION_WIDTH // HEAD_DIM, "image_size": IMAGE_SIZE, "patch_size": PATCH,
        },
        text_config={
            "model_type": "llama", "hidden_size": TEXT_WIDTH, "intermediate_size": TEXT_INTERMEDIATE,
            "num_hidden_layers": TEXT_LAYERS, "num_attention_heads": TEXT_WIDTH // HEAD_DIM,
            "num_key_value_heads": TEXT_WIDTH // HEAD_DIM, "head_dim": HEAD_DIM,
            "vocab_size": tokenizer.get_vocab_size(), "max_position_embeddings": MAX_POSITIONS,
            "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
            "bos_token_id": token(START), "eos_token_id": token(END), "pad_token_id": token(PAD),
        },
        scale_factor=SCALE_FACTOR, image_token_id=token(IMAGE), bos_token_id=token(START),
        eos_token_id=token(END), pad_token_id=token(PAD), tie_word_embeddings=False)


def initialise_vision(vision):
    """Random weights of std 1/sqrt(fan in) and sine-cosine positions of amplitude 0.5.

    With transformers' std of 0.02 at these widths the tower stays blind to shapes for thousands of steps.
    """
    for module in vision.modules():
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.normal_(module.weight, std=1 / math.sqrt(module.weight[0].numel()))
    side, bands = IMAGE_SIZE // PATCH, VISION_WIDTH // 4
    place = torch.arange(side).float()[:, None] * 100.0 ** (-torch.arange(bands) / bands)
    waves = torch.cat([place.sin(), place.cos()], dim=1)
    rows, columns = waves.repeat_interleave(side, dim=0), waves.repeat(side, 1)
    vision.embeddings.position_embedding.weight.data.copy_(0.5 * torch.cat([columns, rows], dim=1))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_processor(out, tokenizer):
    """The side files, in the published checkpoints' layout."""
    tokenizer.save(str(out / "tokenizer.json"))
    added = {
        str(tokenizer.token_to_id(name)): {
            "content": name, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
            "special": True}
        for name in SPECIAL
    }
    roles = {"bos_token": START, "eos_token": END, "pad_token": PAD, "unk_token": END_OF_TEXT}
    write_json(out / "tokenizer_config.json", {
        "add_prefix_space": False, "added_tokens_decoder": added, "additional_special_tokens": [FAKE, IMAGE, END],
        **roles, "clean_up_tokenization_spaces": False, "end_of_utterance_token": END, "fake_image_token": FAKE,
        "global_image_token": GLOBAL, "image_token": IMAGE, "extra_special_tokens": {
            "end_of_utterance_token": END, "fake_image_token": FAKE, "global_image_token": GLOBAL,
            "image_token": IMAGE},
        "model_max_length": MAX_POSITIONS, "processor_class": "SmolVLMProcessor",
        "tokenizer_class": "GPT2Tokenizer", "truncation_side": "left"})
    write_json(out / "special_tokens_map.json", {
        "additional_special_tokens": [FAKE, IMAGE, END], **roles, "end_of_utterance_token": END,
        "fake_image_token": FAKE, "global_image_token": GLOBAL, "image_token": IMAGE})
    write_json(out / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    write_json(out / "processor_config.json", {
        "image_seq_len": (IMAGE_SIZE // PATCH // SCALE_FACTOR) ** 2, "processor_class": "SmolVLMProcessor"})
    write_json(out / "preprocessor_config.json", {
        "do_convert_rgb": True, "do_image_splitting": False, "do_normalize": True, "do_pad": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_processor_type": "SmolVLMImageProcessor", "max_image_size": {"longest_edge": IMAGE_SIZE},
        "processor_class": "SmolVLMProcessor", "resample": 1, "rescale_factor": 1 / 255,
        "size": {"longest_edge": IMAGE_SIZE},
        "video_sampling": {"fps": 1, "max_frames": 16, "video_size": {"longest_edge": IMAGE_SIZE}}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(".data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".data/default_init"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(options.data)
    torch.manual_seed(options.seed)
    model = SmolVLMForConditionalGeneration(model_config(tokenizer))
    initialise_vision(model.model.vision_model)
    model.generation_config.pad_token_id = tokenizer.token_to_id(PAD)
    model.save_pretrained(options.out)
    write_processor(options.out, tokenizer)
    parts = {"vision": model.model.vision_model, "connector": model.model.connector, "text": model.model.text_model}
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    print(f"{options.out}: {sum(p.numel() for p in model.parameters())} parameters, {counts}, "
          f"vocabulary {tokenizer.get_vocab_size()}")


if __name__ == "__main__":
    main()
