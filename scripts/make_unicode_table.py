#!/usr/bin/env python3
"""Writes vlm/text/unicode/unicode_table.cpp: where the Unicode of the `tokenizers` package and that of our libraries differ.

Its pattern engine and its lower case know more than Unicode 14, its NFC less. They are asked about every code point, and
the answers that Python's unicodedata (Unicode 14 in Python 3.11) gives differently are kept. Run with a Python that has
`tokenizers`; the result is committed.
"""

import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

OUT = pathlib.Path(__file__).resolve().parent.parent / "vlm/text/unicode/unicode_table.cpp"
CATEGORIES = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HEAD = """// Written by scripts/make_unicode_table.py: don't edit.
// clang-format off
#include "vlm/text/unicode/unicode.h"

namespace vlm {
namespace {

constexpr NewerRange kNewerRanges[] = {
"""
MIDDLE = """};

constexpr CodePointRange kInertMarks[] = {
"""
LOWER = """};

constexpr LowerRange kNewerLower[] = {
"""
TAIL = """};

}  // namespace

std::span<const NewerRange> newer_ranges() { return kNewerRanges; }
std::span<const CodePointRange> inert_marks() { return kInertMarks; }
std::span<const LowerRange> newer_lower() { return kNewerLower; }

}  // namespace vlm
"""


def categories_of_the_engine():
    known = {}
    for category in CATEGORIES:
        split = pre_tokenizers.Split(Regex(rf"\p{{{category}}}"), "removed")
        known.update({c: category for c in CODE_POINTS if not split.pre_tokenize_str(chr(c))})
    return known


def to_ranges(named):
    """[(code point, name)] in order → [[first, last, name]] for runs of one name."""
    ranges = []
    for c, name in named:
        if ranges and ranges[-1][1] == c - 1 and ranges[-1][2] == name:
            ranges[-1][1] = c
        else:
            ranges.append([c, c, name])
    return ranges


def is_inert(c, category):
    """Whether NFC of the package takes a mark for a character that neither moves nor composes."""
    if c == 0x11930:  # composes with U+11935 since Unicode 13
        return True
    newer = category[0] == "M" and unicodedata.category(chr(c)) == "Cn"
    # U+0345 has the highest combining class, so every mark known to the package moves before it.
    moves = normalizers.NFC().normalize_str("a\u0345" + chr(c)) != "a\u0345" + chr(c)
    return newer or (c != 0x345 and unicodedata.combining(chr(c)) != 0 and not moves)


def newer_lower():
    """(code point, how far its lower case is) where the package knows one and Unicode 14 doesn't."""
    for c in CODE_POINTS:
        lower = normalizers.Lowercase().normalize_str(chr(c))
        if len(lower) == 1 and lower != chr(c).lower():
            yield c, ord(lower) - c


def main():
    assert unicodedata.unidata_version == "14.0.0", "run with Python 3.11"
    known = categories_of_the_engine()
    assigned = sorted(known.items())
    newer = to_ranges((c, category) for c, category in assigned if category != unicodedata.category(chr(c)))
    inert = to_ranges((c, "") for c, category in assigned if is_inert(c, category))
    newer_rows = "".join(f'    {{0x{first:04X}, 0x{last:04X}, "{category}"}},\n' for first, last, category in newer)
    inert_rows = "".join(f"    {{0x{first:04X}, 0x{last:04X}}},\n" for first, last, _ in inert)
    lower_rows = "".join(
        f"    {{0x{first:04X}, 0x{last:04X}, {shift}}},\n" for first, last, shift in to_ranges(newer_lower())
    )
    OUT.write_text(HEAD + newer_rows + MIDDLE + inert_rows + LOWER + lower_rows + TAIL, encoding="utf-8")
    print(f"{len(newer)} newer ranges, {len(inert)} ranges of inert marks")


if __name__ == "__main__":
    main()
