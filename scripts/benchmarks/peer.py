"""transformers measured in a process of its own.

`python -m benchmarks.peer JOB` with JOB a JSON object: model, one_tile, pictures, prompt, threads,
dtype, repeat, tokens. Prints one line when the first token is there and one with every figure.
"""
import json
import resource
import statistics
import subprocess
import sys
import time

from .machine import environment


def run(job):
    """-> the figures, with `first_token_s`: process start to first token."""
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "benchmarks.peer", json.dumps(job)],
                          stdout=subprocess.PIPE, text=True,
                          env=environment(job["threads"])) as process:
        first = process.stdout.readline()
        seconds = time.perf_counter() - start
        figures = process.stdout.readline()
    if process.returncode != 0 or not first or not figures:
        raise RuntimeError(f"transformers: exit status {process.returncode}")
    return {**json.loads(figures), "first_token_s": seconds}


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

    def median(self, function, repeat=None):
        times = []
        for _ in range(repeat or self.job["repeat"]):
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def generate(self, inputs, tokens):
        return self.model.generate(**inputs, max_new_tokens=tokens, min_new_tokens=tokens,
                                   do_sample=False)

    def encode(self, inputs):
        return self.model.model.get_image_features(
            inputs["pixel_values"], inputs.get("pixel_attention_mask"), return_dict=True)

    def measure_prompt(self, folder):
        """(encode, prefill, decode tokens/s or None) of one picture."""
        inputs = self.inputs(folder, self.pictures[:1])
        features = self.encode(inputs)
        encode = self.median(lambda: self.encode(inputs))

        def encoded():  # the prompt with its picture's features instead of pixels
            return {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"],
                    "mm_encoder_outputs": {"image": features}}

        prefill = self.median(
            lambda: self.model(**encoded(), use_cache=True, logits_to_keep=1))
        decode = None
        if folder == self.job["one_tile"]:
            tokens = self.job["tokens"]
            longer = self.median(lambda: self.generate(encoded(), tokens + 1))
            decode = tokens / (longer - self.median(lambda: self.generate(encoded(), 1)))
        return encode, prefill, decode

    def caption_all(self):
        self.generate(self.inputs(self.job["one_tile"], self.pictures), self.job["tokens"])

    def measure(self):
        figures = {"load_s": self.load_s, "peak_mb_start": peak_mb()}
        one = self.measure_prompt(self.job["one_tile"])
        figures |= dict(zip(("encode_1_s", "prefill_1_s", "decode_tok_s"), one))
        figures["peak_mb_1"] = peak_mb()
        figures["folder_pic_s"] = len(self.pictures) / self.median(self.caption_all)
        figures["encode_17_s"], figures["prefill_17_s"], _ = self.measure_prompt(self.job["model"])
        figures["peak_mb_17"] = peak_mb()
        return figures


def main():
    job = json.loads(sys.argv[1])
    peer = Peer(job)
    with peer.torch.inference_mode():
        peer.generate(peer.inputs(job["one_tile"], peer.pictures[:1]), 1)
        print("first", flush=True)
        print(json.dumps(peer.measure()), flush=True)


if __name__ == "__main__":
    main()
