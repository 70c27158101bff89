"""Checks of the page's tabs for batches, training and history (for scripts/parity_page.py)."""
import csv
import io
import json
import shutil
import subprocess

from page_driver import prompt_tokens_of, text_of
from parity_serve import MODEL, PICTURES

QUESTION = "what shape is in the image?"


def check_history(page, _):
    """Conversations stay over a reload, with their pictures, until they are deleted."""
    page.tab("history")
    page.find("history_clear").click()
    page.tab("ask")
    page.pick("shape_074")
    first = page.ask(QUESTION)
    tokens = prompt_tokens_of(first)
    page.driver.refresh()
    page.wait(lambda: page.all("#model option"))
    page.tab("history")
    page.wait(lambda: page.all("#history li"))
    page.all("#history .link")[0].click()
    page.wait(lambda: page.all("#turns li.user img"))
    shown = "return document.querySelector('#turns li.user img').naturalWidth > 0"
    page.wait(lambda: page.driver.execute_script(shown))
    assert text_of(page.answers()[0]) == "triangle"
    assert prompt_tokens_of(page.ask("what color is it?")) > tokens + 5
    page.tab("history")
    page.wait(lambda: len(page.all("#history li")) == 1)  # gone on with, not doubled
    kept = json.loads(page.download("vlm-conversations.json", page.find("history_export").click))
    assert len(kept) == 1 and len(kept[0]["turns"]) == 4, kept
    assert kept[0]["turns"][0]["media"][0]["url"].startswith("data:image/png;base64,")
    page.find("private").click()
    page.tab("ask")
    page.find("again").click()
    page.ask("hello")
    page.tab("history")
    page.wait(lambda: len(page.all("#history li")) == 1)
    page.find("private").click()
    page.click(page.find("history"), "Delete")
    page.wait(lambda: not page.all("#history li"))
    page.tab("ask")
    page.find("again").click()


def numbers_apart(row):
    """A row's texts, and its numbers."""
    names = [name for name in row if name.endswith(("logprob", "entropy"))]
    return {name: value for name, value in row.items() if name not in names}, [float(row[name] or 0) for name in names]


def check_batch(page, program):
    """Twenty pictures, one of them broken: the rows of `vlm vqa`."""
    pictures = page.folder / "pictures"
    pictures.mkdir()
    for path in sorted(PICTURES.glob("*.png"))[:19]:
        shutil.copy(path, pictures / path.name)
    (pictures / "shape_000.png").write_bytes(b"no picture")
    (pictures / "notes.txt").write_text("left out")
    page.tab("batch")
    page.find("batch_folder").send_keys(str(pictures))
    page.wait(lambda: "20 pictures" in page.find("batch_found").text)
    assert "1 other files left out" in page.find("batch_found").text
    page.find("batch_start").click()
    page.wait(lambda: "Give a question" in page.find("problem").text)
    page.find("batch_question").send_keys(QUESTION)
    # In one go, as it may be done in no time.
    click_both = "for (const name of ['start', 'pause']) document.getElementById(`batch_${name}`).click()"
    page.driver.execute_script(click_both)
    page.wait(lambda: "paused" in page.find("batch_state").text)
    assert page.find("batch_start").text == "Go on"
    page.find("batch_start").click()
    page.wait(lambda: page.find("batch_state").text == "20 of 20 done, 1 errors")
    assert len(page.all("#batch_rows tbody tr")) == 20 and len(page.all("#batch_rows tr.failed")) == 1
    own = list(csv.DictReader(io.StringIO(page.download("answers.csv", page.find("batch_csv").click), newline="")))
    lines = [json.loads(line) for line in page.download("answers.jsonl", page.find("batch_jsonl").click).splitlines()]
    subprocess.run([program, "vqa", "--model", MODEL, "--device", "cpu", "--threads", "1", "--question", QUESTION,
                    "--output", "vqa.csv", "pictures"], cwd=page.folder, capture_output=True, check=False)
    with open(page.folder / "vqa.csv", newline="", encoding="utf-8") as file:
        wanted = list(csv.DictReader(file))
    assert list(own[0]) == list(wanted[0]), (list(own[0]), list(wanted[0]))
    for row, line, vqa in zip(own, lines, wanted, strict=True):
        assert row["text"] == line.get("text", ""), line
        assert bool(row.pop("error")) == bool(vqa.pop("error")) == (row["id"] == "pictures/shape_000.png")
        texts, numbers = numbers_apart(row)
        wanted_texts, wanted_numbers = numbers_apart(vqa)
        assert texts == wanted_texts, (texts, wanted_texts)
        assert all(abs(a - b) < 1e-4 for a, b in zip(numbers, wanted_numbers)), (numbers, wanted_numbers)
    (pictures / "shape_000.png").write_bytes((PICTURES / "shape_049.png").read_bytes())


def check_batch_rows(page, _):
    """A table with questions and columns of its own; cells that a spreadsheet would compute are quoted."""
    table = page.folder / "rows.csv"
    table.write_text('image,question,note\nshape_049.png,"what shape, is it?",=1+1\nshape_074.png,,"a ""b"""\n'
                     'none.png,?,-2\n', encoding="utf-8")
    page.tab("batch")
    page.find("batch_question").clear()
    page.find("batch_question").send_keys(QUESTION)
    names = [str(table), str(PICTURES / "shape_049.png"), str(PICTURES / "shape_074.png")]
    page.find("batch_files").send_keys("\n".join(names))
    page.wait(lambda: page.find("batch_found").text == "3 rows")
    page.set("choices", "circle\ntriangle")
    page.find("batch_start").click()
    page.wait(lambda: page.find("batch_state").text == "3 of 3 done, 1 errors")
    rows = list(csv.DictReader(io.StringIO(page.download("answers.csv", page.find("batch_csv").click), newline="")))
    assert [row["note"] for row in rows] == ["'=1+1", 'a "b"', "'-2"], rows
    assert [row["text"] for row in rows] == ["circle", "triangle", ""], rows
    assert [row["question"] for row in rows] == ["what shape, is it?", QUESTION, "?"], rows
    assert rows[0]["id"] == "rows.csv:2" and float(rows[1]["probability"]) > 0.9
    assert json.loads(rows[1]["probabilities"]).keys() == {"circle", "triangle"}
    assert rows[2]["error"] == "none.png is not among the files"
    page.set("choices", "")
    page.tab("ask")


def check_training(page, _):
    metrics = page.folder / "metrics.jsonl"
    page.tab("training")
    page.wait(lambda: page.find("training_state").text == "no rows yet")
    with open(metrics, "a", encoding="utf-8") as file:
        for step in range(1, 6):
            file.write(json.dumps({"step": 10 * step, "loss": 3 / step, "learning_rate": 1e-4}) + "\n")
        file.flush()
        page.wait(lambda: page.find("training_state").text == "step 50, 5 rows")
        file.write(json.dumps({"step": 60, "loss": 0.4}) + "\n" + json.dumps({"step": 60, "eval_loss": 0.7}) + "\n")
    page.wait(lambda: page.find("training_state").text == "step 60, 7 rows")
    assert len(page.all("#training_chart polyline")) == 2 and len(page.all("#training_chart circle")) == 7
    assert [one.text for one in page.all("#training_key option")] == ["loss", "learning_rate", "eval_loss"]
    assert "eval_loss 0.7" in page.find("training_last").text
    page.tab("ask")
