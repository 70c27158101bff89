#!/usr/bin/env python3
"""Copies a small checkpoint that doesn't split pictures so that it sees them at another size.

    scripts/resize_tiles.py MODEL SIDE OUT

A picture is then SIDE x SIDE pixels: fewer patches, and as many times less work. Positions are fractions of a side, so
the weights fit any size that the patches and the connector divide. transformers reads the folder, too.
"""
import argparse
import json
import pathlib
import shutil


def load(path):
    return json.loads(path.read_text(encoding="utf-8"))


def save(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("side", type=int, help="pixels, at most the checkpoint's image_size")
    parser.add_argument("out", type=pathlib.Path)
    options = parser.parse_args()
    config = load(options.model / "config.json")
    vision = config["vision_config"]
    cell = vision["patch_size"] * config["scale_factor"]
    if options.side % cell or not cell <= options.side <= vision["image_size"]:
        parser.error(f"side is {options.side}, wanted a multiple of {cell} up to {vision['image_size']}")
    pictures = load(options.model / "preprocessor_config.json")
    if pictures["do_image_splitting"]:
        parser.error(f"{options.model} splits pictures; its size.longest_edge says into how many tiles")
    options.out.mkdir(parents=True, exist_ok=True)
    for path in options.model.iterdir():
        if path.is_file():
            shutil.copy(path, options.out / path.name)
    side = {"longest_edge": options.side}
    pictures |= {"size": side, "max_image_size": side}
    if "video_sampling" in pictures:
        pictures["video_sampling"]["video_size"] = side
    save(options.out / "preprocessor_config.json", pictures)
    save(options.out / "processor_config.json",
         {**load(options.model / "processor_config.json"), "image_seq_len": (options.side // cell) ** 2})


if __name__ == "__main__":
    main()
