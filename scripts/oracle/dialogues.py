"""Training rows of `scripts/parity`: JSONL for the binary, padded batches for PEFT.

write_rows() puts train.jsonl and its pictures into a folder; make_batches() turns the same rows,
in the same order, into transformers' inputs with labels on the assistant turns only: from the
character after "Assistant:" up to and including <end_of_utterance>.
"""
import json
import re

import torch

from . import pictures, prompts, text
from .prompts import IMAGE, turn, words

# The second form is Granite-Docling's.
ANSWER = re.compile(r"(?:^|\n)Assistant:(.*?<end_of_utterance>)|"
                    r"<\|start_of_role\|>assistant<\|end_of_role\|>(.*?<\|end_of_text\|>)", re.DOTALL)
SHAPES = {"square": (40, 40), "wide": (30, 84), "tall": (90, 28)}


def make_rows():
    """20 conversations of every form: no, one and several pictures, system, several turns."""
    rows = []
    for number in range(4):
        rows += [
            (["square"], [turn("user", IMAGE, words(f"What is in image {number}?")),
                          turn("assistant", words("A red square."))]),
            ([], [turn("user", words(f"How many are {number + 2} and 3?")),
                  turn("assistant", words(f"{number + 5}"))]),
            (["wide"], [turn("system", words("Be brief.")),
                        turn("user", IMAGE, words("Describe the image.")),
                        turn("assistant", words("A wide picture,\nnot tall."))]),
            (["tall", "square"], [turn("user", IMAGE, IMAGE, words("Compare.")),
                                  turn("assistant", words("The first is tall."))]),
            (["square"], [turn("user", IMAGE, words("What colour?")),
                          turn("assistant", words(" blue")),
                          turn("user", words("Is it dark?")),
                          turn("assistant", words("No, it isn't."))]),
        ]
    return rows


def write_pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate(SHAPES.items()):
        pictures.scene(*size, 50 + seed).save(folder / f"{name}.png")
    return folder


def write_rows(folder):
    """folder/train.jsonl beside its pictures, which it names relative to itself."""
    write_pictures(folder)
    lines = [json.dumps({"messages": messages, "images": [f"{n}.png" for n in names]})
             for names, messages in make_rows()]
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "train.jsonl"


def encode_row(processor, tokenizer, folder, names, messages):
    prompt = processor.apply_chat_template(messages, tokenize=False)
    inputs = prompts.encode(processor, prompt, prompts.open_pictures(folder, names))
    ids = inputs.pop("input_ids")[0].tolist()
    expanded = processor.tokenizer.decode(ids, skip_special_tokens=False)
    encoding = tokenizer.encode(expanded, add_special_tokens=False)
    assert encoding.ids == ids, "decoding the prompt does not give it back"
    labels = [-100] * len(ids)
    for start, end in (match.span(match.lastindex) for match in ANSWER.finditer(expanded)):
        for i, (first, last) in enumerate(encoding.offsets):
            if start <= first and last <= end:
                labels[i] = ids[i]
    return {**inputs, "input_ids": ids, "labels": labels}


def pad_batch(rows, tile):
    """Right padding; pictures padded with zero tiles to the richest row."""
    length = max(len(row["input_ids"]) for row in rows)
    tiles = max(row["pixel_values"].shape[1] if "pixel_values" in row else 0 for row in rows)
    batch = {
        "input_ids": torch.full((len(rows), length), text.PAD_ID),
        "attention_mask": torch.zeros((len(rows), length), dtype=torch.int64),
        "labels": torch.full((len(rows), length), -100),
    }
    if tiles:
        batch["pixel_values"] = torch.zeros((len(rows), tiles, 3, tile, tile))
        batch["pixel_attention_mask"] = torch.zeros((len(rows), tiles, tile, tile),
                                                    dtype=torch.int64)
    for number, row in enumerate(rows):
        end = len(row["input_ids"])
        batch["input_ids"][number, :end] = torch.tensor(row["input_ids"])
        batch["attention_mask"][number, :end] = 1
        batch["labels"][number, :end] = torch.tensor(row["labels"])
        if "pixel_values" in row:
            count = row["pixel_values"].shape[1]
            batch["pixel_values"][number, :count] = row["pixel_values"][0]
            batch["pixel_attention_mask"][number, :count] = row["pixel_attention_mask"][0]
    return batch


def make_batches(spec, processor, folder, batch_size):
    tokenizer = processor.tokenizer.backend_tokenizer
    rows = [encode_row(processor, tokenizer, folder, *row) for row in make_rows()]
    return [pad_batch(rows[i:i + batch_size], spec.tile)
            for i in range(0, len(rows), batch_size)]
