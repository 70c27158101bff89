"""LoRA training of build/vlm beside transformers + PEFT (use scripts/bench train).

The 256M shapes with random weights (one tile a picture) and the small default model; the same
data, batch and adapters. Each row of the table is one way to do the same epochs: PEFT, its base in
each dtype asked for; vlm doing the same work; vlm with the pictures' features from its cache, as from the second epoch
on; and with the samples of a step packed into a row behind one copy of their picture. "Times PEFT" counts from the
quicker dtype, "of PEFT" from the smaller. Ours and theirs take turns; figures are medians over the steps of all turns, without the first two steps of
a process.
"""
import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import checkpoints, machine
from benchmarks.shapes import SHAPES
from oracle import pictures
from oracle.text import CORPUS

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build" / "vlm"
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
PATTERN = r".*text_model.*\.(" + "|".join(TARGETS) + ")"
LORA = {"r": 8, "lora_alpha": 16}
RATE = 1e-4

# name, whether the cache is filled beforehand, keys of the config
WAYS = [
    ("same work", False, {"feature_cache": "off"}),
    ("cached pictures", True, {}),
    ("cached, packed", True, {"packing": True, "max_tokens_per_batch": 4096}),
    ("cached, packed, shared pictures", True,
     {"packing": True, "share_pictures": True, "max_tokens_per_batch": 4096}),
]


def words_of(tokenizer, count, chance):
    """A sentence of about `count` tokens."""
    words = " ".join(CORPUS).replace("User:", "").replace("Assistant:", "").split()
    text = ""
    while len(tokenizer.encode(text).ids) < count:
        text += (" " if text else "") + chance.choice(words)
    return text


def make_data(folder, model, samples):
    """Two questions a picture, one after the other; about 130 tokens of text a sample."""
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    chance = random.Random(3)
    folder.mkdir(parents=True, exist_ok=True)
    path, lines = folder / "train.jsonl", []
    for number in range(samples):
        name = f"{number // 2}.jpg"
        if not (folder / name).exists():
            pictures.scene(512, 512, number).save(folder / name)
        question = words_of(tokenizer, chance.randint(15, 35), chance)
        answer = words_of(tokenizer, chance.randint(60, 140), chance)
        lines.append(json.dumps({"messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
            "images": [name]}))
    path.write_text("\n".join(lines) + "\n")
    return path


class Ours:
    def __init__(self, options, model, data, keys):
        self.options, self.keys = options, keys
        self.config = {
            "model_name_or_path": str(model), "train_files": [str(data)], **LORA,
            "target_modules": PATTERN, "learning_rate": RATE, "lr_scheduler_type": "constant",
            "per_device_train_batch_size": options.batch, "shuffle": False, "logging_steps": 1,
            "save_steps": 0, "max_steps": options.steps, **keys}

    def flags(self):
        return ["--device", "cpu", "--dtype", self.options.dtype, "--threads",
                self.options.threads, "--log-level", "error"]

    def run(self, cache, steps=None):
        with tempfile.TemporaryDirectory() as scratch:
            output = Path(scratch) / "out"
            config = {**self.config, "output_dir": str(output)}
            if steps:
                config["max_steps"] = steps
            if "feature_cache" not in config:
                config["feature_cache"] = str(cache)
            path = Path(scratch) / "config.json"
            path.write_text(json.dumps(config))
            command = [PROGRAM, "finetune", path, *self.flags()]
            start = time.perf_counter()
            process = subprocess.Popen([str(part) for part in command],
                                       env=machine.environment(self.options.threads))
            first = None
            while process.poll() is None:
                time.sleep(0.01)
                metrics = output / "metrics.jsonl"
                if first is None and metrics.exists() and metrics.stat().st_size > 0:
                    first = time.perf_counter() - start
            if process.returncode != 0:
                raise RuntimeError(f"vlm finetune: exit status {process.returncode}")
            rows = [json.loads(line) for line in metrics.read_text().splitlines()]
        return {"first_step_s": first, "peak_mb": rows[-1]["peak_rss_mb"],
                "step_s": [self.options.batch / row["samples_per_second"] for row in rows],
                "losses": [row["loss"] for row in rows],
                "wait_s": sum(row["data_wait_s"] for row in rows[1:]) / max(len(rows) - 1, 1)}

    def plan(self):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "config.json"
            path.write_text(json.dumps({**self.config, "output_dir": scratch}))
            command = [PROGRAM, "plan", path, *self.flags(), "--format", "json"]
            done = subprocess.run([str(part) for part in command], capture_output=True, text=True,
                                  env=machine.environment(self.options.threads), check=True)
        return json.loads(done.stdout)


def run_peer(options, model, data, dtype):
    job = {"model": str(model), "data": str(data), "batch": options.batch, "steps": options.steps,
           "threads": options.threads, "r": LORA["r"], "alpha": LORA["lora_alpha"],
           "targets": PATTERN, "learning_rate": RATE, "dtype": dtype}
    done = subprocess.run([sys.executable, "-m", "benchmarks.train_peer", json.dumps(job)],
                          env=machine.environment(options.threads), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"PEFT: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def join(runs, batch):
    steps = [seconds for run in runs for seconds in run["step_s"][2:]]
    return {"samples_per_s": batch / statistics.median(steps),
            "step_s": statistics.median(steps),
            "peak_mb": statistics.median(run["peak_mb"] for run in runs),
            "first_step_s": statistics.median(run["first_step_s"] for run in runs),
            "losses": runs[0]["losses"]}


def bench(options, name, model, data):
    sides = {way: Ours(options, model, data, keys) for way, _, keys in WAYS}
    peers = {} if options.skip_peer else {f"PEFT, {name}": name for name in options.peer_dtypes}
    found = {way: [] for way in [*peers, *sides]}
    with tempfile.TemporaryDirectory() as cache:
        samples = len(data.read_text().splitlines())
        sides["cached pictures"].run(cache, steps=-(-samples // options.batch))  # fills it
        for _ in range(options.repeat):
            for way, dtype in peers.items():
                found[way].append(run_peer(options, model, data, dtype))
            for way, side in sides.items():
                found[way].append(side.run(cache))
    result = {way: join(runs, options.batch) for way, runs in found.items() if runs}
    for way, side in sides.items():
        if way == "same work":
            result[way]["planned_mb"] = side.plan()["peak_mb"]
    print_table(name, result)
    return result


def print_table(name, result):
    print(f"\n### {name}\n")
    print("| | samples/s | times PEFT | s a step | peak memory, MB | of PEFT | process start to"
          " first step, s | loss of step 1 |")
    print("|---|---|---|---|---|---|---|---|")
    peers = [figures for way, figures in result.items() if way.startswith("PEFT")]
    speed = max((peer["samples_per_s"] for peer in peers), default=float("nan"))
    least = min((peer["peak_mb"] for peer in peers), default=float("nan"))
    for way, figures in result.items():
        times, memory = figures["samples_per_s"] / speed, figures["peak_mb"] / least
        print(f"| {way} | {figures['samples_per_s']:.3g} | {times:.2f} | {figures['step_s']:.3g} |"
              f" {figures['peak_mb']:.0f} | {memory:.2f} | {figures['first_step_s']:.1f} |"
              f" {figures['losses'][0]:.5f} |")
    planned = result["same work"].get("planned_mb")
    if planned:
        print(f"\n`vlm plan` said {planned:.0f} MB for the same work.")
    sys.stdout.flush()


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench train", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["256m", "default"],
                        choices=[*SHAPES, "default"], help="default: 256m default")
    parser.add_argument("--repeat", type=int, default=3, help="turns (3)")
    parser.add_argument("--steps", type=int, default=8, help="steps a turn (8)")
    parser.add_argument("--batch", type=int, default=2, help="samples a step (2)")
    parser.add_argument("--threads", type=int, default=len(machine.cpus()), help="default: all")
    parser.add_argument("--store", default="bfloat16", choices=["bfloat16", "float32"],
                        help="dtype of the checkpoint's weights (bfloat16)")
    parser.add_argument("--dtype", default="auto", help="vlm's --dtype (auto)")
    parser.add_argument("--peer-dtypes", nargs="+", default=["float32", "bfloat16"],
                        choices=["float32", "bfloat16"], help="of PEFT's base (both)")
    parser.add_argument("--skip-peer", action="store_true", help="leave PEFT out")
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "bench",
                        help="folder of checkpoints and pictures (.data/bench)")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "bench_train.json",
                        help="every figure (out/bench_train.json)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    print(f"{machine.describe()}, {options.threads} threads; {options.batch} samples a step;"
          f" medians over {options.repeat} turns of {options.steps} steps")
    results = {"machine": machine.describe(), "threads": options.threads,
               "batch": options.batch, "models": {}}
    for name in options.models:
        if name == "default":
            model = ROOT / "models" / "easy-vqa-emoji"
            data = ROOT / "examples" / "pictures" / "examples.jsonl"
        else:
            model = checkpoints.make(options.data, name, options.store)[1]
            data = make_data(options.data / "training", model, 4 * options.batch)
        results["models"][name] = bench(options, name, model, data)
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
