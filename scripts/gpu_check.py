"""Checks a vlm program on a GPU, beside itself on the CPU, and measures it there.

    gpu_check.py [--program P] [--device cuda] [--skip-speed] [--output FOLDER]

First every method on tiny models: the GPU's answers, losses and merged weights are the CPU's, but for rounding. Then, on
random weights of published shapes, seconds and memory (gpu_check_speed.py). Writes gpu_check.json and gpu_check.md into the
folder; exit code 1: something differs. Measuring needs a Python with torch, and a bundle takes torch's libraries.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
IS_BUNDLE = (HERE / "bin").exists()
ROOT = HERE if IS_BUNDLE else HERE.parent
MODELS = ROOT / "models" if IS_BUNDLE else ROOT / "tests/fixtures"
PICTURES = ROOT / "pictures" if IS_BUNDLE else ROOT / "tests/fixtures/pictures"
TINY = "smolvlm_tiny"
QUESTION = ["--prompt", "What is in the image?"]
TIMEOUT_S = 300

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


def library_folders():
    """Where torch keeps its libraries; none where it isn't installed."""
    try:
        import torch
    except ImportError:
        return []
    torch_folder = pathlib.Path(torch.__file__).parent
    return [torch_folder / "lib", *sorted(torch_folder.parent.glob("nvidia/*/lib"))]


class Program:
    def __init__(self, path, extra):
        self.path = path
        self.env = dict(os.environ)
        folders = ([ROOT / "lib", *library_folders()] if IS_BUNDLE else []) + extra
        if folders:
            before = self.env.get("LD_LIBRARY_PATH")
            self.env["LD_LIBRARY_PATH"] = ":".join(map(str, folders)) + (f":{before}" if before else "")

    def run(self, *words, **env):
        """stdout; raises RuntimeError with the last lines of stderr."""
        command = [str(self.path), *map(str, words)]
        ended = subprocess.run(command, env={**self.env, **env}, capture_output=True, text=True,
                               timeout=TIMEOUT_S, check=False)
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
        self.results = []

    def run(self, *words):
        return self.program.run(*words, NVIDIA_TF32_OVERRIDE="0")

    def compare(self, name, made, tolerance=2e-3):
        """made(device) → JSON."""
        begun = time.monotonic()
        try:
            lines = differences(made(self.device), made("cpu"), tolerance)
        except (RuntimeError, subprocess.TimeoutExpired, OSError, ValueError) as error:
            lines = [str(error)]
        self.results.append({"check": name, "alike": not lines, "differences": lines[:5],
                             "seconds": round(time.monotonic() - begun, 2)})
        print(f"{'ok' if not lines else 'DIFFERS'}  {name}", *lines[:5], sep="\n   " if lines else " ", flush=True)

    def all(self):
        for model in (TINY, "smolvlm_odd"):
            for name, options in ANSWERS.items():
                self.compare(f"generate, {model}, {name}", lambda device: json.loads(self.run(
                    "generate", "--model", MODELS / model, "--image", PICTURES / "square.png", *QUESTION, *options,
                    "--format", "json", "--dtype", "float32", "--device", device)))
        self.compare("vqa, groups together", self.questions)
        for method in ("lora", "dora", "qlora", "full"):
            for name, settings in TRAININGS.items():
                self.compare(f"finetune, {method}, {name}", lambda device: self.losses(device, method, settings))
        self.compare("an adapter, trained and merged", self.merged)
        return self.results

    def questions(self, device):
        output = self.folder / f"rows_{device.replace(':', '_')}.jsonl"
        self.run("vqa", *(PICTURES / f"{name}.png" for name in ("square", "wide", "tall")), "--model", MODELS / TINY, "--question", "What?", "--question", "Is it red?",
                 "--batch-size", "3", "--max-new-tokens", "6", "--dtype", "float32", "--device", device,
                 "--output", output, "--restart")
        rows = [json.loads(line) for line in output.read_text().splitlines()]
        return [{key: row[key] for key in ("id", "text", "mean_logprob") if key in row} for row in rows]

    def train(self, device, method, settings):
        data = self.folder / "data.jsonl"
        if not data.exists():
            pictures = ("square", "wide", "tall", "square")
            data.write_text("".join(json.dumps({"image": str(PICTURES / f"{picture}.png"), "prompt": prompt,
                                                "completion": answer}) + "\n" for picture, prompt, answer in
                                    zip(pictures, ("What?", "Where?", "Who?", "When?"),
                                        ("a cat", "at home", "two dogs", "now"))))
        output = self.folder / f"{method}_{len(list(self.folder.iterdir()))}"
        config = output.with_suffix(".json")
        config.write_text(json.dumps({
            "model_name_or_path": str(MODELS / TINY), "train_files": [str(data)], "output_dir": str(output),
            "max_steps": 4, "logging_steps": 1, "learning_rate": 5e-3, "per_device_train_batch_size": 1,
            "lora_dropout": 0, "feature_cache": "off", "method": method, "save_steps": 0}))
        self.run("finetune", config, "--device", device, "--dtype", "float32", *settings)
        return output

    def losses(self, device, method, settings):
        lines = (self.train(device, method, settings) / "metrics.jsonl").read_text().splitlines()
        return [{key: row[key] for key in ("step", "loss", "grad_norm") if key in row} for row in map(json.loads, lines)]

    def merged(self, device):
        adapter = self.train(device, "lora", [])
        output = self.folder / f"merged_{device.replace(':', '_')}"
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
    program = Program(options.program.resolve(), options.library_folder)
    try:  # without a GPU, with an old driver, in a hidden one: the program's own words
        program.run("generate", "--model", MODELS / TINY, *QUESTION, "--max-new-tokens", "1", "--device", options.device)
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"gpu_check: {error}")
    report = {"device": speed.device_name() if speed else options.device,
              "checks": Correctness(program, options.device, work.resolve()).all(),
              "speed": speed.measure(program, options.shapes, work.resolve(), MODELS / TINY, PICTURES) if speed else []}
    write_report(options.output, report)
    print((options.output / "gpu_check.md").read_text())
    sys.exit(0 if all(check["alike"] for check in report["checks"]) else 1)


if __name__ == "__main__":
    main()
