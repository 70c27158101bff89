"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: answers about pictures of any shape, LoRA runs, adapters and merges both ways.

The three kinds of oracle.qwen_vl at other sizes than tests/fixtures, and with pictures that are tall, wide, many and
small. Clips are compared in tests/models/family_test.cpp, as the two sides decode files apart.
"""
import dataclasses
import json

import torch
from oracle import adapters, qwen_vl, training
from oracle.text import write_json
from peft import PeftModel, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoProcessor

from parity_checks import finetuning
from parity_checks.program import MAX_NEW_TOKENS, PRECISION
from parity_checks.report import largest

# Height and width.
SIZES = {"tall": (90, 17), "wide": (13, 120), "even": (56, 56), "small": (7, 9), "large": (300, 210)}
QUESTIONS = [("What is this?", ["wide"]), ("And which is taller?", ["tall", "small"]),
             ("  naïve café 12 345 ", ["large"]), ("No picture at all", [])]
ROWS = [("even", "What is it?", "It is red."), ("wide", "How many?", "3 dogs, no cats."), ("tall", "Which?", "the second"),
        ("small", "Is it?", "yes")]
ADAPTER = dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv"],
               task_type="CAUSAL_LM")
LOGPROB_ERROR = 1e-4
MERGE_ERROR = 1e-6


def make_spec(spec, number):
    size = dict(spec.text, hidden_size=40, intermediate_size=44, num_hidden_layers=3, num_attention_heads=5)
    if "head_dim" not in size:
        size["head_dim"] = None
    vision = dict(spec.vision, depth=4)
    vision["hidden_size" if spec.kind == "qwen2_vl" else "out_hidden_size"] = 40
    size = {key: value for key, value in size.items() if value is not None}
    return dataclasses.replace(spec, name="parity_" + spec.kind, seed=400 + number, text=size, vision=vision,
                               limits=(16 * 16, 64 * 64))


def write_pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (height, width)) in enumerate(SIZES.items()):
        Image.fromarray(qwen_vl.picture(height, width, 500 + number)).save(folder / f"{name}.png")
    return folder


def encode(processor, pictures, names, question, answer=None):
    parts = [{"type": "image"} for _ in names] + [{"type": "text", "text": question}]
    chat = [{"role": "user", "content": parts}]
    if answer is not None:
        chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
    text = processor.apply_chat_template(chat, add_generation_prompt=answer is None)
    images = [Image.open(pictures / f"{name}.png").convert("RGB") for name in names]
    return processor(text=[text], images=images or None, return_tensors="pt")


def check_answer(report, name, program, folder, model, pictures, question, adapter=None):
    words, names = question
    inputs = encode(AutoProcessor.from_pretrained(folder, use_fast=False), pictures, names, words)
    with torch.no_grad():
        result = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, use_cache=True, pad_token_id=0,
                                output_logits=True, return_dict_in_generate=True)
    logits = torch.stack(result.logits)[:, 0]
    top = logits.topk(2, dim=-1).values
    assert (top[:, 0] - top[:, 1]).min() > 5e-4, "two tokens too close to call: change the seed"
    ids = inputs["input_ids"][0].tolist()
    wanted = result.sequences[0, len(ids):]
    arguments = ["--model", folder, "--prompt", words, "--format", "json", "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION]
    arguments += ["--adapter", adapter] if adapter else []
    for picture in names:
        arguments += ["--image", pictures / f"{picture}.png"]
    got = json.loads(program.run("generate", *arguments).strip().splitlines()[-1])
    report.equal(f"{name}: prompt ids", got["prompt_token_ids"], ids)
    report.equal(f"{name}: token ids", got["token_ids"], wanted.tolist())
    logprobs = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    if got["token_ids"] == wanted.tolist():
        pairs = zip(got["token_logprobs"], logprobs.tolist(), strict=True)
        report.close(f"{name}: log-probabilities", largest(abs(a - b) for a, b in pairs), LOGPROB_ERROR)


def make_batch(processor, pictures, row):
    """One conversation; its answer is learned with the end of its turn."""
    picture, question, answer = row
    inputs = dict(encode(processor, pictures, [picture], question, answer))
    head = encode(processor, pictures, [picture], question)["input_ids"].shape[1]
    labels = inputs["input_ids"].clone()
    labels[0, :head] = -100
    labels[0, -1] = -100  # the line break behind the turn
    return inputs | {"labels": labels}


def check_run(report, name, program, folder, pictures, work):
    """Ten LoRA steps from one start, what PEFT makes of our adapter, and the merge."""
    work.mkdir(parents=True)
    data, output, start = work / "data.jsonl", work / "output", work / "start"
    data.write_text("".join(json.dumps({
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
                     {"role": "assistant", "content": answer}],
        "images": [str(pictures / f"{picture}.png")]}) + "\n" for picture, question, answer in ROWS))
    torch.manual_seed(7)
    adapters.make_adapter(qwen_vl.load(folder), start, ADAPTER, None, str(folder))
    oracle = PeftModel.from_pretrained(qwen_vl.load(folder), start, is_trainable=True)
    processor = AutoProcessor.from_pretrained(folder, use_fast=False)
    batches = [make_batch(processor, pictures, row) for row in ROWS]
    for packing in (False, True):
        write_json(work / "config.json", {
            "model_name_or_path": str(folder), "train_files": [str(data)], "output_dir": f"{output}{packing}",
            "method": "lora", "adapter": str(start), "per_device_train_batch_size": 1, "max_steps": 10,
            "logging_steps": 1, "save_steps": 0, "shuffle": False, "packing": packing, **finetuning.TRAINING})
        if not packing:
            wanted = training.run(oracle, batches, 10, 1, finetuning.TRAINING)
        finetuning.compare_run(report, f"{name} packing {packing}", program.finetune(work / "config.json"), wanted)
    output = work / "outputFalse"
    report.equal(f"{name}: adapter keys", sorted(load_file(output / "adapter_model.safetensors")),
                 sorted(load_file(start / "adapter_model.safetensors")))
    ours = PeftModel.from_pretrained(qwen_vl.load(folder), output).eval()
    found, trained = get_peft_model_state_dict(ours), get_peft_model_state_dict(oracle)
    scale = max(value.abs().max() for value in trained.values())
    report.close(f"{name}: trained weights in PEFT",
                 largest((found[key] - trained[key]).abs().max() / scale for key in trained), 1e-3)
    check_answer(report, f"{name}: our adapter in PEFT", program, folder, ours, pictures, QUESTIONS[0], output)
    program.run("merge", "--model", folder, "--adapter", output, "--output", work / "merged")
    merged, base = qwen_vl.load(work / "merged").state_dict(), ours.merge_and_unload().state_dict()
    report.close(f"{name}: merged weights",
                 largest((merged[key] - value).abs().max() / value.abs().max() for key, value in base.items()), MERGE_ERROR)
    report.equal(f"{name}: merged keys", sorted(load_file(work / "merged" / "model.safetensors")),
                 sorted(load_file(folder / "model.safetensors")))


def check_model(report, name, program, spec, work):
    folder, pictures = qwen_vl.save(spec, work / spec.name), write_pictures(work / "qwen_pictures")
    model = qwen_vl.load(folder)
    for number, question in enumerate(QUESTIONS):
        report.attempt(f"{name} {number}", check_answer, program, folder, model, pictures, question)
    report.attempt(f"{name} lora", check_run, program, folder, pictures, work / f"{spec.name}_lora")


def jobs(report, program, work):
    specs = [make_spec(spec, number) for number, spec in enumerate(qwen_vl.SPECS)]
    return {spec.kind: (report.attempt, spec.kind, check_model, program, spec, work) for spec in specs}
