"""InternVL's original layout: answers, LoRA runs, adapters and merges, against the "-hf" layout with converted weights.

Other sizes than tests/fixtures, with Qwen2, Qwen3 and InternLM2 inside. Adapters are PEFT's, made on a tree of modules with
the original names; an adapter of one matrix that the "-hf" layout has in parts is added there row by row.
"""
import dataclasses
import json

import torch
from oracle import adapters, internvl, internvl_chat, training
from oracle.text import write_json
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from parity_checks import finetuning
from parity_checks.internvl import LOGPROB_ERROR, MERGE_ERROR, QUESTIONS, ROWS, SIZES, write_pictures
from parity_checks.program import MAX_NEW_TOKENS, PRECISION
from parity_checks.report import largest

SCALE = 2.0
SHARED = ["mlp1.1", "mlp1.3", "qkv", "proj", "fc1"]
TARGETS = {"qwen": [*SHARED, "q_proj", "v_proj", "o_proj", "gate_proj"], "internlm2": [*SHARED, "wqkv", "wo", "w1", "w2"]}


def make_specs():
    published, internlm2 = internvl_chat.SPECS
    qwen3 = dataclasses.replace(
        published, template="Hermes-2", thumbnail=False,
        base=dataclasses.replace(published.base, text=internvl.text("qwen3", head_dim=16, num_attention_heads=2), side=24))
    kinds = {"qwen2": published, "qwen3": qwen3, "internlm2": internlm2}
    return {f"internvl_chat {name}": make_spec(name, spec, number) for number, (name, spec) in enumerate(kinds.items())}


def make_spec(name, spec, number):
    sizes = dict(hidden_size=40, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    text = dict(spec.base.text, **sizes)
    text["rope_parameters"] = dict(rope_type="default", rope_theta=700.0)
    vision = dict(spec.base.vision, num_hidden_layers=4, hidden_size=24, num_attention_heads=3)
    return dataclasses.replace(spec, base=dataclasses.replace(
        spec.base, name="parity_internvl_chat_" + name, seed=470 + 7 * number, text=text, vision=vision, patches=(1, 9)))


class Case:
    """One checkpoint in both layouts."""

    def __init__(self, spec, work):
        self.spec, self.hf = spec, work / (spec.name + "_hf")
        self.folder = internvl_chat.save(spec, work / spec.name, self.hf)
        self.ids = internvl_chat.Ids(spec, self.folder)
        self.pictures = {name: internvl.picture(height, width, 500 + number)
                         for number, (name, (height, width)) in enumerate(SIZES.items())}

    def encode(self, question, names, answer=None):
        places = ["<image>\n"] if len(names) == 1 else [f"Image-{i + 1}: <image>\n" for i in range(len(names))]
        stacks = [internvl_chat.tiles(self.spec, self.pictures[name]) for name in names]
        return internvl_chat.encode(self.spec, self.ids, "".join(places) + question, stacks, answer)


def check_answer(report, name, program, case, model, files, question, adapter=None):
    words, names = question
    inputs = case.encode(words, names)
    with torch.no_grad():
        result = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, use_cache=True, pad_token_id=0,
                                eos_token_id=case.ids.token_to_id("<|im_end|>"), output_logits=True,
                                return_dict_in_generate=True)
    logits = torch.stack(result.logits)[:, 0]
    top = logits.topk(2, dim=-1).values
    assert (top[:, 0] - top[:, 1]).min() > 5e-4, "two tokens too close to call: change the seed"
    ids = inputs["input_ids"][0].tolist()
    wanted = result.sequences[0, len(ids):]
    arguments = ["--model", case.folder, "--prompt", words, "--format", "json", "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION]
    arguments += ["--adapter", adapter] if adapter else []
    for picture in names:
        arguments += ["--image", files / f"{picture}.png"]
    got = json.loads(program.run("generate", *arguments).strip().splitlines()[-1])
    report.equal(f"{name}: prompt ids", got["prompt_token_ids"], ids)
    report.equal(f"{name}: token ids", got["token_ids"], wanted.tolist())
    logprobs = logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0]
    if got["token_ids"] == wanted.tolist():
        pairs = zip(got["token_logprobs"], logprobs.tolist(), strict=True)
        report.close(f"{name}: log-probabilities", largest(abs(a - b) for a, b in pairs), LOGPROB_ERROR)


# ------------------------------------------------------------------------------------------------------------- adapters


def module_tree(weights):
    """Modules with the names of the original layout, for PEFT: its linear layers, and holders of the other parameters."""
    root = torch.nn.Module()
    for key, value in sorted(weights.items()):
        path, name = key.rsplit(".", 1)
        node, parts = root, path.split(".")
        is_linear = name == "weight" and value.dim() == 2 and "tok" not in path
        for number, part in enumerate(parts):
            if not hasattr(node, part):
                is_last = number == len(parts) - 1 and (is_linear or path + ".weight" in weights and
                                                        weights[path + ".weight"].dim() == 2 and "tok" not in path)
                shape = weights[path + ".weight"].shape if is_last else None
                made = torch.nn.Linear(shape[1], shape[0], bias=path + ".bias" in weights) if is_last else torch.nn.Module()
                node.add_module(part, made)
            node = getattr(node, part)
        setattr(node, name, torch.nn.Parameter(value.clone(), requires_grad=False))
    return root


def make_start(case, folder, targets):
    config = LoraConfig(r=3, lora_alpha=3 * SCALE, target_modules=targets, task_type=None)
    model = get_peft_model(module_tree(load_file(case.folder / "model.safetensors")), config)
    adapters.randomise(model, 12)
    model.save_pretrained(folder)
    adapters.tidy(folder, str(case.folder))


class Sliced(torch.nn.Module):
    """A linear layer of the "-hf" layout with the rows of an adapter that are its own."""

    def __init__(self, base, a, b, rows):
        super().__init__()
        self.base, self.a, self.b, self.rows = base, a, b, rows

    def forward(self, x):
        return self.base(x) + SCALE * torch.nn.functional.linear(torch.nn.functional.linear(x, self.a), self.b[self.rows])


def find_rows(case):
    """Name of an original module → [(name of the "-hf" module, rows of the original one)]."""
    numbers, names = {}, []
    for key, value in load_file(case.hf / "model.safetensors").items():
        if key.endswith(".weight") and value.dim() == 2:
            numbers[key] = torch.arange(len(value)) + 1_000_000 * len(names)
            names.append(key.removesuffix(".weight"))
    found = {}
    for key, value in internvl_chat.convert(numbers, case.spec).items():
        places = []
        for owner in (value // 1_000_000).unique().tolist():
            rows = (value // 1_000_000 == owner).nonzero()[:, 0]
            places.append((names[owner], rows[(value[rows] % 1_000_000).argsort()]))
        found[key.removesuffix(".weight")] = places
    return found


def with_adapter(case, folder):
    """The "-hf" model with the adapter's rows, and the adapter's parameters by their keys."""
    model, trained = internvl.load(case.hf), {}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    stored = load_file(folder / "adapter_model.safetensors")
    rows = find_rows(case)
    for key in sorted(key for key in stored if key.endswith(".lora_A.weight")):
        other = key.replace(".lora_A.", ".lora_B.")
        a, b = (torch.nn.Parameter(stored[name].clone()) for name in (key, other))
        trained |= {key: a, other: b}
        for name, part in rows[key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")]:
            for old, new in internvl.PREFIXES.items():
                if name.startswith(old):
                    name = new + name[len(old):]
                    break
            parent, child = name.rsplit(".", 1)
            owner = model.get_submodule(parent)
            setattr(owner, child, Sliced(getattr(owner, child), a, b, part))
    return model, trained


def make_batch(case, row):
    """One conversation; its answer is learned with the token that ends it."""
    picture, question, answer = row
    inputs = case.encode(question, [picture], answer)
    head = case.encode(question, [picture])["input_ids"].shape[1]
    labels = inputs["input_ids"].clone()
    labels[0, :head] = -100
    if internvl_chat.SEPARATOR[case.spec.template].endswith("\n"):
        labels[0, -1] = -100  # the line break behind the turn
    return inputs | {"labels": labels}


def check_run(report, name, program, case, files, work):
    """Ten LoRA steps from one start, PEFT's adapter here and ours in PEFT, and the merge."""
    work.mkdir(parents=True)
    data, output, start = work / "data.jsonl", work / "output", work / "start"
    data.write_text("".join(json.dumps({
        "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
                     {"role": "assistant", "content": answer}],
        "images": [str(files / f"{picture}.png")]}) + "\n" for picture, question, answer in ROWS))
    make_start(case, start, TARGETS["internlm2" if case.spec.is_internlm2 else "qwen"])
    check_answer(report, f"{name}: PEFT's adapter here", program, case, with_adapter(case, start)[0].eval(), files,
                 QUESTIONS[2], start)
    oracle, trained = with_adapter(case, start)
    wanted = training.run(oracle, [make_batch(case, row) for row in ROWS], 10, 1, finetuning.TRAINING)
    for packing in (False, True):
        write_json(work / "config.json", {
            "model_name_or_path": str(case.folder), "train_files": [str(data)], "output_dir": f"{output}{packing}",
            "method": "lora", "adapter": str(start), "per_device_train_batch_size": 1, "max_steps": 10,
            "logging_steps": 1, "save_steps": 0, "shuffle": False, "packing": packing, **finetuning.TRAINING})
        finetuning.compare_run(report, f"{name} packing {packing}", program.finetune(work / "config.json"), wanted)
    output = work / "outputFalse"
    found = load_file(output / "adapter_model.safetensors")
    report.equal(f"{name}: adapter keys", sorted(found), sorted(trained))
    scale = max(value.abs().max() for value in trained.values())
    report.close(f"{name}: trained weights",
                 largest(((found[key] - value).abs().max() / scale).item() for key, value in trained.items()), 1e-3)
    program.run("merge", "--model", case.folder, "--adapter", output, "--output", work / "merged")
    base = load_file(case.folder / "model.safetensors")
    ours = PeftModel.from_pretrained(module_tree(base), output).merge_and_unload().state_dict()
    merged = load_file(work / "merged" / "model.safetensors")
    report.equal(f"{name}: merged keys", sorted(merged), sorted(base))
    report.close(f"{name}: merged weights",
                 largest(((merged[key] - value).abs().max() / value.abs().max()).item() for key, value in ours.items()),
                 MERGE_ERROR)


def check_model(report, name, program, spec, work):
    case, files = Case(spec, work), write_pictures(work / "internvl_chat_pictures")
    model = internvl.load(case.hf)
    for number, question in enumerate(QUESTIONS):
        report.attempt(f"{name} {number}", check_answer, program, case, model, files, question)
    report.attempt(f"{name} lora", check_run, program, case, files, work / f"{spec.name}_lora")


def jobs(report, program, work):
    return {name: (report.attempt, name, check_model, program, spec, work) for name, spec in make_specs().items()}
