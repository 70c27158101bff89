"""Texts on which tokenizers differ: every block of Unicode, runs of white space, marks, emoji, special tokens, bad bytes.

Used by make_text_fixtures.py and parity_text.py. Everything is seeded.
"""

import itertools
import random
import unicodedata

WORDS = (
    """the of and to in is was for that with as on are this be by it from at have or an not which they their has what
you can image picture describe answer question red green blue cat dog bus street two people standing near water I'm don't
we'll naïve café Straße Ελλάδα Москва 日本語 中文 한국어 العربية हिन्दी ภาษาไทย עברית ქართული 12345 3.14 2024-01-31 $2,000
return def class import self print for while if else {} [] () <html> </div> // /* */ == != += http://www.example.com/a?b=c
🙂 👍🏽 👨‍👩‍👧‍👦 🇫🇷 ½ ² ٢٣ Ⅳ e\u0301 n\u0303 \u1100\u1161 ﬁ İstanbul ǅ ß""".split()
)


def corpus(seed=1, lines=3000):
    rng = random.Random(seed)
    for _ in range(lines):
        separator = rng.choice([" ", " ", " ", "  ", "\n", ", "])
        yield separator.join(rng.choice(WORDS) for _ in range(rng.randint(3, 20))) + rng.choice([".", "?", "\n\n", " "])


def assigned(first, last):
    return [
        chr(c)
        for c in range(first, last + 1)
        if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) not in ("Cn", "Co")
    ]


def block_texts(rng, step=0x800, per_text=20):
    """Characters of every stretch of Unicode, with letters, digits and spaces in between."""
    for first in range(0, 0x20000, step):
        characters = assigned(first, first + step - 1)
        if characters:
            yield "".join(rng.choice(["", "", " ", "a", "1", "\n"]) + rng.choice(characters) for _ in range(per_text))


SPECIALS = [
    "<|endoftext|>",
    "<|im_start|>",
    "<image>",
    "<end_of_utterance>",
    "<row_1_col_2>",
    "<bos>",
    "<eos>",
    "<s>",
    "<start_of_turn>",
    "<loc0000>",
    "<seg000>",
    "\n\n",
    "<|begin_of_text|>",
    "<tool_call>",
    "Word",
    "WordS",
    "word",
    "<T3>",
    "<T8>",
    "<t9>",
    "<T31>",
    "<unk>",
    "<pad>",
    "<0x41>",
    "[unk]",
    "a b",
    "É",
    "e\u0301",
    "<unused0>",
    "<imag",
]
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
    fixed = [
        "",
        " ",
        "  ",
        "\n",
        "Hello, world!",
        "a  2024",
        "x\n\n1. item",
        "User: ",
        "Assistant:",
        "  leading",
        "a\r\nb",
        "<image><image>",
        "I'm DON'T we'll",
        "\x00\x01\x04",
        "\ufeffBOM",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        " <T4>  <T4> x<T1> <T1>",
        "Words Word, WordS",
        "x <T6>  <T2> y",
        "\t<T7>\u3000 <t15>\n",
    ]
    return fixed + list(block_texts(rng)) + [random_text(rng, 12) for _ in range(30)]


def broken_bytes(seed=6, count=8):
    rng = random.Random(seed)
    yield from (
        b"\xff",
        b"a\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xed\xa0\x80x",
        b"\xc0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x28\xa1",
    )
    for _ in range(count):
        text = random_text(rng, 3).encode()
        yield bytes(byte if rng.random() < 0.9 else rng.randrange(256) for byte in text)


def code_points(every):
    """All code points, or those of the planes that hold characters and a sample of the rest."""
    for c in itertools.chain(range(0xD800), range(0xE000, 0x110000)):
        if every or c < 0x32400 or 0xE0000 <= c < 0xE0200 or c % 251 == 0:
            yield chr(c)


def code_point_texts(every):
    for c in code_points(every):
        yield f"a{c}b {c}1{c}\n {c}{c}'{c}s  {c}"


def mark_texts(rng, count):
    """Runs of marks behind letters: what NFC sorts and composes."""
    marks = [chr(c) for c in range(0x20000) if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c))[0] == "M"]
    bases = [chr(c) for c in range(0x250)] + ["\u1100", "\u1161", "\u11a8", "가", "क", "ে", "\u0b47", "\u11935"]
    for _ in range(count):
        yield "".join(rng.choice(bases) + "".join(rng.choices(marks, k=rng.randint(0, 5))) for _ in range(4))


def long_lines(rng, size=1_000_000):
    letters = "abcdefghijklmnopqrstuvwxyz"
    return {
        "one letter": "a" * size,
        "two letters": "ab" * (size // 2),
        "spaces": " " * size,
        "spaces and a letter": " " * size + "x",
        "newlines": "\n" * size,
        "digits": "".join(rng.choices("0123456789", k=size)),
        "letters": "".join(rng.choices(letters, k=size)),
        "words": "".join(rng.choice(WORDS) + " " for _ in range(size // 6)),
        "punctuation": "".join(rng.choices("!?.,;:-()[]", k=size)),
        "emoji": "".join(rng.choices(EMOJI, k=size // 10)),
        "CJK": "".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(size // 3)),
        "marks": "e" + "\u0301\u0323" * (size // 4),
        "special tokens": "<|endoftext|><image>\n" * (size // 21),
    }
