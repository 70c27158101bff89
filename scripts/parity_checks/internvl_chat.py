"""InternVL's original layout: answers, LoRA runs, adapters and merges, against the "-hf" layout with converted weights.

Other sizes than tests/fixtures, with Qwen2, Qwen3 and InternLM2 inside. Adapters are PEFT's, made on a tree of modules with
the original names; an adapter of one matrix that the "-hf" layout has in parts is added there row by row.
"""
import dataclasses

import torch
from oracle import adapters, internvl, internvl_chat, training
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file

from parity_checks import finetuning, picture_families
from parity_checks.picture_families import MERGE_ERROR, QUESTIONS
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
        self.pictures = picture_families.make_pictures()

    def encode(self, question, names, answer=None):
        places = ["<image>\n"] if len(names) == 1 else [f"Image-{i + 1}: <image>\n" for i in range(len(names))]
        stacks = [internvl_chat.tiles(self.spec, self.pictures[name]) for name in names]
        return internvl_chat.encode(self.spec, self.ids, "".join(places) + question, stacks, answer)

    def check_answer(self, report, name, program, model, files, question, adapter=None):
        picture_families.check_answer(report, name, program, self.folder, model, self.encode(*question), question, files,
                                      adapter, eos_token_id=self.ids.token_to_id("<|im_end|>"))


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


def check_run(report, name, program, case, files, work):
    """Ten LoRA steps from one start, PEFT's adapter here and ours in PEFT, and the merge."""
    work.mkdir(parents=True)
    start = work / "start"
    make_start(case, start, TARGETS["internlm2" if case.spec.is_internlm2 else "qwen"])
    case.check_answer(report, f"{name}: PEFT's adapter here", program, with_adapter(case, start)[0].eval(), files,
                      QUESTIONS[2], start)
    oracle, trained = with_adapter(case, start)
    has_break = internvl_chat.SEPARATOR[case.spec.template].endswith("\n")
    batches = picture_families.make_batches(case.encode, has_break)
    wanted = training.run(oracle, batches, 10, 1, finetuning.TRAINING)
    output = picture_families.compare_runs(report, name, program, case.folder, start, files, work, wanted)
    found = load_file(output / "adapter_model.safetensors")
    scale = max(value.abs().max() for value in trained.values())
    report.close(f"{name}: trained weights",
                 largest(((found[key] - value).abs().max() / scale).item() for key, value in trained.items()), 1e-3)
    program.run("merge", "--model", case.folder, "--adapter", output, "--output", work / "merged")
    base = load_file(case.folder / "model.safetensors")
    merged = load_file(work / "merged" / "model.safetensors")
    report.equal(f"{name}: merged keys", sorted(merged), sorted(base))
    ours = PeftModel.from_pretrained(module_tree(base), output).merge_and_unload().state_dict()
    picture_families.compare_weights(report, f"{name}: merged weights", merged, ours, MERGE_ERROR)


def check_model(report, name, program, spec, work):
    case, files = Case(spec, work), picture_families.write_pictures(work / "family_pictures")
    model = internvl.load(case.hf)
    for number, question in enumerate(QUESTIONS):
        report.attempt(f"{name} {number}", case.check_answer, program, model, files, question)
    report.attempt(f"{name} lora", check_run, program, case, files, work / f"{spec.name}_lora")


def jobs(report, program, work):
    return {name: (report.attempt, name, check_model, program, spec, work) for name, spec in make_specs().items()}
