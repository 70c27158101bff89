"""Beams, given choices and sampling, by rows of `vlm vqa`."""
import json
import random

import torch
from oracle import decoding, prompts
from oracle.text import write_json

from parity_checks.program import PRECISION
from parity_checks.report import largest

SCORE_ERROR = 1e-4  # of beams and choices, absolute for small ones, relative for large ones
BEAM_RUNS = 12  # option sets a checkpoint, each put to every question
CHOICES = ["yes", "no", "a dog and two cats", "12"]


def write_questions(case, path):
    """The questions as rows of `vlm vqa`, so that one run answers them side by side."""
    with open(path, "w", encoding="utf-8") as file:
        for name, system, text, names in prompts.QUESTIONS:
            content = [prompts.IMAGE] * len(names) + [prompts.words(text)]
            messages = [prompts.turn("system", prompts.words(system))] if system else []
            pictures = [str(case.pictures / f"{picture}.png") for picture in names]
            row = {"id": name, "messages": [*messages, {"role": "user", "content": content}]}
            file.write(json.dumps({**row, "images": pictures}) + "\n")


def run_rows(program, case, work, *options):
    """{id: row} of one `vlm vqa` over the questions."""
    output = work / "rows.jsonl"
    questions = work / "questions.jsonl"
    write_questions(case, questions)
    program.run("vqa", questions, "--model", case.folder, "--output", output, "--restart",
                *options, *PRECISION)
    return {row["id"]: row for row in map(json.loads, output.read_text().splitlines())}


def to_flags(options):
    flags = []
    for name, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        flags += ["--" + name.replace("_", "-"), text]
    return flags


def check_beams(report, name, program, case, model, work):
    """Beam search with random options: texts and scores of every hypothesis."""
    chance = random.Random(case.spec.seed)
    path = case.folder / "generation_config.json"
    before = path.read_text()
    eos = decoding.likely_eos(model, case.processor, prompts.QUESTIONS[0][2])
    write_json(path, {**json.loads(before), "eos_token_id": eos})
    model.generation_config.eos_token_id = eos
    same, total, errors = 0, 0, [0.0]
    try:
        for _ in range(BEAM_RUNS):
            options = decoding.random_beam_options(chance)
            rows = run_rows(program, case, work, *to_flags(options), "--batch-size",
                            chance.choice([1, 2, 5]))
            for title, system, text, names in prompts.QUESTIONS:
                wanted = decoding.beam_case(
                    model, case.processor, prompts.chat(text, system, len(names)),
                    prompts.open_pictures(case.pictures, names), options)
                row = rows[title]
                found = [row, *row.get("alternatives", [])]
                total += 1
                same += [one["text"] for one in found] == [text.lstrip(" ") for text in wanted["texts"]]
                errors += [abs(one["score"] - score) / max(abs(score), 1)
                           for one, score in zip(found, wanted["scores"], strict=True)]
    finally:
        path.write_text(before)
    report.equal(f"{name}: texts of {total} searches", same, total)
    report.close(f"{name}: scores of {len(errors) - 1} hypotheses", largest(errors), SCORE_ERROR)


def check_choices(report, name, program, case, model, work):
    """Log-likelihoods of given answers."""
    rows = run_rows(program, case, work, "--choices", ",".join(CHOICES))
    errors = []
    for title, system, text, names in prompts.QUESTIONS:
        pictures = prompts.open_pictures(case.pictures, names)
        for choice in CHOICES:
            chat = prompts.chat(text, system, len(names))
            prompt = case.processor.apply_chat_template(chat, add_generation_prompt=True,
                                                        tokenize=False)
            answer = prompts.turn("assistant", prompts.words(choice))
            whole = case.processor.apply_chat_template([*chat, answer], tokenize=False)
            inputs = prompts.encode(case.processor, whole.rstrip("\n"), pictures)
            begin = prompts.encode(case.processor, prompt, pictures)["input_ids"].shape[1]
            with torch.no_grad():
                logprobs = model(**inputs).logits[0].log_softmax(-1)
            ids = inputs["input_ids"][0]
            wanted = sum(logprobs[i - 1, ids[i]].item() for i in range(begin, len(ids)))
            errors.append(abs(rows[title]["logprobs"][choice] - wanted) / max(abs(wanted), 1))
    report.close(f"{name}: {len(errors)} log-likelihoods", largest(errors), SCORE_ERROR)


def check_sampling(report, name, program, case, work):
    """The same seed gives the same draws whatever the batch; another seed gives others."""
    options = ["--temperature", 1.5, "--num-return-sequences", 3, "--max-new-tokens", 6]

    def texts(seed, batch_size):
        rows = run_rows(program, case, work, *options, "--seed", seed, "--batch-size", batch_size)
        return {title: [row["text"], *(one["text"] for one in row["alternatives"])]
                for title, row in rows.items()}

    report.equal(f"{name}: one by one and together", texts(1, 1), texts(1, 6))
    report.add(f"{name}: another seed", texts(1, 1) != texts(2, 1), "differs")


def check_decoding(report, program, case, work):
    work = work / "decoding" / case.spec.name
    work.mkdir(parents=True)
    title = f"decoding {case.spec.name}"
    report.attempt(f"{title} beams", check_beams, program, case, case.load(), work)
    report.attempt(f"{title} choices", check_choices, program, case, case.load(), work)
    report.attempt(f"{title} sampling", check_sampling, program, case, work)
