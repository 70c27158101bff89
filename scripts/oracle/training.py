"""Golden training runs on a fixture checkpoint, and learning-rate schedules.

run() is the loop of transformers' Trainer without its frills: AdamW, clipping to 1.0, linear
schedule with warm-up, the loss of an optimiser step divided by the number of its labels (all its
micro batches together). The LoRA run starts from a saved PEFT adapter, the full run trains every
parameter with Trainer's rule for weight decay (no biases, no norms).
"""
import torch
from peft import PeftModel
from transformers import get_scheduler
from transformers.trainer_pt_utils import get_parameter_names

from . import text

SETTINGS = dict(learning_rate=0.02, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
                weight_decay=0.01, max_grad_norm=1.0, lr_scheduler_type="linear", warmup_steps=2)
ADAPTER = dict(r=2, lora_alpha=4, lora_dropout=0.0)
NO_DECAY = [r"bias", r"layernorm", r"rmsnorm", r"(?:^|\.)norm(?:$|\.)", r"_norm(?:$|\.)"]
FULL_FINAL = ["model.vision_model.post_layernorm.weight", "model.text_model.norm.weight",
              "model.vision_model.embeddings.patch_embedding.bias",
              "model.text_model.layers.0.self_attn.q_proj.weight",
              "model.connector.modality_projection.proj.weight"]


def make_batches(spec, image_block, count=3):
    """count right-padded batches of two one-picture samples, labels on the answer only."""
    tokenizer = text.make_tokenizer()
    generator = torch.Generator().manual_seed(spec.seed + 7)
    answers = [" red.", " 3 dogs.", " A blue circle.", " no.", " wide and dark.", " yes, left."]
    batches = []
    for number in range(count):
        rows = []
        for answer in answers[2 * number:2 * number + 2]:
            prompt = f"<|im_start|>User:{image_block}What?<end_of_utterance>\nAssistant:"
            prompt_ids = tokenizer.encode(prompt, add_special_tokens=False).ids
            answer_ids = tokenizer.encode(answer + "<end_of_utterance>",
                                          add_special_tokens=False).ids
            rows.append((prompt_ids, answer_ids))
        size = spec.tile
        pixels = torch.rand((2, 1, 3, size, size), generator=generator) * 2 - 1
        batches.append({**pad_rows(rows), "pixel_values": pixels})
    return batches


def pad_rows(rows):
    length = max(len(p) + len(a) for p, a in rows)
    ids = torch.full((len(rows), length), text.PAD_ID)
    mask = torch.zeros((len(rows), length), dtype=torch.int64)
    labels = torch.full((len(rows), length), -100)
    for row, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids[row, :end] = torch.tensor(prompt + answer)
        mask[row, :end] = 1
        labels[row, len(prompt):end] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def parameter_groups(model, weight_decay):
    decayed = set(get_parameter_names(model, [torch.nn.LayerNorm], NO_DECAY))
    trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in trainable if n in decayed],
         "weight_decay": weight_decay},
        {"params": [p for n, p in trainable if n not in decayed], "weight_decay": 0.0},
    ]


def run(model, batches, steps, accumulation=1, settings=None):
    """Trains in place; batch b of step i is batches[(i * accumulation + b) % len(batches)].

    Returns losses, grad_norms (before clipping) and learning_rates, one value a step.
    """
    settings = settings or SETTINGS
    model.train()
    optimizer = torch.optim.AdamW(
        parameter_groups(model, settings["weight_decay"]), lr=settings["learning_rate"],
        betas=(settings["adam_beta1"], settings["adam_beta2"]), eps=settings["adam_epsilon"])
    schedule = get_scheduler(settings["lr_scheduler_type"], optimizer,
                             settings["warmup_steps"], steps)
    trainable = [p for p in model.parameters() if p.requires_grad]
    record = {"losses": [], "grad_norms": [], "learning_rates": []}
    for step in range(steps):
        micro = [batches[(step * accumulation + b) % len(batches)] for b in range(accumulation)]
        labels = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in micro)
        total = 0.0
        for batch in micro:
            loss = model(**batch, num_items_in_batch=labels, use_cache=False).loss
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(trainable, settings["max_grad_norm"])
        record["losses"].append(total)
        record["grad_norms"].append(norm.item())
        record["learning_rates"].append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return {name: torch.tensor(values) for name, values in record.items()}


def adapter_tensors(model):
    return {name.replace(".default.", "."): p.detach().clone()
            for name, p in model.named_parameters() if p.requires_grad}


def training_golden(load_base, start_folder, batches):
    """lora: 10 steps; accum: 5 steps of 2 micro batches; full: 5 steps of every parameter."""
    golden = {}
    for prefix, steps, accumulation in (("lora", 10, 1), ("accum", 5, 2)):
        model = PeftModel.from_pretrained(load_base(), start_folder, is_trainable=True)
        record = run(model, batches, steps, accumulation)
        record |= {f"final.{name}": value for name, value in adapter_tensors(model).items()}
        golden |= {f"{prefix}.{name}": value for name, value in record.items()}
    model = load_base()
    record = run(model, batches, 5)
    values = dict(model.named_parameters())
    record |= {f"final.{name}": values[name].detach().clone() for name in FULL_FINAL}
    golden |= {f"full.{name}": value for name, value in record.items()}
    return golden


def dora_golden(load_base, start_folder, batches):
    """10 steps of DoRA."""
    model = PeftModel.from_pretrained(load_base(), start_folder, is_trainable=True)
    record = run(model, batches, 10)
    record |= {f"final.{name}": value for name, value in adapter_tensors(model).items()}
    return {f"dora.{name}": value for name, value in record.items()}


def sensitivity(load_base, start_folder, batches, golden):
    """How far float32 rounding alone moves the runs: largest differences to a float64 run."""
    exact = training_golden(lambda: load_base().double(), start_folder,
                            [{name: value.double() if value.is_floating_point() else value
                              for name, value in batch.items()} for batch in batches])
    found = {}
    for name, value in golden.items():
        part = ".".join(name.split(".")[:2])
        error = float((exact[name] - value).abs().max() / exact[name].abs().max())
        found[part] = max(found.get(part, 0.0), error)
    return found


def schedule_values(total=20, warmup=4, rate=1e-3):
    """{name: 20 learning rates}: the rate in force at each optimiser step."""
    found = {}
    for name, steps in (("linear", warmup), ("cosine", warmup), ("constant_with_warmup", warmup),
                        ("constant", 0), ("linear_no_warmup", 0), ("cosine_no_warmup", 0)):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
        schedule = get_scheduler(name.removesuffix("_no_warmup"), optimizer, steps, total)
        rates = []
        for _ in range(total):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        found[name] = {"warmup_steps": steps, "learning_rates": rates}
    return {"learning_rate": rate, "total_steps": total, "schedules": found}
