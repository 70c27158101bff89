#!/usr/bin/env python3
"""Writes tests/fixtures/pictures: what Pillow and transformers make of pictures, for tests/image and tests/data.

Needs Pillow 13.0.0 and transformers 5.23.0 (scripts/parity builds an environment with them); the outputs are committed,
so tests need neither. Golden arrays are raw bytes in one .bin a test file, found through the .json of the same name.

Run: python scripts/make_picture_fixtures.py [resample] [processor] [decode]   (all three by default)
"""
import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

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


HEIGHT, WIDTH = 17, 23  # odd, so that subsampled colours, packed bits and tiles all end in part


def photo(channels, dtype=np.uint8):
    """Gradients, an edge and some noise: [HEIGHT, WIDTH, channels], or [HEIGHT, WIDTH] for one."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [x * 11, y * 15, (x + y) * 6, 255 - x * 9, y * 7 + 60]
    values = np.stack(planes[:channels], -1).astype(np.int64) + noise(HEIGHT, WIDTH, 9)[..., :1] // 16
    values[5:9, 6:15] = 255 - values[5:9, 6:15]
    values = np.clip(values, 0, 255)
    if dtype == np.uint16:
        values = values * 257 - noise(HEIGHT, WIDTH, 3)[..., :1]
        values = np.clip(values, 0, 65535)
        values[:4] //= 200  # 16-bit grey is clipped at 255: some of it must lie below
    return np.squeeze(values.astype(dtype), -1) if channels == 1 else values.astype(dtype)


def picture(mode):
    """A Pillow picture of the mode."""
    if mode == "P":
        return Image.fromarray(photo(3)).quantize(37)
    if mode == "1":
        return Image.fromarray(photo(1)).convert("1")
    if mode == "I;16":
        return Image.fromarray(photo(1, np.uint16))
    if mode in ("I", "F"):
        return Image.fromarray(photo(1).astype({"I": np.int32, "F": np.float32}[mode]) * 3 - 200)
    channels = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    return Image.fromarray(photo(channels), mode)


def encoded(mode, file_format, **options):
    buffer = io.BytesIO()
    image = picture(mode) if isinstance(mode, str) else mode
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[274] = orientation
    return block.tobytes()


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="%d"/></x:xmpmeta>'


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(values, color_type, interlaced=False, before=b"", after=b""):
    """What Pillow can't write: 16 bits with colours or alpha, Adam7, chunks in any place."""
    height, width = values.shape[:2]
    depth = values.dtype.itemsize * 8
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b""
    for top, left, down, right in passes if interlaced else [(0, 0, 1, 1)]:
        part = values[top::down, left::right]
        if part.size:
            lines += b"".join(b"\0" + row.astype(row.dtype.newbyteorder(">")).tobytes() for row in part)
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(lines)) +
            after + png_chunk(b"IEND", b""))


def png_pictures():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield f"{mode.replace(';', '')}.png", encoded(mode, "PNG")
    for bits in (1, 2, 4):
        yield f"P{bits}.png", encoded(picture("P").quantize(2**bits), "PNG", bits=bits)
    yield "P_transparent.png", encoded("P", "PNG", transparency=bytes(range(0, 222, 6)))
    indices = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 40
    yield "P_short_palette.png", png(indices, 3, before=png_chunk(b"PLTE", bytes(range(90))))
    yield "RGB_transparent.png", encoded("RGB", "PNG", transparency=(10, 20, 30))
    yield "L_transparent.png", encoded("L", "PNG", transparency=7)
    for channels, color_type, name in ((1, 0, "L16"), (3, 2, "RGB16"), (2, 4, "LA16"), (4, 6, "RGBA16")):
        yield f"{name}_interlaced.png", png(photo(channels, np.uint16), color_type, interlaced=True)
    yield "RGB_interlaced.png", png(photo(3), 2, interlaced=True)
    yield "RGB_exif_behind.png", png(photo(3), 2, after=png_chunk(b"eXIf", exif(6)[6:]))
    yield "RGB_xmp.png", png(photo(3), 2, before=png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % 8))
    profile = exif(5)
    raw = b"\nexif\n%8d\n%s\n" % (len(profile), profile.hex().encode())
    yield "RGB_raw_profile.png", png(photo(3), 2, before=png_chunk(b"zTXt", b"Raw profile type exif\0\0" +
                                                                   zlib.compress(raw)))
    yield "RGB_no_end.png", png(photo(3), 2)[:-12]


def jpeg_pictures():
    yield "L.jpg", encoded("L", "JPEG", quality=80)
    for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
        yield f"RGB_{name}.jpg", encoded("RGB", "JPEG", quality=85, subsampling=subsampling)
    yield "RGB_progressive.jpg", encoded("RGB", "JPEG", quality=60, progressive=True)
    yield "RGB_restarts.jpg", encoded("RGB", "JPEG", quality=60, restart_marker_blocks=1)
    yield "RGB_kept.jpg", encoded("RGB", "JPEG", quality=90, keep_rgb=True)
    yield "RGB_xmp.jpg", encoded("RGB", "JPEG", xmp=XMP % 3)
    yield "RGB_exif_before_xmp.jpg", encoded("RGB", "JPEG", exif=exif(2), xmp=XMP % 3)
    cmyk = encoded("CMYK", "JPEG", quality=90)
    yield "CMYK.jpg", cmyk
    # The last byte of Adobe's marker names the transform: 2 makes the same numbers YCCK.
    at = cmyk.index(b"Adobe") + 11
    yield "YCCK.jpg", cmyk[:at] + b"\2" + cmyk[at + 1:]


def webp_pictures():
    for mode in ("RGB", "RGBA"):
        yield f"{mode}.webp", encoded(mode, "WEBP", quality=70)
        yield f"{mode}_lossless.webp", encoded(mode, "WEBP", lossless=True, exact=True)
    yield "RGB_xmp.webp", encoded("RGB", "WEBP", xmp=XMP % 4)
    frames = [Image.fromarray(photo(4)), Image.fromarray(photo(4)[::-1].copy())]
    yield "animated.webp", encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def bmp(bits, rows, compression=0, between=b"", height=HEIGHT):
    """rows: the bytes behind the header; between: masks or palette."""
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(rows), 0, 0, 0, 0)
    offset = 14 + len(header) + len(between)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + header + between + rows


def bmp_pictures():
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"{mode}.bmp", encoded(mode, "BMP")
    rgb = photo(3).astype(np.uint16)

    def packed(red, green, blue, green_loss):
        row = rgb[..., 0] >> 3 << red | rgb[..., 1] >> green_loss << green | rgb[..., 2] >> 3 << blue
        return b"".join(line.astype("<u2").tobytes() + b"\0" * (-2 * WIDTH % 4) for line in row)

    yield "RGB555.bmp", bmp(16, packed(10, 5, 0, 3))
    yield "RGB565_top_down.bmp", bmp(16, packed(11, 5, 0, 2), 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F), -HEIGHT)
    xbgr = b"".join(bytes([0, b, g, r]) for r, g, b in photo(3).reshape(-1, 3))
    yield "XBGR.bmp", bmp(32, xbgr, 3, struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00))
    palette = b"".join(bytes([i, 255 - i, i // 2, 0]) for i in range(256))
    runs = b""
    for y in range(HEIGHT - 2):
        runs += bytes([7, y * 3]) + bytes([0, 5, 1, 2, 3, 4, 5, 0]) + bytes([WIDTH - 12, 200 - y, 0, 0])
    runs += bytes([0, 2, 4, 1, 3, 99, 0, 0]) + bytes([30, 77, 0, 0]) + bytes([0, 1])
    yield "runs8.bmp", bmp(8, runs, 1, palette)
    runs = b"".join(bytes([9, 0x3A]) + bytes([0, 5, 0x12, 0x34, 0x50, 0]) + bytes([WIDTH - 14, y, 0, 0])
                    for y in range(HEIGHT))
    yield "runs4.bmp", bmp(4, runs, 2, palette[:64])
    core = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    lines = b"".join(line[:, ::-1].tobytes() + b"\0" * (-3 * WIDTH % 4) for line in photo(3))
    yield "os2.bmp", b"BM" + struct.pack("<IHHI", 26 + len(lines), 0, 0, 26) + core + lines


def tiff(values, photometric, order="<", tile=None, separate=False, extra=(), sample_format=1):
    """What Pillow can't write: 16-bit colours, tiles, separate planes, both byte orders."""
    height, width = values.shape[:2]
    planes = values.reshape(height, width, -1)
    samples = planes.shape[2]
    planes = planes.astype(planes.dtype.newbyteorder(order))
    tile_h, tile_w = tile or (6, width)
    parts = []
    for part in [planes[..., i:i + 1] for i in range(samples)] if separate else [planes]:
        for top in range(0, height, tile_h):
            for left in range(0, width, tile_w):
                block = part[top:top + tile_h, left:left + tile_w]
                if tile:
                    missing = (tile_h - block.shape[0], tile_w - block.shape[1])
                    block = np.pad(block, ((0, missing[0]), (0, missing[1]), (0, 0)))
                parts.append(block.tobytes())
    bits = values.dtype.itemsize * 8
    tags = [(256, 3, [width]), (257, 3, [height]), (258, 3, [bits] * samples), (259, 3, [1]), (262, 3, [photometric]),
            (277, 3, [samples]), (284, 3, [2 if separate else 1]), (339, 3, [sample_format] * samples)]
    tags += [(338, 3, list(extra))] if extra else []
    places = (324, 325) if tile else (273, 279)
    tags += [(322, 3, [tile_w]), (323, 3, [tile_h])] if tile else [(278, 3, [tile_h])]
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    long_values = sum(len(v) * 2 for _, _, v in tags if len(v) > 2)
    data_at = start + long_values + 8 * len(parts)
    offsets = [data_at + sum(len(part) for part in parts[:i]) for i in range(len(parts))]
    tags += [(places[0], 4, offsets), (places[1], 4, [len(part) for part in parts])]
    entries, behind = b"", b""
    for tag, kind, numbers in sorted(tags):
        packed = struct.pack(order + ("H" if kind == 3 else "I") * len(numbers), *numbers)
        if len(packed) > 4:
            entries += struct.pack(order + "HHII", tag, kind, len(numbers), start + len(behind))
            behind += packed
        else:
            entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HIH", 42, 8, len(tags))
    body = behind.ljust(data_at - start, b"\0")
    return head + entries + b"\0" * 4 + body + b"".join(parts)


def tiff_pictures():
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"):
        yield f"{mode.replace(';', '')}.tiff", encoded(mode, "TIFF")
    for mode, compression in (("RGB", "tiff_lzw"), ("RGB", "tiff_adobe_deflate"), ("RGB", "packbits"), ("RGB", "jpeg"),
                              ("1", "group4"), ("CMYK", "jpeg"), ("YCbCr", "tiff_lzw"), ("L", "tiff_deflate")):
        image = picture("RGB").convert("YCbCr") if mode == "YCbCr" else picture(mode)
        yield f"{mode}_{compression}.tiff", encoded(image, "TIFF", compression=compression)
    wide = np.uint16
    yield "RGB16.tiff", tiff(photo(3, wide), 2)
    yield "RGB16_big_endian.tiff", tiff(photo(3, wide), 2, ">")
    yield "RGBA16_premultiplied.tiff", tiff(photo(4, wide), 2, extra=(1,))
    yield "RGBA_premultiplied_tiles.tiff", tiff(photo(4), 2, tile=(16, 16), extra=(1,))
    yield "RGB_tiles_big_endian.tiff", tiff(photo(3), 2, ">", tile=(16, 16))
    yield "RGB_separate.tiff", tiff(photo(3), 2, separate=True)
    yield "RGBA_separate_tiles.tiff", tiff(photo(4), 2, tile=(16, 16), separate=True, extra=(2,))
    yield "CMYK16.tiff", tiff(photo(4, wide), 5)
    yield "L_white_is_0.tiff", tiff(photo(1), 0)
    yield "L16_big_endian.tiff", tiff(photo(1, wide), 1, ">")
    signed = (photo(1, wide).astype(np.int64) - 300).clip(-32768, 32767).astype(np.int16)
    yield "L16_signed.tiff", tiff(signed, 1, sample_format=2)
    pages = [picture("RGB"), picture("L")]
    yield "two_pages.tiff", encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])


def gif_pictures():
    yield "P.gif", encoded("P", "GIF", interlace=0)
    yield "P_interlaced.gif", encoded("P", "GIF", interlace=1)
    yield "L.gif", encoded("L", "GIF")
    yield "1.gif", encoded("1", "GIF")
    for name, options in (("", {}), ("_transparent", {"transparency": 5})):
        data = bytearray(encoded("P", "GIF", **options))
        data[6:10] = struct.pack("<HH", WIDTH + 6, HEIGHT + 4)  # a larger screen …
        at = data.index(b",\0\0\0\0" + struct.pack("<HH", WIDTH, HEIGHT))
        data[at + 1:at + 5] = struct.pack("<HH", 3, 1)  # … and the frame somewhere on it
        yield f"part{name}.gif", bytes(data)
    data = bytearray(encoded("P", "GIF"))
    data[6:10] = struct.pack("<HH", 5, 4)
    yield "frame_sticks_out.gif", bytes(data)
    frames = [picture("P"), picture("L")]
    yield "animated.gif", encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def oriented_pictures():
    for orientation in range(1, 10):
        block = exif(orientation)
        yield f"orientation_{orientation}.jpg", encoded("L", "JPEG", exif=block)
        yield f"orientation_{orientation}.png", encoded("RGB", "PNG", exif=block)
        yield f"orientation_{orientation}.webp", encoded("RGB", "WEBP", exif=block, lossless=True)
        yield f"orientation_{orientation}.tiff", encoded("RGB", "TIFF", tiffinfo={274: orientation})


def make_decode():
    golden = Golden("decode")
    folder = ROOT / "files"
    folder.mkdir(exist_ok=True)
    for stale in folder.iterdir():
        stale.unlink()
    for make in (png_pictures, jpeg_pictures, webp_pictures, bmp_pictures, tiff_pictures, gif_pictures,
                 oriented_pictures):
        for name, data in make():
            (folder / name).write_bytes(data)
            decoded = ImageOps.exif_transpose(Image.open(folder / name)).convert("RGB")
            golden.add({"file": name}, np.array(decoded))
    golden.save()


def main():
    ROOT.mkdir(parents=True, exist_ok=True)
    makers = {"resample": make_resample, "processor": make_processor, "decode": make_decode}
    for name in sys.argv[1:] or makers:
        makers[name]()


if __name__ == "__main__":
    main()
