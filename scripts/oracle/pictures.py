"""Small deterministic pictures, and what the Pillow image processor and Pillow's resize make of
them.

picture(h, w, seed) -> uint8 [h, w, 3]: smooth colour on the left, hard-edged noise of 0 and 255 on
the right, so that both rounding and clamping show. scene() is a drawn picture that makes a small
PNG file.
"""
import numpy as np
import torch
from PIL import Image, ImageDraw
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

SIZES = {
    "wide": (37, 61), "tall": (61, 37), "strip": (20, 200), "square": (64, 64), "line": (1, 90),
    "narrow": (60, 10),  # W < T < H: without splitting the squash to T x T grows W, shrinks H
}
LANCZOS, BILINEAR, BICUBIC = 1, 2, 3

# name: (settings beside the defaults of settings(), the pictures it runs on)
CASES = {
    "split": (dict(), list(SIZES)),
    "whole": (dict(do_image_splitting=False), list(SIZES)),
    "uneven": (dict(size={"longest_edge": 20}, max_image_size={"longest_edge": 11}),
               ["wide", "strip"]),
    "bicubic": (dict(resample=BICUBIC), ["wide", "narrow"]),
    "bilinear": (dict(resample=BILINEAR), ["tall"]),
    "no_resize": (dict(do_resize=False), ["narrow"]),
    "no_normalize": (dict(do_normalize=False, do_image_splitting=False), ["square"]),
    "per_channel": (dict(image_mean=[0.48, 0.46, 0.41], image_std=[0.27, 0.26, 0.28],
                         rescale_factor=1 / 256, do_image_splitting=False), ["wide"]),
}


def settings(**changes):
    return {"size": {"longest_edge": 36}, "max_image_size": {"longest_edge": 12},
            "resample": LANCZOS, "do_image_splitting": True, **changes}


def picture(height, width, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([255 * x / max(width - 1, 1), 255 * y / max(height - 1, 1),
                       (7 * x + 11 * y) % 256], axis=-1)
    noise = 255 * rng.integers(0, 2, (height, width, 3))
    pixels = np.where((x < width * 2 // 3)[..., None], smooth, noise)
    return pixels.astype(np.uint8)


def scene(height, width, seed):
    """A few flat shapes on a flat ground, as a PIL picture."""
    rng = np.random.Generator(np.random.PCG64(seed))
    image = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    for number in range(4):
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        box = (x, y, x + int(rng.integers(4, width)), y + int(rng.integers(4, height)))
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        (draw.rectangle if number % 2 else draw.ellipse)(box, fill=colour)
    return image


def all_pictures():
    return {name: picture(h, w, seed) for seed, (name, (h, w)) in enumerate(SIZES.items())}


def processor_golden():
    """(tensors, records): every case on its pictures, then one padded batch."""
    pictures = all_pictures()
    tensors = {f"image.{name}": torch.from_numpy(value) for name, value in pictures.items()}
    records = []
    for case, (changes, names) in CASES.items():
        processor = SmolVLMImageProcessorPil(**settings(**changes))
        for name in names:
            output = processor(Image.fromarray(pictures[name]), return_tensors="pt",
                               return_row_col_info=True)
            assert output["pixel_attention_mask"].all()
            key = f"{case}.{name}"
            tensors[f"{key}.pixel_values"] = output["pixel_values"][0]
            records.append({"name": key, "image": name, "settings": settings(**changes),
                            "rows": output["rows"][0][0], "cols": output["cols"][0][0]})
    batch = [["wide"], ["line", "narrow"]]
    output = SmolVLMImageProcessorPil(**settings())(
        [[Image.fromarray(pictures[name]) for name in sample] for sample in batch],
        return_tensors="pt", return_row_col_info=True)
    tensors["batch.pixel_values"] = output["pixel_values"]
    tensors["batch.pixel_attention_mask"] = output["pixel_attention_mask"]
    return tensors, {"cases": records, "batch": {
        "images": batch, "settings": settings(), "rows": output["rows"], "cols": output["cols"]}}


def resize_golden():
    """(tensors, records): Pillow's resize alone, growing and shrinking in every mix."""
    source = picture(17, 23, 99)
    tensors = {"image": torch.from_numpy(source)}
    targets = {"grow_both": (29, 40), "shrink_both": (7, 9), "wider_lower": (8, 31),
               "narrower_higher": (30, 10), "wider": (17, 37), "higher": (25, 23),
               "one_pixel": (1, 1), "same": (17, 23)}
    records = []
    for filter_name in ("NEAREST", "LANCZOS", "BILINEAR", "BICUBIC"):
        number = int(Image.Resampling[filter_name])
        for name, (height, width) in targets.items():
            key = f"{filter_name.lower()}.{name}"
            resized = Image.fromarray(source).resize((width, height), number)
            tensors[key] = torch.from_numpy(np.array(resized))
            records.append({"name": key, "resample": number, "height": height, "width": width})
    return tensors, {"cases": records}
