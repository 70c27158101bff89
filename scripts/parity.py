"""Compares the program live with transformers and PEFT on random checkpoints (use scripts/parity).

Every checkpoint is made here, seeded, of other shapes than tests/fixtures; the program gets the
same folder, pictures, adapter and rows as the oracle, in float32 on the CPU. Prints a table; the
last line is 'N passed, N failed', and the exit status is 1 when anything failed.
"""
import argparse
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

from parity_checks import answers, decoding, finetuning, internvl, internvl_chat, methods, qwen_vl, text, tied  # before transformers: it says what is offline
from parity_checks.program import ROOT, SPECS, Case, Program
from parity_checks.report import Report

import torch
import transformers
from oracle import adapters, dialogues


def check_hub(report, name, program, work):
    """The Python hub client and `vlm pull` on one cache; a process of its own, for it must not be offline."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "parity_hub.py", "--binary", program.binary,
                           "--work", work / "hub"], capture_output=True, text=True, timeout=300)
    print(done.stdout, end="")
    report.add(name, done.returncode == 0, (done.stdout + done.stderr).strip().splitlines()[-1])


def check_all(report, program, work, only):
    cases = [Case(spec, work) for spec in SPECS]
    dialogues.write_rows(work / "data")
    jobs = {f"generate {case.spec.name}": (answers.check_generate, report, program, case)
            for case in cases}
    jobs |= {f"decoding {case.spec.name}": (decoding.check_decoding, report, program, case, work)
             for case in cases}
    first = cases[0]
    for kind in adapters.KINDS:
        jobs[f"adapter {kind}"] = (report.attempt, f"PEFT {kind}", finetuning.check_peft_adapter, program,
                                   first, kind, work)
    runs = {"plain": ("plain", 1), "rslora": ("rslora", 1), "patterns": ("patterns", 1),
            "accumulation": ("plain", 2)}
    for name, (kind, accumulation) in runs.items():
        jobs[f"finetune {name}"] = (report.attempt, f"finetune {name}", finetuning.check_finetune, program,
                                    first, adapters.KINDS[kind], work, accumulation)
    jobs["finetune fresh"] = (report.attempt, "finetune fresh", finetuning.check_fresh, program, first, work)
    jobs |= methods.jobs(report, program, first, work)
    jobs |= tied.jobs(report, program, next(case for case in cases if case.spec.tied), work)
    for case in cases:
        jobs[f"full {case.spec.name}"] = (report.attempt, f"full {case.spec.name}", finetuning.check_full,
                                          program, case, work)
    jobs |= text.jobs(report, program, work)
    jobs |= qwen_vl.jobs(report, program, work)
    jobs |= internvl.jobs(report, program, work)
    jobs |= internvl_chat.jobs(report, program, work)
    jobs["hub cache"] = (report.attempt, "hub cache", check_hub, program, work)
    jobs["default model"] = (report.attempt, "default model", answers.check_default_model, program, work)
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
