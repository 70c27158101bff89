#!/usr/bin/env python3
"""Writes tests/fixtures/metrics.json: what the reference kits say of answers and captions.

Runs in an environment of its own, with Java for the tokenizer of captions:
  python3 -m venv ENV && ENV/bin/pip install rouge_score==0.1.2 pycocoevalcap==1.2 jiwer==4.0.0
  ENV/bin/pip download --no-deps lmms-eval==0.7.3
  ENV/bin/python scripts/make_metric_fixtures.py lmms_eval-0.7.3-py3-none-any.whl
The wheel holds the usual ports of the evaluations of VQA v2, DocVQA and ChartQA; only those functions are read.
"""
import ast
import json
import pathlib
import re
import statistics
import sys
import zipfile

import jiwer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from rouge_score import rouge_scorer

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/fixtures/metrics.json"

CAPTIONS = """
A man riding a wave on top of a surfboard.
Don't touch the dog's bowl; it isn't yours!
Two women (one in red) are playing "frisbee" - in a park...
It costs $3.50 or 5,000 yen at 10:30 a.m. on 3/4/2020
A well-known t-shirt, cannot go; gonna win -- yes
The U.S. flag, Mr. Smith's hat. He's at St. Mary
I'll we've they're I'm can't won't shan't 'tis
rock 'n' roll isn't dead, 'hello' he said
email bob@x.com http://www.x.com #tag 50% & more / less
naïve café – an em—dash … done
black/white and/or a 1/2 mile 3-D [brackets] {curly}
A picture of a cat,sitting on  the mat .Next one
its' dogs' James' '90s 60's 5'10" tall
wanna gimme lemme gotta dunno
no. 5 vs. 6 etc. e.g. this i.e. that
co-operate mother-in-law 747-400 x-ray
a*b=c +1 -5 ~ ^ | \\ `tick` ``double'' _under_
COVID-19 4K 1080p $5.00 £3 €7 ¥9 12.5% 1,000,000.50
St. Louis Dr. Who Inc. Ltd. p.m. A.M. U.K. D.C.
what?! really!!! no... wait.... ok
he said:"hi"(laughing) “quote” it’s ‘single’
A large clock at 12 o'clock, ma'am.
A sign reading "No Parking 8am-6pm".
The man is 6'2" and weighs 180lbs.
A #1 foam finger
the cat sat on the mat.the dog ran
on the mat.The dog ran
8 p.m.The show
An AT&T store on 5th Ave. in N.Y.
Question: what is it? Answer: a dog
y'all come back
There's a $20 bill, 20% off!
A pizza w/ cheese, mushrooms & olives
""".strip().split("\n")

ANSWERS = """
Yes|yes|Yes.|no
two dogs|2 dogs|the two dogs|dogs
dont know|don't know|I don't know
couldntve|couldn't've
t-shirt|tshirt|t shirt|T-Shirt
1,000 people|1000 people|thousand
The U.S.A.|usa|USA|U.S.A
3.5 meters.|3.5 meters|3.5m
red, white/blue|red white blue|red white/blue
none|0|zero
a cat (black)|cat black|black cat
an hour ago - maybe|hour ago maybe
what's|whats
she's|shes
somebody'd|somebodyd
left|right
 blue | blue|Blue
straße 5|STRASSE 5|strasse 5
ﬁve apples|five apples
12.5%|12.4%|0.125|13
100|105|106|95
-5|5|-5.2
1_000|1000
1e3|1000.0
0|0.0|0
+7|7
inf|Infinity
|empty
Hello   World|hello world|hello, world!
the quick brown fox|the quick brown dog jumps|a quick fox
rockets & robots, 3 of them|3 robots and rockets
internet|intranet
kitten sitting|sitting kitten
""".strip("\n").split("\n")

SCORED = [
    ("a man riding a wave on a surfboard", ["A man riding a wave on top of a surfboard.", "a surfer rides a big wave"]),
    ("two women play frisbee in the park", ["Two women (one in red) are playing \"frisbee\" in a park.", "women in a park",
                                            "People play with a frisbee"]),
    ("a plate of food", ["A plate of fish & chips, with ketchup", "A plate with fried food"]),
    ("a dog doesn't run", ["A dog runs on the mat.", "The dog isn't running; it sleeps"]),
    ("the the the the", ["The cat sat on the mat."]),
    ("", ["A red bus."]),
    ("A red double-decker bus parked in front of a large building near the street", ["A red bus.", "A double-decker bus"]),
]


def functions_of(source, names):
    """The named functions and classes of a module, without what else it imports."""
    tree = ast.parse(source)
    kept = [node for node in tree.body if getattr(node, "name", None) in names]
    for node in kept:
        node.decorator_list = []
    space = {"re": re}
    exec(compile(ast.Module(kept, []), "reference", "exec"), space)  # noqa: S102
    return [space[name] for name in names]


def references_of(wheel):
    read = lambda path: zipfile.ZipFile(wheel).read("lmms_eval/" + path).decode()
    (processor,) = functions_of(read("tasks/_task_utils/vqa_eval_metric.py"), ["EvalAIAnswerProcessor"])
    anls, _ = functions_of(read("api/metrics.py"), ["anls", "levenshtein_distance"])
    (relaxed,) = functions_of(read("tasks/chartqa/utils.py"), ["relaxed_correctness"])
    return processor(), anls, relaxed


def vqa_accuracy(processor, answer, references):
    """The published formula; one reference alone stands for ten people who agree."""
    normal = lambda text: processor.process_digit_article(processor.process_punctuation(
        text.replace("\n", " ").replace("\t", " ").strip()))
    people = list(enumerate(normal(text) for text in (references * 10 if len(references) == 1 else references)))
    scores = []
    for person in people:
        others = [other for other in people if other != person]
        scores.append(min(1, len([other for other in others if other[1] == normal(answer)]) / 3))
    return normal(answer), statistics.mean(scores)


LABELS = [
    ("2026-05-01", "2026-05-01"), ("2026-05-07", "2026-05-01"), ("MILK\n1.99", "MILK\n€1.99"), ("milk", "MILK"),
    (" 0047 ", "0047"), ("", "SN 42"), ("a much longer answer", "no"), ("naïve €5", "naive 5 €"),
]


def read_labels():
    """Character error rates of single texts, and of all together."""
    items = [{"answer": answer, "references": [text], "cer": jiwer.cer(text, answer)} for answer, text in LABELS]
    answers, texts = zip(*LABELS)
    return {"items": items, "all": jiwer.cer(list(texts), list(answers))}


def main():
    processor, anls, relaxed = references_of(sys.argv[1])
    rouge = rouge_scorer.RougeScorer(["rougeL"])
    tokenized = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(CAPTIONS)})
    captions = [{"text": text, "tokens": tokenized[i][0].split()} for i, text in enumerate(CAPTIONS)]
    answers = []
    lines = [line.split("|") for line in ANSWERS] + [["yes"] + ["yes"] * 3 + ["no"] * 7, ["9"] + ["nine"] * 2 + ["8"] * 8]
    for answer, *references in lines:
        normal, vqa = vqa_accuracy(processor, answer, references)
        stripped = [text.strip() for text in references]
        answers.append({
            "answer": answer, "references": references, "vqa_normal": normal, "vqa_accuracy": vqa,
            "anls": anls(references, [answer])["anls"],
            "relaxed_accuracy": float(any(relaxed(answer.strip(), text) for text in stripped)),
            "rouge_l": rouge.score_multi(references, answer)["rougeL"].fmeasure,
        })
    ptb = PTBTokenizer()
    # An empty line would end the tokenizer's output early.
    given = ptb.tokenize({i: [{"caption": answer or "."}] for i, (answer, _) in enumerate(SCORED)})
    wanted = ptb.tokenize({i: [{"caption": text} for text in texts] for i, (_, texts) in enumerate(SCORED)})
    _, scores = Cider().compute_score(wanted, given)
    cider = [{"answer": answer, "references": texts, "cider": float(score)}
             for (answer, texts), score in zip(SCORED, scores)]
    OUT.write_text(json.dumps({"captions": captions, "answers": answers, "cider": cider,
                               "labels": read_labels()}, indent=1,
                              ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(captions)} captions, {len(answers)} answers, {len(cider)} scored descriptions")


if __name__ == "__main__":
    main()
