#!/usr/bin/env python3
"""Draws docs/terminal.svg, the picture in the README: commands and what they print, run now.

    scripts/draw_terminal.py                # needs build/vlm

The pictures that a command asks about stand beside it.
"""
import argparse
import base64
import html
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODEL = "models/easy-vqa-emoji"
SESSION = [
    (f"vlm generate --model {MODEL} \\\n  --image examples/pictures/shape_049.png --prompt \"what shape is in the image?\"",
     "examples/pictures/shape_049.png"),
    (f"vlm vqa examples/pictures --model {MODEL} --quiet \\\n  --question \"what color is the shape?\" --output OUT/colors.csv && head -n 3 OUT/colors.csv | cut -d, -f 1,3,4",
     None),
    (f"vlm evaluate examples/pictures/examples.jsonl --model {MODEL} --quiet --output OUT/rows.jsonl", None),
]
COLUMNS = 108
LINE, CHAR, MARGIN, BAR = 19, 8.05, 18, 34  # pixels
PICTURE = 96


def run(command, folder):
    shell = command.replace("OUT", str(folder)).replace("vlm ", "build/vlm ", 1)
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n").split("\n")


def wrapped(line):
    return [line[i:i + COLUMNS] for i in range(0, len(line), COLUMNS)] or [""]


def text(x, y, line, kind):
    return f'<text x="{x}" y="{y}" class="{kind}" xml:space="preserve">{html.escape(line)}</text>'


def draw(session):
    """session: (command, lines of output, picture or None)."""
    width = int(2 * MARGIN + COLUMNS * CHAR)
    parts, y = [], BAR + LINE
    for command, lines, picture in session:
        top = y
        for i, line in enumerate(command.split("\n")):
            parts.append(text(MARGIN, y, ("$ " if i == 0 else "  ") + line, "command"))
            y += LINE
        for line in lines:
            for piece in wrapped(line):
                parts.append(text(MARGIN, y, piece, "output"))
                y += LINE
        if picture:
            data = base64.b64encode((ROOT / picture).read_bytes()).decode()
            parts.append(f'<image x="{width - MARGIN - PICTURE}" y="{top - LINE + 6}" width="{PICTURE}" '
                         f'height="{PICTURE}" href="data:image/png;base64,{data}"/>')
            y = max(y, top + PICTURE)
        y += LINE // 2
    dots = "".join(f'<circle cx="{MARGIN + 4 + 18 * i}" cy="17" r="5.5" fill="{color}"/>'
                   for i, color in enumerate(("#ff5f57", "#febc2e", "#28c840")))
    style = ("text { font: 13.4px ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace }"
             " .command { fill: #9ece6a } .output { fill: #c0caf5 }")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}">\n'
            f"<style>{style}</style>\n"
            f'<rect width="{width}" height="{y}" rx="10" fill="#1a1b26"/>\n{dots}\n' + "\n".join(parts) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs" / "terminal.svg")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        session = [(command.replace("OUT", "out"), run(command, folder), picture) for command, picture in SESSION]
    options.output.write_text(draw(session), encoding="utf-8")
    print(options.output)


if __name__ == "__main__":
    main()
