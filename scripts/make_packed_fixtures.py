#!/usr/bin/env python3
"""Writes tests/fixtures/packed/model.safetensors: one small matrix in every packing of 4 bits that is read.

Under "NAME." the packed tensors, under "golden.NAME" the numbers that the package computes from them. Of
compressed-tensors (0.20.1) the package itself packs and unpacks; GPTQ and AWQ are packed by the formulas of AutoGPTQ
0.7.1 (quant_linear) and AutoAWQ 0.2.8 (gemm), NF4 by those of bitsandbytes 0.50.2 (quantize_4bit, double quantization).
Needs numpy, torch, safetensors and compressed-tensors.
"""
import json
from pathlib import Path

import torch
from compressed_tensors.compressors.pack_quantized import pack_to_int32
from safetensors.torch import save_file

OUTPUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "packed"
OUT, IN, GROUP = 48, 96, 32
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
NF4_LEVELS = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
              -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
              0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
              0.7229568362236023, 1.0]


def words(codes):
    """Eight codes of the last dimension in 32 bits, the first in the lowest."""
    parts = codes.reshape(*codes.shape[:-1], -1, 8).to(torch.int64)
    packed = sum(parts[..., i] << 4 * i for i in range(8))
    return torch.where(packed >= 1 << 31, packed - (1 << 32), packed).to(torch.int32)


def make_gptq(tensors, name, generator, symmetric, version, in_order):
    codes = torch.randint(0, 16, (IN, OUT), generator=generator)
    scales = (0.01 + 0.05 * torch.rand(IN // GROUP, OUT, generator=generator)).half()
    zeros = torch.full((IN // GROUP, OUT), 8) if symmetric else torch.randint(1, 16, (IN // GROUP, OUT), generator=generator)
    index = torch.arange(IN) // GROUP
    if not in_order:
        index = index[torch.randperm(IN, generator=generator)]
    tensors[f"{name}.qweight"] = words(codes.t().contiguous()).t().contiguous()
    tensors[f"{name}.qzeros"] = words(zeros - (1 if version == 1 else 0))
    tensors[f"{name}.scales"] = scales
    tensors[f"{name}.g_idx"] = index.to(torch.int32)
    tensors[f"golden.{name}"] = (scales.float()[index] * (codes - zeros[index])).t().contiguous()


def make_awq(tensors, name, generator):
    codes = torch.randint(0, 16, (IN, OUT), generator=generator)
    zeros = torch.randint(0, 16, (IN // GROUP, OUT), generator=generator)
    scales = (0.01 + 0.05 * torch.rand(IN // GROUP, OUT, generator=generator)).half()
    order = torch.tensor(AWQ_ORDER)

    def pack(values):
        return words(values.reshape(values.shape[0], -1, 8)[:, :, order].reshape(values.shape))

    tensors[f"{name}.qweight"] = pack(codes)
    tensors[f"{name}.qzeros"] = pack(zeros)
    tensors[f"{name}.scales"] = scales
    spread = [one.repeat_interleave(GROUP, 0) for one in (scales.float(), zeros)]
    tensors[f"golden.{name}"] = (spread[0] * (codes - spread[1])).t().contiguous()


def make_nf4(tensors, name, generator, nested):
    block, width = 64, 128
    codes = torch.randint(0, 16, (OUT * width,), generator=generator)
    blocks = codes.numel() // block
    state = {"quant_type": "nf4", "blocksize": block, "dtype": "float32", "shape": [OUT, width]}
    if nested:
        levels = torch.sort(torch.rand(256, generator=generator) * 2 - 1).values
        small = torch.randint(0, 256, (blocks,), generator=generator)
        largest = torch.rand((blocks + 255) // 256, generator=generator)
        state |= {"nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 1.5}
        absmax = levels[small] * largest.repeat_interleave(256)[:blocks] + 1.5
        tensors[f"{name}.weight.absmax"] = small.to(torch.uint8)
        tensors[f"{name}.weight.nested_absmax"] = largest
        tensors[f"{name}.weight.nested_quant_map"] = levels
    else:
        absmax = torch.rand(blocks, generator=generator)
        tensors[f"{name}.weight.absmax"] = absmax
    pairs = codes.reshape(-1, 2)
    tensors[f"{name}.weight"] = (pairs[:, 0] << 4 | pairs[:, 1]).to(torch.uint8).unsqueeze(1)
    tensors[f"{name}.weight.quant_map"] = torch.tensor(NF4_LEVELS)
    text = json.dumps(state).encode()
    tensors[f"{name}.weight.quant_state.bitsandbytes__nf4"] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    values = torch.tensor(NF4_LEVELS)[codes] * absmax.repeat_interleave(block)
    tensors[f"golden.{name}"] = values.reshape(OUT, width)


def make_compressed(tensors, name, generator, group, symmetric):
    codes = torch.randint(-8, 8, (OUT, IN), generator=generator).to(torch.int8)
    scales = (0.01 + 0.05 * torch.rand(OUT, IN // group, generator=generator)).to(torch.bfloat16)
    zeros = torch.zeros(OUT, IN // group, dtype=torch.int8)
    if not symmetric:
        zeros = torch.randint(-8, 8, zeros.shape, generator=generator).to(torch.int8)
        tensors[f"{name}.weight_zero_point"] = pack_to_int32(zeros, 4, packed_dim=0).contiguous()
    tensors[f"{name}.weight_packed"] = pack_to_int32(codes, 4)
    tensors[f"{name}.weight_scale"] = scales
    tensors[f"{name}.weight_shape"] = torch.tensor([OUT, IN])
    spread = [one.repeat_interleave(group, 1).float() for one in (scales, zeros)]
    tensors[f"golden.{name}"] = spread[0] * (codes.float() - spread[1])


def main():
    OUTPUT.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    make_gptq(tensors, "gptq", generator, symmetric=False, version=1, in_order=True)
    make_gptq(tensors, "gptq_symmetric", generator, symmetric=True, version=1, in_order=True)
    make_gptq(tensors, "gptq_order", generator, symmetric=True, version=1, in_order=False)
    make_gptq(tensors, "gptq_v2", generator, symmetric=False, version=2, in_order=True)
    make_awq(tensors, "awq", generator)
    make_nf4(tensors, "nf4", generator, nested=True)
    make_nf4(tensors, "nf4_flat", generator, nested=False)
    make_compressed(tensors, "packed", generator, GROUP, symmetric=True)
    make_compressed(tensors, "packed_channel", generator, IN, symmetric=True)
    make_compressed(tensors, "packed_zeros", generator, GROUP, symmetric=False)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, OUTPUT / "model.safetensors")


if __name__ == "__main__":
    main()
