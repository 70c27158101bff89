"""Compares the program live with transformers and PEFT on random checkpoints (use scripts/parity).

Every checkpoint is made here, seeded, of other shapes than tests/fixtures; the program gets the
same folder, pictures, adapter and rows as the oracle, in float32 on the CPU. Prints a table; the
last line is 'N passed, N failed', and the exit status is 1 when anything failed.
"""
import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch  # noqa: E402
import transformers  # noqa: E402
from peft import PeftModel, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import AutoModelForImageTextToText, AutoProcessor  # noqa: E402

from oracle import adapters, decoding, dialogues, models, prompts, training  # noqa: E402
from oracle.text import write_json  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
MAX_NEW_TOKENS = 12
LOGPROB_ERROR = 1e-4  # absolute, of each generated token
SCORE_ERROR = 1e-4  # of beams and choices, absolute for small ones, relative for large ones
BEAM_RUNS = 12  # option sets a checkpoint, each put to every question
LOSS_ERROR = 1e-4  # relative, of losses and gradient norms
WEIGHT_ERROR = 1e-6  # of a merged tensor, relative to its largest value

SPECS = [
    models.Spec(
        "gqa_scale2", seed=201, scale_factor=2, longest_edge=80,
        vision=dict(hidden_size=40, intermediate_size=72, num_hidden_layers=3,
                    num_attention_heads=5, image_size=40, patch_size=10),
        text=dict(hidden_size=64, intermediate_size=88, num_hidden_layers=3,
                  num_attention_heads=8, num_key_value_heads=4, head_dim=10,
                  rope_theta=50000.0)),
    models.Spec(
        "tied_scale4", seed=202, scale_factor=4, longest_edge=102, tied=True, vocab_size=416,
        shard_size="150KB", jinja_template=True,
        vision=dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                    num_attention_heads=1, image_size=34, patch_size=4),
        text=dict(hidden_size=56, intermediate_size=64, num_hidden_layers=4,
                  num_attention_heads=7, num_key_value_heads=7, head_dim=8, rope_theta=1e5)),
    models.Spec(
        "idefics3_scale3", seed=203, scale_factor=3, longest_edge=72, family="idefics3",
        dtype=torch.bfloat16, published_config=True,
        vision=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2,
                    num_attention_heads=3, image_size=36, patch_size=4),
        text=dict(hidden_size=32, intermediate_size=72, num_hidden_layers=3,
                  num_attention_heads=4, num_key_value_heads=1, head_dim=10,
                  rope_theta=273768.0)),
]

TRAINING = dict(learning_rate=5e-3, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
                weight_decay=0.01, max_grad_norm=1.0, lr_scheduler_type="linear", warmup_steps=3)
BATCH_SIZE = 2
PRECISION = ["--device", "cpu", "--dtype", "float32"]


def finetune_config(case, data, output, **changes):
    """One config of `vlm finetune`."""
    return {
        "model_name_or_path": str(case.folder),
        "train_files": [str(data / "train.jsonl")],
        "output_dir": str(output),
        "method": "lora",
        "per_device_train_batch_size": BATCH_SIZE,
        "gradient_accumulation_steps": 1,
        "max_steps": 10,
        "logging_steps": 1,
        "save_steps": 0,
        "shuffle": False,
        **TRAINING,
        **changes,
    }


class Report:
    """The table: one row a comparison."""

    def __init__(self):
        self.rows = []

    def add(self, name, passed, detail):
        self.rows.append((name, passed, detail))
        print(f"  {'ok  ' if passed else 'FAIL'}  {name:<52} {detail}", flush=True)

    def close(self, name, error, limit):
        self.add(name, error <= limit, f"error {error:.1e}, limit {limit:.0e}")

    def equal(self, name, got, wanted):
        same = got == wanted
        self.add(name, same, "equal" if same else f"got {brief(got)}, wanted {brief(wanted)}")

    def attempt(self, name, function, *arguments):
        """A check that stops with an exception is one failed row, not the end of the run."""
        try:
            function(self, name, *arguments)
        except Exception as error:  # noqa: BLE001
            self.add(name, False, f"{type(error).__name__}: {brief(error)}")

    def finish(self):
        failed = [name for name, passed, _ in self.rows if not passed]
        for name in failed:
            print("failed:", name)
        print(f"{len(self.rows) - len(failed)} passed, {len(failed)} failed")
        return 1 if failed or not self.rows else 0


def brief(value, limit=300):
    value = " ".join(str(value).split())
    return value if len(value) <= limit else value[:limit] + "..."


def largest(values):
    """The largest value, NaN when there is one (max() would pass over it)."""
    return torch.tensor(list(values), dtype=torch.float64).max().item()


class Program:
    """The binary under test."""

    def __init__(self, binary):
        self.binary = binary

    def run(self, *arguments):
        command = [str(self.binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise RuntimeError(f"vlm {arguments[0]} exit {done.returncode}: {done.stderr[-250:]}")
        return done.stdout

    def generate(self, model, question, system=None, pictures=(), adapter=None):
        arguments = ["--model", model, "--prompt", question, "--format", "json",
                     "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION]
        arguments += ["--adapter", adapter] if adapter else []
        arguments += ["--system", system] if system else []
        for path in pictures:
            arguments += ["--image", path]
        return json.loads(self.run("generate", *arguments).strip().splitlines()[-1])

    def finetune(self, config_path):
        """The rows of metrics.jsonl that have a training loss."""
        self.run("finetune", config_path, *PRECISION)
        output = Path(json.loads(config_path.read_text())["output_dir"])
        rows = map(json.loads, (output / "metrics.jsonl").read_text().splitlines())
        return [row for row in rows if "loss" in row]


class Case:
    """One checkpoint with its processor and pictures."""

    def __init__(self, spec, work):
        self.spec = spec
        self.folder = models.save(spec, work / spec.name)
        self.processor = prompts.make_processor(spec, self.folder)
        self.pictures = dialogues.write_pictures(work / "pictures")

    def load(self, adapter=None):
        base = models.load(self.folder)
        return PeftModel.from_pretrained(base, adapter).eval() if adapter else base

    def answer(self, model, question, system=None, names=()):
        prompt = self.processor.apply_chat_template(
            prompts.chat(question, system, len(names)), add_generation_prompt=True,
            tokenize=False)
        answer = prompts.answer(model, self.processor, prompt,
                                prompts.open_pictures(self.pictures, names), MAX_NEW_TOKENS)
        assert answer["margin"] > 1e-3, "two tokens too close to call: change the seed"
        return answer


def compare_answer(report, name, got, wanted):
    report.equal(f"{name}: prompt ids", got["prompt_token_ids"], wanted["prompt_token_ids"])
    report.equal(f"{name}: token ids", got["token_ids"], wanted["token_ids"])
    if got["token_ids"] == wanted["token_ids"]:
        pairs = zip(got["token_logprobs"], wanted["token_logprobs"], strict=True)
        report.close(f"{name}: log-probabilities", largest(abs(a - b) for a, b in pairs),
                     LOGPROB_ERROR)
    report.equal(f"{name}: text and reason", [got["text"], got["finish_reason"]],
                 [wanted["text"], wanted["finish_reason"]])


def check_question(report, name, program, case, model, question, adapter=None):
    _, system, text, names = question
    paths = [case.pictures / f"{picture}.png" for picture in names]
    got = program.generate(case.folder, text, system, paths, adapter)
    compare_answer(report, name, got, case.answer(model, text, system, names))


def check_stop(report, name, program, case, model):
    """With a token of the answer among the end ids, both stop there."""
    path = case.folder / "generation_config.json"
    before = path.read_text()
    config = json.loads(before)
    ids = case.answer(model, "How many dogs?")["token_ids"]
    config["eos_token_id"] = [config["eos_token_id"], ids[MAX_NEW_TOKENS // 2]]
    write_json(path, config)
    try:
        model = case.load()
        wanted = case.answer(model, "How many dogs?")
        assert wanted["finish_reason"] == "stop"
        compare_answer(report, name, program.generate(case.folder, "How many dogs?"), wanted)
    finally:
        path.write_text(before)


def check_generate(report, program, case):
    model = case.load()
    for question in prompts.QUESTIONS:
        report.attempt(f"{case.spec.name} {question[0]}", check_question, program, case, model,
                       question)
    report.attempt(f"{case.spec.name} stop", check_stop, program, case, model)


def write_questions(case, path):
    """The questions as rows of `vlm vqa`, so that one run answers them side by side."""
    with open(path, "w", encoding="utf-8") as file:
        for name, system, text, names in prompts.QUESTIONS:
            content = [prompts.IMAGE] * len(names) + [prompts.words(text)]
            messages = [prompts.turn("system", prompts.words(system))] if system else []
            pictures = [str(case.pictures / f"{picture}.png") for picture in names]
            row = {"id": name, "messages": [*messages, {"role": "user", "content": content}]}
            file.write(json.dumps({**row, "images": pictures}) + "\n")


def run_rows(program, case, work, *options):
    """{id: row} of one `vlm vqa` over the questions."""
    output = work / "rows.jsonl"
    questions = work / "questions.jsonl"
    write_questions(case, questions)
    program.run("vqa", questions, "--model", case.folder, "--output", output, "--restart",
                *options, *PRECISION)
    return {row["id"]: row for row in map(json.loads, output.read_text().splitlines())}


def to_flags(options):
    flags = []
    for name, value in options.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        flags += ["--" + name.replace("_", "-"), text]
    return flags


def check_beams(report, name, program, case, model, work):
    """Beam search with random options: texts and scores of every hypothesis."""
    chance = random.Random(case.spec.seed)
    path = case.folder / "generation_config.json"
    before = path.read_text()
    eos = decoding.likely_eos(model, case.processor, prompts.QUESTIONS[0][2])
    write_json(path, {**json.loads(before), "eos_token_id": eos})
    model.generation_config.eos_token_id = eos
    same, total, errors = 0, 0, [0.0]
    try:
        for _ in range(BEAM_RUNS):
            options = decoding.random_beam_options(chance)
            rows = run_rows(program, case, work, *to_flags(options), "--batch-size",
                            chance.choice([1, 2, 5]))
            for title, system, text, names in prompts.QUESTIONS:
                wanted = decoding.beam_case(
                    model, case.processor, prompts.chat(text, system, len(names)),
                    prompts.open_pictures(case.pictures, names), options)
                row = rows[title]
                found = [row, *row.get("alternatives", [])]
                total += 1
                same += [one["text"] for one in found] == wanted["texts"]
                errors += [abs(one["score"] - score) / max(abs(score), 1)
                           for one, score in zip(found, wanted["scores"], strict=True)]
    finally:
        path.write_text(before)
    report.equal(f"{name}: texts of {total} searches", same, total)
    report.close(f"{name}: scores of {len(errors) - 1} hypotheses", largest(errors), SCORE_ERROR)


CHOICES = ["yes", "no", "a dog and two cats", "12"]


def check_choices(report, name, program, case, model, work):
    """Log-likelihoods of given answers."""
    rows = run_rows(program, case, work, "--choices", ",".join(CHOICES))
    errors = []
    for title, system, text, names in prompts.QUESTIONS:
        pictures = prompts.open_pictures(case.pictures, names)
        for choice in CHOICES:
            chat = prompts.chat(text, system, len(names))
            prompt = case.processor.apply_chat_template(chat, add_generation_prompt=True,
                                                        tokenize=False)
            answer = prompts.turn("assistant", prompts.words(choice))
            whole = case.processor.apply_chat_template([*chat, answer], tokenize=False)
            inputs = prompts.encode(case.processor, whole.rstrip("\n"), pictures)
            begin = prompts.encode(case.processor, prompt, pictures)["input_ids"].shape[1]
            with torch.no_grad():
                logprobs = model(**inputs).logits[0].log_softmax(-1)
            ids = inputs["input_ids"][0]
            wanted = sum(logprobs[i - 1, ids[i]].item() for i in range(begin, len(ids)))
            errors.append(abs(rows[title]["logprobs"][choice] - wanted) / max(abs(wanted), 1))
    report.close(f"{name}: {len(errors)} log-likelihoods", largest(errors), SCORE_ERROR)


def check_sampling(report, name, program, case, work):
    """The same seed gives the same draws whatever the batch; another seed gives others."""
    options = ["--temperature", 1.5, "--num-return-sequences", 3, "--max-new-tokens", 6]

    def texts(seed, batch_size):
        rows = run_rows(program, case, work, *options, "--seed", seed, "--batch-size", batch_size)
        return {title: [row["text"], *(one["text"] for one in row["alternatives"])]
                for title, row in rows.items()}

    report.equal(f"{name}: one by one and together", texts(1, 1), texts(1, 6))
    report.add(f"{name}: another seed", texts(1, 1) != texts(2, 1), "differs")


def check_decoding(report, program, case, work):
    work = work / "decoding" / case.spec.name
    work.mkdir(parents=True)
    title = f"decoding {case.spec.name}"
    report.attempt(f"{title} beams", check_beams, program, case, case.load(), work)
    report.attempt(f"{title} choices", check_choices, program, case, case.load(), work)
    report.attempt(f"{title} sampling", check_sampling, program, case, work)


def check_peft_adapter(report, name, program, case, kind, work):
    """PEFT's adapter in the program: answers, and the merged checkpoint."""
    folder = work / "adapters" / kind
    kinds = adapters.KINDS | adapters.METHODS
    seed = 320 + list(kinds).index(kind)
    adapters.make_adapter(case.load(), folder, kinds[kind], seed, str(case.folder))
    for question in (prompts.QUESTIONS[0], prompts.QUESTIONS[3]):
        report.attempt(f"{name} {question[0]}", check_question, program, case, case.load(folder),
                       question, folder)
    report.attempt(f"{name} merge", check_merge, program, case, folder, work / "merged" / kind)


def check_merge(report, name, program, case, adapter, output):
    program.run("merge", "--model", case.folder, "--adapter", adapter, "--output", output)
    wanted = case.load(adapter).merge_and_unload()
    merged = models.load(output)  # fails on a missing, unexpected or mismatched key
    found = merged.state_dict()
    errors = [(found[key] - value).abs().max() / value.abs().max()
              for key, value in wanted.state_dict().items()]
    report.close(f"{name}: weights", largest(errors), WEIGHT_ERROR)
    check_folder(report, name, case, output)


def check_folder(report, name, case, output):
    """A saved checkpoint holds the same keys and loads with its processor in transformers."""
    report.equal(f"{name}: keys", models.stored_shapes(output), models.stored_shapes(case.folder))
    processor = AutoProcessor.from_pretrained(output)
    original = AutoProcessor.from_pretrained(case.folder)
    chat = prompts.chat("What is this?", None, 1)
    ids = [p(text=[p.apply_chat_template(chat, add_generation_prompt=True)],
             images=[prompts.open_pictures(case.pictures, ["wide"])])["input_ids"]
           for p in (processor, original)]
    report.equal(f"{name}: processor", ids[0], ids[1])


def compare_run(report, name, rows, wanted):
    """metrics.jsonl against the oracle's run: loss, gradient norm, learning rate a step."""
    report.equal(f"{name}: steps", len(rows), len(wanted["losses"]))
    for key, series, limit in (("loss", "losses", LOSS_ERROR),
                               ("grad_norm", "grad_norms", LOSS_ERROR),
                               ("learning_rate", "learning_rates", 1e-6)):
        # A rate of zero (the first step of a warm-up) has no relative error.
        pairs = zip((row[key] for row in rows), wanted[series].tolist())
        error = largest(abs(got - value) / max(abs(value), 1e-9) for got, value in pairs)
        report.close(f"{name}: {key}", error, limit)


def check_finetune(report, name, program, case, settings, work, accumulation=1, changes=None):
    """The same LoRA run here and there from one initial adapter; then our adapter in PEFT."""
    data, start, output = work / "data", work / name / "start", work / name / "output"
    torch.manual_seed(7)  # PEFT's own initial values: A uniform, B zero
    adapters.make_adapter(case.load(), start, settings, None, str(case.folder))
    batches = dialogues.make_batches(case.spec, case.processor, data, BATCH_SIZE)
    steps = len(batches) // accumulation
    config = work / name / "config.json"
    write_json(config, finetune_config(
        case, data, output, adapter=str(start), max_steps=steps,
        gradient_accumulation_steps=accumulation, **(changes or {})))
    oracle = PeftModel.from_pretrained(models.load(case.folder), start, is_trainable=True)
    wanted = training.run(oracle, batches, steps, accumulation, TRAINING)
    compare_run(report, name, program.finetune(config), wanted)
    report.equal(f"{name}: adapter keys", sorted(load_file(output / "adapter_model.safetensors")),
                 sorted(load_file(start / "adapter_model.safetensors")))
    check_our_adapter(report, name, program, case, oracle.eval(), output)


def check_our_adapter(report, name, program, case, oracle, output):
    """PEFT loads our adapter, gets the trained weights, and answers as the program does."""
    ours = case.load(output)
    found, wanted = get_peft_model_state_dict(ours), get_peft_model_state_dict(oracle)
    scale = max(value.abs().max() for value in wanted.values())
    # A key bias moves no attention weight: its gradient is rounding, which Adam makes steps of.
    errors = [(found[key] - wanted[key]).abs().max() / scale for key in wanted
              if not key.endswith("k_proj.bias")]
    # Adam divides by tiny moments, so rounding moves single weights more than it moves the loss.
    report.close(f"{name}: trained weights", largest(errors), 1e-3)
    for question in (prompts.QUESTIONS[0], prompts.QUESTIONS[3]):
        report.attempt(f"{name} in PEFT, {question[0]}", check_question, program, case, ours,
                       question, output)


def check_fresh(report, name, program, case, work):
    """An adapter that the program starts itself: PEFT reads its config as it was meant."""
    data, output = work / "data", work / name / "output"
    config = work / name / "config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    write_json(config, finetune_config(
        case, data, output, max_steps=3, r=3, lora_alpha=5, use_rslora=True,
        target_modules=["q_proj", "down_proj"], target_parts=["text_model"],
        rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.mlp.down_proj": 7}))
    batch = dialogues.make_batches(case.spec, case.processor, data, BATCH_SIZE)[0]
    with torch.no_grad():
        first = case.load()(**batch).loss.item()
    rows = program.finetune(config)
    report.close(f"{name}: first loss is the base's", abs(rows[0]["loss"] - first) / first,
                 LOSS_ERROR)
    stored = {key: value.shape
              for key, value in load_file(output / "adapter_model.safetensors").items()}
    ours = case.load(output)
    found = {key: value.shape for key, value in get_peft_model_state_dict(ours).items()}
    report.equal(f"{name}: keys and ranks in PEFT", stored, found)
    report.equal(f"{name}: layers", len(stored), 2 * 2 * case.spec.text["num_hidden_layers"])
    report.attempt(f"{name} in PEFT", check_question, program, case, ours, prompts.QUESTIONS[3],
                   output)


def check_full(report, name, program, case, work):
    """Full fine-tuning, every parameter; then the saved checkpoint in transformers."""
    data, output = work / "data", work / name / "output"
    batches = dialogues.make_batches(case.spec, case.processor, data, BATCH_SIZE)
    config = work / name / "config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    write_json(config, finetune_config(case, data, output, method="full", max_steps=5))
    oracle = models.load(case.folder)
    wanted = training.run(oracle, batches, 5, 1, TRAINING)
    compare_run(report, name, program.finetune(config), wanted)
    models.load(output)  # fails on a missing, unexpected or mismatched key
    check_folder(report, name, case, output)


def check_default_model(report, name, program, work):
    """The committed model, in transformers: loads unchanged, and answers its example questions alike."""
    folder = ROOT / "models" / "easy-vqa-emoji"
    rows = work / "default_model.jsonl"
    examples = ROOT / "examples" / "pictures"
    program.run("evaluate", examples / "examples.jsonl", "--model", folder, "--output", rows,
                "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION)
    model, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    report.equal(f"{name}: keys that don't fit", [sorted(info["missing_keys"]),
                                                  sorted(info["unexpected_keys"])], [[], []])
    processor = AutoProcessor.from_pretrained(folder)
    got, wanted = [], []
    for row in map(json.loads, rows.read_text().splitlines()):
        prompt = processor.apply_chat_template(prompts.chat(row["question"], None, 1),
                                               add_generation_prompt=True, tokenize=False)
        picture = [Image.open(row["path"]).convert("RGB")]
        answer = prompts.answer(model.eval(), processor, prompt, picture, MAX_NEW_TOKENS)
        got.append((row["id"], row["text"]))
        wanted.append((row["id"], answer["text"]))
    report.equal(f"{name}: {len(wanted)} answers", got, wanted)


def check_hub(report, name, program, work):
    """The Python hub client and `vlm pull` on one cache; a process of its own, for it must not be offline."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "parity_hub.py", "--binary", program.binary,
                           "--work", work / "hub"], capture_output=True, text=True, timeout=300)
    print(done.stdout, end="")
    report.add(name, done.returncode == 0, (done.stdout + done.stderr).strip().splitlines()[-1])


def check_all(report, program, work, only):
    import parity_methods  # it calls the checks of this file

    cases = [Case(spec, work) for spec in SPECS]
    dialogues.write_rows(work / "data")
    jobs = {f"generate {case.spec.name}": (check_generate, report, program, case)
            for case in cases}
    jobs |= {f"decoding {case.spec.name}": (check_decoding, report, program, case, work)
             for case in cases}
    first = cases[0]
    for kind in adapters.KINDS:
        jobs[f"adapter {kind}"] = (report.attempt, f"PEFT {kind}", check_peft_adapter, program,
                                   first, kind, work)
    runs = {"plain": ("plain", 1), "rslora": ("rslora", 1), "patterns": ("patterns", 1),
            "accumulation": ("plain", 2)}
    for name, (kind, accumulation) in runs.items():
        jobs[f"finetune {name}"] = (report.attempt, f"finetune {name}", check_finetune, program,
                                    first, adapters.KINDS[kind], work, accumulation)
    jobs["finetune fresh"] = (report.attempt, "finetune fresh", check_fresh, program, first, work)
    jobs |= parity_methods.jobs(report, program, first, work)
    for case in cases:
        jobs[f"full {case.spec.name}"] = (report.attempt, f"full {case.spec.name}", check_full,
                                          program, case, work)
    jobs["hub cache"] = (report.attempt, "hub cache", check_hub, program, work)
    jobs["default model"] = (report.attempt, "default model", check_default_model, program, work)
    for title, (function, *arguments) in jobs.items():
        if only in title:
            print(title)
            function(*arguments)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "build" / "vlm")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "parity",
                        help="where checkpoints and outputs go; emptied first")
    parser.add_argument("--only", default="", help="run the parts whose title contains this")
    options = parser.parse_args()
    if not options.binary.is_file():
        sys.exit(f"parity: {options.binary} is missing: run scripts/build first")
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Unfeasible length constraints")  # that is ours too
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    start = time.monotonic()
    report = Report()
    check_all(report, Program(options.binary.resolve()), options.work.resolve(), options.only)
    print(f"{time.monotonic() - start:.0f} s")
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
