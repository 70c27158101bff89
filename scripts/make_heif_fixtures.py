#!/usr/bin/env python3
"""Writes tests/fixtures/pictures/heif: HEIC and AVIF files, and what pillow-heif and Pillow make of them.

Needs pillow-heif 1.8.1, Pillow 13.0.0 and NumPy; the outputs are committed, so tests need none of them.
p3.heic says that its colours are Display P3's: its expected values are converted to sRGB here, in float64, by the
primaries of SMPTE EG 432-1 and the curve of IEC 61966-2-1.

Run: python scripts/make_heif_fixtures.py
"""
import json
import pathlib

import numpy as np
import pillow_heif
from PIL import Image, ImageOps

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/pictures/heif"
LOSSLESS = {"quality": -1, "chroma": 444, "matrix_coefficients": 0}


def picture(height=24, width=36):
    """Slopes of colour with a dark corner: no two quarters look alike."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x / (width - 1), 255 * y / (height - 1), 128 + 0 * x], axis=-1)
    pixels[: height // 3, : width // 3] = 20
    return Image.fromarray(pixels.round().astype(np.uint8))


def p3_to_srgb(pixels):
    def xyz(primaries):
        columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
        white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
        return columns * np.linalg.solve(columns, white)

    matrix = np.linalg.inv(xyz([(0.64, 0.33), (0.30, 0.60), (0.15, 0.06)])) @ xyz(
        [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)])
    value = pixels / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ matrix.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (255 * encoded).round().astype(np.uint8)


def main():
    pillow_heif.register_heif_opener()
    FOLDER.mkdir(parents=True, exist_ok=True)
    picture().save(FOLDER / "rgb.heic", **LOSSLESS)
    picture().convert("L").save(FOLDER / "gray.heif", quality=-1)
    alpha = picture().convert("RGBA")
    alpha.putalpha(Image.fromarray(np.full((24, 36), 90, np.uint8)))
    alpha.save(FOLDER / "rgba.heic", **LOSSLESS)
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save(FOLDER / "turned.heic", exif=exif.tobytes(), **LOSSLESS)
    picture().save(FOLDER / "p3.heic", color_primaries=12, transfer_characteristics=13, **LOSSLESS)
    picture().save(FOLDER / "lossy.heic", quality=90, chroma=420)
    picture().save(FOLDER / "lossy.avif", quality=90, subsampling="4:4:4")

    cases, values = [], b""
    for path in sorted(FOLDER.glob("*.[ha][ev]i*")):
        pixels = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        if path.name == "p3.heic":
            pixels = p3_to_srgb(pixels)
        cases.append({"file": path.name, "shape": list(pixels.shape), "offset": len(values)})
        values += pixels.tobytes()
    (FOLDER / "heif.json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")
    (FOLDER / "heif.bin").write_bytes(values)


if __name__ == "__main__":
    main()
