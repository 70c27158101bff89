#!/usr/bin/env python3
"""Writes tests/fixtures/tokenizers: tiny tokenizers of each family, hard text, and what the Python packages make of it.

texts.json holds the texts: strings, or lists of bytes for what isn't UTF-8. One folder a family has its tokenizer files
and golden.json, one row a text, from `tokenizers` or `sentencepiece`: {"ids", "special", "decoded", "skipped"}, where
the last three are left out when they equal the ids, the text and the decoded text. Texts are seeded, but the trainer of
`tokenizers` breaks ties at random: a second run writes other, equally good files.
scripts/parity_text.py uses the same families and text generators for larger comparisons.
"""
import io
import itertools
import json
import pathlib
import random
import re
import unicodedata

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/tokenizers"

QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
         r"|\s+(?!\S)|\s+")
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
CLIP = (r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")

WORDS = """the of and to in is was for that with as on are this be by it from at have or an not which they their has what
you can image picture describe answer question red green blue cat dog bus street two people standing near water I'm don't
we'll naïve café Straße Ελλάδα Москва 日本語 中文 한국어 العربية हिन्दी ภาษาไทย עברית ქართული 12345 3.14 2024-01-31 $2,000
return def class import self print for while if else {} [] () <html> </div> // /* */ == != += http://www.example.com/a?b=c
🙂 👍🏽 👨‍👩‍👧‍👦 🇫🇷 ½ ² ٢٣ Ⅳ e\u0301 n\u0303 \u1100\u1161 ﬁ İstanbul ǅ ß""".split()


def corpus(seed=1, lines=3000):
    rng = random.Random(seed)
    for _ in range(lines):
        separator = rng.choice([" ", " ", " ", "  ", "\n", ", "])
        yield separator.join(rng.choice(WORDS) for _ in range(rng.randint(3, 20))) + rng.choice([".", "?", "\n\n", " "])


# ----------------------------------------------------------------------------------------------------------- families


def train(tokenizer, size, **options):
    options.setdefault("initial_alphabet", pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, **options)
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def smolvlm():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
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
        [pre_tokenizers.Split(Regex(QWEN2), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train(tokenizer, 700)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)
                                  for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken(name, special=False, normalized=False) for name in ("<tool_call>", "</tool_call>")])
    return tokenizer


def llama3():
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, 700)
    names = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4)), "<|eot_id|>"]
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names])
    begin = tokenizer.token_to_id("<|begin_of_text|>")
    template = processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A $B:1",
                                             special_tokens=[("<|begin_of_text|>", begin)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def gemma():
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    train(tokenizer, 800, initial_alphabet=[], special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", *BYTES],
          limit_alphabet=60)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False)
                                  for name in ("<start_of_turn>", "<end_of_turn>", "<image>")])
    tokenizer.add_tokens([AddedToken(name, normalized=False) for name in ("<loc0000>", "<loc1023>", "<seg000>", "\n\n")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2), ("<eos>", 1)])
    return tokenizer


def llama2():
    """As sentencepiece models of the Llama 2 kind are converted."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")  # for training only
    train(tokenizer, 800, initial_alphabet=[], special_tokens=["<unk>", "<s>", "</s>", *BYTES], limit_alphabet=60)
    tokenizer.pre_tokenizer = None
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
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
    tokens += [AddedToken("Word", single_word=True, normalized=False), AddedToken("WordS", normalized=False),
               AddedToken("  ", normalized=False), AddedToken("É", normalized=True), AddedToken("a b", lstrip=True)]
    for token in tokens:
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def clip():
    """End-of-word suffix, Split that removes spaces, several steps."""
    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(CLIP), "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)])
    train(tokenizer, 600, special_tokens=["<|startoftext|>", "<|endoftext|>"], end_of_word_suffix="</w>")
    return tokenizer


FAMILIES = {"smolvlm": smolvlm, "gpt2": gpt2, "qwen2": qwen2,
            "llama3": llama3, "gemma": gemma, "llama2": llama2, "flags": flags, "clip": clip}

SENTENCEPIECE = {
    # Gemma: BPE, no dummy prefix, spaces kept, bytes for what is unknown, digits one by one.
    "spm_gemma": dict(model_type="bpe", vocab_size=700, add_dummy_prefix=False, remove_extra_whitespaces=False,
                      byte_fallback=True, split_digits=True, normalization_rule_name="identity", pad_id=0, eos_id=1,
                      bos_id=2, unk_id=3, pad_piece="<pad>", eos_piece="<eos>", bos_piece="<bos>",
                      user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n", "\n\n", "▁▁", "<unused0>"],
                      allow_whitespace_only_pieces=True),
    # Llama 2: a dummy prefix.
    "spm_llama": dict(model_type="bpe", vocab_size=600, byte_fallback=True, split_digits=True,
                      remove_extra_whitespaces=False, normalization_rule_name="identity"),
    # T5: unigram, spaces joined, no bytes.
    "spm_unigram": dict(model_type="unigram", vocab_size=300, normalization_rule_name="identity", pad_id=0, eos_id=1,
                        unk_id=2, bos_id=-1),
}


def train_sentencepiece(name, folder):
    options = dict(SENTENCEPIECE[name], character_coverage=0.98, hard_vocab_limit=False, minloglevel=2,
                   num_threads=1)
    model = io.BytesIO()
    lines = (line.replace("\n", " ") for line in corpus())
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **options)
    (folder / "tokenizer.model").write_bytes(model.getvalue())


# ---------------------------------------------------------------------------------------------------------- hard text


def assigned(first, last):
    return [chr(c) for c in range(first, last + 1)
            if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) not in ("Cn", "Co")]


def block_texts(rng, step=0x800, per_text=20):
    """Characters of every stretch of Unicode, with letters, digits and spaces in between."""
    for first in range(0, 0x20000, step):
        characters = assigned(first, first + step - 1)
        if characters:
            yield "".join(rng.choice(["", "", " ", "a", "1", "\n"]) + rng.choice(characters) for _ in range(per_text))


SPECIALS = ["<|endoftext|>", "<|im_start|>", "<image>", "<end_of_utterance>", "<row_1_col_2>", "<bos>", "<eos>", "<s>",
            "<start_of_turn>", "<loc0000>", "<seg000>", "\n\n", "<|begin_of_text|>", "<tool_call>", "Word", "WordS", "word",
            "<T3>", "<T8>", "<t9>", "<T31>", "<unk>", "<pad>", "<0x41>", "[unk]", "a b", "É", "e\u0301", "<unused0>", "<imag"]
RUNS = [" ", "  ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\u180e", "\u200b", "\u0085", "\x0b"]
EMOJI = ["🙂", "👍🏽", "👨‍👩‍👧‍👦", "🇫🇷", "🏳️‍🌈", "1️⃣", "©", "☃️"]
MARKS = [chr(c) for c in (0x300, 0x301, 0x323, 0x327, 0x345, 0x5B0, 0x64B, 0x93C, 0x1DFA, 0x1AC1, 0x11930, 0x1E4EC)]


def random_text(rng, pieces):
    parts = []
    for _ in range(pieces):
        kind = rng.random()
        if kind < 0.35:
            parts.append(rng.choice(["", " "]) + rng.choice(WORDS))
        elif kind < 0.5:
            parts.append(rng.choice(RUNS) * rng.randint(1, 6))
        elif kind < 0.6:
            parts.append(rng.choice(SPECIALS))
        elif kind < 0.7:
            parts.append("".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9))))
        elif kind < 0.78:
            parts.append(rng.choice(EMOJI))
        elif kind < 0.86:
            parts.append(rng.choice("aeou\u1100가") + "".join(rng.choice(MARKS) for _ in range(rng.randint(1, 4))))
        elif kind < 0.93:
            parts.append(rng.choice(["'s", "'T", "'Re", "'ll", "'", "’s", "'\u017f"]))
        else:
            parts.append(chr(rng.choice([*range(0x20, 0x3000), *range(0xAC00, 0xAC80), *range(0x1F300, 0x1F700)])))
    return "".join(parts)


def golden_texts(seed=5):
    rng = random.Random(seed)
    fixed = ["", " ", "  ", "\n", "Hello, world!", "a  2024", "x\n\n1. item", "User: ", "Assistant:", "  leading", "a\r\nb",
             "<image><image>", "I'm DON'T we'll", "\x00\x01\x04", "\ufeffBOM", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
             " <T4>  <T4> x<T1> <T1>", "Words Word, WordS", "x <T6>  <T2> y", "\t<T7>\u3000 <t15>\n"]
    return fixed + list(block_texts(rng)) + [random_text(rng, 12) for _ in range(30)]


def broken_bytes(seed=6, count=8):
    rng = random.Random(seed)
    yield from (b"\xff", b"a\xe2\x82", b"\xf0\x9f\x98", b"\xed\xa0\x80x", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xe2\x28\xa1")
    for _ in range(count):
        text = random_text(rng, 3).encode()
        yield bytes(byte if rng.random() < 0.9 else rng.randrange(256) for byte in text)


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
    return (lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
            lambda text: tokenizer.encode(text).ids,
            lambda ids, skip: tokenizer.decode(ids, skip_special_tokens=skip))


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
    decoder = {id: {"content": name, "lstrip": False, "normalized": name not in special, "rstrip": False,
                    "single_word": False, "special": name in special or name == "<image>"}
               for name, id in {**special, **added}.items()}
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


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    broken = list(broken_bytes())
    save_json(OUT / "texts.json", golden_texts() + [list(data) for data in broken])
    texts = golden_texts() + [data.decode("utf-8", "replace") for data in broken]
    for name in [*FAMILIES, *SENTENCEPIECE, "spm_paligemma"]:
        write_family(name, texts)
        print(name, sum(path.stat().st_size for path in (OUT / name).iterdir()), "bytes")


if __name__ == "__main__":
    main()
