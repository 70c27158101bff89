#!/usr/bin/env python3
"""Captions a folder of pictures with vlm on a Ray cluster: Ray Data deals out shards, vlm does the rest.

  pip install "ray[data]"
  examples/ray/caption_folder.py PICTURES --model MODEL --output rows.jsonl --shards 8

Every shard is a run of the program of its own, with a journal of its own: a shard whose worker died is done again from
where it stopped. All machines must see the pictures, the model and the output's folder under the same paths. What
stands behind "--" goes to `vlm caption` as it is.
"""
import argparse
import os
import subprocess
import sys

import ray


def answer_shard(row, command):
    """One shard in a process of its own; returns its exit code and the end of what it said."""
    # The shard is told by an option. Ray's workers may have inherited a Slurm job's or torchrun's variables.
    done = subprocess.run(command + ["--shard", f"{row['id']}/{row['shards']}"], capture_output=True, text=True)
    return {"shard": row["id"], "pid": os.getpid(), "code": done.returncode, "said": done.stderr[-500:]}


def main():
    own, passed_on = sys.argv[1:], []
    if "--" in own:
        at = own.index("--")
        own, passed_on = own[:at], own[at + 1:]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures")
    parser.add_argument("--model", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--cpus", type=int, default=1, help="CPUs of each shard")
    parser.add_argument("--vlm", default="build/vlm")
    options = parser.parse_args(own)

    vlm, output = os.path.abspath(options.vlm), os.path.abspath(options.output)
    model = os.path.abspath(options.model) if os.path.isdir(options.model) else options.model
    command = [vlm, "caption", os.path.abspath(options.pictures), "--model", model, "--output", output,
               "--threads", str(options.cpus), *passed_on]
    shards = ray.data.range(options.shards, override_num_blocks=options.shards)
    shards = shards.map(lambda row: {"id": int(row["id"]), "shards": options.shards})
    results = shards.map(answer_shard, fn_kwargs={"command": command}, num_cpus=options.cpus).take_all()
    for result in sorted(results, key=lambda row: row["shard"]):
        print(f"shard {result['shard']}: exit code {result['code']}, worker {result['pid']}")
        if result["code"] not in (0, 3):
            print(result["said"], file=sys.stderr)
    return subprocess.run([vlm, "gather", output, "--shards", str(options.shards)]).returncode


if __name__ == "__main__":
    sys.exit(main())
