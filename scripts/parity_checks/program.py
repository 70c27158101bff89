"""The program under test, and the checkpoints that it is compared on."""
import json
import subprocess
from pathlib import Path

import torch
from oracle import dialogues, models, prompts, text
from peft import PeftModel

ROOT = Path(__file__).resolve().parent.parent.parent
MAX_NEW_TOKENS = 12
PRECISION = ["--device", "cpu", "--dtype", "float32"]

SPECS = [
    models.Spec(
        "gqa_scale2", seed=201, scale_factor=2, longest_edge=80,
        vision=dict(hidden_size=40, intermediate_size=72, num_hidden_layers=3,
                    num_attention_heads=5, image_size=40, patch_size=10),
        text=dict(hidden_size=64, intermediate_size=88, num_hidden_layers=3,
                  num_attention_heads=8, num_key_value_heads=4, head_dim=10,
                  rope_theta=50000.0)),
    models.Spec(
        "tied_scale4", seed=202, scale_factor=4, longest_edge=102, tied=True, vocab_size=416,
        shard_size="150KB", jinja_template=True,
        vision=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=1, image_size=34, patch_size=4),
        text=dict(hidden_size=56, intermediate_size=64, num_hidden_layers=4,
                  num_attention_heads=7, num_key_value_heads=7, head_dim=8, rope_theta=1e5)),
    models.Spec(
        "idefics3_scale3", seed=203, scale_factor=3, longest_edge=72, family="idefics3",
        dtype=torch.bfloat16, published_config=True,
        vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                    num_attention_heads=3, image_size=36, patch_size=4),
        text=dict(hidden_size=32, intermediate_size=72, num_hidden_layers=3,
                  num_attention_heads=4, num_key_value_heads=1, head_dim=10,
                  rope_theta=273768.0)),
    models.Spec(
        "granite_scale2", seed=204, scale_factor=2, longest_edge=96, family="idefics3", tied=True,
        granite=True, vocab_size=text.VOCAB - 1, dtype=torch.bfloat16, published_config=True,
        jinja_template=True,
        vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                    num_attention_heads=3, image_size=32, patch_size=8),
        text=dict(hidden_size=48, intermediate_size=72, num_hidden_layers=3,
                  num_attention_heads=6, num_key_value_heads=2, head_dim=8, rope_theta=1e5)),
]


class Program:
    """The binary under test."""

    def __init__(self, binary):
        self.binary = binary

    def run(self, *arguments):
        command = [str(self.binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"vlm {arguments[0]} exit {done.returncode}: {done.stderr[-250:]}")
        return done.stdout

    def generate(self, model, question, system=None, pictures=(), adapter=None, options=()):
        arguments = ["--model", model, "--prompt", question, "--format", "json",
                     "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION, *options]
        arguments += ["--adapter", adapter] if adapter else []
        arguments += ["--system", system] if system else []
        for path in pictures:
            arguments += ["--image", path]
        return json.loads(self.run("generate", *arguments).strip().splitlines()[-1])

    def finetune(self, config_path):
        """The rows of metrics.jsonl that have a training loss."""
        self.run("finetune", config_path, *PRECISION)
        output = Path(json.loads(config_path.read_text())["output_dir"])
        rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
        return [row for row in rows if "loss" in row]


class Case:
    """One checkpoint with its processor and pictures."""

    def __init__(self, spec, work):
        self.spec = spec
        self.folder = models.save(spec, work / spec.name)
        self.processor = prompts.make_processor(spec, self.folder)
        self.pictures = dialogues.write_pictures(work / "pictures")

    def load(self, adapter=None):
        base = models.load(self.folder)
        if self.spec.granite:
            # Its end of text is the padding token, too, whose row transformers doesn't train where it is looked up.
            base.get_input_embeddings().padding_idx = None
        return PeftModel.from_pretrained(base, adapter).eval() if adapter else base

    def answer(self, model, question, system=None, names=()):
        prompt = self.processor.apply_chat_template(
            prompts.chat(question, system, len(names)), add_generation_prompt=True,
            tokenize=False)
        answer = prompts.answer(model, self.processor, prompt,
                                prompts.open_pictures(self.pictures, names), MAX_NEW_TOKENS)
        assert answer["margin"] > 1e-3, "two tokens too close to call: change the seed"
        return answer
