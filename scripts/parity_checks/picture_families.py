"""What the checks of families with pictures share: questions about pictures of any shape, answers, and LoRA runs with
adapters and merges both ways."""
import json

import torch
from oracle import adapters, training
from oracle.picture_families import load, picture
from oracle.text import write_json
from peft import PeftModel, get_peft_model_state_dict
from PIL import Image
from safetensors.torch import load_file

from parity_checks import finetuning
from parity_checks.program import MAX_NEW_TOKENS, PRECISION
from parity_checks.report import largest

# Height and width.
SIZES = {"tall": (90, 17), "wide": (13, 120), "even": (56, 56), "small": (7, 9), "large": (300, 210)}
QUESTIONS = [("What is this?", ["wide"]), ("And which is taller?", ["tall", "small", "even"]),
             ("  naïve café 12 345 ", ["large"]), ("No picture at all", [])]
ROWS = [("even", "What is it?", "It is red."), ("wide", "How many?", "3 dogs, no cats."), ("tall", "Which?", "the second"),
        ("small", "Is it?", "yes")]
LOGPROB_ERROR = 1e-4
MERGE_ERROR = 1e-6


def make_pictures():
    return {name: picture(height, width, 500 + number) for number, (name, (height, width)) in enumerate(SIZES.items())}


def write_pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in make_pictures().items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def make_encode(processor):
    """question, names of pictures, answer → inputs, by a processor of transformers."""
    pictures = {name: Image.fromarray(pixels) for name, pixels in make_pictures().items()}

    def encode(question, names, answer=None):
        parts = [{"type": "image"} for _ in names] + [{"type": "text", "text": question}]
        chat = [{"role": "user", "content": parts}]
        if answer is not None:
            chat.append({"role": "assistant", "content": [{"type": "text", "text": answer}]})
        text = processor.apply_chat_template(chat, add_generation_prompt=answer is None)
        return dict(processor(text=[text], images=[pictures[name] for name in names] or None, return_tensors="pt"))

    return encode


def check_answer(report, name, program, folder, model, inputs, question, files, adapter=None, **options):
    """`options` are generate's."""
    with torch.no_grad():
        result = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, use_cache=True, pad_token_id=0,
                                output_logits=True, return_dict_in_generate=True, **options)
    logits = torch.stack(result.logits)[:, 0]
    top = logits.topk(2, dim=-1).values
    assert (top[:, 0] - top[:, 1]).min() > 5e-4, "two tokens too close to call: change the seed"
    ids = inputs["input_ids"][0].tolist()
    wanted = result.sequences[0, len(ids):]
    words, names = question
    arguments = ["--model", folder, "--prompt", words, "--format", "json", "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION]
    arguments += ["--adapter", adapter] if adapter else []
    for picture_name in names:
        arguments += ["--image", files / f"{picture_name}.png"]
    got = json.loads(program.run("generate", *arguments).strip().splitlines()[-1])
    report.equal(f"{name}: prompt ids", got["prompt_token_ids"], ids)
    report.equal(f"{name}: token ids", got["token_ids"], wanted.tolist())
    logprobs = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    if got["token_ids"] == wanted.tolist():
        pairs = zip(got["token_logprobs"], logprobs.tolist(), strict=True)
        report.close(f"{name}: log-probabilities", largest(abs(a - b) for a, b in pairs), LOGPROB_ERROR)


def make_batches(encode, has_break=True):
    """A conversation each; its answer is learned with the end of its turn, but not the line break behind."""
    batches = []
    for name, question, answer in ROWS:
        inputs = encode(question, [name], answer)
        labels = inputs["input_ids"].clone()
        labels[0, :encode(question, [name])["input_ids"].shape[1]] = -100
        if has_break:
            labels[0, -1] = -100
        batches.append(inputs | {"labels": labels})
    return batches


def compare_runs(report, name, program, folder, start, files, work, wanted):
    """Ten LoRA steps of the program from the adapter `start`, plain and packed; returns the plain run's folder."""
    data, output = work / "data.jsonl", work / "output"
    data.write_text("".join(json.dumps({
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
                     {"role": "assistant", "content": answer}],
        "images": [str(files / f"{picture_name}.png")]}) + "\n" for picture_name, question, answer in ROWS))
    for packing in (True, False):
        write_json(work / "config.json", {
            "model_name_or_path": str(folder), "train_files": [str(data)], "output_dir": f"{output}{packing}",
            "method": "lora", "adapter": str(start), "per_device_train_batch_size": 1, "max_steps": 10,
            "logging_steps": 1, "save_steps": 0, "shuffle": False, "packing": packing, **finetuning.TRAINING})
        finetuning.compare_run(report, f"{name} packing {packing}", program.finetune(work / "config.json"), wanted)
    report.equal(f"{name}: adapter keys", sorted(load_file(work / "outputFalse" / "adapter_model.safetensors")),
                 sorted(load_file(start / "adapter_model.safetensors")))
    return work / "outputFalse"


def compare_weights(report, name, found, wanted, limit):
    """Each tensor, relative to its largest value."""
    report.close(name, largest(((found[key] - value).abs().max() / value.abs().max()).item() for key, value in wanted.items()),
                 limit)


def check_run(report, name, program, folder, encode, adapter, files, work, hub_key=str):
    """Ten LoRA steps from one start, what PEFT makes of our adapter, and the merge. `hub_key` gives the hub's name of a
    key of the base."""
    work.mkdir(parents=True)
    start = work / "start"
    torch.manual_seed(7)
    adapters.make_adapter(load(folder), start, adapter, None, str(folder))
    oracle = PeftModel.from_pretrained(load(folder), start, is_trainable=True)
    wanted = training.run(oracle, make_batches(encode), 10, 1, finetuning.TRAINING)
    output = compare_runs(report, name, program, folder, start, files, work, wanted)
    ours = PeftModel.from_pretrained(load(folder), output).eval()
    found, trained = get_peft_model_state_dict(ours), get_peft_model_state_dict(oracle)
    scale = max(value.abs().max() for value in trained.values())
    report.close(f"{name}: trained weights in PEFT",
                 largest((found[key] - trained[key]).abs().max() / scale for key in trained), 1e-3)
    for what, model, one, (question, names) in (
            ("our adapter in PEFT", ours, output, QUESTIONS[0]),
            ("PEFT's adapter here", PeftModel.from_pretrained(load(folder), start).eval(), start, QUESTIONS[2])):
        check_answer(report, f"{name}: {what}", program, folder, model, encode(question, names), (question, names), files, one)
    program.run("merge", "--model", folder, "--adapter", output, "--output", work / "merged")
    compare_weights(report, f"{name}: merged weights", load(work / "merged").state_dict(),
                    ours.merge_and_unload().state_dict(), MERGE_ERROR)
    report.equal(f"{name}: merged keys", sorted(load_file(work / "merged" / "model.safetensors")),
                 sorted(map(hub_key, load_file(folder / "model.safetensors"))))


def check_model(report, name, program, folder, encode, adapter, work, hub_key=str):
    """Answers and a run of a checkpoint that transformers loads."""
    files, model = write_pictures(work / "family_pictures"), load(folder)
    for number, question in enumerate(QUESTIONS):
        report.attempt(f"{name} {number}", check_answer, program, folder, model, encode(*question), question, files)
    report.attempt(f"{name} lora", check_run, program, folder, encode, adapter, files, work / f"{folder.name}_lora",
                   hub_key)
