#!/usr/bin/env python3
"""Writes tests/fixtures/pictures: what Pillow and transformers make of pictures, for tests/image and tests/data.

Needs Pillow 13.0.0 and transformers 5.23.0 (scripts/parity builds an environment with them); the outputs are committed,
so tests need neither. Golden arrays are raw bytes in one .bin a test file, found through the .json of the same name.

Run: python scripts/make_picture_fixtures.py [resample] [processor] [decode]   (all three by default)
"""
import json
import pathlib
import sys

import numpy as np
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/pictures"


def noise(height, width, seed):
    """The picture that tests/support/noise.h makes from the same numbers."""
    index = np.arange(height * width * 3, dtype=np.uint32)
    value = index * np.uint32(2654435761) + np.uint32(seed) * np.uint32(40503)
    value ^= value >> np.uint32(15)
    value *= np.uint32(2246822519)
    return (value >> np.uint32(24)).astype(np.uint8).reshape(height, width, 3)


class Golden:
    """Arrays of one test file: name.bin holds the bytes, name.json the cases and where their bytes start."""

    def __init__(self, name):
        self.name = name
        self.cases = []
        self.bytes = b""

    def add(self, case, array):
        self.cases.append({**case, "shape": list(array.shape), "offset": len(self.bytes)})
        self.bytes += np.ascontiguousarray(array).tobytes()

    def save(self):
        (ROOT / f"{self.name}.bin").write_bytes(self.bytes)
        lines = ",\n".join(json.dumps(case) for case in self.cases)
        (ROOT / f"{self.name}.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def make_resample():
    golden = Golden("resample")
    # Growing, shrinking, mixed (both pass orders), one axis only, single rows and columns, more rows than a group.
    sizes = [((9, 13), (16, 21)), ((40, 31), (11, 10)), ((33, 8), (9, 20)), ((7, 30), (19, 12)), ((60, 20), (12, 15)),
             ((20, 60), (15, 12)), ((12, 12), (12, 5)), ((12, 12), (31, 12)), ((1, 90), (1, 17)), ((90, 1), (23, 3)),
             ((1, 1), (4, 3)), ((18, 50), (17, 49)), ((5, 4), (5, 4)), ((35, 3), (50, 40)), ((120, 96), (7, 24))]
    for seed, (source, target) in enumerate(sizes):
        for resample in range(6):
            resized = Image.fromarray(noise(*source, seed)).resize((target[1], target[0]), resample)
            golden.add({"source": source, "seed": seed, "filter": resample}, np.array(resized))
    golden.save()


def weighted_sum(array):
    """A checksum of the bits that depends on every value and its place; kept where the values would fill megabytes."""
    bits = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32).ravel().astype(np.uint64)
    odd = np.arange(bits.size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return str(int((bits * odd).sum(dtype=np.uint64)))


def processor_cases():
    """(config, picture sizes, whether the values are kept whole)"""
    def edges(size, tile, **other):
        return {"size": {"longest_edge": size}, "max_image_size": {"longest_edge": tile}, **other}

    clip = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
    sizes = [(20, 30), (31, 17), (64, 64), (5, 90), (1, 1)]
    yield edges(24, 8, resample=1, rescale_factor=0.00392156862745098), sizes, True
    yield edges(30, 7, resample=3, **clip), sizes, True
    yield edges(24, 8, do_image_splitting=False), sizes, True
    yield edges(24, 8, do_resize=False), sizes, True
    yield edges(24, 8, do_resize=False, do_image_splitting=False, resample=2), sizes, True
    yield edges(24, 8, do_rescale=False, resample=0), sizes[:2], True
    yield edges(24, 8, do_normalize=False, resample=4), sizes[:2], True
    yield edges(24, 8, do_rescale=False, do_normalize=False, resample=5), sizes[:2], True
    yield {"size": {"height": 15, "width": 20}, "max_image_size": {"longest_edge": 8}, "image_mean": 0.25,
           "image_std": 0.75}, sizes[:2], True
    published = {"resample": 1, "rescale_factor": 0.00392156862745098, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    yield edges(2048, 512, **published), [(60, 90), (1, 3000)], False
    yield edges(1536, 384, **published), [(2100, 300), (480, 640)], False
    yield edges(5000, 512, **published), [(7, 499)], False
    yield {}, [(37, 41)], False


def make_processor():
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    golden = Golden("processor")
    for config, sizes, whole in processor_cases():
        for seed, size in enumerate(sizes):
            picture = noise(*size, seed)
            outputs = [cls(**config)(picture, input_data_format="channels_last", return_row_col_info=True)
                       for cls in (SmolVLMImageProcessorPil, Idefics3ImageProcessorPil)]
            values, other = (np.asarray(output["pixel_values"][0], dtype=np.float32) for output in outputs)
            assert np.array_equal(values, other)
            case = {"config": config, "source": size, "seed": seed, "tiles": list(values.shape),
                    "rows": outputs[0]["rows"][0][0], "cols": outputs[0]["cols"][0][0]}
            if not whole:
                case["weighted_sum"] = weighted_sum(values)
            golden.add(case, values if whole else np.zeros(0, np.float32))
    golden.save()


def main():
    ROOT.mkdir(parents=True, exist_ok=True)
    makers = {"resample": make_resample, "processor": make_processor}
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
