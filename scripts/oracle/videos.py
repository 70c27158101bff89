"""What transformers makes of clips: frame indices, times, pixel values, prompts.

Clips are small arrays with metadata, so that no decoder is needed. sampling_golden() runs
SmolVLMVideoProcessor.sample_frames on many lengths and rates, processor_golden() the whole video
processor on a few frames, prompt_golden() the chat template and the expansion of video parts.
"""
import random

import numpy as np
import torch
from num2words import num2words
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
from transformers.video_utils import VideoMetadata

from . import pictures, prompts

VIDEO = {"type": "video"}
RATES = [1.0, 5.0, 10.0, 14.985, 23.976, 24000 / 1001, 25.0, 29.97, 30000 / 1001, 50.0, 59.94, 60.0]

# (frames, rate, duration or None for frames / rate, wanted frames a second, most frames)
SAMPLING_CASES = [
    (30, 10, 3, 1, 64), (300, 30, 10, 1, 64), (75, 30, 2.5, 1, 64), (105, 30, 3.5, 1, 64),
    (1, 25, 0.04, 1, 64), (2, 1, 2, 1, 64), (3, 1000, 0.003, 1, 64), (3000, 30, 100, 1, 64),
    (9000, 30, 300, 1, 64), (1980, 30, 66, 1, 64), (1981, 30, 66.0333, 1, 64), (1650, 25, 66, 1, 64),
    (1675, 25, 67, 1, 64), (660, 10, 66.001, 1, 64), (216000, 30, 7200, 1, 64), (40, 10, 4, 1, 16),
    (200, 1, 200, 1, 64), (70, 1, 70, 1, 64), (67, 1, 67, 1, 64), (1000, 10, 100, 0.5, 8),
    (1000, 10, 100, 2.0, 32), (1000, 10, 100, 0.1, 64), (1000, 10, 90, 1, 64), (50, 10, 100, 1, 64),
    (3, 0.02, 150, 1, 64), (5, 0.05, 100, 1, 64), (90000, 25, 3600, 1, 1), (90000, 25, 3600, 1, 2),
    (12, 24, 0.5, 3, 64), (60, 24, 2.5, 3, 64), (10, 10, 1, 60, 64), (559, 29.97, None, 1, 64),
]

# name: settings beside pictures.settings()
PROCESSOR_CASES = {
    "grow": (dict(), ["wide", "tall"]),
    "shrink": (dict(size={"longest_edge": 20}), ["wide", "strip", "narrow"]),
    "bicubic": (dict(resample=pictures.BICUBIC, size={"longest_edge": 31}), ["wide"]),
    "bilinear": (dict(resample=pictures.BILINEAR), ["tall"]),
    "nearest": (dict(resample=0), ["wide"]),
    "by_sampling": (dict(size=None, video_sampling={"fps": 2, "max_frames": 8,
                                                    "video_size": {"longest_edge": 24}}), ["wide"]),
    "both_sizes": (dict(video_sampling={"fps": 1, "max_frames": 64,
                                        "video_size": {"longest_edge": 24}}), ["wide"]),
    "fixed": (dict(size={"height": 15, "width": 28}), ["narrow"]),
    "no_normalize": (dict(do_normalize=False), ["square"]),
    "per_channel": (dict(image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28],
                         rescale_factor=1 / 256), ["wide"]),
}

# (name, add_generation_prompt, clips as (frames, rate), messages)
CONVERSATIONS = [
    ("seconds", True, [(30, 10)], [prompts.turn("user", VIDEO, prompts.words("What?"))]),
    ("one_frame", True, [(1, 25)], [prompts.turn("user", VIDEO, prompts.words("What?"))]),
    ("text_first", True, [(75, 30)], [prompts.turn("user", prompts.words("Describe "), VIDEO)]),
    ("minutes", True, [(300, 3)], [prompts.turn("user", VIDEO, prompts.words("When?"))]),
    ("hours", True, [(7322, 1)], [prompts.turn("user", VIDEO, prompts.words("When?"))]),
    ("a_day", True, [(9000, 0.1)], [prompts.turn("user", VIDEO, prompts.words("When?"))]),
    ("days", True, [(18000, 0.1)], [prompts.turn("user", VIDEO, prompts.words("When?"))]),
    ("two_of_one_length", True, [(40, 10), (40, 10)],
     [prompts.turn("user", VIDEO, prompts.words(" or "), VIDEO, prompts.words("?"))]),
    ("turns", False, [(50, 10)], [
        prompts.turn("system", prompts.words("Be brief.")),
        prompts.turn("user", VIDEO, prompts.words("What moves?")),
        prompts.turn("assistant", prompts.words("A 2nd ball.")),
        prompts.turn("user", prompts.words("Where?")),
        prompts.turn("assistant", prompts.words("Left"))]),
]
LONG = 600  # prompts with more ids are stored as text only


def metadata(frames, rate, duration=None):
    return VideoMetadata(total_num_frames=frames, fps=float(rate),
                         duration=float(frames / rate if duration is None else duration))


def random_cases(count, seed):
    chance = random.Random(seed)
    for _ in range(count):
        rate = chance.choice(RATES)
        seconds = chance.choice([chance.uniform(0, 5), chance.uniform(50, 80), chance.uniform(0, 4000)])
        yield (max(int(rate * seconds), 1), rate, None, chance.choice([1, 1, 1, 0.5, 2, 3.7]),
               chance.choice([64, 64, 16, 7]))


def sampling_golden():
    processor = SmolVLMVideoProcessor()
    records = []
    for frames, rate, duration, fps, most in [*SAMPLING_CASES, *random_cases(100, 5)]:
        clip = metadata(frames, rate, duration)
        clip.frames_indices = processor.sample_frames(clip, num_frames=most, fps=fps).tolist()
        records.append({"frame_count": frames, "fps": clip.fps, "duration_s": clip.duration,
                        "wanted_fps": fps, "max_frames": most, "indices": clip.frames_indices,
                        "last_time_s": clip.timestamps[-1]})
    return records


def processor_golden():
    """(tensors, records): frames of pictures.SIZES through every case."""
    tensors, records = {}, []
    for case, (changes, names) in PROCESSOR_CASES.items():
        settings = {**pictures.settings(), **changes}
        settings.pop("do_image_splitting")
        settings = {key: value for key, value in settings.items() if value is not None}
        for name in names:
            height, width = pictures.SIZES[name]
            frames = np.stack([pictures.picture(height, width, seed) for seed in (3, 4)])
            tensors[f"frames.{name}"] = torch.from_numpy(frames)
            processor = SmolVLMVideoProcessor(**{**settings})
            output = processor(frames, return_tensors="pt", do_sample_frames=False)
            tensors[f"{case}.{name}"] = output["pixel_values"][0]
            records.append({"name": f"{case}.{name}", "frames": f"frames.{name}", "settings": settings})
    return tensors, {"cases": records}


def make_processor(spec, folder):
    processor = prompts.make_processor(spec, folder)
    processor.video_processor = SmolVLMVideoProcessor.from_pretrained(folder)
    return processor


def encode(processor, prompt, clips, arrays=None, **options):
    """The processor's model inputs for one prompt with clips alone."""
    arrays = arrays or [np.full((frames, 4, 4, 3), 99, dtype=np.uint8) for frames, _ in clips]
    options = {"num_frames": 64, "fps": 1, **options}
    return processor(text=[prompt], videos=[arrays], return_tensors="pt", add_special_tokens=False,
                     video_metadata=[[metadata(*clip) for clip in clips]], do_sample_frames=True,
                     **options)


def prompt_golden(processor):
    records = []
    for name, generation_prompt, clips, messages in CONVERSATIONS:
        prompt = processor.apply_chat_template(
            messages, add_generation_prompt=generation_prompt, tokenize=False)
        output = encode(processor, prompt, clips)
        ids = output["input_ids"][0].tolist()
        records.append({
            "name": name, "add_generation_prompt": generation_prompt, "clips": clips,
            "messages": messages,
            "expanded": processor.tokenizer.decode(ids, skip_special_tokens=False),
            "input_ids": ids if len(ids) <= LONG else None})
    numbers = [*range(131), 199, 200, 201, 999, 1000, 1001, 1099, 1100, 1101, 10000, 21345, 65536]
    return {"conversations": records, "number_words": {str(n): num2words(n) for n in numbers}}
