#!/usr/bin/env python3
"""Measures a batch run over a large folder: time to the first row, memory over time, and going on when half is done.

  scripts/measure_batch.py --pictures 100000 --questions 5 --seconds 60

Pictures are hard links to copies of examples/pictures. The run is killed after --seconds; then its output and journal
are filled up to half of all items (rows of the format that the program writes), and it is started again. The second
number is the time from the start of the process to the first new row, with the model's load in it.
"""
import argparse
import ctypes
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = struct.Struct("<QQQII")  # RowRecord of infer/batch/journal.h
XXHASH = ctypes.CDLL("libxxhash.so.0")  # of libxxhash-dev, which the build needs
XXHASH.XXH3_64bits.restype = ctypes.c_uint64
XXHASH.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def record(ordinal, end, row):
    begin = RECORD.pack(ordinal, end, XXHASH.XXH3_64bits(row, len(row)), 0, 0)[:-4]
    return begin + struct.pack("<I", XXHASH.XXH3_64bits(begin, len(begin)) & 0xFFFFFFFF)


def make_folder(folder, count):
    originals = []
    for number, path in enumerate(sorted((ROOT / "examples/pictures").glob("*.png"))):
        copy = folder / f"original_{number}"
        shutil.copyfile(path, copy)
        originals.append(copy)
    for i in range(count):
        place = folder / "in" / f"{i // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[i % len(originals)], place / f"{i:07d}.png")


def resident_mb(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def run(command, output, seconds):
    """Starts the run, kills it after `seconds` behind its first new row; prints what was seen."""
    journal = pathlib.Path(str(output) + ".journal")
    before = output.stat().st_size if output.exists() else 0
    begin = time.monotonic()
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while not output.exists() or output.stat().st_size <= before:
        if process.poll() is not None:
            raise SystemExit(f"the run ended with {process.returncode}")
        time.sleep(0.01)
    first = time.monotonic() - begin
    print(f"  first new row {first:.2f} s after the start of the process", flush=True)
    for tick in range(6):
        print(f"  {time.monotonic() - begin:7.1f} s: {resident_mb(process.pid):7.1f} MB resident, "
              f"journal {journal.stat().st_size} bytes", flush=True)
        if tick < 5:
            time.sleep(seconds / 5)
    process.kill()
    process.wait()


def fill_to_half(output):
    """Rows and records of the first half of the items, as if an earlier run had written them."""
    journal = pathlib.Path(str(output) + ".journal")
    with journal.open("rb") as file:
        header = file.readline()
    items = json.loads(header)["items"]
    end = 0
    with journal.open("wb") as records, output.open("wb") as rows:
        records.write(header)
        for ordinal in range(items // 2):
            row = json.dumps({"id": f"in/{ordinal}.png", "path": f"in/{ordinal}.png", "question": "What is this?",
                              "text": "an answer of some words that stand for others",
                              "mean_logprob": -1.2345678901234567, "finish_reason": "length"}) + "\n"
            rows.write(row.encode())
            end += len(row)
            records.write(record(ordinal, end, row.encode()))
    return items


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=100000)
    parser.add_argument("--questions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", default=str(ROOT / "models/easy-vqa-emoji"))
    parser.add_argument("--vlm", default=str(ROOT / "build/vlm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        make_folder(folder, options.pictures)
        output = folder / "rows.jsonl"
        command = [options.vlm, "vqa", str(folder / "in"), "--model", options.model, "--device", "cpu",
                   "--max-new-tokens", "4", "--output", str(output)]
        for i in range(options.questions):
            command += ["--question", f"what is {i} in the image?"]
        print("new run:", flush=True)
        run(command, output, options.seconds)
        print(f"half of {fill_to_half(output)} items done:", flush=True)
        run(command, output, options.seconds / 5)


if __name__ == "__main__":
    main()
