#!/usr/bin/env python3
"""Compares our tokenizers and chat templates with tokenizers, sentencepiece and transformers, live and at length.

    parity_text.py [--tool build/dev/tests/tokenize_tool] [--tokenizer tokenizer.json]… [--model tokenizer.model]…
                   [--seed N] [--texts N] [--every-code-point] [--quick]

Trains the families of make_text_fixtures.py anew and compares ids and decoded text on random hard text, on texts made
from every code point, on lines of one megabyte and on random ids; then chat templates; then prints speeds side by side,
one thread each (never a pass or a fail). Ends with "N passed, N failed" and exits 1 when one failed. --quick, which
scripts/parity runs, leaves out the long parts: code points, marks, lines of a megabyte but one, and speeds.
"""

import os

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import glob
import itertools
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import sentencepiece
import transformers
from tokenizers import Regex, Tokenizer, pre_tokenizers

import chat_template_cases
import hard_text
import make_text_fixtures as fixtures

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = []


def check(name, differences):
    """Records a check that passed when `differences` (a list of short texts) is empty."""
    RESULTS.append(not differences)
    print(f"{'ok  ' if not differences else 'FAIL'} {name}")
    for difference in differences[:5]:
        print("       ", difference[:600])
    if len(differences) > 5:
        print(f"        … {len(differences)} in all")
    sys.stdout.flush()


class Ours:
    def __init__(self, tool, work):
        self.tool, self.work = tool, work

    def run(self, command, folder, value):
        path = self.work / "input.json"
        path.write_text(json.dumps(value), encoding="utf-8")
        done = subprocess.run([self.tool, command, str(folder), str(path)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip())
        return done.stdout

    def rows(self, command, folder, value):
        return [json.loads(line) for line in self.run(command, folder, value).split("\n") if line]


# ------------------------------------------------------------------------------------------------------------- texts


def real_text(size):
    """Prose and code found on this machine, for speeds."""
    paths = sorted(glob.glob("/usr/share/common-licenses/*")) + sorted(
        glob.glob(os.path.dirname(os.__file__) + "/*.py")
    )
    text = ""
    for path in paths:
        text += pathlib.Path(path).read_text(encoding="utf-8", errors="replace")
        if len(text) > size:
            break
    return text[:size]


# -------------------------------------------------------------------------------------------------------- comparisons


def compare_rows(texts, rows, codec):
    """Differences between our rows and what the codec gives; ids that the codec calls as good as its own are no one."""
    encode, encode_special, decode, *ties = codec
    differences = []
    if len(rows) != len(texts):
        return [f"{len(rows)} rows for {len(texts)} texts"]
    for text, row in zip(texts, rows):
        ids = encode(text)
        if row["ids"] != ids and ties and ties[0](row["ids"], ids):
            continue
        pairs = [
            ("ids", row["ids"], ids),
            ("with special tokens", row["special"], encode_special(text)),
            ("decoded", row["text"], decode(ids, False)),
            ("skipped", row["skip"], decode(ids, True)),
        ]
        for what, ours, theirs in pairs:
            if ours != theirs:
                at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
                differences.append(
                    f"{text[:60]!r}: {what} differ at {at}: {ours[at:at + 12]!r} and {theirs[at:at + 12]!r}"
                )
                break
    return differences


def compare_texts(ours, folder, codec, texts):
    texts = list(texts)
    differences = []
    for begin in range(0, len(texts), 50_000):
        part = texts[begin : begin + 50_000]
        differences += compare_rows(part, ours.rows("encode", folder, part), codec)
    return differences


def compare_bytes(ours, folder, codec, data):
    rows = ours.rows("encode", folder, [list(item) for item in data])
    return compare_rows([item.decode("utf-8", "replace") for item in data], rows, codec)


def compare_ids(ours, folder, decode, size, rng):
    lists = [[rng.randrange(size + 3) for _ in range(rng.randint(0, 40))] for _ in range(3000)]
    rows = ours.rows("decode", folder, lists)
    differences = []
    for ids, row in zip(lists, rows):
        for skip, key in ((False, "text"), (True, "skip")):
            if row[key] != decode(ids, skip):
                differences.append(f"{ids}: {row[key]!r} and {decode(ids, skip)!r}")
                break
    return differences


def compare_tokenizer(ours, name, folder, codec, options):
    rng = random.Random(options.seed)
    texts = [hard_text.random_text(rng, rng.randint(1, 30)) for _ in range(options.texts)]
    check(f"{name}: {len(texts)} random texts", compare_texts(ours, folder, codec, texts))
    broken = list(hard_text.broken_bytes(options.seed, 2000))
    check(f"{name}: {len(broken)} texts that aren't UTF-8", compare_bytes(ours, folder, codec, broken))
    if not options.quick:
        texts = list(hard_text.code_point_texts(options.every_code_point))
        check(f"{name}: {len(texts)} code points", compare_texts(ours, folder, codec, texts))
        texts = list(hard_text.mark_texts(rng, 20_000))
        check(f"{name}: {len(texts)} runs of marks", compare_texts(ours, folder, codec, texts))
    for kind, line in hard_text.long_lines(rng).items():
        if options.quick and kind != "words":
            continue
        check(f"{name}: a line of {len(line)} characters ({kind})", compare_texts(ours, folder, codec, [line]))


def compare_splits(ours, work, options):
    """Every behaviour of Split, inverted and not, with regular expressions and strings, in front of ByteLevel."""
    tokenizer = fixtures.gpt2()
    rng = random.Random(options.seed)
    texts = [hard_text.random_text(rng, 12) for _ in range(300)] + ["", "a", "  ", "aXbXXc", "XX", "Xa", "aX"]
    patterns = [
        " ",
        "ab",
        "X",
        "a",
        Regex(r"\s+"),
        Regex(r"\p{N}{2,3}"),
        Regex("X*"),
        Regex(r"(?<=a)b|\P{L}"),
        Regex(r"(?i:[a-e\u00e9]+)|[^\x00-\x7f]"),
        Regex(r"\d(?!\d)"),
        Regex(r"\p{Lu}?\p{Ll}++|\p{M}*?x"),
    ]
    behaviors = ["removed", "isolated", "contiguous", "merged_with_previous", "merged_with_next"]
    for behavior, invert in itertools.product(behaviors, (False, True)):
        differences = []
        for pattern in patterns:
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(pattern, behavior, invert),
                    pre_tokenizers.Digits(invert),
                    pre_tokenizers.ByteLevel(invert, use_regex=not invert),
                ]
            )
            tokenizer.save(str(work / "tokenizer.json"))
            differences += [
                f"{pattern}: {line}" for line in compare_texts(ours, work, fixtures.tokenizers_codec(tokenizer), texts)
            ]
        check(f"Split {behavior}{', inverted' if invert else ''}: {len(patterns)} patterns", differences)


# ----------------------------------------------------------------------------------------------------- chat templates


def compare_template(ours, work, name, template, conversations):
    variables = chat_template_cases.VARIABLES
    (work / "tokenizer_config.json").write_text(json.dumps({**variables, "chat_template": template}), encoding="utf-8")
    cases = [
        {"messages": messages, "add_generation_prompt": prompt}
        for messages in conversations
        for prompt in (True, False)
    ]
    try:
        rows = ours.rows("template", work, cases)
    except RuntimeError as error:
        rows = [{"error": str(error)}] * len(cases)
    differences = []
    for case, row in zip(cases, rows):
        theirs = chat_template_cases.render(template, case["messages"], case["add_generation_prompt"], variables)
        same = "error" in row if isinstance(theirs, Exception) else row.get("text") == theirs
        if not same:
            differences.append(f"{name}: {json.dumps(case)[:80]}: {row} and {theirs!r}")
    return differences


def compare_templates(ours, work):
    for name, template in chat_template_cases.family_templates():
        check(f"chat template {name}", compare_template(ours, work, name, template, chat_template_cases.CONVERSATIONS))
    differences = []
    for template in chat_template_cases.CONSTRUCTS:
        differences += compare_template(ours, work, repr(template), template, chat_template_cases.CONVERSATIONS[:1])
    check(f"{len(chat_template_cases.CONSTRUCTS)} templates of one construct", differences)


# -------------------------------------------------------------------------------------------------------------- speed


def fastest(function, passes=3):
    best = float("inf")
    for _ in range(passes):
        begin = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - begin)
    return best


def compare_speed(ours, name, folder, encode_batch):
    text = real_text(4_000_000)
    lines = [line for line in text.split("\n") if line]
    rng = random.Random(1)
    cases = {
        "lines of text": lines,
        "documents of 10 kB": [text[i : i + 10_000] for i in range(0, len(text), 10_000)],
        "one line of 1 MB text": [text[:1_000_000].replace("\n", " ")],
        "one word of 1 MB": ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000))],
        "1 MB of digits": ["".join(rng.choices("0123456789", k=1_000_000))],
        "1 MB of CJK": ["".join(chr(rng.randrange(0x4E00, 0x9FFF)) for _ in range(333_333))],
        "1 MB of spaces": [" " * 1_000_000],
    }
    for kind, texts in cases.items():
        size = sum(len(item.encode()) for item in texts) / 1e6
        own = float(ours.run("bench", folder, texts))
        other = fastest(lambda texts=texts: encode_batch(texts))
        print(
            f"speed {name}: {kind}: ours {size / own:.1f} MB/s, theirs {size / other:.1f} MB/s, {other / own:.1f} times"
        )


# --------------------------------------------------------------------------------------------------------------- main


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", default=str(ROOT / "build/release/tests/tokenize_tool"))
    parser.add_argument("--tokenizer", action="append", default=[], help="a tokenizer.json to compare too")
    parser.add_argument("--model", action="append", default=[], help="a sentencepiece tokenizer.model to compare too")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--texts", type=int, default=3000, help="random texts for each tokenizer")
    parser.add_argument("--every-code-point", action="store_true", help="also all of the unassigned planes")
    parser.add_argument("--quick", action="store_true", help="without the parts that take long")
    parser.add_argument("--only", default="", help="compare only what has this in its name")
    return parser.parse_args()


def copy_to(work, path, name):
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    if path is not None:
        shutil.copy(path, work / name)


def compare_bpe(ours, work, options):
    for path in options.tokenizer + [name for name in fixtures.FAMILIES if options.only in name]:
        copy_to(work, path if path in options.tokenizer else None, "tokenizer.json")
        if path not in options.tokenizer:
            fixtures.FAMILIES[path]().save(str(work / "tokenizer.json"))
        tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
        codec = fixtures.tokenizers_codec(tokenizer)
        name = pathlib.Path(path).name
        compare_tokenizer(ours, name, work, codec, options)
        check(
            f"{name}: random ids",
            compare_ids(ours, work, codec[2], tokenizer.get_vocab_size(), random.Random(options.seed)),
        )
        if not options.quick and (path in options.tokenizer or path in ("smolvlm", "qwen2", "llama3", "gemma")):
            compare_speed(
                ours, name, work, lambda texts, fast=tokenizer: fast.encode_batch_fast(texts, add_special_tokens=False)
            )


def vocabulary_folders(tokenizer):
    """Settings of a folder with vocab.json and merges.txt: as newer files say them, as older ones, and next to nothing."""
    added = {id: token for id, token in sorted(tokenizer.get_added_tokens_decoder().items())}
    names = [token.content for token in added.values()]
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    decoder = {str(id): {flag: getattr(token, flag) for flag in flags} for id, token in added.items()}
    yield "added_tokens_decoder", {"tokenizer_config.json": {"added_tokens_decoder": decoder, "eos_token": names[-1]}}
    yield "added_tokens.json", {
        "tokenizer_config.json": {"add_bos_token": False},
        "added_tokens.json": {token.content: id for id, token in added.items()},
        "special_tokens_map.json": {"eos_token": {"content": names[-1]}, "additional_special_tokens": names[:-1]},
    }
    yield "no added tokens", {"tokenizer_config.json": {"bos_token": "<b>", "additional_special_tokens": ["<x>", "<y>"]}}
    yield "a bos", {"tokenizer_config.json": {"bos_token": "<b>", "add_bos_token": True, "eos_token": "<e>"}}


def compare_vocabulary_files(ours, work, options):
    """Folders without tokenizer.json, against the classes of transformers."""
    for kind, make, oracle in (
        ("Qwen2Tokenizer", fixtures.qwen2, transformers.Qwen2Tokenizer),
        ("GPT2Tokenizer", fixtures.gpt2, transformers.GPT2Tokenizer),
    ):
        tokenizer = make()
        for settings, files in vocabulary_folders(tokenizer):
            copy_to(work, None, "")
            tokenizer.model.save(str(work))
            files["tokenizer_config.json"]["tokenizer_class"] = kind
            for name, content in files.items():
                (work / name).write_text(json.dumps(content), encoding="utf-8")
            codec = fixtures.tokenizers_codec(oracle.from_pretrained(work).backend_tokenizer)
            rng = random.Random(options.seed)
            texts = [hard_text.random_text(rng, rng.randint(1, 30)) for _ in range(options.texts)]
            texts += ["<b><x>a<y><|endoftext|><|im_end|><e>"]
            check(f"{kind}, {settings}: {len(texts)} texts", compare_texts(ours, work, codec, texts))


def compare_sentencepiece(ours, work, options):
    for path in options.model + [name for name in fixtures.SENTENCEPIECE if options.only in name]:
        copy_to(work, path if path in options.model else None, "tokenizer.model")
        if path not in options.model:
            fixtures.train_sentencepiece(path, work)
        model = sentencepiece.SentencePieceProcessor(model_file=str(work / "tokenizer.model"))
        encode, encode_special, decode = fixtures.sentencepiece_codec(model)

        def is_tie(ours, theirs):
            """Unigram: other pieces with the same likelihood, which rounding decides, in each release differently."""
            scores = [sum(model.get_score(i) for i in ids) for ids in (ours, theirs)]
            return path == "spm_unigram" and abs(scores[0] - scores[1]) < 1e-6 * abs(scores[1])

        compare_tokenizer(ours, pathlib.Path(path).name, work, (encode, encode_special, decode, is_tie), options)
        check(f"{path}: random ids", compare_sentencepiece_ids(ours, work, model, options.seed))
        if not options.quick:
            compare_speed(
                ours, pathlib.Path(path).name, work, lambda texts, model=model: model.encode(texts, num_threads=1)
            )


def compare_sentencepiece_ids(ours, work, model, seed):
    """Random ids; sentencepiece never shows control tokens, so they only count where special tokens are skipped."""
    rng = random.Random(seed)
    size = model.get_piece_size()
    plain = [i for i in range(size) if not model.is_control(i)]
    lists = [rng.choices(plain, k=rng.randint(0, 40)) for _ in range(3000)]
    lists += [rng.choices(range(size), k=rng.randint(0, 40)) for _ in range(1000)]
    differences = []
    for ids, row in zip(lists, ours.rows("decode", work, lists)):
        if row["skip"] != model.decode(ids) or (set(ids) <= set(plain) and row["text"] != row["skip"]):
            differences.append(f"{ids}: {row} and {model.decode(ids)!r}")
    return differences


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as temporary:
        work = pathlib.Path(temporary)
        ours = Ours(options.tool, work)
        compare_templates_in = work / "template"
        if options.only in "chat template":
            copy_to(compare_templates_in, None, "")
            compare_templates(ours, compare_templates_in)
        if options.only in "split":
            copy_to(work / "split", None, "")
            compare_splits(ours, work / "split", options)
        compare_bpe(ours, work / "bpe", options)
        if options.only in "vocabulary files":
            compare_vocabulary_files(ours, work / "vocabulary", options)
        compare_sentencepiece(ours, work / "sentencepiece", options)
    print(f"{sum(RESULTS)} passed, {len(RESULTS) - sum(RESULTS)} failed")
    return 0 if all(RESULTS) else 1


if __name__ == "__main__":
    sys.exit(main())
