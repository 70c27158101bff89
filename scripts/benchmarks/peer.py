"""transformers measured in a process of its own, which does one measurement when it is asked.

with Running(job) as peer: peer.first_token_s is the time from process start to the first token;
peer.measure("small" | "large" | "folder") gives one run's figures. JOB is a JSON object: model,
one_tile, pictures, prompt, threads, dtype, tokens. So runs of both sides can take turns, and a
machine whose speed drifts treats them alike.
"""
import json
import resource
import subprocess
import sys
import time

from .machine import environment


class Running:
    def __init__(self, job):
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peer", json.dumps(job)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, env=environment(job["threads"]))
        self.load_s = self.read()["load_s"]
        self.first_token_s = time.perf_counter() - start

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"transformers: exit status {self.process.wait()}")
        return json.loads(line)

    def measure(self, what):
        print(what, file=self.process.stdin, flush=True)
        return self.read()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


class Peer:
    def __init__(self, job):
        import torch
        from PIL import Image
        from transformers import AutoModelForImageTextToText, AutoProcessor
        self.torch, self.job, self.auto = torch, job, AutoProcessor
        torch.set_num_threads(job["threads"])
        self.pictures = [Image.open(path).convert("RGB") for path in job["pictures"]]
        start = time.perf_counter()
        self.model = AutoModelForImageTextToText.from_pretrained(
            job["one_tile"], dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa").eval()
        self.load_s = time.perf_counter() - start

    def inputs(self, folder, pictures):
        processor = self.auto.from_pretrained(folder)
        message = {"role": "user", "content": [{"type": "image"},
                                               {"type": "text", "text": self.job["prompt"]}]}
        text = processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False)
        inputs = processor(text=[text] * len(pictures), images=[[p] for p in pictures],
                           return_tensors="pt", padding=True, padding_side="left")
        return inputs.to(dtype=self.model.dtype)

    def timed(self, function):
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    def generate(self, inputs, tokens):
        return self.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens,
                                   do_sample=False)

    def encode(self, inputs):
        seen = {key: inputs[key] for key in ("pixel_values", "pixel_attention_mask", "image_grid_thw")
                if key in inputs}
        return self.model.model.get_image_features(**seen, return_dict=True)

    def measure_prompt(self, folder, decodes):
        """Encoding and prefill of one picture, and where asked the tokens a second after that."""
        inputs = self.inputs(folder, self.pictures[:1])
        features = []
        figures = {"encode_s": self.timed(lambda: features.append(self.encode(inputs)))}

        def encoded():  # the prompt with its picture's features instead of pixels
            rest = {key: value for key, value in inputs.items() if not key.startswith("pixel_")}
            return {**rest, "mm_encoder_outputs": {"image": features[0]}}

        figures["prefill_s"] = self.timed(
            lambda: self.model(**encoded(), use_cache=True, logits_to_keep=1))
        if decodes:
            tokens = self.job["tokens"]
            first = self.timed(lambda: self.generate(encoded(), 1))
            longer = self.timed(lambda: self.generate(encoded(), tokens + 1))
            figures["decode_tok_s"] = tokens / (longer - first)
        return {**figures, "peak_mb": peak_mb()}

    def measure(self, what):
        if what == "folder":
            return {"s": self.timed(lambda: self.generate(
                self.inputs(self.job["one_tile"], self.pictures), self.job["tokens"]))}
        folder = self.job["one_tile" if what == "small" else "model"]
        return self.measure_prompt(folder, decodes=what == "small")


def main():
    peer = Peer(json.loads(sys.argv[1]))
    with peer.torch.inference_mode():
        peer.generate(peer.inputs(peer.job["one_tile"], peer.pictures[:1]), 1)
        print(json.dumps({"load_s": peer.load_s}), flush=True)
        for line in sys.stdin:
            print(json.dumps(peer.measure(line.strip())), flush=True)


if __name__ == "__main__":
    main()
