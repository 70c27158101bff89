"""Sets of printed labels: the steps of a curriculum, and tests on words, fonts and layouts that were never trained on.

The same name and seed give the same labels.
"""
import io
import random
import zlib

import numpy

import label_pictures
import label_text

# name: (level, are words held out, are fonts, are layouts). plain to short are the steps of a curriculum.
SETS = {
    "plain": ("plain", False, False, False), "character": ("character", False, False, False),
    "letters": ("letters", False, False, False), "short": ("short", False, False, False),
    "train": ("label", False, False, False), "test_seen": ("label", False, False, False),
    "test_words": ("label", True, False, False), "test_fonts": ("label", True, True, False),
    "test_layouts": ("label", True, False, True), "test_all": ("label", True, True, True),
}
STRENGTH = {"plain": 0.0, "character": 0.3, "letters": 0.5, "short": 0.8, "label": 1.0}


def draw_lines(level, rng, words, currencies):
    if level in ("plain", "character"):
        return label_text.draw_letters(rng, 1, 1, 1)
    if level == "letters":
        return label_text.draw_letters(rng, rng.choice([1, 1, 2]), 1, 4)
    return (label_text.draw_short if level == "short" else label_text.draw_label)(rng, words, currencies)


def draw_labels(name, seed, count, packages):
    """Yields (JPEG bytes, [(kind, question, answer)]) of one of SETS."""
    if name not in SETS:
        raise SystemExit(f"--set: got {name}, wanted one of {', '.join(SETS)}")
    level, new_words, new_fonts, new_layouts = SETS[name]
    rng, noise = random.Random(f"{name} {seed}"), numpy.random.default_rng([seed, zlib.crc32(name.encode())])
    words = label_text.Words(packages.apt("wamerican", "/usr/share/dict/american-english"), new_words)
    text_fonts, segment_fonts = map(label_pictures.Fonts, label_pictures.load_faces(packages, new_fonts))
    layouts = label_pictures.HELD_OUT_LAYOUTS if new_layouts else label_pictures.LAYOUTS
    layouts = ["centre"] if level == "plain" else layouts
    made = 0
    while made < count:
        face = text_fonts.draw(rng)
        lines = draw_lines(level, rng, words, face.currencies)
        if lines[0].role == "meter" and len(lines) == 1 and segment_fonts.names and rng.random() < 0.5:
            face = segment_fonts.draw(rng)
        texts = [line.text for line in lines]
        picture = None
        if not any(face.lacks(letter) for letter in set("".join(texts)) & set("€£")):
            picture = label_pictures.draw_picture(rng, noise, face, texts, rng.choice(layouts), STRENGTH[level])
        if picture is not None:
            encoded = io.BytesIO()
            picture.save(encoded, "JPEG", quality=rng.randint(60, 95))
            made += 1
            yield encoded.getvalue(), label_text.questions(rng, lines)
