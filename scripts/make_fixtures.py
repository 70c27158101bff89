"""Writes tests/fixtures: tiny random checkpoints and golden tensors from transformers and PEFT.

    scripts/parity --venv-only                       # once: the pinned oracle packages
    .deps/parity-venv/bin/python scripts/make_fixtures.py [NAME...]

Everything is seeded: a second run on the same machine writes the same bytes. NAME picks parts
(see PARTS below). tests/fixtures/README.md lists every file and tensor.
"""
import argparse
import functools
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

from oracle import optimizers  # noqa: E402

optimizers.hide_library()

import torch  # noqa: E402
from peft import PeftModel  # noqa: E402
import transformers  # noqa: E402

from oracle import (  # noqa: E402
    adapters, decoding, forward, internvl, internvl_chat, models, pictures, prompts, qwen_vl, rotary, store, text, text_models, training, videos)
from oracle.text import write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "tests" / "fixtures"

# GQA, scale 2, whole patches, untied head.
TINY = models.Spec(
    "smolvlm_tiny", seed=11, scale_factor=2, longest_edge=64,
    vision=dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                num_attention_heads=4, image_size=32, patch_size=8),
    text=dict(hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
              num_key_value_heads=2, head_dim=8, rope_theta=10000.0))
# MHA, scale 3, 26 / 4 leaves two pixels over, tied head, heads wider than the hidden size,
# more rows in the embedding than in the tokenizer, a second end-of-sequence id.
ODD = models.Spec(
    "smolvlm_odd", seed=23, scale_factor=3, longest_edge=78, tied=True, vocab_size=403,
    jinja_template=True, extra_eos=[14],
    vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                num_attention_heads=3, image_size=26, patch_size=4),
    text=dict(hidden_size=40, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=4, head_dim=12, rope_theta=100000.0))
# First generation: MQA, scale 4, bfloat16 in shards, config.json with the published key names.
IDEFICS3 = models.Spec(
    "idefics3_tiny", seed=31, scale_factor=4, longest_edge=64, family="idefics3",
    dtype=torch.bfloat16, shard_size="90KB", published_config=True,
    vision=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, image_size=32, patch_size=4),
    text=dict(hidden_size=48, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
              num_key_value_heads=1, head_dim=12, rope_theta=273768.0))
# Granite-Docling: its tokens and template, a tied head, an end of utterance outside of the embedding.
GRANITE = models.Spec(
    "granite_tiny", seed=47, scale_factor=4, longest_edge=64, family="idefics3", tied=True,
    granite=True, vocab_size=text.VOCAB - 1, published_config=True, jinja_template=True,
    vision=dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, image_size=32, patch_size=4),
    text=dict(hidden_size=36, intermediate_size=40, num_hidden_layers=3, num_attention_heads=3,
              num_key_value_heads=1, head_dim=12, rope_theta=100000.0))


def model_fixture(spec):
    """The checkpoint and golden.safetensors of its graph."""
    folder = models.save(spec, FIXTURES / spec.name)
    model = models.load(folder)
    batch = forward.make_batch(spec)
    golden = {**batch, **forward.forward_golden(model, batch)}
    forward.assert_backends_agree(folder, batch, golden["logits"])
    golden |= forward.greedy_golden(model, batch)
    if spec.family == "smolvlm":  # Idefics3 stops with an error when every picture is zero
        golden |= forward.blank_golden(model, batch)
    return folder, model, batch, golden


def make_tiny():
    folder, model, batch, golden = model_fixture(TINY)
    golden |= forward.gradients(model, batch, golden["labels"])
    store.save_tensors(folder / "golden.safetensors", golden)
    lora = adapters.all_goldens(functools.partial(models.load, folder), folder / "adapters",
                                batch, TINY.seed + 100, TINY.name)
    store.save_tensors(folder / "adapters" / "golden.safetensors", lora)


    make_training(folder)


def make_training(folder):
    load = functools.partial(models.load, folder)
    start = folder / "train" / "adapter_start"
    batches = training.make_batches(TINY, forward.image_block(TINY))
    settings = dict(training.ADAPTER, target_modules=adapters.TEXT_LINEARS)
    torch.manual_seed(TINY.seed)  # PEFT's own initial values: A uniform, B zero
    adapters.make_adapter(load(), start, settings, None, TINY.name)
    golden = training.training_golden(load, start, batches)
    rounding = training.sensitivity(load, start, batches, golden)
    for number, batch in enumerate(batches):
        golden |= {f"batch{number}.{name}": value for name, value in batch.items()}
    store.save_tensors(folder / "train" / "golden.safetensors", golden)
    write_json(folder / "train" / "golden.json", {
        "settings": training.SETTINGS, "float64_difference": rounding,
        **training.schedule_values()})


def make_methods():
    """Adapters that own more than A and B, a DoRA run, what PiSSA begins with."""
    folder = FIXTURES / TINY.name
    load = functools.partial(models.load, folder)
    golden = adapters.all_goldens(load, folder / "methods", forward.make_batch(TINY),
                                  TINY.seed + 200, TINY.name, adapters.METHODS)
    golden |= adapters.initial_deltas(load(), adapters.METHODS["pissa"])
    store.save_tensors(folder / "methods" / "golden.safetensors", golden)
    batches = training.make_batches(TINY, forward.image_block(TINY))
    start = folder / "methods" / "dora_start"
    torch.manual_seed(TINY.seed + 1)
    settings = dict(training.ADAPTER, use_dora=True, target_modules=adapters.TEXT_LINEARS)
    adapters.make_adapter(load(), start, settings, None, TINY.name)
    store.save_tensors(folder / "methods" / "dora_run.safetensors",
                       training.dora_golden(load, start, batches))


def make_tied():
    """Adapters on embeddings and output heads, and on modules chosen in PEFT's other ways."""
    folder = FIXTURES / ODD.name
    kinds = adapters.TIED | adapters.CHOICES
    golden = adapters.short_goldens(functools.partial(models.load, folder), folder / "adapters",
                                    forward.make_batch(ODD), ODD.seed + 100, ODD.name, kinds)
    store.save_tensors(folder / "adapters" / "golden.safetensors", golden)
    batches = training.make_batches(ODD, forward.image_block(ODD))
    runs = {f"batch{number}.{name}": value for number, batch in enumerate(batches) for name, value in batch.items()}
    for kind in adapters.TIED:
        model = PeftModel.from_pretrained(models.load(folder), folder / "adapters" / kind, is_trainable=True)
        record = training.run(model, batches, 6)
        runs |= {f"{kind}.{name}": value for name, value in record.items()}
    store.save_tensors(folder / "adapters" / "runs.safetensors", runs)


def make_optimizers():
    """Optimizers, schedules and quantized weights; the last need bitsandbytes."""
    import bitsandbytes
    folder = FIXTURES / "optimizers"
    folder.mkdir(exist_ok=True)
    values = optimizers.start_values()
    store.save_tensors(folder / "golden.safetensors", {
        **values, **optimizers.torch_golden(values),
        **optimizers.adamw_8bit_golden(bitsandbytes, values)})
    store.save_tensors(folder / "nf4.safetensors", optimizers.nf4_golden(bitsandbytes))
    write_json(folder / "schedules.json", optimizers.schedule_values())


def make_pictures():
    """PNG files for whole-path tests, then the processor's and the resampler's goldens."""
    folder = FIXTURES / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, size) in enumerate({"square": (32, 32), "wide": (30, 84),
                                         "tall": (90, 28)}.items()):
        pictures.scene(*size, seed).save(folder / f"{name}.png", optimize=True)
    for name, make in (("image_processor", pictures.processor_golden),
                       ("resize", pictures.resize_golden)):
        tensors, records = make()
        (FIXTURES / name).mkdir(exist_ok=True)
        store.save_tensors(FIXTURES / name / "golden.safetensors", tensors)
        write_json(FIXTURES / name / "golden.json", records)


def make_prompts():
    for spec in (TINY, ODD, IDEFICS3):
        folder = FIXTURES / spec.name
        processor = prompts.make_processor(spec, folder)
        write_json(folder / "golden.json", {
            "tokens_per_image": spec.tokens_per_image,
            "parameters": sum(p.numel() for p in models.load(folder).parameters()),
            "conversations": prompts.conversation_golden(processor, FIXTURES / "pictures"),
            "generate": prompts.generate_golden(models.load(folder), processor,
                                                FIXTURES / "pictures")})


def make_videos():
    """Frame sampling, the video processor, and prompts of clips with smolvlm_tiny's tokenizer."""
    folder = FIXTURES / "video"
    folder.mkdir(exist_ok=True)
    write_json(folder / "sampling.json", videos.sampling_golden())
    tensors, records = videos.processor_golden()
    store.save_tensors(folder / "processor.safetensors", tensors)
    write_json(folder / "processor.json", records)
    processor = videos.make_processor(TINY, FIXTURES / TINY.name)
    write_json(folder / "prompts.json", videos.prompt_golden(processor))


def make_decoding():
    """Logits processors on random scores; beam search of two checkpoints."""
    folder = FIXTURES / "decoding"
    folder.mkdir(exist_ok=True)
    tensors, records = decoding.processor_golden()
    store.save_tensors(folder / "processors.safetensors", tensors)
    write_json(folder / "processors.json", records)
    for spec in (TINY, ODD):
        processor = prompts.make_processor(spec, FIXTURES / spec.name)
        write_json(folder / f"beams_{spec.name}.json", decoding.beam_golden(
            models.load(FIXTURES / spec.name), processor, FIXTURES / "pictures", spec.seed))


def make_odd():
    folder, _, _, golden = model_fixture(ODD)
    assert "lm_head.weight" not in models.stored_shapes(folder)
    golden.pop("greedy_logits")
    store.save_tensors(folder / "golden.safetensors", golden)


def make_idefics3():
    folder, _, _, golden = model_fixture(IDEFICS3)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) in (2, 3), shards
    golden.pop("greedy_logits")
    store.save_tensors(folder / "golden.safetensors", golden)


def make_text_models():
    """Decoders without pictures, each with its tokenizer, an adapter and what transformers gives."""
    for spec in text_models.SPECS:
        folder = text_models.save(spec, FIXTURES / spec.name)
        store.save_tensors(folder / "golden.safetensors", text_models.golden(spec, folder))
        write_json(folder / "golden.json", text_models.chat_golden(spec, folder))


def make_rotary():
    """cos and sin of every kind of rotary positions."""
    folder = FIXTURES / "rotary"
    folder.mkdir(exist_ok=True)
    store.save_tensors(folder / "golden.safetensors", rotary.golden())


def make_qwen_vl():
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures of two sizes, a clip, whole tensors of every stage."""
    for spec in qwen_vl.SPECS:
        folder = qwen_vl.save(spec, FIXTURES / spec.name)
        store.save_tensors(folder / "golden.safetensors", qwen_vl.golden(spec, folder))


def make_internvl():
    """InternVL as on the hub and as transformers 5 saves it: pictures of three sizes, a clip, whole tensors of every stage."""
    for spec in internvl.SPECS:
        folder = internvl.save(spec, FIXTURES / spec.name)
        store.save_tensors(folder / "golden.safetensors", internvl.golden(spec, folder))


def make_internvl_chat():
    """InternVL in the original layout: the "-hf" layout's keys converted back, and what that layout's model computes."""
    for spec in internvl_chat.SPECS:
        with tempfile.TemporaryDirectory() as scratch:
            folder, other = FIXTURES / spec.name, Path(scratch) / "hf"
            internvl_chat.save(spec, folder, other)
            store.save_tensors(folder / "golden.safetensors", internvl_chat.golden(spec, folder, other))


def make_granite():
    """No tensors of the graph, which is that of idefics3_tiny: prompts and answers with kept special tokens."""
    folder = models.save(GRANITE, FIXTURES / GRANITE.name)
    assert "lm_head.weight" not in models.stored_shapes(folder)
    processor = prompts.make_processor(GRANITE, folder)
    write_json(folder / "golden.json", {
        "conversations": prompts.conversation_golden(processor, FIXTURES / "pictures"),
        "generate": prompts.generate_golden(models.load(folder), processor, FIXTURES / "pictures", 24, True)})


PARTS = {
    "pictures": make_pictures,
    "smolvlm_tiny": make_tiny,
    "smolvlm_odd": make_odd,
    "idefics3_tiny": make_idefics3,
    "granite_tiny": make_granite,
    "prompts": make_prompts,
    "decoding": make_decoding,
    "videos": make_videos,
    "methods": make_methods,
    "tied": make_tied,
    "optimizers": make_optimizers,
    "text_models": make_text_models,
    "rotary": make_rotary,
    "qwen_vl": make_qwen_vl,
    "internvl": make_internvl,
    "internvl_chat": make_internvl_chat,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME",
                        help="parts to make, default all: " + ", ".join(PARTS))
    names = parser.parse_args().names or list(PARTS)
    if unknown := set(names) - set(PARTS):
        parser.error(f"no part is called {', '.join(sorted(unknown))}")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in names:
        PARTS[name]()
        print("made", name)


if __name__ == "__main__":
    main()
