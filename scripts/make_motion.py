#!/usr/bin/env python3
"""Writes short clips of a shape that moves over a photograph, to train and measure the direction of motion on.

    .deps/parity-venv/bin/python scripts/make_motion.py [--out .data/motion] [--train 6000] [--test 400]

OUT/train/*.mp4 and OUT/test/*.mp4, each with a JSONL file: H.264, 128 x 128, 10 frames a second, 3 seconds. The
photographs are those that pip's scikit-image brings (public domain or CC0); training and test share none. Where the
shape stands in the middle of a clip says nothing about where it goes. test_frozen.jsonl and test_shuffled.jsonl are
controls: the clips of test.jsonl with the frame of their middle shown throughout, and with their frames in random order
(which still shows along which axis the shape moves). *_path.jsonl ask for the shape's place in each frame as well,
before the direction. OUT/plain_places/*.png (on plain ground), OUT/places/*.png (over photographs, more or less faded)
and their JSONL files, to begin a training with, are single pictures that ask for the place. Needs numpy, Pillow and the
ffmpeg program; the same seed gives the same clips.
"""
import argparse
import pathlib
import random
import subprocess
import zipfile

import numpy as np
from make_data import Packages, write_jsonl
from PIL import Image

WHEEL = "scikit_image-0.25.2-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"
WHEEL_SHA256 = "24cc986e1f4187a12aa319f777b36008764e856e5013666a4a83f8df083c2641"
WHEEL_OPTIONS = ["--python-version", "3.11", "--implementation", "cp", "--platform", "manylinux_2_17_x86_64",
                 "--platform", "manylinux2014_x86_64"]
TRAIN_PICTURES = ["astronaut.png", "brick.png", "camera.png", "coffee.png", "coins.png", "grass.png", "gravel.png",
                  "hubble_deep_field.jpg", "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg"]
TEST_PICTURES = ["chelsea.png", "rocket.jpg"]

QUESTION = "Which way does the shape move?"
PATH_QUESTION = "Where is the shape in each frame, and which way does it move?"
PLACE_QUESTION = "Where is the shape?"
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COLOURS = {"blue": (30, 60, 220), "green": (20, 160, 40), "red": (215, 30, 35), "teal": (0, 150, 150),
           "yellow": (245, 215, 40), "white": (250, 250, 250)}
SHAPES = ["circle", "rectangle", "triangle"]
SIDE, FPS, FRAMES = 128, 10, 30
# SmolVLM2's rule takes frames 0, 14 and 29 of such a clip at its one frame a second; configs/motion.json is content
# with at most two of them: first and last.
SAMPLED = [0, 29]
MIDDLE = 14
GRID = 4  # columns and rows that a place is told by
MARGIN = 0.18  # of a side, that the centre keeps from the edges in the sampled frames
CLIPS_A_RUN = 500


def load_photographs(packages, names):
    wheel = packages.wheel("scikit-image==0.25.2", WHEEL, WHEEL_SHA256, WHEEL_OPTIONS)
    with zipfile.ZipFile(wheel) as archive:
        return [Image.open(archive.open(f"skimage/data/{name}")).convert("RGB") for name in names]


def plain_ground(chance):
    """One light colour with some noise: float32 [SIDE, SIDE, 3]."""
    noise = np.random.Generator(np.random.PCG64(chance.randrange(1 << 32)))
    colour = np.array([chance.uniform(190, 255) for _ in range(3)], dtype=np.float32)
    return np.clip(colour + noise.normal(0, 8, (SIDE, SIDE, 3)), 0, 255).astype(np.float32)


def crop(photograph, chance):
    """A random square of a photograph, mirrored half of the time: float32 [SIDE, SIDE, 3]."""
    side = int(min(photograph.size) * chance.uniform(0.4, 1.0))
    left, top = (chance.randint(0, edge - side) for edge in photograph.size)
    square = photograph.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.array(square, dtype=np.float32)
    return pixels[:, ::-1] if chance.random() < 0.5 else pixels


def coverage(shape, x, y, radius):
    """How much of each pixel the shape covers, 0 to 1; x and y are distances from its centre [frames, SIDE, SIDE]."""
    if shape == "circle":
        inside = radius - np.hypot(x, y)
    elif shape == "rectangle":
        inside = np.minimum(radius - np.abs(x), radius * 0.7 - np.abs(y))
    else:  # a triangle that points up
        slope = np.float32(0.8944)  # of sides that are twice as steep as a diagonal
        inside = np.minimum(radius * 0.8 - y, radius * slope * 0.6 + (y * 0.5 - np.abs(x)) * slope)
    return np.clip(inside + 0.5, 0, 1)


def choose_middle(chance):
    """(a centre in the middle of a clip, along one axis, the way to go from the first to the last frame), in sides."""
    way = chance.uniform(0.25, 0.45)
    return chance.uniform(MARGIN + way / 2, 1 - MARGIN - way / 2), way


def choose_path(chance, direction):
    """Where the centre stands in each frame, along the axis of motion and across it, in sides of the picture.

    In the middle of the clip both are drawn alike, whichever way the shape moves: one frame of there tells neither
    direction nor axis.
    """
    (middle, way), (across, _) = choose_middle(chance), choose_middle(chance)
    way *= sum(DIRECTIONS[direction])
    return middle + way * (np.arange(FRAMES, dtype=np.float32) / (FRAMES - 1) - 0.5), across, abs(way)


def tell_place(x, y):
    """Column and row, 0 to 3, of a place in sides of the picture: "21"."""
    return f"{int(x * GRID)}{int(y * GRID)}"


def draw_shape(background, shape, colour, centre_x, centre_y, radius):
    """The background with the shape at each of the centres [frames], in sides: uint8 [frames, SIDE, SIDE, 3]."""
    grid_y, grid_x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5
    alpha = coverage(shape, grid_x - centre_x[:, None, None] * SIDE, grid_y - centre_y[:, None, None] * SIDE,
                     np.float32(radius * SIDE))[..., None]
    return (background * (1 - alpha) + np.asarray(COLOURS[colour], dtype=np.float32) * alpha).round().astype(np.uint8)


def choose_look(photograph, chance, faded=False):
    background = crop(photograph, chance) if photograph else plain_ground(chance)
    if faded:
        background += (plain_ground(chance) - background) * np.float32(chance.random())
    return {"background": background, "colour": chance.choice(list(COLOURS)),
            "shape": chance.choice(SHAPES), "radius": chance.uniform(0.12, 0.18)}


def draw_clip(photograph, chance, direction):
    """(frames uint8 [FRAMES, SIDE, SIDE, 3], what is shown)."""
    look = choose_look(photograph, chance)
    along, across, way = choose_path(chance, direction)
    fixed = np.full(FRAMES, across, dtype=np.float32)
    centre_x, centre_y = (along, fixed) if DIRECTIONS[direction][0] != 0 else (fixed, along)
    places = ",".join(tell_place(centre_x[frame], centre_y[frame]) for frame in SAMPLED)
    shown = {"colour": look["colour"], "shape": look["shape"], "way": round(way, 3), "places": places}
    return draw_shape(centre_x=centre_x, centre_y=centre_y, **look), shown


def make_places(name, photographs, count, seed, out):
    """OUT/NAME/*.png, each with a shape anywhere a clip may show one over a faded photograph, and OUT/NAME.jsonl."""
    (out / name).mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        chance = random.Random(seed * 1_000_003 + number)
        x, y = (np.array([chance.uniform(MARGIN, 1 - MARGIN)], dtype=np.float32) for _ in "xy")
        pixels = draw_shape(centre_x=x, centre_y=y, **choose_look(chance.choice(photographs), chance, faded=True))[0]
        path = f"{name}/{number:05d}.png"
        Image.fromarray(pixels).save(out / path)
        rows.append({"messages": [{"role": "user", "content": [{"type": "image"},
                                                               {"type": "text", "text": PLACE_QUESTION}]},
                                  {"role": "assistant", "content": [{"type": "text",
                                                                     "text": tell_place(x[0], y[0])}]}],
                     "images": [path]})
    write_jsonl(out / f"{name}.jsonl", rows)


def encode(clips, pattern):
    """Writes clips (an iterator of frame arrays) as MP4 files by ffmpeg; pattern has a %05d."""
    command = ["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}",
               "-r", str(FPS), "-i", "-", "-c:v", "libx264", "-preset", "veryfast", "-crf", "21",
               "-pix_fmt", "yuv420p", "-threads", "1", "-bf", "0", "-g", str(FRAMES), "-keyint_min", str(FRAMES),
               "-sc_threshold", "0",
               "-fflags", "+bitexact", "-flags:v", "+bitexact",
               "-f", "segment", "-segment_time", str(FRAMES / FPS), "-segment_format", "mp4", "-reset_timestamps", "1",
               str(pattern)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as ffmpeg:
        for frames in clips:
            ffmpeg.stdin.write(frames.tobytes())
        ffmpeg.stdin.close()
    if ffmpeg.returncode != 0:
        raise SystemExit(f"ffmpeg exit {ffmpeg.returncode}")


def sample(path, question, answer, **columns):
    return {"messages": [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]},
                         {"role": "assistant", "content": [{"type": "text", "text": answer}]}],
            "videos": [path], **columns}


def drawn_clips(photographs, count, seed):
    """(frames, shown, direction) of clip after clip; a clip depends on seed and number only."""
    for number in range(count):
        chance = random.Random(seed * 1_000_003 + number)
        direction = list(DIRECTIONS)[number % 4]
        yield (*draw_clip(chance.choice(photographs), chance, direction), direction)


def in_runs(clips, folder, change):
    """Encodes clips in runs of ffmpeg, each changed by `change`; returns what was shown, clip by clip."""
    folder.mkdir(parents=True, exist_ok=True)
    rows, run = [], []

    def flush():
        encode((frames for frames in run), folder / f"{(len(rows) - len(run)) // CLIPS_A_RUN:02d}_%05d.mp4")
        run.clear()

    for number, (frames, shown, direction) in enumerate(clips):
        path = f"{folder.name}/{number // CLIPS_A_RUN:02d}_{number % CLIPS_A_RUN:05d}.mp4"
        run.append(change(frames, random.Random(number)))
        rows.append((path, direction, shown))
        if len(run) == CLIPS_A_RUN:
            flush()
    if run:
        flush()
    return rows


CHANGES = {
    "": lambda frames, chance: frames,
    "_frozen": lambda frames, chance: np.repeat(frames[MIDDLE:MIDDLE + 1], FRAMES, axis=0),
    "_shuffled": lambda frames, chance: frames[chance.sample(range(FRAMES), FRAMES)],
}


def direction_rows(rows):
    return [sample(path, QUESTION, direction, **shown) for path, direction, shown in rows]


def path_rows(rows):
    return [sample(path, PATH_QUESTION, f"{shown['places']}: {direction}") for path, direction, shown in rows]


def make_examples(out, packages):
    """OUT/DIRECTION.mp4 over chelsea.png (CC0), with examples.jsonl."""
    photographs = load_photographs(packages, TEST_PICTURES[:1])
    rows = []
    for frames, shown, direction in drawn_clips(photographs, len(DIRECTIONS), seed=7):
        out.mkdir(parents=True, exist_ok=True)
        encode([frames], out / "part_%05d.mp4")
        (out / "part_00000.mp4").rename(out / f"{direction}.mp4")
        rows.append((f"{direction}.mp4", direction, shown))
    write_jsonl(out / "examples.jsonl", direction_rows(rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".data/motion"))
    parser.add_argument("--cache", type=pathlib.Path, default=pathlib.Path(".data/cache"), help="for the wheel")
    parser.add_argument("--train", type=int, default=6000, help="clips to train on")
    parser.add_argument("--places", type=int, default=12000, help="single pictures of each kind")
    parser.add_argument("--test", type=int, default=400, help="clips to measure on")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--examples", action="store_true", help="write four clips over one photograph and no more")
    options = parser.parse_args()
    packages = Packages(options.cache)
    if options.examples:
        make_examples(options.out, packages)
        return
    train = load_photographs(packages, TRAIN_PICTURES)
    test = load_photographs(packages, TEST_PICTURES)
    make_places("plain_places", [None], options.places, options.seed + 2, options.out)
    make_places("places", train, options.places, options.seed + 3, options.out)
    rows = in_runs(drawn_clips(train, options.train, options.seed), options.out / "train", CHANGES[""])
    write_jsonl(options.out / "train.jsonl", direction_rows(rows))
    write_jsonl(options.out / "train_path.jsonl", path_rows(rows))
    for name, change in CHANGES.items():
        rows = in_runs(drawn_clips(test, options.test, options.seed + 1), options.out / f"test{name}", change)
        write_jsonl(options.out / f"test{name}.jsonl", direction_rows(rows))
        write_jsonl(options.out / f"test{name}_path.jsonl", path_rows(rows))


if __name__ == "__main__":
    main()
