#!/usr/bin/env python3
"""Measures a model on the direction of motion, with its controls.

    scripts/measure_motion.py --model out/motion [--data .data/motion] [--max-frames 2]

Runs `vlm video` on the held-out clips that scripts/make_motion.py wrote over photographs never trained on, on the same
clips with one frame shown throughout, and with their frames in random order. Prints for each: the share of right
directions, the share of right axes (which a shuffled clip still shows), and of directions among those. A blind guess
gives 0.25, 0.5 and 0.5.
"""
import argparse
import json
import pathlib
import subprocess

AXES = {"left": "x", "right": "x", "up": "y", "down": "y"}
SETS = {"clips": "test", "one frame throughout": "test_frozen", "frames shuffled": "test_shuffled"}


def answer_rows(options, name):
    """(answer, right answer) of every clip of a file of samples."""
    samples = [json.loads(line) for line in open(options.data / f"{name}.jsonl", encoding="utf-8")]
    questions, rows = options.out / f"{name}_questions.jsonl", options.out / f"{name}.jsonl"
    with open(questions, "w", encoding="utf-8") as out:
        for number, sample in enumerate(samples):
            videos = [str((options.data / path).resolve()) for path in sample["videos"]]
            out.write(json.dumps({"id": str(number), "messages": sample["messages"][:1], "videos": videos}) + "\n")
    command = [options.binary, "video", questions, "--model", options.model, "--output", rows, "--restart",
               "--max-frames", options.max_frames, "--max-new-tokens", 16, "--batch-size", 16,
               "--log-level", "warning", *options.rest]
    subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
    texts = {row["id"]: row.get("text", "") for row in map(json.loads, open(rows, encoding="utf-8"))}
    return [(texts[str(number)], sample["messages"][-1]["content"][0]["text"]) for number, sample in enumerate(samples)]


def direction(text):
    """The last word: the answer itself, or what follows the places."""
    return (text.split() or [""])[-1]


def score(rows):
    pairs = [(direction(text), direction(answer)) for text, answer in rows]
    right = sum(got == wanted for got, wanted in pairs)
    axis = sum(AXES.get(got) == AXES[wanted] for got, wanted in pairs)
    return right / len(pairs), axis / len(pairs), right / max(axis, 1), len(pairs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(".data/motion"))
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out/measure_motion"), help="for the rows")
    parser.add_argument("--binary", type=pathlib.Path, default=pathlib.Path("build/vlm"))
    parser.add_argument("--max-frames", type=int, default=2)
    parser.add_argument("rest", nargs="*", help="further options of vlm video, behind --")
    parser.add_argument("--sets", nargs="*", default=[], metavar="NAME",
                        help="other files of --data in place of the six")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print(f"{'question':<12} {'shown':<22} direction  axis   direction on the axis  clips")
    for name in options.sets:
        found, axis, on_axis, count = score(answer_rows(options, name))
        print(f"{'':<12} {name:<22} {found:9.3f} {axis:6.3f} {on_axis:12.3f} {count:17}", flush=True)
    if options.sets:
        return
    for question, suffix in {"direction": "", "places too": "_path"}.items():
        for title, name in SETS.items():
            found, axis, on_axis, count = score(answer_rows(options, name + suffix))
            print(f"{question:<12} {title:<22} {found:9.3f} {axis:6.3f} {on_axis:12.3f} {count:17}", flush=True)


if __name__ == "__main__":
    main()
