"""NF4 with double quantization as bitsandbytes' formula has it, in torch: the oracle of QLoRA runs.

check() compares it with values that bitsandbytes itself made (tests/fixtures/optimizers).
"""
import torch
from safetensors.torch import load_file

LEVELS = torch.tensor([
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0])


def dynamic_levels():
    """256 signed levels: exponents of ten, each with twice the values of the one below."""
    levels = [0.0, 1.0]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2 ** exponent + 1)
        middles = (10.0 ** (exponent - 6) * (edges[:-1] + edges[1:]) / 2).tolist()
        levels += middles + [-value for value in middles]
    return torch.tensor(sorted(levels))


def nearest(values, levels, size):
    """Values of whole blocks through the levels and back."""
    flat = values.flatten()
    rest = -len(flat) % size
    blocks = torch.nn.functional.pad(flat, (0, rest)).view(-1, size)
    scale = blocks.abs().amax(1, keepdim=True)
    unit = (blocks * (1 / scale.clamp(min=1e-38))).clamp(-1, 1)
    codes = torch.bucketize(unit, (levels[:-1] + levels[1:]) / 2)
    return codes, scale, len(flat)


def roundtrip(weight):
    """What a weight is after NF4 and back."""
    codes, scale, count = nearest(weight.float(), LEVELS, 64)
    offset = scale.mean()
    again, outer, blocks = nearest(scale - offset, dynamic_levels(), 256)
    scale = (dynamic_levels()[again] * outer).flatten()[:blocks] + offset
    return (LEVELS[codes] * scale[:, None]).flatten()[:count].view(weight.shape)


def check(fixtures):
    """Largest difference from bitsandbytes' own values."""
    golden = load_file(fixtures / "optimizers" / "nf4.safetensors")
    return max((roundtrip(golden[f"{name}.weight"]) - golden[f"{name}.dequantized"]).abs().max()
               for name in ("whole", "rest", "many")).item()


def quantize_model(model):
    """Linear layers but the head through NF4; head and token embeddings through bfloat16."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if name == "lm_head" or name.endswith("embed_tokens"):
                module.weight.copy_(module.weight.bfloat16().float())
            elif isinstance(module, torch.nn.Linear):
                module.weight.copy_(roundtrip(module.weight))
    return model
