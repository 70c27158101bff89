"""Draws printed labels: lines of text on a coloured sticker, seen a little tilted, blurred, noisy and shaded.

Needs Pillow and numpy. Fonts come from apt packages with free licences; whole families are held out for tests, as are
the layouts of HELD_OUT_LAYOUTS.
"""
import dataclasses
import re

import numpy
from PIL import Image, ImageDraw, ImageFilter, ImageFont

# package: (licence, is it held out). Families that copy one another's design stand on the same side.
FONT_PACKAGES = {
    "fonts-agave": ("MIT", False), "fonts-anonymous-pro": ("OFL-1.1", False),
    "fonts-averia-sans-gwf": ("OFL-1.1", False), "fonts-cantarell": ("OFL-1.1", False),
    "fonts-clear-sans": ("Apache-2.0", False), "fonts-comfortaa": ("OFL-1.1", False),
    "fonts-comic-neue": ("OFL-1.1", False), "fonts-crosextra-carlito": ("OFL-1.1", False),
    "fonts-dejavu-core": ("Bitstream Vera", False), "fonts-dejavu-extra": ("Bitstream Vera", False),
    "fonts-dosis": ("OFL-1.1", False), "fonts-dseg": ("OFL-1.1", False), "fonts-firacode": ("OFL-1.1", False),
    "fonts-freefont-otf": ("GPL-3+ with font exception", False), "fonts-gnutypewriter": ("OFL-1.1", False),
    "fonts-go": ("BSD-3-Clause", False), "fonts-hack": ("MIT and Bitstream Vera", False),
    "fonts-inter": ("OFL-1.1", False), "fonts-jetbrains-mono": ("OFL-1.1", False), "fonts-jura": ("OFL-1.1", False),
    "fonts-karla": ("OFL-1.1", False), "fonts-lato": ("OFL-1.1", False), "fonts-league-spartan": ("OFL-1.1", False),
    "fonts-liberation": ("GPL-2 with font exception", False), "fonts-linuxlibertine": ("OFL-1.1", False),
    "fonts-monoid": ("MIT or OFL-1.1", False), "fonts-mononoki": ("OFL-1.1", False),
    "fonts-national-park": ("OFL-1.1", False), "fonts-ocr-b": ("public domain", False),
    "fonts-oldstandard": ("OFL-1.0", False), "fonts-opendin": ("OFL-1.1", False), "fonts-oxygen": ("OFL-1.1", False),
    "fonts-paratype": ("ParaType free font licence", False), "fonts-quicksand": ("OFL-1.1", False),
    "fonts-roadgeek": ("MIT", False), "fonts-roboto-slab": ("Apache-2.0", False),
    "fonts-roboto-unhinted": ("Apache-2.0", False), "fonts-routed-gothic": ("MIT or OFL-1.1", False),
    "fonts-sil-andika": ("OFL-1.1", False), "fonts-sora": ("OFL-1.1", False), "fonts-tuffy": ("public domain", False),
    "fonts-urw-base35": ("AGPL-3 with font exception", False), "fonts-yanone-kaffeesatz": ("OFL-1.1", False),
    "fonts-b612": ("OFL-1.1", True), "fonts-cabin": ("OFL-1.1", True), "fonts-courier-prime": ("OFL-1.1", True),
    "fonts-crosextra-caladea": ("Apache-2.0", True), "fonts-inconsolata": ("OFL-1.0", True),
    "fonts-manrope": ("OFL-1.1", True), "fonts-open-sans": ("Apache-2.0", True), "fonts-play": ("OFL-1.1", True),
    "fonts-sil-gentium-basic": ("OFL-1.1", True), "fonts-vollkorn": ("OFL-1.1", True),
}
# Hairlines, outlines, symbols and alternates, and one file for each face of a variable or doubled family.
NOT_TEXT = re.compile(r"Thin|Hairline|ExtraLight|Outline|Stencil|Math|Symbols|D050000L|Z003|Weather|Smallcaps|SEGGCHAN|"
                      r"DSEG14|LinBiolinum_K|_DR|_RZ|OCRB[BEFLSX]|Monoisome|Tamil|\[wght\]|Minus|EEM|chorus")
SEGMENTS = re.compile("DSEG7")  # only digits
LAYOUTS = ["centre", "left", "right", "band", "last big"]
HELD_OUT_LAYOUTS = ["staggered", "ellipse", "tag"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-./:,$"
SIDE = 160  # long side of a picture
LEAST_CHARACTER = 0.058  # width of a character over that of the picture: 5.6 of 96 pixels when it fills the picture


@dataclasses.dataclass
class Face:
    """A font file, its sizes on demand, and which currency signs it has."""

    path: str
    sizes: dict = dataclasses.field(default_factory=dict)
    currencies: str = ""

    def at(self, size):
        if size not in self.sizes:
            self.sizes[size] = ImageFont.truetype(self.path, size)
        return self.sizes[size]

    def lacks(self, character):
        font = self.at(24)
        return font.getmask(character).getbbox() is None or bytes(font.getmask(character)) == bytes(
            font.getmask("\uffff"))


def load_faces(packages, held_out):
    """Fonts of one side: (those for text, those of seven segments)."""
    text, segments = [], []
    for package, (_, is_held_out) in FONT_PACKAGES.items():
        if is_held_out != held_out:
            continue
        folder = packages.apt(package, "/usr/share/fonts", installed=False)
        seen = set()
        for path in sorted([*folder.rglob("*.otf"), *folder.rglob("*.ttf")]):
            if path.stem in seen or NOT_TEXT.search(path.name):
                continue
            seen.add(path.stem)
            face = Face(str(path))
            if SEGMENTS.search(path.name):
                segments.append((package, face))
            elif not any(face.lacks(letter) for letter in LETTERS):
                face.currencies = "".join(sign for sign in "$€£" if not face.lacks(sign))
                text.append((package, face))
    return text, segments


class Fonts:
    """Draws a family first, so that those with many faces aren't met more often."""

    def __init__(self, faces):
        self.families = {}
        for package, face in faces:
            self.families.setdefault(package, []).append(face)
        self.names = sorted(self.families)

    def draw(self, rng):
        return rng.choice(self.families[rng.choice(self.names)])


def luminance(colour):
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def draw_colours(rng):
    """Ground, ink and surroundings; ink is well apart from its ground."""
    def colour():
        return tuple(rng.randrange(256) for _ in range(3))

    def grey(low, high):
        return (rng.randint(low, high),) * 3

    while True:
        ground = rng.choice([grey(225, 255), grey(0, 60), colour(), colour()])
        ink = rng.choice([grey(0, 40), grey(230, 255), colour()])
        if abs(luminance(ground) - luminance(ink)) > 95:
            return ground, ink, colour()


def fit_sizes(rng, face, lines, width, height, layout):
    """A font size for each line, so that all fit; None where a line would be too small to be read."""
    share = height / (len(lines) * 1.12)
    shrink = rng.uniform(0.75, 1.0) if max(len(line) for line in lines) < 9 else rng.uniform(0.92, 1.0)
    sizes = []
    for number, text in enumerate(lines):
        tall = share * (1.0 if layout != "last big" or number == len(lines) - 1 else 0.8)
        wide = face.at(40).getlength(text)
        size = int(min(tall / 1.15, 40 * width / wide) * shrink)
        if size < 9 or face.at(size).getlength(text) / len(text) < LEAST_CHARACTER * SIDE:
            return None
        sizes.append(size)
    if layout in ("centre", "left", "right") and rng.random() < 0.5:
        sizes = [min(sizes)] * len(sizes)
        if any(face.at(sizes[0]).getlength(text) / len(text) < LEAST_CHARACTER * SIDE for text in lines):
            return None
    return sizes


def place_lines(rng, face, lines, sizes, box, layout):
    """[(x, y, size, text)] within the box, from top to bottom."""
    left, top, right, bottom = box
    heights = [size * 1.12 for size in sizes]
    free = (bottom - top) - sum(heights)
    gap = free / (len(lines) + 1) * rng.uniform(0.2, 1.0)
    y = top + (free - gap * (len(lines) - 1)) / 2
    placed = []
    for text, size, tall in zip(lines, sizes, heights):
        slack = max(0, right - left - face.at(size).getlength(text))
        x = left + slack * {"left": 0.0, "right": 1.0, "staggered": rng.random()}.get(layout, 0.5)
        placed.append((x, y + tall / 2, size, text))
        y += tall + gap
    return placed


def draw_sticker(rng, canvas, box, layout, ground, ink):
    """The sticker's shape and decoration on the canvas."""
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = box
    line = rng.randint(1, 3) if rng.random() < 0.4 else 0
    if layout == "ellipse":
        draw.ellipse((left - 12, top - 12, right + 12, bottom + 12), fill=ground, outline=ink, width=line)
    elif layout == "tag":
        cut = (bottom - top) // 5
        draw.polygon([(left + cut, top), (right, top), (right, bottom), (left + cut, bottom), (left, bottom - cut),
                      (left, top + cut)], fill=ground, outline=ink)
    else:
        draw.rounded_rectangle(box, rng.choice([0, 0, 6, 14]), fill=ground, outline=ink if line else None,
                               width=max(1, line))
    if layout not in ("ellipse", "tag") and rng.random() < 0.12:  # bars along the lower edge
        x = left + 8
        while x < right - 8:
            wide = rng.randint(1, 4)
            draw.rectangle((x, bottom - 9, x + wide - 1, bottom - 4), fill=ink)
            x += wide + rng.randint(1, 4)


def spoil(rng, picture, noise, strength):
    """Shade, blur and sensor noise; strength 0 leaves the picture clean."""
    if strength and rng.random() < 0.4:
        ramp = numpy.linspace(1.0, rng.uniform(0.55, 0.9), picture.width if rng.random() < 0.5 else picture.height)
        ramp = ramp[::-1] if rng.random() < 0.5 else ramp
        shape = (1, -1, 1) if len(ramp) == picture.width else (-1, 1, 1)
        picture = Image.fromarray((numpy.asarray(picture) * ramp.reshape(shape)).astype(numpy.uint8))
    if rng.random() < 0.5 * strength:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.1, 0.8)))
    if rng.random() < 0.6 * strength:
        pixels = numpy.asarray(picture, dtype=numpy.float32)
        pixels = pixels + noise.standard_normal(pixels.shape, dtype=numpy.float32) * rng.uniform(2, 14)
        picture = Image.fromarray(numpy.clip(pixels, 0, 255).astype(numpy.uint8))
    return picture


def look_at(rng, canvas, box, size, strength):
    """The part of the canvas around the box, turned by up to 8 degrees and with corners a little off."""
    left, top, right, bottom = box
    middle = numpy.array([(left + right) / 2, (top + bottom) / 2])
    angle = numpy.radians(rng.uniform(-8, 8) * strength * rng.choice([0.3, 1.0]))
    turn = numpy.array([[numpy.cos(angle), -numpy.sin(angle)], [numpy.sin(angle), numpy.cos(angle)]])
    half = numpy.array([right - left, bottom - top]) / 2 * rng.uniform(1.04, 1.04 + 0.16 * max(strength, 0.3))
    corners = []
    for x, y in ((-1, -1), (-1, 1), (1, 1), (1, -1)):
        off = numpy.array([rng.uniform(-0.04, 0.04), rng.uniform(-0.04, 0.04)]) * strength
        corners.extend(middle + turn @ (half * (numpy.array([x, y]) + off)))
    return canvas.transform(size, Image.Transform.QUAD, [float(value) for value in corners],
                            Image.Resampling.BICUBIC)


def draw_picture(rng, noise, face, lines, layout, strength):
    """The picture of a label, or None where its text would be too small for this font."""
    width, height = SIDE, int(SIDE * rng.choice([1.0, 1.0, rng.uniform(0.7, 1.0)]))
    margin = SIDE // 4
    box = (margin, margin, margin + width, margin + height)
    inner = 0.09 if layout in ("ellipse", "tag") else 0.05
    text_box = (box[0] + width * inner, box[1] + height * inner, box[2] - width * inner, box[3] - height * inner)
    sizes = fit_sizes(rng, face, lines, text_box[2] - text_box[0], text_box[3] - text_box[1], layout)
    if sizes is None:
        return None
    ground, ink, around = draw_colours(rng) if strength else ((255,) * 3, (0,) * 3, (255,) * 3)
    canvas = Image.new("RGB", (width + 2 * margin, height + 2 * margin), around)
    draw_sticker(rng, canvas, box, layout, ground, ink)
    draw = ImageDraw.Draw(canvas)
    for number, (x, y, size, text) in enumerate(place_lines(rng, face, lines, sizes, text_box, layout)):
        colour = ink
        if layout == "band" and number == 0 and len(lines) > 1:
            draw.rectangle((box[0], y - size * 0.58, box[2], y + size * 0.58), fill=ink)
            colour = ground
        draw.text((x, y), text, font=face.at(size), fill=colour, anchor="lm")
    picture = look_at(rng, canvas, box, (width, height), strength)
    return spoil(rng, picture, noise, strength)
