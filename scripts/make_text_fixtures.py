#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizers (tiny tokenizers of each family, hard text, and what the Python packages make of it)
and tests/fixtures/chat_templates.json (templates, conversations, and what transformers renders).

texts.json holds the texts: strings, or lists of bytes for what isn't UTF-8. One folder a family has its tokenizer files
and golden.json, one row a text, from `tokenizers` or `sentencepiece`: {"ids", "special", "decoded", "skipped"}, where
the last three are left out when they equal the ids, the text and the decoded text. Texts are seeded, but the trainer of
`tokenizers` breaks ties at random: a second run writes other, equally good files.
scripts/parity_text.py uses the same families for larger comparisons.
"""

import io
import itertools
import json
import pathlib
import re

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import chat_template_cases
import hard_text

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizers"

QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CLIP = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


# ----------------------------------------------------------------------------------------------------------- families


def train(tokenizer, size, **options):
    options.setdefault("initial_alphabet", pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(hard_text.corpus(), trainer)
    return tokenizer


def smolvlm():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    # Like the published one, it lacks some byte symbols and has no unk token: they vanish.
    missing = {"\u0104", "\u0106", "À", "ñ", "õ", "ÿ"}
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - missing)
    train(tokenizer, 700, initial_alphabet=alphabet, special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    cells = [f"<row_{r}_col_{c}>" for r in range(1, 3) for c in range(1, 3)]
    names = ["<global-img>", *cells, "<fake_token_around_image>", "<image>", "<end_of_utterance>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    return tokenizer


def gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train(tokenizer, 600)
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=True)])
    return tokenizer


def qwen2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train(tokenizer, 700)
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")]
    )
    tokenizer.add_tokens(
        [AddedToken(name, special=False, normalized=False) for name in ("<tool_call>", "</tool_call>")]
    )
    return tokenizer


def llama3():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 700)
    names = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        *(f"<|reserved_special_token_{i}|>" for i in range(4)),
        "<|eot_id|>",
    ]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B:1", special_tokens=[("<|begin_of_text|>", begin)]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def gemma():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    train(
        tokenizer,
        800,
        initial_alphabet=[],
        special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *BYTES],
        limit_alphabet=60,
    )
    tokenizer.add_special_tokens(
        [AddedToken(name, special=True, normalized=False) for name in ("<start_of_turn>", "<end_of_turn>", "<image>")]
    )
    tokenizer.add_tokens(
        [AddedToken(name, normalized=False) for name in ("<loc0000>", "<loc1023>", "<seg000>", "\n\n")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    return tokenizer


def llama2():
    """As sentencepiece models of the Llama 2 kind are converted."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    train(tokenizer, 800, initial_alphabet=[], special_tokens=["<unk>", "<s>", "</s>", *BYTES], limit_alphabet=60)
    tokenizer.pre_tokenizer = None
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def flags():
    """Added tokens with every flag, behind a normalizer that changes what they look like."""
    tokenizer = Tokenizer(models.BPE(unk_token="[unk]"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 500, special_tokens=["[unk]"])
    tokens = []
    for i in range(32):
        names = ("single_word", "lstrip", "rstrip", "normalized", "special")
        options = {name: bool(i >> bit & 1) for bit, name in enumerate(names)}
        tokens.append(AddedToken(f"<T{i}>", **options))
    tokens += [
        AddedToken("Word", single_word=True, normalized=False),
        AddedToken("WordS", normalized=False),
        AddedToken("  ", normalized=False),
        AddedToken("É", normalized=True),
        AddedToken("a b", lstrip=True),
    ]
    for token in tokens:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def clip():
    """End-of-word suffix, Split that removes spaces, several steps."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    train(tokenizer, 600, special_tokens=["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>")
    return tokenizer


FAMILIES = {
    "smolvlm": smolvlm,
    "gpt2": gpt2,
    "qwen2": qwen2,
    "llama3": llama3,
    "gemma": gemma,
    "llama2": llama2,
    "flags": flags,
    "clip": clip,
}

SENTENCEPIECE = {
    # Gemma: BPE, no dummy prefix, spaces kept, bytes for what is unknown, digits one by one.
    "spm_gemma": dict(
        model_type="bpe",
        vocab_size=700,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece="<pad>",
        eos_piece="<eos>",
        bos_piece="<bos>",
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "<unused0>"],
        allow_whitespace_only_pieces=True,
    ),
    # Llama 2: a dummy prefix.
    "spm_llama": dict(
        model_type="bpe",
        vocab_size=600,
        byte_fallback=True,
        split_digits=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    ),
    # T5: unigram, spaces joined, no bytes.
    "spm_unigram": dict(
        model_type="unigram",
        vocab_size=300,
        normalization_rule_name="identity",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    ),
}


def train_sentencepiece(name, folder):
    options = dict(SENTENCEPIECE[name], character_coverage=0.98, hard_vocab_limit=False, minloglevel=2, num_threads=1)
    model = io.BytesIO()
    lines = (line.replace("\n", " ") for line in hard_text.corpus())
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **options)
    (folder / "tokenizer.model").write_bytes(model.getvalue())


def golden_row(text, codec):
    """What `codec`, (encode, encode with special tokens, decode), makes of a text."""
    encode, encode_special, decode = codec
    ids = encode(text)
    row = {"ids": ids, "special": encode_special(text), "decoded": decode(ids, False), "skipped": decode(ids, True)}
    if row["special"] == ids:
        del row["special"]
    if row["skipped"] == row["decoded"]:
        del row["skipped"]
    if row["decoded"] == text:
        del row["decoded"]
    return row


def tokenizers_codec(tokenizer):
    return (
        lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        lambda text: tokenizer.encode(text).ids,
        lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip),
    )


def sentencepiece_codec(model):
    bos = [model.bos_id()] if model.bos_id() >= 0 else []
    return model.encode, lambda text: bos + model.encode(text), lambda ids, skip: model.decode(ids)


PALIGEMMA_TOKENS = ["<loc0000>", "<loc0001>", "<loc1023>", "<seg000>", "<seg127>", "<image>"]


def write_paligemma(folder):
    """A Gemma model with PaliGemma's tokens behind its own; returns a codec put together from sentencepiece calls."""
    train_sentencepiece("spm_gemma", folder)
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    special = {name: model.piece_to_id(name) for name in ("<pad>", "<eos>", "<bos>")}
    added = {name: model.get_piece_size() + i for i, name in enumerate(PALIGEMMA_TOKENS)}
    decoder = {
        id: {
            "content": name,
            "lstrip": False,
            "normalized": name not in special,
            "rstrip": False,
            "single_word": False,
            "special": name in special or name == "<image>",
        }
        for name, id in {**special, **added}.items()
    }
    config = {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": decoder, "bos_token": "<bos>"}
    save_json(folder / "tokenizer_config.json", config)
    ids = {**special, **added}
    names = {id: name for name, id in ids.items()}
    splitter = re.compile("(" + "|".join(map(re.escape, ids)) + ")")

    def encode(text):
        parts = [part for part in splitter.split(text) if part]
        return [id for part in parts for id in ([ids[part]] if part in ids else model.encode(part))]

    def decode(tokens, skip):
        text = ""
        for added_token, run in itertools.groupby(tokens, key=lambda id: id in names):
            if not added_token:
                text += model.decode(list(run))
            else:
                text += "".join(names[id] for id in run if not (skip and decoder[id]["special"]))
        return text

    return encode, lambda text: [special["<bos>"]] + encode(text), decode


def save_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def write_family(name, texts):
    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    if name in FAMILIES:
        tokenizer = FAMILIES[name]()
        tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
        codec = tokenizers_codec(tokenizer)
    elif name == "spm_paligemma":
        codec = write_paligemma(folder)
    else:
        train_sentencepiece(name, folder)
        codec = sentencepiece_codec(sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model")))
    save_json(folder / "golden.json", [golden_row(text, codec) for text in texts])


def template_rows():
    """Every template with every conversation that suits it, and the text, or null where transformers refuses."""
    cases = [
        (template, messages, True)
        for _, template in chat_template_cases.family_templates()
        for messages in chat_template_cases.CONVERSATIONS
    ]
    cases += [(template, chat_template_cases.CONVERSATIONS[0], False) for template in chat_template_cases.CONSTRUCTS]
    for template, messages, prompt in cases:
        text = chat_template_cases.render(template, messages, prompt, chat_template_cases.VARIABLES)
        yield {
            "template": template,
            "messages": messages,
            "add_generation_prompt": prompt,
            "text": None if isinstance(text, Exception) else text,
        }


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    broken = list(hard_text.broken_bytes())
    save_json(OUT / "texts.json", hard_text.golden_texts() + [list(data) for data in broken])
    texts = hard_text.golden_texts() + [data.decode("utf-8", "replace") for data in broken]
    for name in [*FAMILIES, *SENTENCEPIECE, "spm_paligemma"]:
        write_family(name, texts)
        print(name, sum(path.stat().st_size for path in (OUT / name).iterdir()), "bytes")
    save_json(OUT.parent / "chat_templates.json", list(template_rows()))


if __name__ == "__main__":
    main()
