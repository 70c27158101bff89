"""What this machine can do: bytes a second from memory and float32 products a second.

measure(threads) runs in a process of its own, under the thread settings of what is measured
beside it. `python -m benchmarks.machine THREADS` prints the result as one line of JSON.
"""
import json
import os
import statistics
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


def timed(function, seconds=1.0):
    """Median seconds of one call, over about `seconds`."""
    function()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(threads):
    import torch
    torch.set_num_threads(threads)
    linear = torch.nn.functional.linear
    with torch.inference_mode():
        # Matrix by vector over more weights than any cache holds: nothing but reading.
        weights = [torch.randn(2048, 8192) for _ in range(16)]
        x = torch.randn(1, 8192)
        matvec = timed(lambda: [linear(x, w) for w in weights])
        a, b = torch.randn(1024, 768), torch.randn(3072, 768)
        c, d = torch.randn(2048, 2048), torch.randn(2048, 2048)
        narrow, square = timed(lambda: linear(a, b)), timed(lambda: linear(c, d))
    return {
        "bandwidth_gb_s": sum(w.nbytes for w in weights) / matvec / 1e9,
        "products_gflop_s": max(2 * 1024 * 768 * 3072 / narrow, 2 * 2048**3 / square) / 1e9,
    }


def measure_apart(threads):
    done = subprocess.run([sys.executable, "-m", "benchmarks.machine", str(threads)],
                          env=environment(threads), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
