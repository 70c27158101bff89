"""Compares clips live with transformers: frame times, prompts, generated ids (part of scripts/parity).

Clips are written by the ffmpeg program as lossless RGB (H.264), so that both sides see the same pixels whatever their
decoders do; the oracle gets the arrays with their metadata. One more clip is H.264 with 4:2:0 colour, which the oracle
gets as the ffmpeg program decodes it: the row says what the two conversions do to a log-probability (nothing beyond
rounding where both use the same FFmpeg libraries). transformers takes one kind of media a call. What it makes of a
prompt that mixes them is put together from what it makes of each.
"""
import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

from parity_checks.answers import LOGPROB_ERROR
from parity_checks.program import PRECISION, ROOT, SPECS, Case, Program
from parity_checks.report import Report, largest

import numpy as np
import torch
import transformers
from oracle import prompts, videos
from PIL import Image

VIDEO, IMAGE, words, turn = videos.VIDEO, prompts.IMAGE, prompts.words, prompts.turn
MAX_NEW_TOKENS = 10
# What the conversions of two builds of FFmpeg may do to a log-probability.
DECODER_ERROR = 1e-2

# name: (frames, rate, height, width)
CLIPS = {"second": (10, 10, 40, 56), "seconds": (75, 25, 36, 36), "tall": (45, 15, 90, 44),
         "minutes": (700, 10, 24, 32), "wide": (40, 10, 30, 84)}
MOST_FRAMES = 5

# (name, media in the parts' order, messages)
QUESTIONS = [
    ("one clip", ["seconds"], [turn("user", VIDEO, words("What moves?"))]),
    ("a second", ["second"], [turn("user", VIDEO, words("What moves?"))]),
    ("minutes", ["minutes"], [turn("user", VIDEO, words("When?"))]),
    ("text first", ["tall"], [turn("user", words("Describe "), VIDEO)]),
    ("two clips", ["seconds", "wide"], [turn("user", VIDEO, words(" or "), VIDEO, words("?"))]),
    ("picture and clip", ["square.png", "wide"], [
        turn("system", words("Be brief.")), turn("user", IMAGE, VIDEO, words("Which?"))]),
    ("mixed", ["tall", "square.png", "second", "square.png"], [
        turn("user", words("a"), VIDEO, IMAGE, words(" then "), VIDEO, IMAGE, words("?"))]),
]


def make_frames(name):
    """uint8 [F, H, W, 3]: a square that moves over a gradient."""
    count, _, height, width = CLIPS[name]
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1)
    frames = np.repeat(ground[None].astype(np.uint8), count, axis=0)
    for number, frame in enumerate(frames):
        left = int((width - 12) * number / max(count - 1, 1))
        frame[height // 3:height // 3 + 12, left:left + 12] = (250, 40 + number % 200, 30)
    return frames


def encode_clip(frames, rate, path, options):
    _, height, width, _ = frames.shape
    subprocess.run(["ffmpeg", "-v", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
                    "-r", str(rate), "-i", "-", *options, str(path)], input=frames.tobytes(), check=True)


def decode_clip(path, shape):
    done = subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
                          capture_output=True, check=True)
    return np.frombuffer(done.stdout, dtype=np.uint8).reshape(shape)


class Media:
    """Files for the program, and for the oracle what it makes of each: text and tiles."""

    def __init__(self, case, processor, folder):
        self.folder, self.processor, self.pictures = folder, processor, case.pictures
        folder.mkdir(parents=True)
        self.arrays = {}
        for name in CLIPS:
            frames = make_frames(name)
            path = folder / f"{name}.mp4"
            encode_clip(frames, CLIPS[name][1], path, ["-c:v", "libx264rgb", "-qp", "0"])
            assert np.array_equal(decode_clip(path, frames.shape), frames), "not lossless"
            self.arrays[name] = frames

    def path(self, name):
        return self.pictures / name if name.endswith(".png") else self.folder / f"{name}.mp4"

    def inputs(self, name):
        if name.endswith(".png"):
            picture = Image.open(self.path(name)).convert("RGB")
            return self.processor(text=["<image>"], images=[[picture]], return_tensors="pt",
                                  add_special_tokens=False)
        count, rate = CLIPS[name][:2]
        return videos.encode(self.processor, "<video>", [(count, rate)], [self.arrays[name]],
                             num_frames=MOST_FRAMES)

    def times(self, name):
        count, rate = CLIPS[name][:2]
        clip = videos.metadata(count, rate)
        clip.frames_indices = self.processor.video_processor.sample_frames(clip, num_frames=MOST_FRAMES, fps=1)
        return clip.timestamps


def oracle_answer(model, media, messages, names):
    """Greedy answer to a prompt put together from its media."""
    tokenizer = media.processor.tokenizer
    text = media.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    tiles = []
    for name in names:
        found = media.inputs(name)
        kind = "<image>" if name.endswith(".png") else "<video>"
        part = tokenizer.decode(found["input_ids"][0], skip_special_tokens=False)
        text = text.replace(kind, part.replace("<image>", "<IMAGE>"), 1)
        tiles.append(found["pixel_values"][0])
    ids = torch.tensor([tokenizer.encode(text.replace("<IMAGE>", "<image>"), add_special_tokens=False)])
    with torch.no_grad():
        result = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids),
                                pixel_values=torch.cat(tiles)[None], max_new_tokens=MAX_NEW_TOKENS,
                                do_sample=False, output_logits=True, return_dict_in_generate=True)
    answer = result.sequences[0, ids.shape[1]:].tolist()
    logprobs = torch.stack(result.logits)[:, 0].log_softmax(-1)
    top = logprobs.topk(2, dim=-1).values
    return {"prompt_token_ids": ids[0].tolist(), "token_ids": answer,
            "token_logprobs": [logprobs[i, token].item() for i, token in enumerate(answer)],
            "text": tokenizer.decode(answer, skip_special_tokens=True).lstrip(" "),
            "margin": (top[:, 0] - top[:, 1]).min().item()}


def write_rows(media, path):
    with open(path, "w", encoding="utf-8") as file:
        for title, names, messages in QUESTIONS:
            columns = {"images": [str(media.path(n)) for n in names if n.endswith(".png")],
                       "videos": [str(media.path(n)) for n in names if not n.endswith(".png")]}
            file.write(json.dumps({"id": title, "messages": messages, **columns}) + "\n")


def check_rows(report, title, program, case, model, media, work):
    """Every question in one run of `vlm video`: texts, and the times of the frames."""
    questions, output = work / "questions.jsonl", work / "rows.jsonl"
    write_rows(media, questions)
    program.run("video", questions, "--model", case.folder, "--output", output, "--restart",
                "--max-frames", MOST_FRAMES, "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION)
    rows = {row["id"]: row for row in map(json.loads, output.read_text().splitlines())}
    for name, names, messages in QUESTIONS:
        wanted = oracle_answer(model, media, messages, names)
        assert wanted["margin"] > 1e-3, f"{name}: two tokens too close to call: change the seed"
        report.equal(f"{title} {name}: text", rows[name].get("text", rows[name].get("error")), wanted["text"])
        times = [time for n in names if not n.endswith(".png") for time in media.times(n)]
        report.equal(f"{title} {name}: frame times", frame_times(rows[name]), [round(float(time), 3) for time in times])


def frame_times(row):
    """The frames' times of a row, of all its clips in order."""
    times = []
    for frame in row["frames"]:
        times += [frame] if isinstance(frame, (int, float)) else frame
    return [round(time, 3) for time in times]


def generate(program, case, media, names, question):
    arguments = []
    for name in names:
        arguments += ["--image" if name.endswith(".png") else "--video", media.path(name)]
    output = program.run("generate", "--model", case.folder, *arguments, "--prompt", question, "--format", "json",
                         "--max-frames", MOST_FRAMES, "--max-new-tokens", MAX_NEW_TOKENS, *PRECISION)
    return json.loads(output.strip().splitlines()[-1])


def check_generate(report, title, program, case, model, media):
    """Prompt ids, answer ids and log-probabilities: clips alone, and behind a picture."""
    for names in (["seconds"], ["tall", "wide"], ["square.png", "second"]):
        parts = [IMAGE if name.endswith(".png") else VIDEO for name in names]
        wanted = oracle_answer(model, media, [turn("user", *parts, words("What moves?"))], names)
        got = generate(program, case, media, names, "What moves?")
        name = f"{title} generate {' + '.join(names)}"
        report.equal(f"{name}: prompt ids", got["prompt_token_ids"], wanted["prompt_token_ids"])
        report.equal(f"{name}: token ids", got["token_ids"], wanted["token_ids"])
        errors = [abs(a - b) for a, b in zip(got["token_logprobs"], wanted["token_logprobs"])]
        report.close(f"{name}: log-probabilities", largest(errors), LOGPROB_ERROR)


def check_lossy(report, title, program, case, model, media):
    """A clip as files usually are: 4:2:0, converted to RGB by two programs."""
    frames, rate = make_frames("seconds"), CLIPS["seconds"][1]
    encode_clip(frames, rate, media.folder / "lossy.mp4", ["-c:v", "libx264", "-pix_fmt", "yuv420p"])
    CLIPS["lossy"] = CLIPS["seconds"]
    media.arrays["lossy"] = decode_clip(media.folder / "lossy.mp4", frames.shape)
    wanted = oracle_answer(model, media, [turn("user", VIDEO, words("What moves?"))], ["lossy"])
    got = generate(program, case, media, ["lossy"], "What moves?")
    report.equal(f"{title} 4:2:0: prompt ids", got["prompt_token_ids"], wanted["prompt_token_ids"])
    errors = [abs(got["token_logprobs"][0] - wanted["token_logprobs"][0])]
    report.close(f"{title} 4:2:0: first log-probability", largest(errors), DECODER_ERROR)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "build" / "vlm")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "parity_video",
                        help="where checkpoints and clips go; emptied first")
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    work, program, report = options.work.resolve(), Program(options.binary.resolve()), Report()
    for spec in (spec for spec in SPECS if spec.family == "smolvlm"):
        case = Case(spec, work)
        media = Media(case, videos.make_processor(spec, case.folder), work / "clips" / spec.name)
        title, model = f"video {spec.name}", case.load()
        report.attempt(f"{title} generate", lambda r, n: check_generate(r, title, program, case, model, media))
        report.attempt(f"{title} rows", lambda r, n: check_rows(r, title, program, case, model, media, work))
        report.attempt(f"{title} lossy", lambda r, n: check_lossy(r, title, program, case, model, media))
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
