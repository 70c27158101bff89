"""Fine-tuning methods: what the checks of finetuning.py are called with for each, and QLoRA and PiSSA.

Adapters of every method go from PEFT to the program, through its merge, and from the program to PEFT; runs of lora,
dora and full are compared with PEFT's for 50 steps, QLoRA's with PEFT on a base whose weights went through NF4.
"""
import torch
from oracle import adapters, dialogues, models, nf4, prompts, training
from oracle.text import write_json
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file

from parity_checks import finetuning
from parity_checks.answers import check_question
from parity_checks.program import ROOT

FIXTURES = ROOT / "tests" / "fixtures"
# Rates at which rounding doesn't grow over 50 steps.
LONG = dict(finetuning.TRAINING, learning_rate=5e-4)
LONG_STEPS = 50
# NF4 of either side may round a scale differently in its last bit.
NF4_LOSS_ERROR = 1e-4


def prepare(case, name, work):
    """(data folder, output folder, config path) of a run."""
    config = work / name / "config.json"
    config.parent.mkdir(parents=True, exist_ok=True)
    return work / "data", work / name / "output", config


def make_batches(case, data):
    return dialogues.make_batches(case.spec, case.processor, data, finetuning.BATCH_SIZE)


def check_long(report, name, program, case, method, work):
    """50 steps from the same start."""
    data, output, config = prepare(case, name, work)
    changes = dict(LONG, max_steps=LONG_STEPS)
    oracle = models.load(case.folder)
    if method != "full":
        start = work / name / "start"
        torch.manual_seed(8)
        settings = dict(r=4, lora_alpha=8, use_dora=method == "dora",
                        target_modules=adapters.TEXT_LINEARS)
        adapters.make_adapter(case.load(), start, settings, None, str(case.folder))
        oracle = PeftModel.from_pretrained(oracle, start, is_trainable=True)
        changes |= dict(adapter=str(start))
    write_json(config, finetuning.finetune_config(case, data, output, method=method, **changes))
    wanted = training.run(oracle, make_batches(case, data), LONG_STEPS, 1, LONG)
    finetuning.compare_run(report, name, program.finetune(config), wanted)


def check_qlora(report, name, program, case, work, settings=adapters.KINDS["rslora"]):
    """LoRA on an NF4 base against PEFT on the same numbers in float32; then the adapter in PEFT."""
    report.close(f"{name}: the oracle's NF4 is bitsandbytes'", nf4.check(FIXTURES), 0)
    data, output, config = prepare(case, name, work)
    start = work / name / "start"
    adapters.make_adapter(case.load(), start, settings, 77, str(case.folder))
    adapters.drop_base_weights(start)  # they would replace what went through NF4 and bfloat16
    write_json(config, finetuning.finetune_config(case, data, output, method="qlora",
                                              adapter=str(start), max_steps=10))
    base = nf4.quantize_model(models.load(case.folder))
    oracle = PeftModel.from_pretrained(base, start, is_trainable=True)
    wanted = training.run(oracle, make_batches(case, data), 10, 1, finetuning.TRAINING)
    finetuning.compare_run(report, name, program.finetune(config), wanted)
    finetuning.check_our_adapter(report, name, program, case, oracle.eval(), output)


def check_pissa(report, name, program, case, work):
    """A run that PiSSA begins on both sides; the adapter is saved as plain LoRA and loads as such."""
    data, output, config = prepare(case, name, work)
    settings = dict(r=3, lora_alpha=5, target_modules=adapters.TEXT_LINEARS)
    write_json(config, finetuning.finetune_config(
        case, data, output, max_steps=10, init_lora_weights="pissa", **settings))
    oracle = get_peft_model(models.load(case.folder),
                            LoraConfig(init_lora_weights="pissa", **settings))
    wanted = training.run(oracle, make_batches(case, data), 10, 1, finetuning.TRAINING)
    finetuning.compare_run(report, name, program.finetune(config), wanted)
    ours = case.load(output)
    stored = load_file(output / "adapter_model.safetensors")
    report.equal(f"{name}: ranks in PEFT", {key: value.shape for key, value in stored.items()},
                 {key: value.shape for key, value in get_peft_model_state_dict(ours).items()})
    batch = make_batches(case, data)[0]
    with torch.no_grad():
        found, trained = ours(**batch).logits, oracle.eval()(**batch).logits
    report.close(f"{name}: logits in PEFT", ((found - trained).abs().max() / trained.abs().max()).item(),
                 1e-3)
    report.attempt(f"{name} in PEFT", check_question, program, case, ours,
                   prompts.QUESTIONS[3], output)


def jobs(report, program, case, work):
    """{title: (function, *arguments)}"""
    found = {}
    for kind in adapters.METHODS:
        found[f"adapter {kind}"] = (report.attempt, f"PEFT {kind}", finetuning.check_peft_adapter,
                                    program, case, kind, work)
    for kind in ("dora", "bias_all", "bias_lora_only", "modules"):
        method = dict(method="dora") if kind == "dora" else {}
        found[f"finetune {kind}"] = (report.attempt, f"finetune {kind}", finetuning.check_finetune,
                                     program, case, adapters.METHODS[kind], work, 1, method)
    for method in ("lora", "dora", "full"):
        found[f"{LONG_STEPS} steps {method}"] = (report.attempt, f"{LONG_STEPS} steps {method}",
                                                 check_long, program, case, method, work)
    found["finetune qlora"] = (report.attempt, "finetune qlora", check_qlora, program, case, work)
    found["finetune pissa"] = (report.attempt, "finetune pissa", check_pissa, program, case, work)
    return found
