"""Reads frames of a video as transformers does (PyAV), in a process of its own.

`python -m benchmarks.video_peer FILE count N` or `… FILE step SECONDS` prints one line of JSON:
seconds from opening the file to the array of frames, without imports; the process's peak memory
beyond what the imports took; how many frames came.
"""
import json
import resource
import sys
import time

import numpy
from transformers.video_utils import read_video_pyav


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def choose(kind, amount, metadata):
    """Indices as video_tool chooses them."""
    total = metadata.total_num_frames
    if kind == "count":
        count = min(int(amount), total)
        return [i * (total - 1) // (count - 1) for i in range(count)]
    step = amount * metadata.fps
    return [round(i * step) for i in range(int((total - 1) / step) + 1)]


def main():
    path, kind, amount = sys.argv[1], sys.argv[2], float(sys.argv[3])
    before = peak_mb()
    start = time.perf_counter()
    frames, _ = read_video_pyav(path, lambda metadata: choose(kind, amount, metadata))
    seconds = time.perf_counter() - start
    sums = frames[::max(1, len(frames) // 4)].astype(numpy.uint64).sum()
    print(json.dumps({"s": seconds, "peak_mb": peak_mb() - before, "frames": len(frames),
                      "sum": int(sums)}))


if __name__ == "__main__":
    main()
