"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: answers about pictures of any shape, LoRA runs, adapters and merges both ways.

The three kinds of oracle.qwen_vl at other sizes than tests/fixtures, and with pictures that are tall, wide, many and
small. Clips are compared in tests/models/family_test.cpp, as the two sides decode files apart.
"""
import dataclasses

from oracle import qwen_vl
from transformers import AutoProcessor

from parity_checks import picture_families

ADAPTER = dict(r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "qkv"],
               task_type="CAUSAL_LM")


def make_spec(spec, number):
    size = dict(spec.text, hidden_size=40, intermediate_size=44, num_hidden_layers=3, num_attention_heads=5)
    if "head_dim" not in size:
        size["head_dim"] = None
    vision = dict(spec.vision, depth=4)
    vision["hidden_size" if spec.kind == "qwen2_vl" else "out_hidden_size"] = 40
    size = {key: value for key, value in size.items() if value is not None}
    return dataclasses.replace(spec, name="parity_" + spec.kind, seed=400 + number, text=size, vision=vision,
                               limits=(16 * 16, 64 * 64))


def check_model(report, name, program, spec, work):
    folder = qwen_vl.save(spec, work / spec.name)
    encode = picture_families.make_encode(AutoProcessor.from_pretrained(folder, use_fast=False))
    picture_families.check_model(report, name, program, folder, encode, ADAPTER, work)


def jobs(report, program, work):
    specs = [make_spec(spec, number) for number, spec in enumerate(qwen_vl.SPECS)]
    return {spec.kind: (report.attempt, spec.kind, check_model, program, spec, work) for spec in specs}
