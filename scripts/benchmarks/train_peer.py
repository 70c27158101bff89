"""transformers + PEFT training in a process of its own: python -m benchmarks.train_peer JOB.

JOB is a JSON object: model, data (JSONL of messages and images), batch, steps, threads, r, alpha,
targets (regular expression), learning_rate, dtype (of the base). It prints one JSON line with first_step_s
(from the start of the process to the end of the first step), step_s and losses of each step, and
peak_mb. The loop is the plainest one that does the work: no Trainer, no data loader, pictures
processed in the loop and timed with it; the loss is on the answers, as vlm's.
"""
import json
import sys
import time
from pathlib import Path

START = time.perf_counter()


def read_rows(path):
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        pictures = [str((Path(path).parent / name).resolve()) for name in row["images"]]
        yield row["messages"], pictures


def make_batch(processor, rows):
    """Padded on the right, labels on the assistant's turns alone."""
    import torch
    from PIL import Image
    texts, pictures, starts = [], [], []
    for messages, paths in rows:
        images = [Image.open(path).convert("RGB") for path in paths]
        pictures.append(images)
        texts.append(processor.apply_chat_template(messages, tokenize=False))
        question = processor.apply_chat_template(messages[:-1], tokenize=False,
                                                 add_generation_prompt=True)
        prompt = processor(text=[question], images=[images], return_tensors="pt")
        starts.append(prompt["input_ids"].shape[1])
    inputs = processor(text=texts, images=pictures, return_tensors="pt", padding=True,
                       padding_side="right")
    labels = inputs["input_ids"].clone()
    for row, start in enumerate(starts):
        labels[row, :start] = -100
        real = inputs["attention_mask"][row].nonzero().max() + 1
        labels[row, real - 1:] = -100  # padding, and the line break behind the last turn
    inputs["labels"] = labels
    return inputs, int((labels[:, 1:] != -100).sum()), torch


def peak_mb():
    """Of this process alone; getrusage's figure may be the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def main():
    job = json.loads(sys.argv[1])
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText, AutoProcessor
    torch.set_num_threads(job["threads"])
    torch.manual_seed(0)
    processor = AutoProcessor.from_pretrained(job["model"])
    base = AutoModelForImageTextToText.from_pretrained(
        job["model"], dtype=getattr(torch, job["dtype"]), attn_implementation="sdpa")
    base.config.use_cache = False
    model = get_peft_model(base, LoraConfig(
        r=job["r"], lora_alpha=job["alpha"], lora_dropout=0.0, target_modules=job["targets"]))
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=job["learning_rate"], weight_decay=0.0)
    rows = list(read_rows(job["data"]))
    times, losses, first = [], [], None
    for step in range(job["steps"]):
        begin = time.perf_counter()
        at = step * job["batch"] % len(rows)
        inputs, labels, _ = make_batch(processor, rows[at:at + job["batch"]])
        loss = model(**inputs, num_items_in_batch=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        times.append(time.perf_counter() - begin)
        first = first or time.perf_counter() - START
    print(json.dumps({"first_step_s": first, "step_s": times, "losses": losses,
                      "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
