"""The tiny tokenizer and the text side files shared by every fixture checkpoint.

make_tokenizer() -> tokenizers.Tokenizer with the SmolVLM2 pipeline (Digits, ByteLevel; byte-level
BPE) and 400 entries: 3 special, 256 bytes, 101 merges, 40 added special tokens.
write_text_files() puts tokenizer.json, tokenizer_config.json, special_tokens_map.json and
the chat template into a checkpoint folder.
"""
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

BASE_VOCAB = 360
GRID = 6
ROW_COL = [f"<row_{r}_col_{c}>" for r in range(1, GRID + 1) for c in range(1, GRID + 1)]
ADDED = ["<global-img>", *ROW_COL, "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
PAD_ID = 2
IMAGE_ID = BASE_VOCAB + len(ADDED) - 2
EOS_ID = IMAGE_ID + 1
VOCAB = EOS_ID + 1

# Enough everyday words for merges inside words, across the leading space and in other scripts.
CORPUS = [
    "User: What is in this image? Assistant: A red square and a blue circle on a white table.",
    "User: How many dogs are there? Assistant: There are 3 dogs and 12 cats in the picture.",
    "User: Describe the image. Assistant: The image shows a small house near the water.",
    "User: What colour is the shape? Assistant: The shape is green, not yellow or black.",
    "User: Compare the images. Assistant: The first is tall, the second is wide and dark.",
    "System: Be brief. Answer in one word. yes no left right above below",
    "Isn't this the same? I'm sure they'll say it's theirs, and we've seen 2024 of them.",
    "na\u00efve caf\u00e9, stra\u00dfe; \u65e5\u672c\u8a9e \u3068 \u65e5\u672c; "
    "\u0441\u043b\u043e\u0432\u043e \u0437\u0430 \u0441\u043b\u043e\u0432\u043e\u043c",
    "if (x == 1):\n    return x + 1\n\n\n# the end\n",
] * 4

CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def special(text):
    return AddedToken(text, normalized=False, special=True)


def make_tokenizer():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BASE_VOCAB,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([special(t) for t in ADDED])
    assert tokenizer.token_to_id("<image>") == IMAGE_ID, tokenizer.token_to_id("<image>")
    assert tokenizer.token_to_id("<end_of_utterance>") == EOS_ID
    assert tokenizer.get_vocab_size() == VOCAB
    return tokenizer


def write_json(path, value):
    """Indented JSON, with each list of plain values on one line."""
    Path(path).write_text(to_json(value) + "\n", encoding="utf-8")


def to_json(value, indent=""):
    inner = indent + " "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(k)}: {to_json(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + "\n" + indent + "}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        rows = [inner + to_json(item, inner) for item in value]
        return "[\n" + ",\n".join(rows) + "\n" + indent + "]"
    return json.dumps(value)


def token_record(text):
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": text, **flags}


def write_text_files(folder, processor_prefix="SmolVLM", jinja_template=False):
    """Everything of a checkpoint folder that is about text, without generation_config.json."""
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    roles = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
    }
    named = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "end_of_utterance_token": "<end_of_utterance>",
        "global_image_token": "<global-img>",
    }
    extra = ["<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    added = {
        str(tokenizer.token_to_id(t)): {**token_record(t), "special": True}
        for t in [*roles.values(), *ADDED]
    }
    write_json(folder / "tokenizer_config.json", {
        "add_prefix_space": False,
        "added_tokens_decoder": dict(sorted(added.items(), key=lambda item: int(item[0]))),
        "additional_special_tokens": extra,
        **roles,
        **named,
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": named,
        "model_max_length": 512,
        "processor_class": processor_prefix + "Processor",
        "tokenizer_class": "GPT2Tokenizer",
        "truncation_side": "left",
        "vocab_size": BASE_VOCAB,
    })
    write_json(folder / "special_tokens_map.json", {
        "additional_special_tokens": extra,
        **{name: token_record(text) for name, text in roles.items()},
        **named,
    })
    if jinja_template:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    else:
        write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
