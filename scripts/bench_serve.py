"""`vlm serve` under load, beside llama-server where it is built (use scripts/bench serve).

A random checkpoint of a published shape. At once 1, 4 and 16 clients ask, each the next question as soon as it is
answered, streamed, every answer as long as all others; once about text, once about a picture that nobody asked about
before. Figures: answers a second, the time to the first piece of text, and the time between tokens. Both servers run the
same bits (--dtypes; --llama-cpp needs `scripts/setup --llama-cpp`), one after the other, and again; medians over turns.

vlm shows a picture as one tile. llama.cpp shows any picture as at least a tile and the whole, so it has twice the work
in that row, and the table says so. Answers are letters: the bytes of a random model are seldom text, which no server sends
before it is whole. Behind the turns vlm alone has four streams open for a minute while a picture comes every two seconds:
the time between two pieces of text of a stream. Prints a Markdown table, and writes every figure as JSON.
"""
import argparse
import base64
import json
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import checkpoints, llama_bench, llama_cpp, machine
from benchmarks.program import PROGRAM
from oracle import pictures
from serve_program import ROOT, Chat, Server, percentile

ROWS = [("per_s", "answers a second", True), ("first_s", "first text, s, median", False),
        ("first_p95_s", "first text, s, 95 of 100", False), ("gap_ms", "between tokens, ms, median", False),
        ("gap_p95_ms", "between tokens, ms, 95 of 100", False)]
GAP_SECONDS, GAP_PICTURE_SECONDS = 60, 2
WORDS = "red green blue round square tall wide small old new near far left right open closed".split()


def make_pictures(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        path = folder / f"serve-{seed}.jpg"
        if not path.exists():
            pictures.scene(512, 512, 1000 + seed).save(path)
    return [base64.b64encode((folder / f"serve-{seed}.jpg").read_bytes()).decode() for seed in range(count)]


def question(number):
    """About 60 tokens, and from the first word on another one for each number."""
    words = [WORDS[number // len(WORDS) ** place % len(WORDS)] for place in range(12)]
    return " ".join(words) + ": which of these words belong together, and why?"


class Requests:
    """Numbered requests, each another one."""

    def __init__(self, options, encoded, extra):
        self.tokens, self.encoded, self.extra = options.tokens, encoded, extra
        self.lock, self.number = threading.Lock(), 0

    def next(self, with_picture):
        with self.lock:
            self.number += 1
            number = self.number
        content = [{"type": "text", "text": question(number)}]
        if with_picture:
            data = self.encoded[number % len(self.encoded)]
            content.insert(0, {"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
        return {"messages": [{"role": "user", "content": content}], "max_tokens": self.tokens, "temperature": 0,
                "stream": True, "stream_options": {"include_usage": True}, **self.extra}


def ask(port, key, body):
    """One answer's figures."""
    chat = Chat(port, body, key, timeout=3600)
    tokens, event = 0, None
    for event in chat.events():
        tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
    if tokens < body["max_tokens"]:  # llama-server goes on to the end of a character
        raise RuntimeError(f"an answer of {tokens} tokens instead of {body['max_tokens']}; its last event: {event}")
    first = chat.first_s or chat.last_s or chat.started_s
    return {"first_s": first - chat.started_s, "end_s": chat.last_s, "start_s": chat.started_s,
            "gap_s": (chat.last_s - first) / max(tokens - 1, 1)}


def measure(port, key, requests, clients, rounds, with_picture):
    def work(_):
        return [ask(port, key, requests.next(with_picture)) for _ in range(rounds)]

    with ThreadPoolExecutor(clients) as pool:
        answers = [one for of_client in pool.map(work, range(clients)) for one in of_client]
    seconds = max(one["end_s"] for one in answers) - min(one["start_s"] for one in answers)
    firsts, gaps = [one["first_s"] for one in answers], [one["gap_s"] * 1e3 for one in answers]
    return {"per_s": len(answers) / seconds, "first_s": statistics.median(firsts), "first_p95_s": percentile(firsts, 0.95),
            "gap_ms": statistics.median(gaps), "gap_p95_ms": percentile(gaps, 0.95)}


def measure_all(port, key, requests, options):
    """{(with pictures, clients): figures}; one answer of each kind goes ahead."""
    found = {}
    for with_picture in (False, True):
        ask(port, key, requests.next(with_picture))
        for clients in options.clients:
            rounds = max(1, options.answers // clients)
            found[with_picture, clients] = measure(port, key, requests, clients, rounds, with_picture)
    return found


def serve_ours(options, folder, dtype):
    most = max(options.clients)
    return Server(PROGRAM, "--dtype", dtype, "--max-num-seqs", most, "--max-queue", most, "--feature-cache", "off",
                  model=folder, threads=options.threads)


def our_requests(options, encoded):
    # `ignore_eos` says to the other one what `min_tokens` says here.
    return Requests(options, encoded, {"min_tokens": options.tokens, "structured_outputs": {"regex": "[a-z ]{1,900}"}})


def run_ours(options, folder, encoded, dtype):
    with serve_ours(options, folder, dtype) as server:
        return measure_all(server.port, server.key, our_requests(options, encoded), options)


def run_theirs(options, folder, encoded, dtype):
    most = max(options.clients)
    files = llama_bench.export(folder, llama_bench.SAME_BITS[dtype], options.threads)
    with llama_cpp.Server(files, options.threads, "--parallel", most, "--ctx-size", most * 1024) as server:
        requests = Requests(options, encoded, {"ignore_eos": True, "grammar": "root ::= [a-z ]+"})
        return measure_all(server.port, None, requests, options)


def measure_gaps(options, folder, encoded, dtype):
    """Milliseconds between pieces of text of four streams while pictures come: the median, and the largest."""
    requests, gaps = our_requests(options, encoded), []

    def stream():
        while time.monotonic() < end:
            chat, before = Chat(server.port, requests.next(False) | {"max_tokens": 200}, server.key, timeout=3600), None
            for _ in chat.events():
                if before is not None and chat.last_s != before:
                    gaps.append((chat.last_s - before) * 1e3)
                before = chat.last_s

    with serve_ours(options, folder, dtype) as server, ThreadPoolExecutor() as pool:
        end = time.monotonic() + GAP_SECONDS
        work = [pool.submit(stream) for _ in range(4)]
        with ThreadPoolExecutor(GAP_SECONDS) as pictures_pool:
            while time.monotonic() < end:
                body = requests.next(True) | {"max_tokens": 8, "min_tokens": 1}
                work.append(pictures_pool.submit(ask, server.port, server.key, body))
                time.sleep(GAP_PICTURE_SECONDS)
        for one in work:
            one.result()
    return {"gap_ms": statistics.median(gaps), "largest_ms": max(gaps), "count": len(gaps)}


def format_value(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def print_table(options, medians):
    sides = list(medians)
    print(f"| | clients | {' | '.join(f'{side}, {kind}' for side, kind in sides)} |")
    print("|---|---|" + "---|" * len(sides))
    for with_picture in (False, True):
        what = "picture (vlm 1 tile, llama.cpp 2)" if with_picture else "text"
        for clients in options.clients:
            for key, label, _ in ROWS:
                values = [format_value(medians[side][with_picture, clients][key]) for side in sides]
                print(f"| {what}: {label} | {clients} | {' | '.join(values)} |")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench serve", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="256m", choices=["256m", "500m", "2.2b"], help="shape (256m)")
    parser.add_argument("--dtypes", nargs="+", default=["auto", "int8"], choices=["auto", "int8", "int4"],
                        help="vlm's --dtype (auto and int8)")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 4, 16], help="at once (1 4 16)")
    parser.add_argument("--answers", type=int, default=32, help="of each row (32)")
    parser.add_argument("--tokens", type=int, default=64, help="of an answer (64)")
    parser.add_argument("--repeat", type=int, default=3, help="turns (3)")
    parser.add_argument("--threads", type=int, default=len(machine.cpus()), help="default: all")
    parser.add_argument("--llama-cpp", action="store_true", help="llama-server, too, with files of the same bits")
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "bench", help="folder of checkpoints (.data/bench)")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "bench_serve.json",
                        help="every figure (out/bench_serve.json)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.llama_cpp:
        llama_cpp.check()
    folder, one_tile = checkpoints.make(options.data, options.model, "bfloat16")
    encoded = make_pictures(options.data / "pictures-serve", 2 * options.answers * len(options.clients))
    sides = {("vlm", dtype): (run_ours, one_tile, dtype) for dtype in options.dtypes}
    if options.llama_cpp:
        sides |= {("llama.cpp", llama_bench.SAME_BITS[dtype]): (run_theirs, one_tile, dtype) for dtype in options.dtypes}
    turns = {side: [] for side in sides}
    for _ in range(options.repeat):
        for side, (run, of, dtype) in sides.items():
            turns[side].append(run(options, of, encoded, dtype))
    medians = {side: {row: {key: statistics.median(turn[row][key] for turn in found) for key, _, _ in ROWS}
                      for row in found[0]} for side, found in turns.items()}
    print(f"{machine.describe()}, {options.threads} threads; {options.model}, weights stored in bfloat16;"
          f" {options.tokens} tokens an answer; medians of {options.repeat}\n")
    print_table(options, medians)
    sys.stdout.flush()
    gaps = {dtype: measure_gaps(options, one_tile, encoded, dtype) for dtype in options.dtypes}
    for dtype, gap in gaps.items():
        print(f"\nvlm, {dtype}: four streams and a picture every {GAP_PICTURE_SECONDS} s: {gap['count']} gaps, median"
              f" {gap['gap_ms']:.0f} ms, largest {gap['largest_ms']:.0f} ms")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"server": side, "bits": kind, "picture": with_picture, "clients": clients, **figures}
            for (side, kind), of_side in medians.items() for (with_picture, clients), figures in of_side.items()]
    found = {"machine": machine.describe(), "model": options.model, "rows": rows, "gaps": gaps}
    options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
