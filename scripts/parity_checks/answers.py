"""Greedy answers: ids, log-probabilities, texts."""
import json

from oracle import prompts
from oracle.text import write_json
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from parity_checks.program import MAX_NEW_TOKENS, PRECISION, ROOT
from parity_checks.report import largest

LOGPROB_ERROR = 1e-4  # absolute, of each generated token


def compare_answer(report, name, got, wanted):
    report.equal(f"{name}: prompt ids", got["prompt_token_ids"], wanted["prompt_token_ids"])
    report.equal(f"{name}: token ids", got["token_ids"], wanted["token_ids"])
    if got["token_ids"] == wanted["token_ids"]:
        pairs = zip(got["token_logprobs"], wanted["token_logprobs"], strict=True)
        report.close(f"{name}: log-probabilities", largest(abs(a - b) for a, b in pairs),
                     LOGPROB_ERROR)
    report.equal(f"{name}: text and reason", [got["text"], got["finish_reason"]],
                 [wanted["text"].lstrip(" "), wanted["finish_reason"]])


def check_question(report, name, program, case, model, question, adapter=None):
    _, system, text, names = question
    paths = [case.pictures / f"{picture}.png" for picture in names]
    got = program.generate(case.folder, text, system, paths, adapter)
    wanted = case.answer(model, text, system, names)
    compare_answer(report, name, got, wanted)
    if case.spec.granite:
        kept = program.generate(case.folder, text, system, paths, adapter, ["--keep-special-tokens"])
        report.equal(f"{name}: text with special tokens", kept["text"], wanted["kept_text"].lstrip(" "))


def check_stop(report, name, program, case, model):
    """With a token of the answer among the end ids, both stop there."""
    path = case.folder / "generation_config.json"
    before = path.read_text()
    config = json.loads(before)
    ids = case.answer(model, "How many dogs?")["token_ids"]
    config["eos_token_id"] = [config["eos_token_id"], ids[MAX_NEW_TOKENS // 2]]
    write_json(path, config)
    try:
        model = case.load()
        wanted = case.answer(model, "How many dogs?")
        assert wanted["finish_reason"] == "stop"
        compare_answer(report, name, program.generate(case.folder, "How many dogs?"), wanted)
    finally:
        path.write_text(before)


def check_generate(report, program, case):
    model = case.load()
    for question in prompts.QUESTIONS:
        report.attempt(f"{case.spec.name} {question[0]}", check_question, program, case, model,
                       question)
    report.attempt(f"{case.spec.name} stop", check_stop, program, case, model)


def check_default_model(report, name, program, work):
    """The committed model, in transformers: loads unchanged, and answers its example questions alike."""
    folder = ROOT / "models" / "easy-vqa-emoji"
    rows = work / "default_model.jsonl"
    examples = ROOT / "examples" / "pictures"
    program.run("evaluate", examples / "examples.jsonl", "--model", folder, "--output", rows,
                "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    report.equal(f"{name}: keys that don't fit", [sorted(info["missing_keys"]),
                                                  sorted(info["unexpected_keys"])], [[], []])
    processor = AutoProcessor.from_pretrained(folder)
    got, wanted = [], []
    for row in map(json.loads, rows.read_text().splitlines()):
        prompt = processor.apply_chat_template(prompts.chat(row["question"], None, 1),
                                               add_generation_prompt=True, tokenize=False)
        picture = [Image.open(row["path"]).convert("RGB")]
        answer = prompts.answer(model.eval(), processor, prompt, picture, MAX_NEW_TOKENS)
        got.append((row["id"], row["text"]))
        wanted.append((row["id"], answer["text"].lstrip(" ")))
    report.equal(f"{name}: {len(wanted)} answers", got, wanted)
