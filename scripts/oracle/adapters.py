"""PEFT adapters on a fixture checkpoint, and what the model gives with them.

Each kind is one LoraConfig. make_adapter() saves it as PEFT does (random B, so that outputs
differ); adapter_golden() reads the folder back and runs forward, backward and merge_and_unload.
"""
import json

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from . import forward, text

TEXT_LINEARS = r".*text_model\.layers\.\d+\.(self_attn\.[qkvo]_proj|mlp\.(gate|up|down)_proj)"
EVERY_PART = r".*\.(self_attn\.(q_proj|out_proj|o_proj)|fc[12]|modality_projection\.proj|up_proj)"

KINDS = {
    "plain": dict(r=4, lora_alpha=8, target_modules=TEXT_LINEARS),
    "rslora": dict(r=4, lora_alpha=8, use_rslora=True, target_modules=EVERY_PART),
    "patterns": dict(
        r=4, lora_alpha=8, target_modules=["k_proj", "q_proj", "up_proj", "v_proj"],
        rank_pattern={"q_proj": 2, r"text_model\.layers\.1\.mlp\.up_proj": 6},
        alpha_pattern={r"^model\.text_model\.layers\.0\.self_attn\.k_proj": 3, "v_proj": 16}),
    # A name hits a module whose full name equals it or ends with "." + it: "proj" is the
    # connector alone, not q_proj; lm_head has no dot in front.
    "list": dict(r=3, lora_alpha=6, target_modules=[
        "fc1", "lm_head", "model.text_model.layers.0.mlp.up_proj", "proj", "q_proj"]),
}

# What else an adapter can own or do.
METHODS = {
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=EVERY_PART),
    "pissa": dict(r=4, lora_alpha=6, init_lora_weights="pissa", target_modules=TEXT_LINEARS),
    "bias_all": dict(r=2, lora_alpha=4, bias="all", target_modules=EVERY_PART),
    "bias_lora_only": dict(r=2, lora_alpha=4, bias="lora_only", target_modules=EVERY_PART),
    "modules": dict(r=2, lora_alpha=4, target_modules=TEXT_LINEARS,
                    modules_to_save=["connector", "lm_head", "text_model.norm"]),
}

QUERY = "q_proj"
# On a model whose embeddings and output head are one weight.
TIED = {
    "head": dict(r=2, lora_alpha=4, target_modules=[QUERY, "lm_head"]),
    "embeddings": dict(r=2, lora_alpha=3, target_modules=[QUERY, "embed_tokens"]),
    "both": dict(r=2, lora_alpha=3, use_rslora=True, target_modules=["embed_tokens", "lm_head"]),
    "both_dora": dict(r=2, lora_alpha=3, use_dora=True, target_modules=["embed_tokens", "lm_head"]),
    "both_tied": dict(r=2, lora_alpha=3, target_modules=[QUERY, "lm_head"], ensure_weight_tying=True),
    "tokens": dict(r=2, lora_alpha=4, target_modules=[QUERY], trainable_token_indices=[300, 2, 41]),
    "tokens_head": dict(r=2, lora_alpha=4, target_modules=[QUERY],
                        trainable_token_indices={"lm_head": [2, 300]}),
    "tokens_apart": dict(r=2, lora_alpha=4, target_modules=[QUERY],
                         trainable_token_indices={"embed_tokens": [41, 2], "lm_head": [2, 300]}),
    "saved_head": dict(r=2, lora_alpha=4, target_modules=[QUERY], modules_to_save=["lm_head"]),
    "saved_embeddings": dict(r=2, lora_alpha=4, target_modules=[QUERY], modules_to_save=["embed_tokens"]),
    "saved_both": dict(r=2, lora_alpha=4, target_modules=[QUERY],
                       modules_to_save=["embed_tokens", "lm_head"]),
    "saved_tied": dict(r=2, lora_alpha=4, target_modules=[QUERY], modules_to_save=["lm_head"],
                       ensure_weight_tying=True),
}

# Which modules are meant.
CHOICES = {
    "layers": dict(r=2, lora_alpha=4, target_modules=[QUERY, "down_proj", "fc1"], layers_to_transform=[1]),
    "layers_pattern": dict(r=2, lora_alpha=4, target_modules=[QUERY, "v_proj"], layers_to_transform=0,
                           layers_pattern="text_model.layers"),
    "excluded": dict(r=2, lora_alpha=4, target_modules="all-linear", exclude_modules=["v_proj", "fc2", "proj"]),
    "excluded_pattern": dict(r=3, lora_alpha=4, target_modules=[QUERY, "up_proj"],
                             exclude_modules=r"(?!.*text_model).*|.*layers\.0\..*"),
    "behind": dict(r=2, lora_alpha=4, target_modules=r".*(?<!encoder)\.layers\.\d+\.self_attn\.(?P<kind>q|k)_proj",
                   rank_pattern={r"layers\.1\..*": 3, "q_proj": 1}, alpha_pattern={"k_proj": 5, ".*": 2}),
}


def randomise(model, seed):
    """Random A and B, B small enough that the adapter changes outputs by a fraction.

    What the adapter owns beside them moves by a fraction of its size.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if not parameter.requires_grad:
                continue
            values = torch.randn(parameter.shape, generator=generator)
            if ".lora_" not in name or "magnitude" in name:
                spread = parameter.std() if parameter.std() > 0 else 1.0
                parameter.add_(values * 0.2 * spread)
                continue
            scale = parameter.shape[1] ** -0.5
            parameter.copy_(values * scale * (0.4 if ".lora_B." in name else 1.0))


def tidy(folder, base_name):
    """Makes PEFT's output the same on every run: set order, the base path, no model card."""
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = base_name
    for key in ("target_modules", "exclude_modules"):
        if isinstance(config[key], list):
            config[key] = sorted(config[key])
    text.write_json(path, config)
    (folder / "README.md").unlink(missing_ok=True)
    (folder / "adapter_model.safetensors").chmod(0o644)


def make_adapter(base, folder, settings, seed, base_name):
    """Wraps base in PEFT, saves the adapter folder, leaves base as it was."""
    model = get_peft_model(base, LoraConfig(**settings))
    if seed is not None:
        randomise(model, seed)
    model.save_pretrained(folder)
    tidy(folder, base_name)
    return model.unload()


def adapter_golden(base, folder, batch, labels):
    """logits, loss, grad.<adapter key> of A and B, merged_logits; base ends up merged."""
    model = PeftModel.from_pretrained(base, folder, is_trainable=True).eval()
    output = model(**batch, labels=labels, use_cache=False)
    output.loss.backward()
    golden = {"logits": output.logits.detach(), "loss": output.loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            golden["grad." + name.replace(".default.", ".")] = parameter.grad.clone()
    merged = model.merge_and_unload()
    with torch.no_grad():
        golden["merged_logits"] = merged(**batch, use_cache=False).logits
    return golden


def drop_base_weights(folder):
    """Takes out the copies that PEFT makes of the base weights of embeddings and heads that have an adapter."""
    path = folder / "adapter_model.safetensors"
    save_file({key: value for key, value in load_file(path).items() if ".base_layer.weight" not in key}, path,
              metadata={"format": "pt"})


def short_goldens(load_base, folder, batch, seed, base_name, kinds):
    """The same with the logits of the last 8 tokens alone, and without PEFT's copies of base weights."""
    sample = single_sample(batch)
    golden = dict(sample)
    for number, (kind, settings) in enumerate(kinds.items()):
        make_adapter(load_base(), folder / kind, settings, seed + number, base_name)
        model = PeftModel.from_pretrained(load_base(), folder / kind).eval()
        with torch.no_grad():
            golden[f"{kind}.logits"] = model(**sample, use_cache=False).logits[:, -8:].clone()
        drop_base_weights(folder / kind)
    return golden


def initial_deltas(base, settings):
    """{pissa_initial.<module>: scaling * B A} as PEFT begins, of the first decoder layer."""
    model = get_peft_model(base, LoraConfig(**settings))
    found = {}
    for name, module in model.named_modules():
        if ".layers.0." in name and hasattr(module, "get_delta_weight"):
            key = name.removeprefix("base_model.model.")
            found[f"pissa_initial.{key}"] = module.get_delta_weight("default").detach()
    return found


def single_sample(batch):
    """The first sample without its padding: small logits."""
    keep = batch["attention_mask"][0].bool()
    return {
        "input_ids": batch["input_ids"][:1, keep],
        "attention_mask": batch["attention_mask"][:1, keep],
        "pixel_values": batch["pixel_values"][:1, :1],
        "pixel_attention_mask": batch["pixel_attention_mask"][:1, :1],
    }


def wanted(kind, name):
    """Keeps the committed file small: gradients and merged logits of two kinds each."""
    if name.startswith("grad."):
        return kind in ("plain", "rslora", "dora")
    return name != "merged_logits" or kind in ("plain", "patterns", "dora")


def all_goldens(load_base, folder, batch, seed, base_name, kinds=None):
    """Writes folder/<kind>/ for every kind; returns the tensors of folder/golden.safetensors."""
    sample = single_sample(batch)
    labels = forward.make_labels(batch)[:1, batch["attention_mask"][0].bool()]
    golden = {**sample, "labels": labels}
    with torch.no_grad():
        golden["base_logits"] = load_base()(**sample, use_cache=False).logits
    for number, (kind, settings) in enumerate((kinds or KINDS).items()):
        make_adapter(load_base(), folder / kind, settings, seed + number, base_name)
        found = adapter_golden(load_base(), folder / kind, sample, labels)
        difference = (found["logits"] - golden["base_logits"]).abs().max()
        assert difference > 0.1, f"{kind}: the adapter changes nothing"
        golden |= {f"{kind}.{name}": v for name, v in found.items() if wanted(kind, name)}
    return golden
