#!/usr/bin/env python3
"""Writes short clips of a shape that moves over a photograph, to train and measure the direction of motion on.

    .deps/parity-venv/bin/python scripts/make_motion.py [--out .data/motion] [--train 6000] [--test 400]

OUT/train/*.mp4, OUT/plain/*.mp4 (on plain ground) and OUT/test/*.mp4, each with a JSONL file: H.264, 128 x 128, 10
frames a second, 3 seconds. The photographs are those that pip's scikit-image brings (public domain or CC0); training
and test share none. The shape may enter and leave the picture, so that where it stands in the middle of a clip says
nothing about where it goes. test_frozen.jsonl and test_shuffled.jsonl are controls: the clips of test.jsonl with the
frame of their middle shown throughout, and with their frames in random order (which still shows along which axis the
shape stands). *_path.jsonl ask for the shape's place in each frame as well, before the direction; *_what.jsonl ask for
colour and shape. Needs numpy, Pillow and the ffmpeg program; the same seed gives the same clips.
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
WHAT_QUESTION = "What moves in this video?"
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
COLOURS = {"blue": (30, 60, 220), "green": (20, 160, 40), "red": (215, 30, 35), "teal": (0, 150, 150),
           "yellow": (245, 215, 40), "white": (250, 250, 250)}
SHAPES = ["circle", "rectangle", "triangle"]
SIDE, FPS, FRAMES = 128, 10, 30
# SmolVLM2's rule takes frames 0, 14 and 29 of such a clip at its one frame a second; configs/motion.json is content
# with at most two of them: first and last.
SAMPLED = [0, 29]
MIDDLE, SAMPLED_APART = 14, 14.5
GRID = 5  # columns and rows that a place is told by
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
    pixels = np.asarray(square, dtype=np.float32)
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


def choose_path(chance, direction):
    """Where the centre stands in each frame, along the axis of motion and across it, in sides of the picture.

    In the middle of the clip any place is equally likely whichever way the shape moves; it then has stood, or will
    stand, in the picture one sampled frame before or after.
    """
    step = chance.uniform(0.12, 0.22)  # between two sampled frames
    frames = np.arange(FRAMES, dtype=np.float32)
    along = chance.uniform(0.05, 0.95) + sum(DIRECTIONS[direction]) * step * (frames - MIDDLE) / SAMPLED_APART
    return along, chance.uniform(0.05, 0.95), step


def tell_places(centre_x, centre_y):
    """Column and row, 0 to 4, in each sampled frame: "21,--"; "--" where the centre is out of the picture."""
    places = [(int(np.floor(centre_x[frame] * GRID)), int(np.floor(centre_y[frame] * GRID))) for frame in SAMPLED]
    return ",".join(f"{x}{y}" if 0 <= x < GRID and 0 <= y < GRID else "--" for x, y in places)


def draw_clip(photograph, chance, direction):
    """(frames uint8 [FRAMES, SIDE, SIDE, 3], what is shown)."""
    background = crop(photograph, chance) if photograph else plain_ground(chance)
    colour, shape = chance.choice(list(COLOURS)), chance.choice(SHAPES)
    radius = chance.uniform(0.09, 0.15) * SIDE
    along, across, step = choose_path(chance, direction)
    horizontal = DIRECTIONS[direction][0] != 0
    fixed = np.full(FRAMES, across, dtype=np.float32)
    centre_x, centre_y = (along, fixed) if horizontal else (fixed, along)
    grid_y, grid_x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) + 0.5
    alpha = coverage(shape, grid_x - centre_x[:, None, None] * SIDE, grid_y - centre_y[:, None, None] * SIDE,
                     np.float32(radius))[..., None]
    frames = background * (1 - alpha) + np.asarray(COLOURS[colour], dtype=np.float32) * alpha
    shown = {"colour": colour, "shape": shape, "step": round(step, 3), "places": tell_places(centre_x, centre_y)}
    return frames.round().astype(np.uint8), shown


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


def what_rows(rows):
    return [sample(path, WHAT_QUESTION, f"a {shown['colour']} {shown['shape']}") for path, _, shown in rows]


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
    parser.add_argument("--plain", type=int, default=1500, help="clips on plain ground, to begin with")
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
    rows = in_runs(drawn_clips([None], options.plain, options.seed + 2), options.out / "plain", CHANGES[""])
    write_jsonl(options.out / "plain.jsonl", direction_rows(rows))
    write_jsonl(options.out / "plain_path.jsonl", path_rows(rows))
    rows = in_runs(drawn_clips(train, options.train, options.seed), options.out / "train", CHANGES[""])
    write_jsonl(options.out / "train.jsonl", direction_rows(rows))
    write_jsonl(options.out / "train_path.jsonl", path_rows(rows))
    write_jsonl(options.out / "train_what.jsonl", what_rows(rows[::4]))
    for name, change in CHANGES.items():
        rows = in_runs(drawn_clips(test, options.test, options.seed + 1), options.out / f"test{name}", change)
        write_jsonl(options.out / f"test{name}.jsonl", direction_rows(rows))
        write_jsonl(options.out / f"test{name}_path.jsonl", path_rows(rows))
    write_jsonl(options.out / "test_what.jsonl", what_rows(rows))


if __name__ == "__main__":
    main()
