#!/usr/bin/env python3
"""Writes tests/fixtures/tables/asked.*: tables whose rows are asked, not learned.

Needs datasets 5.2.0, pyarrow 26.0.1 and Pillow 13.0.0; the outputs are committed, so tests need none of them.

Run: python scripts/make_row_fixtures.py
"""
import io
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image, Value
from PIL import Image as Pictures

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/tables"
TEXT = Value("string")
ROWS = 12
GROUP = 4


def png(color):
    out = io.BytesIO()
    Pictures.new("RGB", (6, 4), color).save(out, "PNG")
    return out.getvalue()


def table():
    """Neighbours show the same picture two by two; one picture is no picture, one row has none."""
    colors = ["red", "blue", "lime", "white", "black", "gray"]
    pictures = [{"bytes": png(colors[row // 2]), "path": f"{colors[row // 2]}.png"} for row in range(ROWS)]
    pictures[6] = {"bytes": b"no picture", "path": "broken.png"}
    pictures[9] = None
    columns = {"id": [f"r{row}" for row in range(ROWS)], "image": pictures,
               "question": [f"What is it, {row}?" for row in range(ROWS)],
               "answer": ["a cat"] * ROWS, "number": list(range(ROWS)), "hash": [bytes([row, 255]) for row in range(ROWS)]}
    features = Features({"id": TEXT, "image": Image(), "question": TEXT, "answer": TEXT, "number": Value("int64"),
                         "hash": Value("binary")})
    return Dataset.from_dict(columns, features=features).data.table


def main():
    asked = table().combine_chunks()
    pq.write_table(asked, FOLDER / "asked.parquet", row_group_size=GROUP, compression="NONE")
    with pa.ipc.new_stream(FOLDER / "asked.arrow", asked.schema) as stream:
        for begin in range(0, ROWS, GROUP):
            stream.write_table(asked.slice(begin, GROUP))


if __name__ == "__main__":
    main()
