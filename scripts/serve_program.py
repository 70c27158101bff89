"""`vlm serve` as a child, for the scripts that ask it, and how to ask it without any client library."""
import http.client
import json
import os
import signal
import subprocess
import threading
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models" / "easy-vqa-emoji"


class Server:
    """`vlm serve` as a child, until the end of the block."""

    def __init__(self, program, *options, key="secret", port=0, model=MODEL, threads=1):
        self.command = [program, "serve", "--model", model, "--port", port, "--device", "cpu", "--threads", threads,
                        *options]
        self.key = key

    def __enter__(self):
        variables = dict(os.environ, VLM_API_KEY=self.key)
        self.process = subprocess.Popen(list(map(str, self.command)), stderr=subprocess.PIPE, text=True, env=variables)
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            if "serving " in line:
                self.url = line.split(" at ")[1].split(";")[0]
                break
        else:
            raise RuntimeError("the server did not start:\n" + "".join(self.lines))
        # The pipe is emptied, or the server would stand still when it is full.
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.code = self.process.wait(60)
        self.reader.join(10)

    @property
    def port(self):
        return int(self.url.split(":")[2].split("/")[0])

    def metrics(self):
        """{name with its labels: value}"""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self.key}"})
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def metric(self, name):
        return self.metrics().get(name, 0.0)


class Checks:
    """Runs checks by their names, a line each; one that fails doesn't end the run."""

    def __init__(self, only=""):
        self.only = only  # checks whose name holds this text
        self.passed = self.failed = 0

    def run(self, name, check, *values):
        """-> whether it passed, or was left out."""
        if self.only not in name:
            return True
        start = time.time()
        try:
            check(*values)
        except Exception:
            self.failed += 1
            print(f"wrong {name}\n{traceback.format_exc(limit=-4)}", flush=True)
            return False
        self.passed += 1
        print(f"ok    {name} ({time.time() - start:.1f} s)", flush=True)
        return True

    def finish(self, title):
        """-> the exit status."""
        print(f"{title}: {self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


class Chat:
    """One request for a chat completion to a server on a port of this machine, streamed or whole.

    events() yields the events of a stream as they come, and notes when: `started_s`, `first_s` (of the first text) and
    `last_s`. reply() gives what a whole answer is. close() leaves the server alone with what it does.
    """

    def __init__(self, port, body, key=None, path="/v1/chat/completions", timeout=600):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        self.started_s, self.first_s, self.last_s = time.monotonic(), None, None
        self.connection.request("POST", path, json.dumps(body), headers)
        self.response = None

    def status(self):
        self.response = self.response or self.connection.getresponse()
        return self.response.status

    def reply(self):
        status = self.status()
        body = self.response.read()
        self.close()
        return status, json.loads(body)

    def events(self):
        if self.status() != 200:
            raise RuntimeError(f"status {self.response.status}: {self.response.read()[:300]}")
        for line in self.response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[len(b"data: "):])
            if any(choice["delta"].get("content") for choice in event.get("choices", [])):
                self.last_s = time.monotonic()
                self.first_s = self.first_s or self.last_s
            yield event
        self.close()

    def close(self):
        self.connection.close()


def percentile(values, share):
    """The value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0
