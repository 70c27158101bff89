"""Checks a vlm program on a GPU, beside itself on the CPU, and measures it there.

    gpu_check.py [--program P] [--device cuda] [--skip-speed] [--output FOLDER]

First every method and every family on tiny models: the GPU's answers, losses and merged weights are the CPU's, but for
rounding. Then, on random weights of published shapes, seconds and memory (gpu_check_speed.py). Writes gpu_check.json and
gpu_check.md into the folder; exit code 1: something differs, or wasn't run. Measuring needs a Python with torch, and a
bundle takes torch's libraries. With measuring all takes 8 minutes at most: each part has its time (SECONDS), what a part
leaves over goes to the next, and what had no time left is named in the report.
"""
import argparse
import concurrent.futures
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
IS_BUNDLE = (HERE / "bin").exists()
ROOT = HERE if IS_BUNDLE else HERE.parent
MODELS = ROOT / "models" if IS_BUNDLE else ROOT / "tests/fixtures"
PICTURES = ROOT / "pictures" if IS_BUNDLE else ROOT / "tests/fixtures/pictures"
TINY = "smolvlm_tiny"
QUESTION = ["--prompt", "What is in the image?"]
TIMEOUT_S = 300
SECONDS = {"methods": 150, "256m": 110, "500m": 130, "2.2b": 210}  # on a card; of a part

ANSWERS = {
    "greedy": ["--max-new-tokens", "8"],
    "beams": ["--max-new-tokens", "8", "--num-beams", "3", "--num-return-sequences", "2"],
    "sampling": ["--max-new-tokens", "8", "--do-sample", "--temperature", "2", "--seed", "7"],
    "penalties": ["--max-new-tokens", "8", "--repetition-penalty", "1.5", "--no-repeat-ngram-size", "2"],
    "choices": ["--choices", "a cat,two dogs,no"],
}
TRAININGS = {
    "plain": [],
    "packing": ["packing=true", "per_device_train_batch_size=4", "share_pictures=true"],
    "accumulation": ["gradient_accumulation_steps=2"],
    "checkpointing": ["gradient_checkpointing=true"],
    "8-bit Adam": ["optim=adamw_8bit"],
}
# Family → what its adapters are on; with or without pictures.
FAMILIES = {
    "granite_tiny": (["q_proj", "v_proj"], True), "llama_tiny": (["q_proj", "v_proj"], False),
    "qwen2_tiny": (["q_proj", "v_proj"], False), "qwen3_tiny": (["q_proj", "v_proj"], False),
    "phi3_tiny": (["qkv_proj"], False), "qwen2_vl_tiny": (["q_proj", "v_proj"], True),
    "qwen2_5_vl_tiny": (["q_proj", "v_proj"], True), "qwen3_vl_tiny": (["q_proj", "v_proj"], True),
    "internvl_tiny": (["q_proj", "v_proj"], True), "internvl3_5_tiny": (["q_proj", "v_proj"], True),
}
NEVER_RECORDED = "phi3_tiny"  # LongRoPE: --cuda-graph refuses it


def library_folders():
    """Where torch keeps its libraries; none where it isn't installed."""
    try:
        import torch
    except ImportError:
        return []
    torch_folder = pathlib.Path(torch.__file__).parent
    return [torch_folder / "lib", *sorted(torch_folder.parent.glob("nvidia/*/lib"))]


class OutOfTime(Exception):
    pass


class Clock:
    """How long the part at work may still take. Without a limit: for ever."""

    def __init__(self, is_limited):
        self.end = time.monotonic() if is_limited else None

    def begin(self, part):
        if self.end is not None:
            self.end += SECONDS[part]  # what the parts before have left is in it

    def left(self):
        return math.inf if self.end is None else self.end - time.monotonic()

    def check(self):
        if self.left() <= 0:
            raise OutOfTime("not run: the time of this part was over")


class Program:
    def __init__(self, path, extra, clock):
        self.path, self.clock = path, clock
        self.env = dict(os.environ)
        folders = ([ROOT / "lib", *library_folders()] if IS_BUNDLE else []) + extra
        if folders:
            before = self.env.get("LD_LIBRARY_PATH")
            self.env["LD_LIBRARY_PATH"] = ":".join(map(str, folders)) + (f":{before}" if before else "")

    def run(self, *words, **env):
        """stdout; raises RuntimeError with the last lines of stderr."""
        self.clock.check()
        command = [str(self.path), *map(str, words)]
        try:
            ended = subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True,
                                   timeout=min(TIMEOUT_S, self.clock.left()), check=False)
        except subprocess.TimeoutExpired as error:
            self.clock.check()
            raise RuntimeError(f"{' '.join(command)}\ntook longer than {TIMEOUT_S} s") from error
        if ended.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\nended with {ended.returncode}: {ended.stderr[-2000:]}")
        return ended.stdout


def differences(found, wanted, tolerance, where=""):
    """What isn't alike, as lines of text. Numbers may differ by `tolerance`, relatively."""
    if isinstance(wanted, dict):
        keys = (wanted.keys() | found.keys()) - {"timing", "peak_rss_mb"}
        return [line for key in sorted(keys)
                for line in differences(found.get(key), wanted.get(key), tolerance, f"{where}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        return [line for i, (f, w) in enumerate(zip(found, wanted))
                for line in differences(f, w, tolerance, f"{where}[{i}]")]
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        alike = math.isclose(found, wanted, rel_tol=tolerance, abs_tol=tolerance)
        return [] if alike else [f"{where}: {found} on the GPU, {wanted} on the CPU"]
    return [] if found == wanted else [f"{where}: {found} on the GPU, {wanted} on the CPU"]


class Correctness:
    """The tiny models on both devices, in float32 without TF32."""

    def __init__(self, program, device, folder):
        self.program, self.device, self.folder = program, device, folder

    def run(self, *words):
        return self.program.run(*words, NVIDIA_TF32_OVERRIDE="0")

    def compare(self, name, made, tolerance=2e-3):
        """made(device) → JSON."""
        begun = time.monotonic()
        try:
            lines = differences(made(self.device), made("cpu"), tolerance)
        except (OutOfTime, RuntimeError, OSError, ValueError) as error:
            lines = [str(error)]
        print(f"{'ok' if not lines else 'DIFFERS'}  {name}", *lines[:5], sep="\n   " if lines else " ", flush=True)
        return {"check": name, "alike": not lines, "differences": lines[:5],
                "seconds": round(time.monotonic() - begun, 2)}

    def all(self):
        """Several at a time: most of a check is a program that starts."""
        checks = {}
        for model in (TINY, "smolvlm_odd"):
            for name, options in ANSWERS.items():
                checks[f"generate, {model}, {name}"] = lambda device, m=model, o=options: self.answer(device, m, o)
        checks["generate, recorded steps"] = lambda device: self.answer(
            device, TINY, ["--max-new-tokens", "24"] + ["--cuda-graph"] * (device != "cpu"))
        checks["vqa, groups together"] = self.questions
        for method in ("lora", "dora", "qlora", "full"):
            for name, settings in TRAININGS.items():
                checks[f"finetune, {method}, {name}"] = lambda device, m=method, s=settings: self.losses(device, m, s)
        checks["an adapter, trained and merged"] = self.merged
        for model, (targets, has_pictures) in FAMILIES.items():
            checks[f"generate, {model}"] = lambda device, m=model: self.answer(
                device, m, ["--max-new-tokens", "12"] + ["--cuda-graph"] * (device != "cpu" and m != NEVER_RECORDED))
            if has_pictures:
                checks[f"vqa, {model}"] = lambda device, m=model: self.questions(device, m)
            for method in ("lora", "qlora"):
                settings = [f"target_modules={json.dumps(targets)}", "packing=true", "per_device_train_batch_size=2"]
                checks[f"finetune, {model}, {method}"] = lambda device, m=model, how=method, s=settings: self.losses(
                    device, how, s, m)
        at_once = max(1, min(4, (os.cpu_count() or 1) // 2))
        with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda check: self.compare(*check), checks.items()))

    def answer(self, device, model, options):
        has_pictures = FAMILIES.get(model, ([], True))[1]
        picture = ["--image", PICTURES / "square.png"] if has_pictures else []
        return json.loads(self.run("generate", "--model", MODELS / model, *picture, *QUESTION, *options,
                                   "--format", "json", "--dtype", "float32", "--device", device))

    def questions(self, device, model=TINY):
        output = self.new_folder() / "rows.jsonl"
        self.run("vqa", *(PICTURES / f"{name}.png" for name in ("square", "wide", "tall")), "--model", MODELS / model,
                 "--question", "What?", "--question", "Is it red?", "--batch-size", "3", "--max-new-tokens", "6",
                 "--dtype", "float32", "--device", device, "--output", output)
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        return [{key: row[key] for key in ("id", "text", "mean_logprob", "error") if key in row} for row in rows]

    def new_folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.folder))

    def train(self, device, method, settings, model=TINY):
        folder = self.new_folder()
        pictures = ("square", "wide", "tall", "square") if FAMILIES.get(model, ([], True))[1] else (None,) * 4
        rows = [{"prompt": prompt, "completion": answer} | ({"image": str(PICTURES / f"{picture}.png")} if picture else {})
                for picture, prompt, answer in zip(pictures, ("What?", "Where?", "Who?", "When?"),
                                                   ("a cat", "at home", "two dogs", "now"))]
        (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        config, output = folder / "config.json", folder / "output"
        config.write_text(json.dumps({
            "model_name_or_path": str(MODELS / model), "train_files": [str(folder / "data.jsonl")],
            "output_dir": str(output), "max_steps": 4, "logging_steps": 1, "learning_rate": 5e-3,
            "per_device_train_batch_size": 1, "lora_dropout": 0, "feature_cache": "off", "method": method,
            "save_steps": 0}))
        self.run("finetune", config, "--device", device, "--dtype", "float32", *settings)
        return output

    def losses(self, device, method, settings, model=TINY):
        lines = (self.train(device, method, settings, model) / "metrics.jsonl").read_text().splitlines()
        return [{key: row[key] for key in ("step", "loss", "grad_norm") if key in row} for row in map(json.loads, lines)]

    def merged(self, device):
        adapter = self.train(device, "lora", [])
        output = self.new_folder() / "merged"
        self.run("merge", "--model", MODELS / TINY, "--adapter", adapter, "--output", output)
        return json.loads(self.run("generate", "--model", output, "--image", PICTURES / "wide.png", *QUESTION,
                                   "--max-new-tokens", "6", "--format", "json", "--dtype", "float32", "--device", device))


def write_report(folder, report):
    (folder / "gpu_check.json").write_text(json.dumps(report, indent=1) + "\n")
    checks = report["checks"]
    lines = [f"# vlm on {report['device']}", "",
             f"{sum(check['alike'] for check in checks)} of {len(checks)} checks are alike on CPU and GPU.", ""]
    for check in checks:
        if not check["alike"]:
            lines += [f"- {check['check']}", *(f"  - {line.splitlines()[-1]}" for line in check["differences"])]
    for table in report["speed"]:
        keys = [key for key in table if key != "what"]
        lines += ["", f"## {table['what']}", "", "| | |", "| --- | --- |", *(f"| {key} | {table[key]} |" for key in keys)]
    (folder / "gpu_check.md").write_text("\n".join(lines) + "\n")


def load_speed(shapes):
    """The part that measures, which needs torch."""
    try:
        import gpu_check_speed
    except ImportError:
        sys.exit("gpu_check: measuring needs a Python with torch; --skip-speed checks the methods alone")
    unknown = set(shapes) - set(gpu_check_speed.SHAPES)
    if unknown:
        sys.exit(f"gpu_check: --shapes: got {', '.join(sorted(unknown))}, wanted {', '.join(gpu_check_speed.SHAPES)}")
    return gpu_check_speed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=ROOT / ("bin/vlm" if IS_BUNDLE else "build/vlm"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--skip-speed", action="store_true", help="the methods alone")
    parser.add_argument("--shapes", nargs="+", default=["256m", "2.2b"], help="whose speed is measured")
    parser.add_argument("--library-folder", type=pathlib.Path, action="append", default=[],
                        help="one more folder with libraries of the program")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("gpu_check_results"))
    options = parser.parse_args()
    speed = None if options.skip_speed else load_speed(options.shapes)
    if not options.program.exists():
        sys.exit(f"gpu_check: no program at {options.program}; scripts/build makes it, --program names another")
    options.output.mkdir(parents=True, exist_ok=True)
    work = options.output / "work"
    subprocess.run(["rm", "-rf", str(work)], check=True)
    work.mkdir()
    clock = Clock(is_limited=not options.skip_speed)
    clock.begin("methods")
    program = Program(options.program.resolve(), options.library_folder, clock)
    try:  # without a GPU, with an old driver, in a hidden one: the program's own words
        program.run("generate", "--model", MODELS / TINY, *QUESTION, "--max-new-tokens", "1", "--device", options.device)
    except (OutOfTime, RuntimeError) as error:
        sys.exit(f"gpu_check: {error}")
    report = {"device": speed.device_name() if speed else options.device,
              "checks": Correctness(program, options.device, work.resolve()).all(),
              "speed": speed.measure(program, options.shapes, work.resolve(), MODELS / TINY, PICTURES) if speed else []}
    write_report(options.output, report)
    print((options.output / "gpu_check.md").read_text())
    sys.exit(0 if all(check["alike"] for check in report["checks"]) else 1)


if __name__ == "__main__":
    main()
