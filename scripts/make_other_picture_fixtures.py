#!/usr/bin/env python3
"""Writes tests/fixtures/pictures/other: pictures beside the common formats, and what is to be read of them.

Needs Pillow 13.0.0 (with OpenJPEG) and NumPy; the outputs are committed, so tests need neither. What Pillow reads is
Pillow's. What it doesn't read (PAM, Radiance, EXR), or reads in another way than the format's reference (Sun raster
with 32 bits, or with run lengths and odd widths), is computed here from the samples that were written.

Run: python scripts/make_other_picture_fixtures.py
"""
import io
import json
import pathlib
import struct

import numpy as np
from PIL import Image

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/pictures/other"
HEIGHT, WIDTH = 13, 19


def samples():
    """Slopes of colour, 8 bits."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [255 * x / (WIDTH - 1), 255 * y / (HEIGHT - 1), (x * 7 + y * 13) % 256]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


RGB = samples()
GRAY = RGB[..., 2]
ALPHA = 255 - RGB[..., 0]
BITS = (GRAY > 100).astype(np.uint8)


def wide(values):
    """16 bits, with low bytes that matter."""
    return values.astype(np.uint16) * 257 ^ np.uint16(91)


def gray(values):
    return np.repeat(values[..., None], 3, axis=2)


def pnm(kind, values, largest=None):
    head = b"P%d\n# a comment\n%d %d\n" % (kind, WIDTH, HEIGHT) + (b"%d\n" % largest if largest else b"")
    if kind <= 3:
        return head + b"\n".join(b" ".join(b"%d" % v for v in row.ravel()) for row in values) + b"\n"
    return head + values.astype(">u2" if (largest or 1) > 255 else "u1").tobytes()


def netpbm_pictures():
    yield "P1.pbm", pnm(1, BITS), None
    yield "P1_without_spaces.pbm", b"P1 19 13 " + bytes(48 + BITS.ravel()), None
    yield "P4.pbm", pnm(4, np.packbits(BITS, axis=1)), None
    for largest in (255, 100, 1, 1023, 65535):
        level = (wide(GRAY).astype(int) * largest // 65535), (wide(RGB).astype(int) * largest // 65535)
        for kind, values in ((2, level[0]), (3, level[1]), (5, level[0]), (6, level[1])):
            yield f"P{kind}_{largest}.{'pgm' if kind in (2, 5) else 'ppm'}", pnm(kind, values, largest), None
    yield "P5_dark.pgm", pnm(5, GRAY, 65535), None  # 16 bits, but no value over 255


def pam(values, largest, kind):
    depth = values.shape[2] if values.ndim == 3 else 1
    head = f"P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\n# a comment\nDEPTH {depth}\nMAXVAL {largest}\n{kind}ENDHDR\n"
    return head.encode() + values.tobytes()


def pam_pictures():
    yield "RGB.pam", pam(RGB, 255, "TUPLTYPE RGB\n"), RGB
    yield "RGB_ALPHA.pam", pam(np.dstack([RGB, ALPHA]), 255, "TUPLTYPE RGB_ALPHA\n"), RGB
    yield "GRAYSCALE_ALPHA.pam", pam(np.dstack([GRAY, ALPHA]), 255, "TUPLTYPE GRAYSCALE_ALPHA\n"), gray(GRAY)
    yield "BLACKANDWHITE.pam", pam(BITS, 1, "TUPLTYPE BLACKANDWHITE\n"), gray(BITS * 255)
    values = wide(RGB)
    yield "RGB16.pam", pam(values.astype(">u2"), 65535, ""), np.rint(values / 65535 * 255).astype(np.uint8)


def jpeg2000_pictures():
    for mode in ("RGB", "RGBA", "L", "LA"):
        image = Image.fromarray(RGB).convert(mode)
        if "A" in mode:
            image.putalpha(Image.fromarray(ALPHA))
        for name, options in (("", {}), ("_lossy", {"irreversible": True, "quality_layers": [8]})):
            file = io.BytesIO()
            image.save(file, "JPEG2000", no_jp2=mode == "L", **options)
            yield f"{mode}{name}.{'j2k' if mode == 'L' else 'jp2'}", file.getvalue(), None
    for name, image, options in (("tiles", Image.fromarray(RGB), {"tile_size": (8, 8)}),
                                 ("L16", Image.fromarray(wide(GRAY)), {}),
                                 ("L16_dark", Image.fromarray(GRAY.astype(np.uint16)), {})):
        file = io.BytesIO()
        image.save(file, "JPEG2000", **options)
        yield f"{name}.jp2", file.getvalue(), None


def sun(depth, kind, data, palette=b""):
    return struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, depth, len(data), kind, 1 if palette else 0,
                       len(palette)) + palette + data


def sun_rows(values):
    """Rows begin at even bytes."""
    rows = values.reshape(HEIGHT, -1)
    return np.pad(rows, ((0, 0), (0, rows.shape[1] % 2))).tobytes()


def run_lengths(data):
    packed = b""
    while data:
        count = next((i for i in range(1, min(len(data), 256)) if data[i] != data[0]), min(len(data), 256))
        if count > 2 or (count == 2 and data[0] == 0x80):
            packed += bytes([0x80, count - 1, data[0]])
        else:
            count = 1
            packed += b"\x80\0" if data[0] == 0x80 else data[:1]
        data = data[count:]
    return packed


def sun_pictures():
    bgr = RGB[..., ::-1]
    palette = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2]).astype(np.uint8)
    yield "1.ras", sun(1, 1, sun_rows(np.packbits(BITS, axis=1))), gray(255 - 255 * BITS)
    yield "L.ras", sun(8, 1, sun_rows(GRAY)), gray(GRAY)
    yield "P.ras", sun(8, 1, sun_rows(GRAY), palette.tobytes()), palette.T[GRAY]
    yield "BGR.ras", sun(24, 1, sun_rows(bgr.copy())), RGB
    yield "BGR_old.ras", sun(24, 0, sun_rows(bgr.copy())), RGB
    yield "RGB.ras", sun(24, 3, sun_rows(RGB)), RGB
    yield "XBGR.ras", sun(32, 1, sun_rows(np.dstack([ALPHA, bgr]))), RGB
    yield "XRGB.ras", sun(32, 3, sun_rows(np.dstack([ALPHA, RGB]))), RGB
    coarse = RGB // 64 * 64  # holds 0x80, which begins a run
    yield "runs.ras", sun(24, 2, run_lengths(sun_rows(coarse[..., ::-1].copy()))), coarse
    yield "runs8.ras", sun(8, 2, run_lengths(sun_rows(coarse[..., 1].copy()))), gray(coarse[..., 1])


def encoded(light):
    """sRGB's bytes of linear light."""
    light = np.clip(light.astype(np.float64), 0, 1)
    value = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * value).astype(np.uint8)


def radiance_pictures():
    """Mantissas are the samples, exponents differ from row to row: from dark to brighter than white."""
    exponent = (126 + np.arange(HEIGHT) // 4).astype(np.uint8)[:, None].repeat(WIDTH, axis=1)
    pixels = np.dstack([RGB, exponent])
    light = RGB * np.exp2(exponent.astype(int) - 136)[..., None]
    head = b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y %d +X %d\n" % (HEIGHT, WIDTH)
    rows = b""
    for row in pixels:
        rows += bytes([2, 2, 0, WIDTH])
        for channel in range(4):
            rows += bytes([WIDTH]) + row[:, channel].tobytes()
    yield "flat.hdr", head + pixels.tobytes(), encoded(light)
    yield "runs.hdr", head + rows, encoded(light)


def exr_pictures():
    light = (RGB.astype(np.float64) / 200 - 0.1).astype(np.float16)

    def attribute(name, kind, value):
        return name + b"\0" + kind + b"\0" + struct.pack("<I", len(value)) + value

    window = struct.pack("<4i", -2, 3, WIDTH - 3, HEIGHT + 2)
    channels = b"".join(name + b"\0" + struct.pack("<iBBBBii", 1, 0, 0, 0, 0, 1, 1) for name in (b"B", b"G", b"R"))
    head = struct.pack("<II", 20000630, 2) + attribute(b"channels", b"chlist", channels + b"\0")
    head += attribute(b"compression", b"compression", b"\0") + attribute(b"dataWindow", b"box2i", window)
    head += attribute(b"displayWindow", b"box2i", window) + attribute(b"lineOrder", b"lineOrder", b"\0")
    head += attribute(b"pixelAspectRatio", b"float", struct.pack("<f", 1))
    head += attribute(b"screenWindowCenter", b"v2f", struct.pack("<ff", 0, 0))
    head += attribute(b"screenWindowWidth", b"float", struct.pack("<f", 1)) + b"\0"
    size = WIDTH * 3 * 2
    offsets = b"".join(struct.pack("<Q", len(head) + 8 * HEIGHT + y * (size + 8)) for y in range(HEIGHT))
    lines = b"".join(struct.pack("<ii", y + 3, size) + light[y, :, ::-1].T.tobytes() for y in range(HEIGHT))
    yield "half.exr", head + offsets + lines, encoded(light)


def first_pictures():
    """Files of several pictures, of which the first counts."""
    images = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    for name, kind, options in (("animated.png", "PNG", {}), ("animated_beside.png", "PNG", {"default_image": True}),
                                ("two.mpo", "MPO", {"quality": 90})):
        file = io.BytesIO()
        images[0].save(file, kind, save_all=True, append_images=images[1:], **options)
        yield name, file.getvalue(), None


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for stale in FOLDER.iterdir():
        stale.unlink()
    cases, values = [], b""
    for make in (netpbm_pictures, pam_pictures, jpeg2000_pictures, sun_pictures, radiance_pictures, exr_pictures,
                 first_pictures):
        for name, data, expected in make():
            (FOLDER / name).write_bytes(data)
            if expected is None:
                expected = np.array(Image.open(io.BytesIO(data)).convert("RGB"))
            assert expected.dtype == np.uint8
            cases.append({"file": name, "shape": list(expected.shape), "offset": len(values)})
            values += np.ascontiguousarray(expected).tobytes()
    (FOLDER / "other.bin").write_bytes(values)
    (FOLDER / "other.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n",
                                       encoding="utf-8")


if __name__ == "__main__":
    main()
