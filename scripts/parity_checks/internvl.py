"""InternVL: answers about pictures of any shape, LoRA runs, adapters and merges both ways.

The two kinds of oracle.internvl, one with Llama's decoder and one with an encoder of InternViT-6B's kind, at other sizes
than tests/fixtures, and with pictures that are tall, wide, many and small. Clips are compared in
tests/models/family_test.cpp, as the two sides decode files apart.
"""
import dataclasses

from oracle import internvl

from parity_checks import picture_families

# Names that both towers have, one of the eyes alone and both of the connector.
ADAPTER = dict(r=3, lora_alpha=6, task_type="CAUSAL_LM",
               target_modules=["q_proj", "v_proj", "o_proj", "gate_proj", "projection_layer", "fc1", "linear_1", "linear_2"])


def make_specs():
    published, saved = internvl.SPECS
    llama = dataclasses.replace(published, text=internvl.text("llama"), patches=(1, 6))
    large = dataclasses.replace(  # an encoder of InternViT-6B's kind
        llama, vision=internvl.vision(use_qk_norm=True, norm_type="rms_norm", attention_bias=False))
    kinds = {"internvl qwen2": published, "internvl qwen3": saved, "internvl llama": llama, "internvl 6B": large}
    return {name: make_spec(name, spec, number) for number, (name, spec) in enumerate(kinds.items())}


def make_spec(name, spec, number):
    size = dict(spec.text, hidden_size=40, intermediate_size=44, num_hidden_layers=3, num_attention_heads=5)
    vision = dict(spec.vision, num_hidden_layers=4, hidden_size=24, num_attention_heads=3)
    return dataclasses.replace(spec, name="parity_" + name.replace(" ", "_"), seed=440 + number, text=size, vision=vision)


def check_model(report, name, program, spec, work):
    folder = internvl.save(spec, work / spec.name)
    encode = picture_families.make_encode(internvl.make_processor(folder))
    picture_families.check_model(report, name, program, folder,
                                 lambda *question: internvl.model_inputs(encode(*question)), ADAPTER, work,
                                 internvl.hub_key)


def jobs(report, program, work):
    return {name: (report.attempt, name, check_model, program, spec, work) for name, spec in make_specs().items()}
