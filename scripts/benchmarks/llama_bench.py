"""llama.cpp measured by its own programs on the GGUF files that `vlm export` makes of a checkpoint.

LlamaCpp(...).repeat() gives one turn's figures: prefill and decoding by llama-bench, a tile by llama-mtmd-cli, which
shows any picture as at least a tile and the whole, so the time is that of the median one.
"""
import json
import re
import statistics
import subprocess

from . import llama_cpp
from .machine import environment
from .program import PROGRAM

# --dtype of vlm → the type of a file with the same bits
SAME_BITS = {"auto": "bf16", "bfloat16": "bf16", "float32": "f32", "int8": "q8_0", "int4": "q4_0"}
# bits of a matrix's weight, and of the head's
BITS = {"f32": (32, 32), "bf16": (16, 16), "q8_0": (8.5, 8.5), "q4_0": (4.5, 8.5)}


def run(threads, *command):
    # A random model's bytes are no text.
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, errors="replace",
                          env=environment(threads))
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: exit status {done.returncode}: {done.stderr[-500:]}")
    return done


def export(folder, kind, threads):
    """-> the text model's file and the encoder's; made once, beside the checkpoint."""
    output = folder.with_name(folder.name + "-gguf")
    files = [output / f"{folder.name}-{kind}.gguf", output / f"mmproj-{folder.name}-{kind}.gguf"]
    if not all(path.exists() for path in files):
        run(threads, PROGRAM, "export", folder, "--type", kind, "--name", folder.name, "--output", output,
            "--threads", threads)
    return files


class LlamaCpp:
    def __init__(self, options, folder, picture, prompt, kind):
        self.threads, self.tokens, self.picture, self.prompt = options.threads, options.tokens, picture, prompt
        self.model, self.encoder = export(folder, kind, options.threads)

    def bench(self, *options):
        """Tokens a second of each length asked for."""
        done = run(self.threads, llama_cpp.program("llama-bench"), "-m", self.model, "-t", self.threads, "-r", 1,
                   "-o", "json", *options)
        return [row["avg_ts"] for row in json.loads(done.stdout)]

    def encode(self):
        # At the fourth level of its log it tells how long each slice took.
        done = run(self.threads, llama_cpp.program("llama-mtmd-cli"), "-m", self.model, "--mmproj", self.encoder,
                   "--image", self.picture, "-p", self.prompt, "-n", 1, "--temp", 0, "-t", self.threads, "-c", 4096, "-lv", 4)
        found = re.findall(r"(?:slice encoded|encoding done) in (\d+) ms", done.stdout + done.stderr)
        if not found:
            raise RuntimeError(f"llama-mtmd-cli tells no time: {(done.stdout + done.stderr)[-500:]}")
        return statistics.median(int(ms) for ms in found) / 1e3

    def repeat(self, prompt_tokens):
        """`prompt_tokens`: of the prompts with "small" and "large" pictures."""
        lengths = [prompt_tokens["small"], prompt_tokens["large"]]
        small, large = self.bench("-p", ",".join(map(str, lengths)), "-n", 0)
        (decode,) = self.bench("-p", 0, "-n", self.tokens, "-d", lengths[0])
        return {"encode_small_s": self.encode(), "prefill_small_s": lengths[0] / small,
                "prefill_large_s": lengths[1] / large, "decode_tok_s": decode}


def decode_bytes(counted, kind):
    """Bytes of weights that a token reads."""
    matrix, head = BITS[kind]
    return ((counted["decode_weights"] - counted["head_weights"]) * matrix + counted["head_weights"] * head) / 8
