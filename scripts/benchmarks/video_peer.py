"""Reads frames of a video as transformers does with PyAV, in a process of its own.

`python -m benchmarks.video_peer FILE INDICES`, a JSON list, prints one line of JSON: seconds from
opening the file to the array of frames, without imports; the process's peak memory beyond what the
imports took; how many frames came.
"""
import json
import resource
import sys
import time

from transformers.video_utils import read_video_pyav


def peak_mb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main():
    path, indices = sys.argv[1], json.loads(sys.argv[2])
    before = peak_mb()
    start = time.perf_counter()
    frames, _ = read_video_pyav(path, lambda metadata: indices)
    seconds = time.perf_counter() - start
    print(json.dumps({"s": seconds, "peak_mb": peak_mb() - before, "frames": len(frames)}))


if __name__ == "__main__":
    main()
