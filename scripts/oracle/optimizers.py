"""Golden values of optimizers, schedules and quantization, from torch, transformers, bitsandbytes.

bitsandbytes is not among the oracle packages; its part of the fixtures is made where it can be
imported (pip install --no-deps bitsandbytes==0.50.2). Its CPU library is kept from loading: the
kernels in Python that then run compute what the CUDA kernels do, while the CPU library rounds 0.2 %
of 8-bit codes to the neighbour.
"""
import ctypes

import torch

STEPS = 6
OPTIONS = dict(lr=0.01, betas=(0.9, 0.99), eps=1e-8)
DECAY = 0.1


def hide_library():
    """Keeps the CPU library of bitsandbytes from loading. Before peft, which imports it, is."""
    real = ctypes.cdll.LoadLibrary

    def load(path, *rest):
        if "libbitsandbytes" in str(path):
            raise OSError("kept from loading")
        return real(path, *rest)

    ctypes.cdll.LoadLibrary = load


def start_values():
    """Two parameters: one of more than 4096 values, whose moments can be in 8 bits, one of fewer."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"large.weight": (70, 64), "small.weight": (6, 11)}
    values = {f"start.{name}": torch.randn(shape, generator=generator)
              for name, shape in shapes.items()}
    for step in range(STEPS):
        for name, shape in shapes.items():
            gradient = torch.randn(shape, generator=generator) * 0.1 ** (step % 3)
            gradient[2] = 0
            values[f"grad{step}.{name}"] = gradient
    return values


def run(make, values):
    """{name: parameter after all steps}; the second group has three times the rate."""
    names = [name.removeprefix("start.") for name in values if name.startswith("start.")]
    parameters = {name: torch.nn.Parameter(values[f"start.{name}"].clone()) for name in names}
    optimizer = make([{"params": [parameters[names[0]]]},
                      {"params": [parameters[names[1]]], "lr": 3 * OPTIONS["lr"]}])
    for step in range(STEPS):
        for name, parameter in parameters.items():
            parameter.grad = values[f"grad{step}.{name}"].clone()
        optimizer.step()
    return {name: parameter.detach() for name, parameter in parameters.items()}, optimizer


def torch_golden(values):
    found = {}
    for name, make in {
            "adamw": lambda groups: torch.optim.AdamW(groups, weight_decay=DECAY, **OPTIONS),
            "sgd": lambda groups: torch.optim.SGD(groups, lr=OPTIONS["lr"], weight_decay=DECAY),
            "sgd_momentum": lambda groups: torch.optim.SGD(
                groups, lr=OPTIONS["lr"], weight_decay=DECAY, momentum=0.8)}.items():
        final, _ = run(make, values)
        found |= {f"{name}.{key}": value for key, value in final.items()}
    return found


def adamw_8bit_golden(bitsandbytes, values):
    final, optimizer = run(lambda groups: bitsandbytes.optim.AdamW8bit(
        groups, weight_decay=DECAY, **OPTIONS), values)
    found = {f"adamw_8bit.{key}": value for key, value in final.items()}
    for state in optimizer.state.values():
        if state["state1"].dtype == torch.uint8:
            for key in ("state1", "absmax1", "state2", "absmax2", "qmap1", "qmap2"):
                found[f"adamw_8bit.{key}"] = state[key].flatten()
    return found


def nf4_golden(bitsandbytes):
    """Weights with whole blocks, with a rest, with zeros, and of more than 256 blocks."""
    functional = bitsandbytes.functional
    generator = torch.Generator().manual_seed(6)
    weights = {"whole": torch.randn(24, 64, generator=generator) * 0.05,
               "rest": torch.randn(9, 23, generator=generator),
               "many": torch.randn(100, 176, generator=generator) ** 3}
    weights["whole"][3] = 0
    weights["whole"][5] *= 1e-3
    found = {}
    for name, weight in weights.items():
        codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4",
                                                compress_statistics=True)
        found |= {f"{name}.weight": weight, f"{name}.codes": codes.flatten(),
                  f"{name}.absmax": state.absmax, f"{name}.absmax_scales": state.state2.absmax,
                  f"{name}.absmax_mean": state.offset.reshape(1),
                  f"{name}.dequantized": functional.dequantize_4bit(codes, state)}
    return found


SCHEDULES = {
    "cosine_two_waves": ("cosine", 3, dict(num_cycles=2)),
    "cosine_with_restarts": ("cosine_with_restarts", 4, {}),
    "cosine_with_restarts_three": ("cosine_with_restarts", 2, dict(num_cycles=3)),
    "wsd": ("warmup_stable_decay", 5, dict(num_decay_steps=6)),
    "wsd_linear": ("warmup_stable_decay", 3, dict(
        num_decay_steps=8, min_lr_ratio=0.1, warmup_type="cosine", decay_type="linear")),
    "wsd_sqrt": ("warmup_stable_decay", 4, dict(
        num_decay_steps=7, min_lr_ratio=0.05, warmup_type="1-sqrt", decay_type="1-sqrt")),
}


def schedule_values(total=20, rate=1e-3):
    """{name: type, options and the rates of total + 2 optimizer steps}."""
    from transformers import get_scheduler
    found = {}
    for name, (kind, warmup, options) in SCHEDULES.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=rate)
        schedule = get_scheduler(kind, optimizer, warmup, total, options)
        rates = []
        for _ in range(total + 2):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        found[name] = {"type": kind, "warmup_steps": warmup, "options": options,
                       "learning_rates": rates}
    return {"learning_rate": rate, "total_steps": total, "schedules": found}
