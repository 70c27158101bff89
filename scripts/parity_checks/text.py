"""Text models: ids and log-probabilities, LoRA and full steps, adapters and merges both ways, beside transformers and PEFT.

The four kinds of oracle.text_models at other sizes than tests/fixtures, with long prompts and short; and each as the
decoder of a SmolVLM-style model, which answers about pictures.
"""
import dataclasses
import json

import torch
from oracle import adapters, models, text_models, training
from oracle.text import write_json
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoTokenizer

from parity_checks import answers, finetuning
from parity_checks.program import MAX_NEW_TOKENS, PRECISION, Case
from parity_checks.report import largest

SIZES = dict(intermediate_size=56, num_hidden_layers=4)  # the hidden size goes with the heads
QUESTIONS = ["How many dogs are there?", "  naïve café 日本語 12345 ", "What colour is it? " * 12]
ROWS = [("Say red", "It is red."), ("Say 3", "3 dogs, no cats."), ("Which is wide?", "the second one"), ("Be brief", "yes")]
MERGE_ERROR = 1e-6
LOGPROB_ERROR = 1e-4


def make_spec(spec, number):
    return dataclasses.replace(spec, name="text_" + spec.config["model_type"], seed=300 + number, config=spec.config | SIZES)


def template_options(spec):
    """What both sides give the template; the day only where it is printed."""
    return {"date_string": "01 Feb 2024"} if spec.adds_bos else {}


def prompt_ids(spec, tokenizer, question):
    if not spec.template:
        return tokenizer(question)["input_ids"]
    return tokenizer.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True,
                                         tokenize=True, return_dict=False, **template_options(spec))


def check_answer(report, name, program, spec, folder, model, question, adapter=None):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([prompt_ids(spec, tokenizer, question)])
    with torch.no_grad():
        result = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=MAX_NEW_TOKENS,
                                do_sample=False, use_cache=True, pad_token_id=0, output_logits=True,
                                return_dict_in_generate=True)
    logits = torch.stack(result.logits)[:, 0]
    top = logits.topk(2, dim=-1).values
    assert (top[:, 0] - top[:, 1]).min() > 1e-3, "two tokens too close to call: change the seed"
    wanted = result.sequences[0, ids.shape[1]:]
    arguments = ["--model", folder, "--prompt", question, "--format", "json", "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION]
    arguments += ["--adapter", adapter] if adapter else []
    for key, value in template_options(spec).items():
        arguments += ["--template-arg", f"{key}={value}"]
    got = json.loads(program.run("generate", *arguments).strip().splitlines()[-1])
    report.equal(f"{name}: prompt ids", got["prompt_token_ids"], ids[0].tolist())
    report.equal(f"{name}: token ids", got["token_ids"], wanted.tolist())
    logprobs = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    if got["token_ids"] == wanted.tolist():
        pairs = zip(got["token_logprobs"], logprobs.tolist(), strict=True)
        report.close(f"{name}: log-probabilities", largest(abs(a - b) for a, b in pairs), LOGPROB_ERROR)


def make_batch(spec, tokenizer, row):
    """One conversation, its answer learned with the end token."""
    question, answer = row
    prompt = tokenizer.decode(prompt_ids(spec, tokenizer, question)) if spec.template else question
    end = spec.names["eos_token"] if spec.config["model_type"] != "phi3" else "<|end|>"
    if spec.config["model_type"] == "qwen3":
        answer = "<think>\n\n</think>\n\n" + answer
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(answer + end, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([head + tail])
    labels = ids.clone()
    labels[0, :len(head)] = -100
    return {"input_ids": ids, "labels": labels}


def check_run(report, name, program, spec, folder, work, method):
    """Ten steps from one start; for adapters also what PEFT makes of ours, and the merge."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    data, output, start = work / "data.jsonl", work / "output", work / "start"
    work.mkdir(parents=True)
    data.write_text("".join(json.dumps({"messages": [{"role": "user", "content": question},
                                                     {"role": "assistant", "content": answer}]}) + "\n"
                            for question, answer in ROWS))
    oracle = text_models.load(folder)
    changes = {}
    if method == "lora":
        torch.manual_seed(7)
        adapters.make_adapter(text_models.load(folder), start, text_models.ADAPTER, None, str(folder))
        oracle = PeftModel.from_pretrained(oracle, start, is_trainable=True)
        changes = {"adapter": str(start)}
    write_json(work / "config.json", {
        "model_name_or_path": str(folder), "train_files": [str(data)], "output_dir": str(output), "method": method,
        "per_device_train_batch_size": 1, "max_steps": 10, "logging_steps": 1, "save_steps": 0, "shuffle": False,
        "chat_template_kwargs": template_options(spec), **finetuning.TRAINING, **changes})
    batches = [make_batch(spec, tokenizer, row) for row in ROWS]
    wanted = training.run(oracle, batches, 10, 1, finetuning.TRAINING)
    finetuning.compare_run(report, name, program.finetune(work / "config.json"), wanted)
    if method == "full":
        text_models.load(output)  # fails on a missing, unexpected or mismatched key
        report.equal(f"{name}: keys", models.stored_shapes(output), models.stored_shapes(folder))
        return
    ours = PeftModel.from_pretrained(text_models.load(folder), output).eval()
    found, trained = get_peft_model_state_dict(ours), get_peft_model_state_dict(oracle)
    scale = max(value.abs().max() for value in trained.values())
    report.equal(f"{name}: adapter keys", sorted(load_file(output / "adapter_model.safetensors")),
                 sorted(load_file(start / "adapter_model.safetensors")))
    report.close(f"{name}: trained weights in PEFT",
                 largest((found[key] - trained[key]).abs().max() / scale for key in trained), 1e-3)
    check_answer(report, f"{name}: our adapter in PEFT", program, spec, folder, ours, QUESTIONS[0], output)
    program.run("merge", "--model", folder, "--adapter", output, "--output", work / "merged")
    merged, base = text_models.load(work / "merged").state_dict(), ours.merge_and_unload().state_dict()
    report.close(f"{name}: merged weights",
                 largest((merged[key] - value).abs().max() / value.abs().max() for key, value in base.items()),
                 MERGE_ERROR)


def check_text_model(report, name, program, spec, work):
    folder = text_models.save(spec, work / spec.name)
    model = text_models.load(folder)
    for number, question in enumerate(QUESTIONS):
        report.attempt(f"{name} {number}", check_answer, program, spec, folder, model, question)
    for method in ("lora", "full"):
        report.attempt(f"{name} {method}", check_run, program, spec, folder, work / f"{spec.name}_{method}", method)


def decoder_of(spec):
    """A text_config of a SmolVLM-style model, with the fixture's kind of decoder."""
    skipped = ("tie_word_embeddings", "max_position_embeddings")
    return {key: value for key, value in (spec.config | SIZES).items() if key not in skipped and value is not None}


def check_with_pictures(report, name, program, spec, work):
    whole = models.Spec(name.replace(" ", "_"), seed=spec.seed + 50, scale_factor=2, longest_edge=64,
                        vision=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
                                    image_size=32, patch_size=8), text=decoder_of(spec))
    case = Case(whole, work)
    model = case.load()
    for question in (("one", None, "What is this?", ["wide"]), ("two", "Be brief.", "Compare.", ["wide", "square"])):
        report.attempt(f"{name} {question[0]}", answers.check_question, program, case, model, question)


def jobs(report, program, work):
    """{title: (function, *arguments)}"""
    found = {}
    for number, fixture in enumerate(text_models.SPECS):
        spec = make_spec(fixture, number)
        kind = spec.config["model_type"]
        found[f"text {kind}"] = (check_text_model, report, f"text {kind}", program, spec, work / "text")
        found[f"pictures {kind}"] = (check_with_pictures, report, f"pictures {kind}", program, spec, work / "text")
    return found
