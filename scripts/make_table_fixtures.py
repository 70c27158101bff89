#!/usr/bin/env python3
"""Writes tests/fixtures/tables: Parquet and Arrow files with the columns of data sets on the Hugging Face hub.

Needs datasets 5.2.0, pyarrow 26.0.1 and Pillow 13.0.0; the outputs are committed, so tests need none of them. The
columns, their types and the way in which they are stored are those of the data sets' own features; the contents are
made up here.

Run: python scripts/make_table_fixtures.py
"""
import io
import pathlib
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from PIL import Image as Pictures

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/tables"
TEXT = Value("string")


def png(color):
    out = io.BytesIO()
    Pictures.new("RGB", (6, 4), color).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


def write(name, columns, features, **options):
    Dataset.from_dict(columns, features=Features(features)).to_parquet(FOLDER / f"{name}.parquet", **options)


def hub_sets():
    """One file a data set, with its published features."""
    turn = {"user": TEXT, "assistant": TEXT, "source": TEXT}
    write("cauldron", {"images": [[png("red")], [png("blue"), png("lime")]],
                       "texts": [[{"user": "What colour?", "assistant": "Red.", "source": "made"},
                                  {"user": "Sure?", "assistant": "Yes.", "source": "made"}],
                                 [{"user": "How many?", "assistant": "Two.", "source": "made"}]]},
          {"images": List(Image()), "texts": List(turn)})
    write("llava_onevision", {"id": ["a"], "image": [png("red")],
                              "conversations": [[{"from": "human", "value": "<image>\nWhat colour?"},
                                                 {"from": "gpt", "value": "Red."}]],
                              "data_source": ["made"]},
          {"id": TEXT, "image": Image(), "conversations": List({"from": TEXT, "value": TEXT}), "data_source": TEXT})
    answers = [{"answer": text, "answer_confidence": "yes", "answer_id": number}
               for number, text in enumerate(["red"] * 6 + ["crimson"] * 4, 1)]
    write("vqav2", {"question_type": ["what"], "multiple_choice_answer": ["red"], "answers": [answers],
                    "image_id": [12], "answer_type": ["other"], "question_id": [12000], "question": ["What colour?"],
                    "image": [png("red")]},
          {"question_type": TEXT, "multiple_choice_answer": TEXT,
           "answers": List({"answer": TEXT, "answer_confidence": TEXT, "answer_id": Value("int64")}),
           "image_id": Value("int64"), "answer_type": TEXT, "question_id": Value("int64"), "question": TEXT,
           "image": Image()})
    write("docvqa", {"questionId": ["1"], "question": ["What is the date?"], "question_types": [["form"]],
                     "image": [png("white")], "docId": [5], "answers": [["1/8/93", "January 8, 1993"]]},
          {"questionId": TEXT, "question": TEXT, "question_types": List(TEXT), "image": Image(),
           "docId": Value("int64"), "answers": List(TEXT)})
    write("docvqa_languages", {"id": ["1"], "image": [png("white")], "query": [{"de": "Welches Datum?", "en": "What date?"}],
                               "answers": [["1/8/93"]]},
          {"id": TEXT, "image": Image(), "query": {"de": TEXT, "en": TEXT}, "answers": List(TEXT)})
    write("chartqa", {"image": [png("white")], "query": ["How many bars?"], "label": [["14"]],
                      "human_or_machine": [0]},
          {"image": Image(), "query": TEXT, "label": List(TEXT),
           "human_or_machine": ClassLabel(names=["human", "machine"])})
    write("textvqa", {"image_id": ["x"], "question_id": [3], "question": ["Which brand?"],
                      "question_tokens": [["which", "brand"]], "image": [png("white")], "answers": [["dakota"] * 10],
                      "set_name": ["train"]},
          {"image_id": TEXT, "question_id": Value("int32"), "question": TEXT, "question_tokens": List(TEXT),
           "image": Image(), "answers": List(TEXT), "set_name": TEXT})
    write("scienceqa", {"image": [png("white"), None], "question": ["Which is a mammal?", "Is water wet?"],
                        "choices": [["a trout", "a mouse"], ["yes", "no"]], "answer": [1, 0],
                        "hint": ["Look at the fur.", ""], "task": ["closed choice"] * 2},
          {"image": Image(), "question": TEXT, "choices": List(TEXT), "answer": Value("int8"), "hint": TEXT,
           "task": TEXT})
    write("coco_captions", {"image": [png("red")], "filepath": ["a.jpg"],
                            "sentences": [["A red square.", "Something red."]]},
          {"image": Image(), "filepath": TEXT, "sentences": List(TEXT)})
    write("classes", {"image": [png("red"), png("blue"), png("lime")], "label": [1, 0, -1]},
          {"image": Image(), "label": ClassLabel(names=["cool", "warm"])})


def kinds_of_values():
    """Every kind of column that is read, in three row groups, as Parquet, Arrow file and Arrow stream."""
    table = pa.table({
        "text": pa.array(["a", None, "c", "d", "e"]),
        "large": pa.array(["x" * 9, "", "y", None, "z"], pa.large_string()),
        "bytes": pa.array([b"\x00\xff", b"", None, b"1", b"2"]),
        "small": pa.array([1, -2, 3, None, 5], pa.int8()),
        "wide": pa.array([2**63, 1, 2, 3, 2**64 - 1], pa.uint64()),
        "single": pa.array(np.array([0.1, 1.1, 2.5, 3, -0.0], np.float32)),
        "half": pa.array(np.array([0.1, 1, 2, 3, 4], np.float16)),
        "double": pa.array([0.1, 1e300, None, 3, 4]),
        "yes": pa.array([True, False, None, True, True]),
        "date": pa.array([0, 1, 2, 3, None], pa.date32()),
        "list": pa.array([[1, 2], [], None, [3], [4]]),
        "map": pa.array([[("k", 1)], [], None, [("a", 2), ("b", 3)], []], pa.map_(pa.string(), pa.int32())),
        "nested": pa.array([{"a": [{"b": "deep"}]}, None, {"a": []}, {"a": None}, {"a": [{"b": None}]}],
                           pa.struct([("a", pa.list_(pa.struct([("b", pa.string())])))])),
        "coded": pa.array(["u", "v", "u", None, "u"]),
    })
    coded = table.set_column(table.num_columns - 1, "coded", table["coded"].combine_chunks().dictionary_encode())
    pq.write_table(coded, FOLDER / "kinds.parquet", row_group_size=2)
    with pa.OSFile(str(FOLDER / "kinds_stream.arrow"), "wb") as out, pa.ipc.new_stream(out, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    with pa.ipc.new_file(str(FOLDER / "kinds_file.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    with pa.ipc.new_file(str(FOLDER / "dictionary.arrow"), coded.schema) as writer:
        writer.write_table(coded)


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    hub_sets()
    kinds_of_values()


if __name__ == "__main__":
    main()
