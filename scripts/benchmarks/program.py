"""build/vlm measured through its command line, as a user can repeat it."""
import json
import subprocess
import tempfile
import time
from pathlib import Path

from .machine import environment

PROGRAM = Path(__file__).resolve().parent.parent.parent / "build" / "vlm"


class Program:
    def __init__(self, threads, dtype="auto"):
        self.threads = threads
        self.options = ["--device", "cpu", "--dtype", dtype, "--threads", str(threads),
                        "--log-level", "error"]

    def generate(self, model, picture, prompt, tokens):
        """The JSON that the command prints, and `first_line_s`: process start to that line."""
        command = [PROGRAM, "generate", "--model", model, "--image", picture, "--prompt", prompt,
                   "--max-new-tokens", tokens, "--format", "json", *self.options]
        start = time.perf_counter()
        with subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True,
                              env=environment(self.threads)) as process:
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
        if process.returncode != 0:
            raise RuntimeError(f"vlm generate: exit status {process.returncode}")
        return {**json.loads(line), "first_line_s": seconds}

    def caption_twice(self, model, folder, prompt, tokens):
        """Seconds of two whole runs over a folder, the second with the first's feature cache."""
        with tempfile.TemporaryDirectory() as scratch:
            return [self._caption(scratch, f"{scratch}/rows{turn}.jsonl", model, folder, prompt, tokens)
                    for turn in range(2)]

    def _caption(self, cache, output, model, folder, prompt, tokens):
        command = [PROGRAM, "caption", folder, "--model", model, "--prompt", prompt,
                   "--output", output, "--max-new-tokens", tokens, "--feature-cache", cache,
                   *self.options]
        start = time.perf_counter()
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                              env=environment(self.threads))
        if done.returncode != 0:
            raise RuntimeError(f"vlm caption: {done.stderr.strip()}")
        return time.perf_counter() - start
