"""Writes tests/fixtures: tiny random checkpoints and golden tensors from transformers and PEFT.

    scripts/parity --venv-only                       # once: the pinned oracle packages
    .deps/parity-venv/bin/python scripts/make_fixtures.py [NAME...]

Everything is seeded: a second run on the same machine writes the same bytes. NAME picks parts
(see PARTS below). tests/fixtures/README.md lists every file and tensor.
"""
import argparse
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402

from oracle import adapters, forward, models, store  # noqa: E402

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
# more rows in the embedding than in the tokenizer.
ODD = models.Spec(
    "smolvlm_odd", seed=21, scale_factor=3, longest_edge=78, tied=True, vocab_size=403,
    jinja_template=True,
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
    lora = adapters.all_goldens(lambda: models.load(folder), folder / "adapters", batch,
                                TINY.seed + 100, TINY.name)
    store.save_tensors(folder / "adapters" / "golden.safetensors", lora)


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


PARTS = {
    "smolvlm_tiny": make_tiny,
    "smolvlm_odd": make_odd,
    "idefics3_tiny": make_idefics3,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *PARTS], help="parts (default: all)")
    names = parser.parse_args().names or list(PARTS)
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for name in names:
        PARTS[name]()
        print("made", name)


if __name__ == "__main__":
    main()
