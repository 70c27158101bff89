"""Compares checkpoints in few bits live with other programs (use scripts/parity_quantized).

`vlm quantize`: transformers with compressed-tensors loads the folder, its decompressed weights equal those that
`vlm merge --dtype float32` makes of the same folder, and logits are near those of these numbers. `vlm export`: the package
gguf reads both files; its numbers equal those of the model that was exported, those of Q8_0 to the bit as the package
quantizes, and `vlm merge` of the file gives them under Hugging Face's names. Prints a table; the exit status is 1 when
anything failed.
"""
import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import gguf
import numpy as np
import torch
from compressed_tensors.compressors import BaseCompressor
from parity_checks.command import Command
from parity_checks.report import Report
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
MODELS = {"easy-vqa-emoji": ROOT / "models" / "easy-vqa-emoji", "smolvlm_tiny": ROOT / "tests" / "fixtures" / "smolvlm_tiny",
          "llama_tiny": ROOT / "tests" / "fixtures" / "llama_tiny", "qwen2_tiny": ROOT / "tests" / "fixtures" / "qwen2_tiny"}
TYPES = ["f32", "f16", "bf16", "q8_0", "q4_0", "iq4_nl"]


class Runner(Command):
    def numbers(self, model, name):
        """The model's weights as `vlm` decodes them, by Hugging Face's names."""
        folder = self.work / "numbers" / name
        self.run("merge", "--model", model, "--dtype", "float32", "--output", folder)
        return load_file(folder / "model.safetensors")


def check_saved(report, title, runner, name, folder, dtype):
    saved = runner.work / "saved" / f"{name}-{dtype}"
    runner.run("quantize", folder, "--dtype", dtype, "--output", saved)
    ours = runner.numbers(saved, saved.name)
    kind = AutoModelForImageTextToText if (folder / "preprocessor_config.json").exists() else AutoModelForCausalLM
    model = kind.from_pretrained(saved, dtype=torch.float32)
    layers = 0
    for module_name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is None:
            continue
        layers += 1
        state = {key: value for key, value in module.state_dict().items() if key.startswith("weight")}
        theirs = BaseCompressor.get_value_from_registry(scheme.format).decompress(state, scheme)["weight"]
        assert torch.equal(ours[f"{module_name}.weight"], theirs.float()), f"{module_name} differs"
    packed = [key for key in load_file(saved / "model.safetensors") if key.endswith(".weight_scale")]
    assert layers == len(packed) > 0, f"{layers} layers of {len(packed)}"
    tokenizer = AutoTokenizer.from_pretrained(saved)
    ids = tokenizer("What color is the circle in the picture?", return_tensors="pt").input_ids
    plain = kind.from_pretrained(runner.work / "numbers" / saved.name, dtype=torch.float32)
    with torch.no_grad():
        found, wanted = (one(input_ids=ids).logits for one in (model, plain))
    difference = ((found - wanted).norm() / wanted.norm()).item()
    assert difference < 0.1, f"logits differ by {difference:.3f}"
    report.add(title, True, f"{layers} layers equal, logits within {difference:.4f} of those of the numbers")


def permute(weight, heads):
    """Rows of q and k in the order of llama.cpp."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.transpose(1, 2).reshape(weight.shape)


def check_export(report, title, runner, name, folder, kind):
    output = runner.work / "gguf" / f"{name}-{kind}"
    runner.run("export", folder, "--type", kind, "--name", name, "--output", output)
    files = sorted(output.glob("*.gguf"))
    model = next(path for path in files if not path.name.startswith("mmproj"))
    ours = runner.numbers(model, f"gguf-{name}-{kind}")
    original = runner.numbers(folder, f"original-{name}-{kind}")
    assert ours.keys() == original.keys(), "keys differ"
    counts = {}
    for path in files:
        for tensor in gguf.GGUFReader(path).tensors:
            counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
            shape = tuple(int(side) for side in reversed(tensor.shape))
            values = torch.from_numpy(values.copy()).reshape(shape)
            same = [key for key, one in ours.items() if one.shape == values.shape and matches(one, values, tensor.name, runner)]
            if tensor.name != "rope_freqs.weight":
                assert same, f"{tensor.name} isn't among ours"
            if tensor.tensor_type.name == "Q8_0":
                source = original[same[0]]
                source = source if torch.equal(ours[same[0]], values) else permute(source, heads_of(ours[same[0]], values))
                wanted = gguf.quants.quantize(source.numpy(), tensor.tensor_type)
                assert np.array_equal(wanted, tensor.data.reshape(wanted.shape)), f"{tensor.name}: other codes"
    report.add(title, True, ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())))


def heads_of(one, values):
    """The number of heads by which rows of `one` must be permuted to be `values`; 0: there is none."""
    return next((heads for heads in range(1, one.shape[0] // 2 + 1)
                 if one.shape[0] % (2 * heads) == 0 and torch.equal(permute(one, heads), values)), 0)


def matches(one, values, name, runner):
    if torch.equal(one, values):
        return True
    return (".attn_q." in name or ".attn_k." in name) and heads_of(one, values) > 0


def check_converter(report, title, runner, name, folder, pre, is_encoder):
    """Every tensor of our file in float32 as in the one that llama.cpp's converter makes."""
    output = runner.work / "converted" / name
    output.mkdir(parents=True, exist_ok=True)
    file = output / ("mmproj.gguf" if is_encoder else "model.gguf")
    command = [sys.executable, ROOT / "scripts" / "oracle" / "llama_cpp_convert.py", folder, file]
    done = subprocess.run(command + (["--mmproj"] if is_encoder else []), capture_output=True, text=True, timeout=600,
                          env=os.environ | {"TOKENIZER": pre})
    assert done.returncode == 0, done.stderr[-300:]
    runner.run("export", folder, "--type", "f32", "--name", name, "--output", output)
    ours = output / f"{'mmproj-' if is_encoder else ''}{name}-f32.gguf"
    theirs, found = ({tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors} for path in (file, ours))
    assert theirs.keys() == found.keys(), f"tensors differ: {theirs.keys() ^ found.keys()}"
    for key, tensor in theirs.items():
        same = np.array_equal(tensor.shape, found[key].shape) and tensor.tensor_type == found[key].tensor_type
        assert same and np.allclose(tensor.data, found[key].data, rtol=2e-7, atol=0), f"{key} differs"
    fields, own = (gguf.GGUFReader(path).fields for path in (file, ours))
    free = ("general.name", "general.size_label", "general.license", "general.tags", "general.base", "GGUF.", "vlm.",
            "tokenizer.ggml.add_sep_token", "general.finetune", "general.basename")
    for key in sorted(fields.keys()):
        if not key.startswith(free):
            assert key in own and own[key].contents() == fields[key].contents(), f"{key} differs"
    report.add(title, True, f"{len(theirs)} tensors and {len(fields)} keys")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "build" / "vlm")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "parity_quantized", help="emptied first")
    parser.add_argument("--only", default="", help="run the parts whose title contains this")
    options = parser.parse_args()
    if not options.binary.is_file():
        sys.exit(f"parity: {options.binary} is missing: run scripts/build first")
    torch.set_num_threads(1)
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    runner, report = Runner(options.binary.resolve(), options.work.resolve()), Report()
    jobs = {f"quantize {name} {dtype}": (check_saved, runner, name, folder, dtype)
            for name, folder in MODELS.items() for dtype in ("int8", "int4")}
    jobs |= {f"export {name} {kind}": (check_export, runner, name, folder, kind)
             for name, folder in MODELS.items() for kind in TYPES}
    jobs |= {f"converter of llama.cpp {name}": (check_converter, runner, name, MODELS[name], pre, is_encoder)
             for name, pre, is_encoder in [("llama_tiny", "llama-bpe", False), ("qwen2_tiny", "qwen2", False),
                                           ("smolvlm_tiny", "smollm", True), ("easy-vqa-emoji", "smollm", True)]}
    for title, (function, *arguments) in jobs.items():
        if options.only in title:
            report.attempt(title, function, *arguments)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
