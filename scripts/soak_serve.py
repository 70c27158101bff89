"""Asks `vlm serve` for minutes on end, from many clients at once (use scripts/soak serve).

The small model of the tree. Every answer is one of a few hundred, each of which was asked for alone before; nothing else
may come back, whatever runs beside it. One request in ten is left by its client, in the queue, in mid-answer or while it
is being sent; one in twenty is broken or hostile and has an answer of its own that is wanted. Behind that: memory has
stayed where it was after the first third, no request is left in the server, and the counters of /metrics are what the
log adds up to. Prints what it saw; the exit status is 1 when anything was wrong.
"""
import argparse
import base64
import collections
import http.client
import itertools
import json
import random
import socket
import sys
import threading
import time
from pathlib import Path

from serve_program import ROOT, Chat, Server, percentile

PICTURES = ROOT / "examples" / "pictures"
NAME = "easy-vqa-emoji"
QUESTIONS = ["what shape is in the image?", "what color is the shape?", "is there a circle?", "does the image contain a rectangle?"]
MOST_GROWTH = 0.05  # of the resident memory, or
MOST_GROWTH_BYTES = 24e6
MOST_SHOWN = 10
CHAT, METRICS_WAIT_S = "/v1/chat/completions", 30


# ------------------------------------------------------------------------------------------------------- what is asked


def picture_part(path):
    return {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()}}


def body_of(pictures, question, **fields):
    content = [*map(picture_part, pictures), {"type": "text", "text": question}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 24, **fields}


def make_bodies(seed):
    """Requests of every kind; what each gets is the same every time."""
    chance = random.Random(seed)
    files = sorted(PICTURES.glob("*.png"))
    bodies = [body_of([path], question) for path, question in itertools.product(files[:24], QUESTIONS)]
    bodies += [body_of([path], QUESTIONS[0], stream=True, stream_options={"include_usage": True}) for path in files[:16]]
    bodies += [body_of([path], QUESTIONS[1], logprobs=True, top_logprobs=3) for path in files[:12]]
    bodies += [body_of([path], QUESTIONS[0], temperature=1.5, seed=number, n=chance.randint(1, 3), min_tokens=12)
               for number, path in enumerate(files[:24])]
    bodies += [body_of([path], QUESTIONS[0], structured_outputs={"choice": ["circle", "rectangle", "triangle"]})
               for path in files[:12]]
    bodies += [body_of([path], QUESTIONS[1], num_beams=3) for path in files[:8]]
    bodies += [body_of(chance.sample(files, 2), "is it the same shape?", min_tokens=8) for _ in range(16)]
    bodies += [body_of([], f"what shape has {number} sides?", min_tokens=20, stream=number % 2 == 0) for number in range(3, 23)]
    schema = {"type": "object", "properties": {"sure": {"type": "boolean"}}, "required": ["sure"], "additionalProperties": False}
    bodies += [body_of([path], QUESTIONS[2], response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})
               for path in files[:8]]
    return bodies


def answer_of(chat, is_stream, gaps=None):
    """What must be the same each time: of a whole answer its choices, of a stream the texts that its pieces join to."""
    if not is_stream:
        status, reply = chat.reply()
        if status != 200:
            raise RuntimeError(f"status {status}: {reply}")
        return {"choices": reply["choices"], "tokens": reply["usage"]["completion_tokens"], "vlm": reply.get("vlm")}
    texts, ends, last = collections.defaultdict(str), {}, None
    for event in chat.events():
        if "error" in event:
            raise RuntimeError(str(event))
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
            ends[choice["index"]] = choice["finish_reason"] or ends.get(choice["index"])
        if gaps is not None and last is not None:
            gaps.append(time.monotonic() - last)
        last = time.monotonic()
    return {"texts": dict(texts), "ends": ends}


def is_same(found, wanted):
    """Texts and counts to the letter; numbers up to what products of another number of rows round otherwise."""
    if isinstance(found, float) and isinstance(wanted, float):
        return abs(found - wanted) <= 1e-5 * max(1.0, abs(wanted))
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(is_same(found[key], wanted[key]) for key in found)
    if isinstance(found, list) and isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(is_same, found, wanted))
    return found == wanted


# ------------------------------------------------------------------------------------------------------------- hostile


def head(method="POST", path=CHAT, length=None, kind="application/json", *more):
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Authorization: Bearer secret", f"Content-Type: {kind}", *more]
    return ("\r\n".join(lines + ([f"Content-Length: {length}"] if length is not None else [])) + "\r\n\r\n").encode()


def with_body(body, *more, kind="application/json"):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head("POST", CHAT, len(data), kind, *more) + data


def broken_picture(data):
    part = {"type": "image_url", "image_url": {"url": data}}
    return with_body({"messages": [{"role": "user", "content": [part]}]})


def hostile_requests():
    """(bytes, the statuses that may answer them; 0: the connection is closed without one)"""
    plain = {"messages": [{"role": "user", "content": "what?"}]}
    good = with_body(plain)
    return [
        (with_body(b"{"), {400}), (with_body(b"\xff\xfe"), {400}), (with_body(b"[" * 5000), {400}),
        (with_body({"messages": []}), {400}), (with_body(plain | {"max_tokens": -5}), {400}),
        (with_body(plain | {"temperature": "hot"}), {400}), (with_body(plain | {"tools": [{"type": "function"}]}), {400}),
        (with_body(plain | {"model": "other"}), {404}), (with_body(plain, kind="text/plain"), {415}),
        (with_body({"messages": [{"role": "user", "content": "shape " * 4000}]}), {400}),
        (broken_picture("data:image/png;base64,aGVsbG8="), {400}), (broken_picture("file:///etc/passwd"), {400}),
        (broken_picture("http://127.0.0.1:1/x.png"), {400}), (broken_picture("data:image/png;base64,%%%"), {400}),
        (with_body(plain | {"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/x"}}}}), {400}),
        (with_body(plain | {"structured_outputs": {"regex": "(a+"}}), {400}),
        (head("GET"), {405}), (head("POST", "/v1/nothing", 0), {404}), (head("POST", CHAT), {400, 411}),
        (head("POST", CHAT, None, "application/json", "Transfer-Encoding: chunked") + b"0\r\n\r\n", {400, 411}),
        (head("POST", CHAT, 1 << 40), {413}), (head("POST", CHAT, "12x") + b"{}", {400}),
        (head("POST", CHAT, 2, "application/json", "Content-Length: 3") + b"{}", {400}),
        (head("POST", CHAT, 2, "application/json", "X-Large: " + "a" * 200_000) + b"{}", {431, 0}),
        (b"GET / HTTP/9.9\r\n\r\n", {400, 505, 0}), (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", {400, 0}),
        (good.replace(b"Bearer secret", b"Bearer other"), {401}),
        (good.replace(b"Host: localhost", b"Host: evil.example"), {400, 403, 421}),
        (good[:-10], {0}), (b"", {0}),
    ]


def send_raw(port, data, is_cut, timeout=60):
    """The status of what comes back, 0 for none. A request that is cut ends as its client goes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        received = b""
        try:
            connection.sendall(data)
            if is_cut:
                connection.shutdown(socket.SHUT_WR)
            while len(received) < 16:
                piece = connection.recv(4096)
                if not piece:
                    break
                received += piece
        except (ConnectionResetError, BrokenPipeError):
            pass
    return int(received.split(b" ", 2)[1]) if received.startswith(b"HTTP/1.1 ") else 0


# ------------------------------------------------------------------------------------------------------------ the load


class Soak:
    def __init__(self, options, server):
        self.options, self.server = options, server
        self.bodies, self.hostile = make_bodies(options.seed), hostile_requests()
        self.lock, self.asked = threading.Lock(), 0
        self.wrong, self.counts, self.gaps, self.memory = [], collections.Counter(), [], []

    def tell(self, what):
        with self.lock:
            self.wrong.append(what)
            if len(self.wrong) <= MOST_SHOWN:
                print("wrong:", what[:600], flush=True)

    def ask_alone(self):
        """Each request twice, alone: what all others must get."""
        self.wanted = []
        for number, body in enumerate(self.bodies):
            first, again = (answer_of(Chat(self.server.port, body, self.server.key), body.get("stream")) for _ in range(2))
            if not is_same(first, again):
                self.tell(f"request {number} alone, twice: {first} and {again}")
            self.wanted.append(first)

    def ask(self, chance):
        number = chance.randrange(len(self.bodies))
        body = self.bodies[number]
        gaps = []
        found = answer_of(Chat(self.server.port, body, self.server.key), body.get("stream"), gaps)
        with self.lock:
            self.counts["answered"] += 1
            self.gaps += gaps
        if not is_same(found, self.wanted[number]):
            self.tell(f"request {number}: {found}, alone {self.wanted[number]}")

    def leave(self, chance):
        """A client that goes: while it sends, at once, or behind some pieces of an endless answer."""
        body = chance.choice(self.bodies) | {"stream": True, "min_tokens": 1500, "max_tokens": 1600}
        for field in ("structured_outputs", "response_format", "num_beams", "n", "stream_options"):
            body.pop(field, None)
        way = chance.choice(["sending", "at once", "pieces"])
        if way == "sending":
            data = with_body(body)
            with socket.create_connection(("127.0.0.1", self.server.port), timeout=60) as connection:
                connection.sendall(data[:chance.randrange(1, len(data))])
        else:
            chat = Chat(self.server.port, body, self.server.key)
            if way == "pieces":
                for _ in zip(range(chance.randrange(1, 20)), chat.events()):
                    pass
            elif chance.random() < 0.5:
                time.sleep(chance.random())
            if chat.response:
                chat.response.close()
            chat.close()
        with self.lock:
            self.counts["left"] += 1

    def attack(self, chance):
        data, wanted = chance.choice(self.hostile)
        status = send_raw(self.server.port, data, wanted == {0})
        with self.lock:
            self.counts["hostile"] += 1
        if status not in wanted:
            self.tell(f"hostile request {data[:200]!r}: status {status}, wanted {sorted(wanted)}")

    def work(self, seed):
        chance = random.Random(seed)
        while True:
            with self.lock:
                if time.monotonic() > self.end and self.asked >= self.options.requests:
                    return
                self.asked += 1
            draw = chance.random()
            try:
                (self.leave if draw < 0.10 else self.attack if draw < 0.15 else self.ask)(chance)
            except Exception as error:  # noqa: BLE001: one failure is not the end
                self.tell(f"{type(error).__name__}: {error}")

    def watch(self):
        while not self.is_over:
            resident = int(Path(f"/proc/{self.server.process.pid}/statm").read_text().split()[1]) * 4096
            self.memory.append(resident)
            if len(self.memory) % 60 == 0:
                print(f"{len(self.memory)} s: {self.asked} requests, {resident / 1e6:.0f} MB", flush=True)
            time.sleep(1)

    def run(self):
        self.ask_alone()
        self.end, self.is_over = time.monotonic() + 60 * self.options.minutes, False
        watcher = threading.Thread(target=self.watch)
        watcher.start()
        clients = [threading.Thread(target=self.work, args=(self.options.seed * 1000 + i,)) for i in range(self.options.clients)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        self.is_over = True
        watcher.join()


# ---------------------------------------------------------------------------------------------------- what is left then


def wait_for_rest(server):
    """The metrics once nothing runs any more."""
    end = time.monotonic() + METRICS_WAIT_S
    while True:
        metrics = server.metrics()
        left = {name: metrics.get(f"vlm_{name}", 0) for name in ("num_requests_running", "num_requests_waiting", "open_streams")}
        if not any(left.values()) or time.monotonic() > end:
            return metrics, left
        time.sleep(0.2)


def check_memory(soak):
    third = max(len(soak.memory) // 3, 1)
    warm, last = soak.memory[third:2 * third], soak.memory[2 * third:]
    if not warm or not last:
        return "too short to tell"
    before, after = percentile(warm, 0.5), percentile(last, 0.5)
    text = f"{before / 1e6:.0f} MB in the second third, {after / 1e6:.0f} MB in the last (medians)"
    if after - before > max(MOST_GROWTH * before, MOST_GROWTH_BYTES):
        soak.tell(f"memory grows: {text}")
    return text


def log_counts(lines):
    """What the lines of the log add up to."""
    counts = collections.Counter()
    for line in lines:
        if not line.startswith("{"):
            continue
        row = json.loads(line)
        counts["requests"] += 1
        counts["status", row["status"]] += 1
        if row.get("cancelled"):
            counts["left, at the model" if "model" in row else "left before"] += 1
        elif "finish" in row:
            counts["finished", row["finish"]] += 1
        for field in ("prompt_tokens", "completion_tokens"):
            counts[field] += row.get(field, 0)
    return counts


def metric_counts(metrics):
    counts = collections.Counter()
    for name, value in metrics.items():
        labels = dict(part.split("=", 1) for part in name.partition("{")[2].rstrip("}").split(",") if "=" in part)
        if name.startswith("vlm_requests_total"):
            counts["requests"] += value
            counts["status", int(labels["status"].strip('"'))] += value
        if name.startswith("vlm_request_finished_total"):
            counts["finished", labels["reason"].strip('"')] += value
        counts["prompt_tokens"] += value if name.startswith("vlm_prompt_tokens_total") else 0
        counts["completion_tokens"] += value if name.startswith("vlm_generation_tokens_total") else 0
    return counts


def check_counters(soak, metrics, lines):
    logged, counted = log_counts(lines), metric_counts(metrics)
    # Who left before the model had the request is counted if the whole of it was there, which the log doesn't tell.
    least, more = logged.pop("left, at the model", 0), logged.pop("left before", 0)
    cancelled = counted.pop(("finished", "cancelled"), 0)
    if not least <= cancelled <= least + more:
        soak.tell(f"cancelled: /metrics says {cancelled:.0f}, the log {least} to {least + more}")
    for key in sorted(logged.keys() | counted.keys(), key=str):
        if logged[key] != counted[key]:
            soak.tell(f"counter {key}: /metrics says {counted[key]:.0f}, the log {logged[key]}")
    return f"{logged['requests']} requests, {logged['completion_tokens']} tokens, {cancelled:.0f} cancelled"


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/soak serve", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5, help="at least (5; an hour: 60)")
    parser.add_argument("--requests", type=int, default=10_000, help="at least (10000)")
    parser.add_argument("--clients", type=int, default=64, help="at once (64)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: the time")
    parser.add_argument("--threads", type=int, default=0, help="of the server (0: all)")
    parser.add_argument("--program", type=Path, default=ROOT / "build" / "vlm")
    parser.add_argument("--log", type=Path, default=ROOT / "out" / "soak_serve.log", help="the server's (out/soak_serve.log)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    if not options.program.is_file():
        sys.exit(f"soak: no {options.program}; run scripts/build")
    print(f"seed {options.seed}", flush=True)
    with Server(options.program.resolve(), "--log-format", "json", "--max-queue", options.clients, "--feature-cache", "off",
                "--max-connections-per-address", 4 * options.clients, threads=options.threads) as server:
        soak = Soak(options, server)
        soak.run()
        metrics, left = wait_for_rest(server)
        if any(left.values()):
            soak.tell(f"still there {METRICS_WAIT_S} s after the last client: {left}")
        if server.process.poll() is not None:
            soak.tell(f"the server ended: {server.process.returncode}")
        memory = check_memory(soak)
    # The requests for metrics that came behind are in the log alone.
    lines = [line for line in server.lines if '"path":"/metrics"' not in line]
    metrics = {name: value for name, value in metrics.items() if 'path="/metrics"' not in name}
    counters = check_counters(soak, metrics, lines)
    options.log.parent.mkdir(parents=True, exist_ok=True)
    options.log.write_text("".join(server.lines), encoding="utf-8")
    if server.code != 0:
        soak.tell(f"exit status {server.code}")
    print(f"{soak.asked} requests: {soak.counts['answered']} answered as alone, {soak.counts['left']} left,"
          f" {soak.counts['hostile']} hostile")
    print(f"memory: {memory}")
    print(f"between pieces: median {1e3 * percentile(soak.gaps, 0.5):.0f} ms, 99 of 100 within {1e3 * percentile(soak.gaps, 0.99):.0f} ms")
    print(f"log and /metrics: {counters}")
    print(f"{soak.asked - len(soak.wrong)} passed, {len(soak.wrong)} failed")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
