#!/usr/bin/env python3
"""Writes an untrained small model: a SmolVLM2-architecture folder with its own tokenizer, without weights.

    scripts/make_default_model.py --data .data --out .data/default_init [--model shapes | labels]

shapes is the default model, labels the one that also reads printed labels. Input: the JSON lines that
scripts/make_data.py wrote (their words are the tokenizer's). Output: what transformers'
AutoProcessor and AutoConfig read; the same data give the same folder. The trainer draws the first weights itself, by
config.json. Needs the tokenizers package.
"""
import argparse
import dataclasses
import json
import pathlib
import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from label_text import ASK

END_OF_TEXT, START, PAD = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
GLOBAL, FAKE, IMAGE, END = "<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>"
SPECIAL = [END_OF_TEXT, START, PAD, GLOBAL, FAKE, IMAGE, END]

CORPUS = ["easyvqa/easyvqa_all_train.jsonl", "easyvqa/easyvqa_caption_train.jsonl", "emoji/emoji_train.jsonl"]
VOCABULARY = 1000
FIXED_ANSWERS = "yes no none"  # of labels
PATCH = 8
SCALE_FACTOR = 2
VISION_WIDTH = 192
TEXT_WIDTH, TEXT_INTERMEDIATE = 256, 640
HEAD_DIM = 64
INITIAL_STD = 0.085  # near 1/sqrt(fan in); the usual 0.02 learns shapes many times slower at these widths
MAX_POSITIONS = 2048

# Identical to the published SmolVLM2 checkpoints' template.
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


@dataclasses.dataclass
class Shape:
    image_size: int
    vision_layers: int
    text_layers: int


SHAPES = {"shapes": Shape(64, 3, 3), "labels": Shape(96, 4, 4)}


def corpus(data):
    """Questions and answers as they stand in a prompt, one line each."""
    for name in CORPUS:
        with open(data / name, encoding="utf-8") as lines:
            for line in lines:
                question, answer = (message["content"][-1]["text"] for message in json.loads(line)["messages"])
                yield f"User:{question}"
                yield f"Assistant: {answer}"


def make_trainer(vocabulary, min_frequency):
    return trainers.BpeTrainer(
        vocab_size=vocabulary, min_frequency=min_frequency, show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))


def train_tokenizer(data):
    """A byte-level BPE in SmolVLM2's pipeline: digits alone, GPT-2's pattern, all 256 bytes in the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(data), make_trainer(VOCABULARY, 2))
    return tokenizer


def question_words(data):
    """The words of all questions and fixed answers."""
    words = set(re.findall("[A-Za-z]+", " ".join([FIXED_ANSWERS, *(text for texts in ASK.values() for text in texts)])))
    for name in CORPUS[:2]:  # not the names of emoji
        with open(data / name, encoding="utf-8") as lines:
            for line in lines:
                for message in json.loads(line)["messages"]:
                    words.update(re.findall("[A-Za-z]+", message["content"][-1]["text"]))
    return sorted(words - {"date"}) + ["User:", "Assistant:"]


def train_spelling_tokenizer(data):
    """A byte-level BPE that knows the words of the questions and spells everything else character by character.

    What is read off a picture is so learned letter by letter, whatever word it belongs to.
    """
    words = question_words(data)
    any_word = "|".join(sorted(words, key=len, reverse=True))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(rf" (?:{any_word})(?![A-Za-z0-9])|(?<![A-Za-z0-9])(?:{any_word})(?![A-Za-z0-9])|"
                                   r"[\s\S]"), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([f"{word}, {word}," for word in words] + ["€", "£"], make_trainer(4096, 1))
    return tokenizer


def model_config(tokenizer, shape):
    token = tokenizer.token_to_id
    roles = {"bos_token_id": token(START), "eos_token_id": token(END), "pad_token_id": token(PAD)}
    return {
        "architectures": ["SmolVLMForConditionalGeneration"], "model_type": "smolvlm", "dtype": "float32",
        **roles, "image_token_id": token(IMAGE), "scale_factor": SCALE_FACTOR, "tie_word_embeddings": False,
        "use_cache": True,
        "vision_config": {
            "model_type": "smolvlm_vision", "hidden_size": VISION_WIDTH, "intermediate_size": 4 * VISION_WIDTH,
            "num_hidden_layers": shape.vision_layers, "num_attention_heads": VISION_WIDTH // HEAD_DIM,
            "num_channels": 3,
            "image_size": shape.image_size, "patch_size": PATCH, "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6, "attention_dropout": 0.0, "initializer_range": INITIAL_STD,
        },
        "text_config": {
            "model_type": "llama", **roles, "vocab_size": tokenizer.get_vocab_size(), "hidden_size": TEXT_WIDTH,
            "intermediate_size": TEXT_INTERMEDIATE, "num_hidden_layers": shape.text_layers,
            "num_attention_heads": TEXT_WIDTH // HEAD_DIM, "num_key_value_heads": TEXT_WIDTH // HEAD_DIM,
            "head_dim": HEAD_DIM, "hidden_act": "silu", "rms_norm_eps": 1e-5, "max_position_embeddings": MAX_POSITIONS,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "attention_bias": False,
            "mlp_bias": False, "attention_dropout": 0.0, "tie_word_embeddings": False, "initializer_range": INITIAL_STD,
        },
    }


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_processor(out, tokenizer, image_size):
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
        "image_seq_len": (image_size // PATCH // SCALE_FACTOR) ** 2, "processor_class": "SmolVLMProcessor"})
    write_json(out / "preprocessor_config.json", {
        "do_convert_rgb": True, "do_image_splitting": False, "do_normalize": True, "do_pad": True,
        "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "image_processor_type": "SmolVLMImageProcessor", "max_image_size": {"longest_edge": image_size},
        "processor_class": "SmolVLMProcessor", "resample": 1, "rescale_factor": 1 / 255,
        "size": {"longest_edge": image_size},
        "video_sampling": {"fps": 1, "max_frames": 16, "video_size": {"longest_edge": image_size}}})


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(".data"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".data/default_init"))
    parser.add_argument("--model", choices=[*SHAPES], default="shapes", help="which model (default shapes)")
    options = parser.parse_args()
    shape = SHAPES[options.model]
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = (train_spelling_tokenizer if options.model == "labels" else train_tokenizer)(options.data)
    config = model_config(tokenizer, shape)
    write_json(options.out / "config.json", config)
    write_json(options.out / "generation_config.json", {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")})
    write_processor(options.out, tokenizer, shape.image_size)
    print(f"{options.out}: vocabulary {tokenizer.get_vocab_size()}")


if __name__ == "__main__":
    main()
