"""Adapters both ways, merged checkpoints, and runs of LoRA and full fine-tuning step by step."""
import torch
from oracle import adapters, dialogues, models, prompts, training
from oracle.text import write_json
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoProcessor

from parity_checks.answers import check_question
from parity_checks.report import largest

LOSS_ERROR = 1e-4  # relative, of losses and gradient norms
WEIGHT_ERROR = 1e-6  # of a merged tensor, relative to its largest value
TRAINING = dict(learning_rate=5e-3, adam_beta1=0.9, adam_beta2=0.999, adam_epsilon=1e-8,
                weight_decay=0.01, max_grad_norm=1.0, lr_scheduler_type="linear", warmup_steps=3)
BATCH_SIZE = 2


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
    # PEFT also copies the base weights of embeddings and heads that have an adapter.
    keys = [sorted(key for key in load_file(folder / "adapter_model.safetensors") if ".base_layer.weight" not in key)
            for folder in (output, start)]
    report.equal(f"{name}: adapter keys", *keys)
    check_our_adapter(report, name, program, case, oracle.eval(), output)


def check_our_adapter(report, name, program, case, oracle, output):
    """PEFT loads our adapter, gets the trained weights, and answers as the program does."""
    ours = case.load(output)
    found, wanted = get_peft_model_state_dict(ours), get_peft_model_state_dict(oracle)
    wanted = {key: value for key, value in wanted.items() if ".base_layer.weight" not in key}
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
    oracle = case.load()
    wanted = training.run(oracle, batches, 5, 1, TRAINING)
    compare_run(report, name, program.finetune(config), wanted)
    models.load(output)  # fails on a missing, unexpected or mismatched key
    check_folder(report, name, case, output)
