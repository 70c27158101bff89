"""Adapters on embeddings and output heads of a tied model, and modules chosen in each of PEFT's ways.

PEFT's adapters in the program: answers, and the merged checkpoint in transformers (PEFT's own merge adds to the shared
weight, so the adapted model is the reference). Runs of ten steps from one start, and the result in PEFT.
"""
import json

import torch
from oracle import adapters, dialogues, models, prompts

from parity_checks import finetuning, methods
from parity_checks.answers import check_question


def check_adapter(report, name, program, case, settings, work):
    folder, output = work / name / "adapter", work / name / "merged"
    adapters.make_adapter(case.load(), folder, settings, 470, str(case.folder))
    oracle = case.load(folder)
    for question in (prompts.QUESTIONS[0], prompts.QUESTIONS[3]):
        report.attempt(f"{name} {question[0]}", check_question, program, case, oracle, question, folder)
    program.run("merge", "--model", case.folder, "--adapter", folder, "--output", output)
    merged = models.load(output)  # fails on a missing, unexpected or mismatched key
    batch = dialogues.make_batches(case.spec, case.processor, work / "data", finetuning.BATCH_SIZE)[0]
    with torch.no_grad():
        found, wanted = merged(**batch).logits, oracle(**batch).logits
    report.close(f"{name}: logits of the merged model in transformers",
                 ((found - wanted).abs().max() / wanted.abs().max()).item(), 1e-5)
    tied = [merged.lm_head.weight is merged.get_input_embeddings().weight]
    config = json.loads((output / "config.json").read_text())
    tied += [config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]]
    report.equal(f"{name}: tied", tied, [tied[0]] * 3)


def jobs(report, program, case, work):
    """{title: (function, *arguments)}"""
    found = {}
    for kind, settings in (adapters.TIED | adapters.CHOICES).items():
        found[f"tied adapter {kind}"] = (report.attempt, f"tied {kind}", check_adapter, program, case, settings, work)
        method = dict(method="dora") if "dora" in kind else {}
        found[f"tied finetune {kind}"] = (report.attempt, f"tied finetune {kind}", finetuning.check_finetune,
                                          program, case, settings, work, 1, method)
    for kind in ("both", "tokens"):
        found[f"tied qlora {kind}"] = (report.attempt, f"tied qlora {kind}", methods.check_qlora, program, case,
                                       work, adapters.TIED[kind])
    return found
