"""Writing golden tensors: float32, int64 and uint8, finite, one safetensors file."""
import torch
from safetensors.torch import save_file


def save_tensors(path, tensors):
    kinds = {torch.float32, torch.int64, torch.uint8}
    for name, value in tensors.items():
        assert value.dtype in kinds, f"{name}: {value.dtype}"
        if value.dtype == torch.float32:
            assert torch.isfinite(value).all(), f"{name} is not finite"
    save_file({k: tensors[k].contiguous().clone() for k in sorted(tensors)}, str(path))
    path.chmod(0o644)
