"""Seconds and memory of a vlm program on a GPU, on random weights of published shapes; beside transformers and PEFT where
they are installed. Used by gpu_check.py; torch is needed."""
import gc
import json
import re
import shutil
import struct
import time

import torch
from benchmarks.shapes import HEAD_DIM, MAX_POSITIONS, SHAPES, VOCAB

TOKENS = 128          # of an answer
STEPS, UNCOUNTED = 12, 4
PICTURES = 32         # of a folder
LEARNING_RATE = 1e-4


def device_name():
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "a CPU"


def tensor_shapes(shape):
    """Name → shape of every weight of a SmolVLM."""
    vision, text = shape["vision"], shape["text"]
    width, patch = vision["hidden_size"], vision["patch_size"]
    shapes = {"model.vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
              "model.vision_model.embeddings.patch_embedding.bias": (width,),
              "model.vision_model.embeddings.position_embedding.weight": ((vision["image_size"] // patch) ** 2, width)}

    def norm(name, size, has_bias):
        shapes[f"{name}.weight"] = (size,)
        if has_bias:
            shapes[f"{name}.bias"] = (size,)

    def linear(name, rows, columns, has_bias):
        shapes[f"{name}.weight"] = (rows, columns)
        if has_bias:
            shapes[f"{name}.bias"] = (rows,)

    inner = vision["intermediate_size"]
    for i in range(vision["num_hidden_layers"]):
        block = f"model.vision_model.encoder.layers.{i}"
        norm(f"{block}.layer_norm1", width, True)
        norm(f"{block}.layer_norm2", width, True)
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"{block}.self_attn.{name}", width, width, True)
        linear(f"{block}.mlp.fc1", inner, width, True)
        linear(f"{block}.mlp.fc2", width, inner, True)
    norm("model.vision_model.post_layernorm", width, True)
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    linear("model.connector.modality_projection.proj", hidden, width * shape["scale_factor"] ** 2, False)
    shapes["model.text_model.embed_tokens.weight"] = (VOCAB, hidden)
    for i in range(text["num_hidden_layers"]):
        block = f"model.text_model.layers.{i}"
        norm(f"{block}.input_layernorm", hidden, False)
        norm(f"{block}.post_attention_layernorm", hidden, False)
        for name, count in (("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads)):
            linear(f"{block}.self_attn.{name}", count * HEAD_DIM, hidden, False)
        linear(f"{block}.self_attn.o_proj", hidden, heads * HEAD_DIM, False)
        linear(f"{block}.mlp.gate_proj", inner, hidden, False)
        linear(f"{block}.mlp.up_proj", inner, hidden, False)
        linear(f"{block}.mlp.down_proj", hidden, inner, False)
    norm("model.text_model.norm", hidden, False)
    linear("lm_head", VOCAB, hidden, False)
    return shapes


def write_weights(path, shapes):
    """Random bfloat16 weights as safetensors."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            if len(shape) == 1:
                value = torch.full(shape, 0.0 if name.endswith("bias") else 1.0)
            else:
                value = torch.randn(shape, device=device) * 0.02
            file.write(value.to(torch.bfloat16).cpu().contiguous().view(torch.uint8).numpy().tobytes())


def make_checkpoint(folder, shape, tiny):
    """A model of this shape with the tokenizer of the tiny one; a picture is one tile."""
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("*.safetensors", "adapters", "golden*"))
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"].update(shape["vision"])
    config["text_config"].update(shape["text"], vocab_size=VOCAB, head_dim=HEAD_DIM, max_position_embeddings=MAX_POSITIONS)
    config.update(scale_factor=shape["scale_factor"], dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config))
    side = shape["vision"]["image_size"]
    tokens = (side // shape["vision"]["patch_size"] // shape["scale_factor"]) ** 2
    for name, change in (("processor_config.json", {"image_seq_len": tokens}),
                         ("preprocessor_config.json", {"do_image_splitting": False, "size": {"longest_edge": side},
                                                       "max_image_size": {"longest_edge": side}})):
        text = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**text, **change}))
    write_weights(folder / "model.safetensors", tensor_shapes(shape))


def read_bandwidth():
    """GB/s of reading the device's memory, the best of some sums over a gigabyte."""
    block = torch.ones(2**28, device="cuda")
    best = 0.0
    for _ in range(10):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        block.sum()
        torch.cuda.synchronize()
        best = max(best, block.numel() * 4 / (time.perf_counter() - begun) / 1e9)
    return best


class Speed:
    def __init__(self, program, name, folder, tiny, pictures):
        self.program, self.name, self.picture = program, name, pictures / "square.png"
        self.folder = folder / name
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = self.folder / "model"
        self.folder.mkdir()
        make_checkpoint(self.model, SHAPES[name], tiny)
        self.data = self.folder / "data.jsonl"
        row = {"image": str(self.picture), "prompt": "What is in the image?", "completion": "a" * 128}
        self.data.write_text((json.dumps(row) + "\n") * 64)
        self.many = self.folder / "pictures"
        self.many.mkdir()
        for i in range(PICTURES):
            (self.many / f"{i:03}.png").symlink_to(self.picture.resolve())
        shapes = tensor_shapes(SHAPES[name])
        self.text_bytes = 2 * sum(torch.Size(shape).numel() for key, shape in shapes.items()
                                  if key.startswith(("model.text_model.layers", "lm_head")))

    def answers(self):
        words = ["generate", "--model", self.model, "--image", self.picture, "--prompt", "What is in the image?",
                 "--max-new-tokens", TOKENS, "--format", "json", "--dtype", "bfloat16", "--device", self.device]
        timing = [json.loads(self.program.run(*words))["timing"] for _ in range(3)]
        result = {"vlm: a tile, ms": round(1000 * min(run["vision_s"] for run in timing), 1),
                  "vlm: prefill, ms": round(1000 * min(run["prefill_s"] for run in timing), 1),
                  "vlm: tokens/s": round(max(run["decode_tokens_per_s"] for run in timing), 1)}
        if self.device == "cuda":
            recorded = [json.loads(self.program.run(*words, "--cuda-graph"))["timing"] for _ in range(2)]
            result["vlm: tokens/s, recorded steps"] = round(max(run["decode_tokens_per_s"] for run in recorded), 1)
            share = self.text_bytes * result["vlm: tokens/s"] / 1e9 / read_bandwidth()
            result["vlm: share of the memory's bandwidth"] = f"{share:.0%}"
        begun = time.monotonic()
        self.program.run("caption", self.many, "--model", self.model, "--max-new-tokens", "32", "--batch-size", "8",
                         "--dtype", "bfloat16", "--device", self.device, "--output", self.folder / "rows.jsonl",
                         "--restart", "--feature-cache", "off")
        result["vlm: pictures/s of a folder, start included"] = round(PICTURES / (time.monotonic() - begun), 2)
        return result

    def training(self, method, batch):
        output = self.folder / f"{method}_{batch}"
        config = output.with_suffix(".json")
        config.write_text(json.dumps({
            "model_name_or_path": str(self.model), "train_files": [str(self.data)], "output_dir": str(output),
            "max_steps": STEPS, "logging_steps": 1, "learning_rate": LEARNING_RATE, "save_steps": 0, "method": method,
            "per_device_train_batch_size": batch, "feature_cache": "off", "lora_dropout": 0}))
        self.program.run("finetune", config, "--device", self.device, "--dtype", "bfloat16")
        rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "loss" in row]
        shutil.rmtree(output)
        seconds = (rows[-1]["seconds"] - rows[UNCOUNTED - 1]["seconds"]) / (STEPS - UNCOUNTED)
        label = f"vlm: {method}, batch {batch}"
        result = {f"{label}, s a step": round(seconds, 4)}
        if "peak_device_mb" in rows[-1]:
            result[f"{label}, peak MB"] = round(rows[-1]["peak_device_mb"])
        return result

    def transformers(self):
        """The same in transformers and PEFT, where they are installed."""
        self.program.clock.check()
        try:
            from transformers import AutoModelForImageTextToText
        except ImportError:
            return {"transformers": "isn't installed"}
        model = AutoModelForImageTextToText.from_pretrained(self.model, dtype=torch.bfloat16).to(self.device)
        config = model.config
        tokens = (config.vision_config.image_size // config.vision_config.patch_size // config.scale_factor) ** 2
        ids = torch.full((1, tokens + 32), 5, device=self.device)
        ids[:, 8:8 + tokens] = config.image_token_id
        size = config.vision_config.image_size
        pixels = torch.zeros((1, 1, 3, size, size), dtype=torch.bfloat16, device=self.device)
        inputs = dict(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels)

        def generate(count):
            if self.device == "cuda":
                torch.cuda.synchronize()
            begun = time.perf_counter()
            model.generate(**inputs, max_new_tokens=count, min_new_tokens=count, do_sample=False)
            return time.perf_counter() - begun

        generate(8)
        result = {"transformers: tokens/s": round((TOKENS - 1) / (generate(TOKENS) - generate(1)), 1)}
        self.program.clock.check()
        result |= self.peft(model, inputs)
        del model
        gc.collect()
        torch.cuda.empty_cache()
        return result

    def peft(self, model, inputs):
        try:
            from peft import LoraConfig, get_peft_model
        except ImportError:
            return {"PEFT": "isn't installed"}
        targets = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]
        tuned = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
        optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], LEARNING_RATE)
        ids = torch.cat([inputs["input_ids"], torch.full((1, 128), 6, device=self.device)], 1)
        batch = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
        begun = 0.0
        for step in range(STEPS):
            if step == UNCOUNTED:
                if self.device == "cuda":
                    torch.cuda.synchronize()
                begun = time.perf_counter()
            tuned(**batch).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()
        seconds = (time.perf_counter() - begun) / (STEPS - UNCOUNTED)
        result = {"PEFT: lora, batch 1, s a step": round(seconds, 4)}
        if self.device == "cuda":
            result["PEFT: lora, batch 1, peak MB"] = round(torch.cuda.max_memory_allocated() / 1e6)
        return result


def measure(program, shapes, folder, tiny, pictures):
    tables = []
    for name in shapes:
        program.clock.begin(name)
        table = {"what": f"{name}, bfloat16, one tile, {TOKENS} tokens"}
        speed = Speed(program, name, folder, tiny, pictures)
        for part in (speed.answers, lambda: speed.training("lora", 1), lambda: speed.training("lora", 4),
                     lambda: speed.training("qlora", 1), speed.transformers):
            try:
                table |= part()
            except Exception as error:  # one lacking figure doesn't cost the others
                table[f"failed: {len(table)}"] = re.sub(r"\s+", " ", str(error))[-300:]
            print(table, flush=True)
        tables.append(table)
        shutil.rmtree(speed.folder)
    return tables
