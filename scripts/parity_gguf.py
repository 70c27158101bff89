"""Runs GGUF files with llama.cpp and with build/vlm, and compares (use scripts/parity_gguf).

Text: `vlm export` writes each small model in each type; both programs continue the same prompts greedily. Pictures: the
same with the encoder's file, on a model that cuts pictures into tiles. Templates: what llama.cpp makes of a conversation
has the ids of ours. Tokenizers: ids of hard texts.

Tokens must be equal. Where they part, the two candidates must be so near by llama.cpp's own log-probabilities that
rounding decides between them (the limits are in TYPES), and so must all log-probabilities before. Ours run with the
file's numbers as they are (--dtype float32), and as they run by default, where blocks of 8 bits become rows of 8 bits,
for which the limits are doubled. Prints a table; the exit status is 1 when anything failed.
"""
import argparse
import base64
import json
import os
import random
import shutil
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import gguf
import hard_text
import make_text_fixtures as fixtures
import numpy as np
import torch
from benchmarks import llama_cpp, smolvlm
from oracle import pictures
from parity_checks.command import Command
from parity_checks.report import Report
from PIL import Image
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"
MODELS = {"easy-vqa-emoji": ROOT / "models" / "easy-vqa-emoji",
          **{name: FIXTURES / name for name in ("smolvlm_tiny", "llama_tiny", "qwen2_tiny", "qwen3_tiny")}}
# type → by how much log-probabilities may differ: llama.cpp rounds activations to what it multiplies in
TYPES = {"f32": 2e-3, "f16": 0.05, "bf16": 0.1, "q8_0": 0.15, "q4_0": 0.3, "iq4_nl": 0.3}
PROMPTS = ["What color is the circle?", "Is there a triangle in the picture? Answer in 3 words: yes, no, maybe.",
           "naïve café, Straße; 日本語 🙂\n\n  x = 12345"]
TOKENS = 24


class Ours(Command):
    def export(self, folder, name, kind):
        """-> the text model's file, and the encoder's where there is one."""
        output = self.work / "gguf" / f"{name}-{kind}"
        self.run("export", folder, "--type", kind, "--name", name, "--output", output)
        return [output / file for file in (f"{name}-{kind}.gguf", f"mmproj-{name}-{kind}.gguf") if (output / file).exists()]

    def generate(self, files, prompt, tokens=TOKENS, picture=None, dtype="float32"):
        arguments = ["--model", files[0], "--prompt", prompt, "--max-new-tokens", tokens, "--json", "--device", "cpu",
                     "--dtype", dtype]
        if picture:
            arguments += ["--mmproj", files[1], "--image", picture]
        return json.loads(self.run("generate", *arguments))


def server_of(files):
    # Keys and values as they are computed, so that what differs is the weights' doing.
    return llama_cpp.Server(files, len(os.sched_getaffinity(0)), "--cache-type-k", "f32", "--cache-type-v", "f32",
                            "--flash-attn", "off", "--parallel", "1", "--no-warmup", "--cache-ram", "0", "--no-repack")


def complete(server, prompt):
    """llama-server has no answer that holds bytes which are no text; then fewer tokens are asked for."""
    for tokens in range(TOKENS, 0, -1):
        try:
            return server.post("/completion", {"prompt": prompt, "n_predict": tokens, "temperature": 0, "repeat_penalty": 1,
                                               "n_probs": 40, "return_tokens": True, "cache_prompt": False})
        except RuntimeError as error:
            if "does not match the expected" not in str(error) or tokens == 1:
                raise
    return None


def byte_alphabet():
    """The character that stands for each byte in byte-level vocabularies, turned round."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + i): byte for i, byte in enumerate(others)}


def list_pieces(path):
    """What each token of a byte-level vocabulary adds to a text."""
    fields, alphabet = gguf.GGUFReader(path).fields, byte_alphabet()
    tokens, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    return [bytes(alphabet[c] for c in token) if kind == 1 else token.encode() if kind == 4 else b""
            for token, kind in zip(tokens, kinds)]


def is_cut(text):
    """Whether the last character has only begun, as llama-server tells: it looks for a lead among the last bytes."""
    lengths = {0xC0: 2, 0xD0: 2, 0xE0: 3, 0xF0: 4}
    return any(behind < lengths.get(text[-behind] & 0xF0, 0) and text[-behind] < 0xF8
               for behind in range(1, min(4, len(text)) + 1))


class Agreement:
    """Answers of both sides, compared token by token."""

    def __init__(self, limit, pieces):
        self.limit, self.pieces = limit, pieces
        self.tokens, self.ties, self.untold, self.largest = 0, 0, 0, 0.0

    def entries(self, theirs):
        """llama.cpp's entry of each of its tokens; None for one that ends within a character, which has none."""
        steps, text = iter(theirs["completion_probabilities"]), b""
        for token in theirs["tokens"]:
            text += self.pieces[token]
            entry = None if is_cut(text) else next(steps, None)
            assert entry is None or entry["id"] == token, f"an entry of {entry['id']} for {token}"
            yield entry

    def add(self, ours, theirs, what):
        rows = zip(ours["token_ids"], ours["token_logprobs"], theirs["tokens"], self.entries(theirs))
        for i, (token, logprob, other, entry) in enumerate(rows):
            if entry is None:
                self.tokens += token == other
                if token == other:
                    continue
                assert self.limit > 0.03, f"{what}: token {i} is {token}, theirs {other}"
                self.untold += 1  # how near the two are isn't told
                return
            near = {one["id"]: one["logprob"] for one in entry["top_logprobs"]}
            assert token in near, f"{what}: token {i} is {token}, and llama.cpp's best are {list(near)[:5]}"
            difference, gap = abs(near[token] - logprob), near[other] - near[token]
            self.largest = max(self.largest, difference)
            assert difference <= self.limit, f"{what}: token {i}: log-probability {logprob:.4f}, theirs {near[token]:.4f}"
            if other != token:
                assert gap <= self.limit, f"{what}: token {i} is {token}, theirs {other}, {gap:.3f} likelier"
                self.ties += 1
                return
            self.tokens += 1
        # The token that ends an answer may not be listed.
        behind = len(ours["token_ids"]) - len(theirs["tokens"])
        is_end = behind <= 0 or theirs["stop_type"] == "limit" or (behind == 1 and theirs["stop_type"] == "eos")
        assert is_end, f"{what}: llama.cpp ends behind {len(theirs['tokens'])} tokens"

    def text(self):
        ties = f", {self.ties} ended by a near tie" if self.ties else ""
        ties += f", {self.untold} parted within a character" if self.untold else ""
        return f"{self.tokens} tokens equal{ties}; log-probabilities within {self.largest:.4f}"


def check_text(report, title, ours, name, folder, kind):
    files = ours.export(folder, name, kind)
    pieces = list_pieces(files[0])
    exact, default = Agreement(TYPES[kind], pieces), Agreement(2 * TYPES[kind], pieces)
    with server_of(files[:1]) as server:
        for prompt in PROMPTS:
            run = ours.generate(files, prompt)
            theirs = complete(server, run["prompt_token_ids"])
            exact.add(run, theirs, repr(prompt[:20]))
            default.add(ours.generate(files, prompt, dtype="auto"), theirs, f"{prompt[:20]!r} by default")
    report.add(title, exact.tokens > 0, f"{exact.text()}; by default {default.text()}")


def ids_of(server, text, add_special):
    return server.post("/tokenize", {"content": text, "add_special": add_special, "parse_special": True})["tokens"]


def check_template(report, title, ours, name, folder):
    """Conversations of text as llama.cpp's template engine writes them."""
    files = ours.export(folder, name, "f32")
    with server_of(files[:1]) as server:
        for prompt in PROMPTS:
            messages = [{"role": "user", "content": prompt}]
            text = server.post("/apply-template", {"messages": messages})["prompt"]
            found, wanted = ids_of(server, text, True), ours.generate(files, prompt, 1)["prompt_token_ids"]
            if found[:1] == found[1:2]:  # the template and the tokenizer each begin with it
                found = found[1:]
            assert found == wanted, f"{prompt[:20]!r}: {found}, wanted {wanted}"
    report.add(title, True, f"{len(PROMPTS)} prompts equal")


# ------------------------------------------------------------------------------------------------------------ pictures

SHAPE = dict(scale_factor=2, longest_edge=128,
             vision=dict(hidden_size=96, intermediate_size=160, num_hidden_layers=2, num_attention_heads=3, image_size=64,
                         patch_size=8),
             text=dict(hidden_size=128, intermediate_size=192, num_hidden_layers=3, num_attention_heads=4,
                       num_key_value_heads=2, rope_theta=1e5))
# name → width, height, and by how much more than texts log-probabilities may differ: both sides resize, by other code.
# A picture of one colour stays one; a gradient is off by a level here and there; of scenes only the length is compared.
PICTURES = {"flat": (128, 128, 1), "square": (128, 128, 10), "wide": (128, 64, 10), "tall": (64, 128, 10),
            "photo": (150, 113, None), "large": (400, 300, None), "narrow": (40, 300, None)}


def make_picture(name, width, height):
    if name == "flat":
        return Image.new("RGB", (width, height), (200, 90, 30))
    if PICTURES[name][2] is None:
        return pictures.scene(height, width, 3)
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(np.stack([255 * x / width, 255 * y / height, 255 - 127 * (x / width + y / height)], -1).astype(np.uint8))


def make_picture_model(folder):
    """A random SmolVLM with the published vocabulary, whose answers depend much on what it sees."""
    folder.mkdir(parents=True)
    config = smolvlm.make_config(SHAPE, "float32")
    torch.manual_seed(5)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                weight.normal_(std=1 / weight[0].numel() ** 0.5)
            if "embed_tokens" in name:
                weight.normal_()
    model.save_pretrained(folder)
    smolvlm.write_text_files(folder, SHAPE)
    smolvlm.write_processor(folder, SHAPE, "large")


def picture_prompt(server, question, path):
    """The prompt of a conversation with one picture, as /completion takes it."""
    data = base64.b64encode(path.read_bytes()).decode()
    content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}, {"type": "text", "text": question}]
    text = server.post("/apply-template", {"messages": [{"role": "user", "content": content}]})["prompt"]
    return {"prompt_string": text, "multimodal_data": [data]}


def check_pictures(report, title, ours, folder, kind):
    files = ours.export(folder, "pictures", kind)
    lines, tokens, pieces = [], 0, list_pieces(files[0])
    with server_of(files) as server:
        for name, (width, height, factor) in PICTURES.items():
            path = ours.work / f"{name}.png"
            make_picture(name, width, height).save(path)
            run = ours.generate(files, PROMPTS[0], picture=path)
            theirs = complete(server, picture_prompt(server, PROMPTS[0], path))
            counts = len(run["prompt_token_ids"]), theirs["tokens_evaluated"]
            assert counts[0] == counts[1], f"{name}: a prompt of {counts[0]} tokens, theirs {counts[1]}"
            if factor:
                agreement = Agreement(factor * TYPES[kind], pieces)
                agreement.add(run, theirs, name)
                lines.append(f"{name}: {agreement.text()}")
                tokens += agreement.tokens
    report.add(title, tokens > 0, "; ".join(lines))


# ---------------------------------------------------------------------------------------------------------- tokenizers


def make_text_model(folder, size):
    """A tiny model of `size` tokens for a tokenizer that lies in the folder."""
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=size, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                         num_key_value_heads=2, max_position_embeddings=4096, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(folder)


def hard_texts(count, seed=11):
    rng = random.Random(seed)
    return [text for text in hard_text.golden_texts() if "\0" not in text] + [
        hard_text.random_text(rng, rng.randint(1, 30)) for _ in range(count)]


def check_sentencepiece(report, title, ours, name, path, count):
    """Texts in which no special token is named; what llama.cpp does with those is its own."""
    folder = ours.work / "tokenizers" / name
    folder.mkdir(parents=True)
    if path:
        shutil.copy(path, folder / "tokenizer.model")
    else:
        fixtures.train_sentencepiece(name, folder)
    model = fixtures.sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    special = [model.id_to_piece(i) for i in range(model.get_piece_size()) if model.is_control(i) or model.is_unknown(i)]
    make_text_model(folder, model.get_piece_size())
    files = ours.export(folder, name, "f32")
    texts = [text for text in hard_texts(count) if not any(one in text for one in special)]
    with server_of(files) as server:
        compare_ids(report, title, [(text, ids_of(server, text, True), [model.bos_id()] + model.encode(text) if text
                                     else [model.bos_id()]) for text in texts])


def compare_ids(report, title, rows, note=""):
    """Of (text, llama.cpp's ids, those wanted)."""
    different = [row for row in rows if row[1] != row[2]]
    for text, theirs, wanted in different[:5]:
        print(f"        {text[:60]!r}: llama.cpp {theirs[:12]}, wanted {wanted[:12]}")
    report.add(title, not different, f"{len(different)} of {len(rows)} texts differ{note}")


def check_tokenizer(report, title, ours, name, path, count):
    folder = ours.work / "tokenizers" / name
    folder.mkdir(parents=True)
    tokenizer = fixtures.Tokenizer.from_file(str(path)) if path else fixtures.FAMILIES[name]()
    tokenizer.save(str(folder / "tokenizer.json"))
    make_text_model(folder, tokenizer.get_vocab_size())
    files = ours.export(folder, name, "f32")
    texts = hard_texts(count)
    # llama.cpp doesn't normalize; this program and tokenizers do.
    changes = (lambda text: text) if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str
    changed = sum(changes(text) != text for text in texts)
    with server_of(files) as server:
        compare_ids(report, title, [(text, ids_of(server, changes(text), True), tokenizer.encode(text).ids) for text in texts],
                    f"; {changed} were normalized for llama.cpp, which doesn't do it" if changed else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "build" / "vlm")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "parity_gguf", help="emptied first")
    parser.add_argument("--only", default="", help="run the parts whose title contains this")
    parser.add_argument("--texts", type=int, default=2000, help="random texts for each tokenizer (2000)")
    parser.add_argument("--model", action="append", default=[], type=Path, help="a checkpoint folder to compare too, in text")
    parser.add_argument("--tokenizer", action="append", default=[], type=Path, help="a tokenizer.json to compare too")
    parser.add_argument("--sentencepiece", action="append", default=[], type=Path, help="a tokenizer.model to compare too")
    options = parser.parse_args()
    if not options.binary.is_file():
        sys.exit(f"parity: {options.binary} is missing: run scripts/build first")
    torch.set_num_threads(1)
    print(f"llama.cpp: {llama_cpp.version()}")
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    ours, report = Ours(options.binary.resolve(), options.work.resolve()), Report()
    models = MODELS | {folder.name: folder.resolve() for folder in options.model}
    jobs = {f"text {name} {kind}": (check_text, ours, name, folder, kind)
            for name, folder in models.items() for kind in TYPES}
    jobs |= {f"template {name}": (check_template, ours, name, folder) for name, folder in models.items()
             if name != "qwen2_tiny"}  # which has none
    jobs |= {f"pictures {kind}": (check_pictures, ours, ours.work / "pictures", kind) for kind in TYPES}
    jobs |= {f"tokenizer {name}": (check_tokenizer, ours, name, path, options.texts)
             for name, path in [(one, None) for one in ("smolvlm", "gpt2", "llama3", "qwen2")]
             + [(path.parent.name, path) for path in options.tokenizer]}
    jobs |= {f"tokenizer {name}": (check_sentencepiece, ours, name, path, options.texts)
             for name, path in [("spm_llama", None), ("spm_gemma", None)]
             + [(path.parent.name, path) for path in options.sentencepiece]}
    jobs = {title: job for title, job in jobs.items() if options.only in title}
    if any(title.startswith("pictures") for title in jobs):
        make_picture_model(ours.work / "pictures")
    for title, (function, *arguments) in jobs.items():
        report.attempt(title, function, *arguments)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
