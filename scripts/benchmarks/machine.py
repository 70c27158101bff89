"""What this machine can do: bytes a second from memory, and products a second in float32, bfloat16
and 8 bits, each as fast as LibTorch gets over a few shapes.

measure(threads) runs in a process of its own, under the thread settings of what is measured
beside it. `python -m benchmarks.machine THREADS` prints the result as one line of JSON.
"""
import json
import os
import subprocess
import sys
import time
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent


def environment(threads):
    """For every measured process: the same number of threads, nothing from the network."""
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "TRANSFORMERS_VERBOSITY": "error", "PYTHONPATH": str(SCRIPTS)}


def cpus():
    return os.sched_getaffinity(0)


def available_gb():
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024 / 1e9
    return 0.0


def describe():
    text = Path("/proc/cpuinfo").read_text()
    names = [line.split(":", 1)[1].strip() for line in text.splitlines()
             if line.startswith("model name")]
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "").split()
    wide = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if f in flags]
    return f"{len(names)} x {names[0] if names else 'unknown'} ({', '.join(wide)})"


PRODUCTS = ("float32", "bfloat16", "int8")
SHAPES = ((1024, 768, 3072), (1024, 3072, 768), (2048, 2048, 2048))  # rows, inputs, outputs


def quickest(function, seconds=0.5):
    """Seconds of the quickest call, over about `seconds`."""
    function()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def product(torch, dtype, rows, inputs, outputs):
    """A call that multiplies [rows, inputs] by [inputs, outputs] in `dtype`."""
    if dtype == "int8":
        onednn = torch.ops.onednn
        x = torch.randint(0, 255, (rows, inputs), dtype=torch.uint8)
        weight = torch.randint(-127, 127, (outputs, inputs), dtype=torch.int8)
        packed = onednn.qlinear_prepack(weight, [rows, inputs])
        scales, zeros = torch.ones(outputs), torch.zeros(outputs, dtype=torch.int32)
        return lambda: onednn.qlinear_pointwise(x, 1.0, 0, packed, scales, zeros, None, 1.0, 0,
                                                torch.float32, "none", [], "")
    of_dtype = {"dtype": getattr(torch, dtype)}
    x, weight = torch.randn(rows, inputs, **of_dtype), torch.randn(outputs, inputs, **of_dtype)
    return lambda: torch.nn.functional.linear(x, weight)


def measure(threads):
    import torch
    torch.set_num_threads(threads)
    linear = torch.nn.functional.linear
    limits = {}
    with torch.inference_mode():
        # Matrix by vector over more weights than any cache holds: nothing but reading.
        bandwidth = []
        for dtype in (torch.float32, torch.bfloat16):
            weights = [torch.randn(4096, 8192, dtype=dtype) for _ in range(8)]
            x = torch.randn(1, 8192, dtype=dtype)
            seconds = quickest(lambda: [linear(x, w) for w in weights])
            bandwidth.append(sum(w.nbytes for w in weights) / seconds)
        limits["bandwidth_gb_s"] = max(bandwidth) / 1e9
        for dtype in PRODUCTS:
            limits[f"{dtype}_gflop_s"] = max(
                2 * rows * inputs * outputs / quickest(product(torch, dtype, rows, inputs, outputs))
                for rows, inputs, outputs in SHAPES) / 1e9
    return limits


def measure_apart(threads):
    done = subprocess.run([sys.executable, "-m", "benchmarks.machine", str(threads)],
                          env=environment(threads), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
