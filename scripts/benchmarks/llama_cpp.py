"""llama.cpp as `scripts/setup --llama-cpp` builds it: where its programs are, and its server as a child.

with Server(files, threads) as server: server.post("/completion", {...}). FILES are a text model's GGUF file and perhaps
the encoder's behind it.
"""
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from .machine import environment

ROOT = Path(__file__).resolve().parent.parent.parent
START_SECONDS = 600


def folder():
    return Path(os.environ.get("VLM_LLAMA_CPP_DIR") or ROOT / ".deps" / "llama-cpp")


def program(name):
    path = folder() / "bin" / name
    if not path.is_file():
        raise SystemExit(f"no {path}: scripts/setup --llama-cpp builds it (VLM_LLAMA_CPP_DIR names another folder)")
    return path


def check():
    """Ends with what to do if a program is missing."""
    for name in ("llama-server", "llama-bench", "llama-mtmd-cli"):
        program(name)


def version():
    done = subprocess.run([program("llama-server"), "--version"], capture_output=True, text=True)
    found = re.search(r"version:? *(\S.*)", done.stdout + done.stderr)
    return found.group(1).strip() if found else "unknown"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """llama-server on a free port of this machine, until the end of the block."""

    def __init__(self, files, threads, *options):
        self.port = free_port()
        self.command = [program("llama-server"), "-m", files[0], "--host", "127.0.0.1", "--port", self.port,
                        "--threads", threads, "--threads-batch", threads, "--offline", "--no-ui", *options]
        if len(files) > 1:
            self.command += ["--mmproj", files[1]]
        self.threads = threads

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(part) for part in self.command], stdout=self.log, stderr=self.log,
                                        env=environment(self.threads))
        end = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > end:
                self.stop()
                raise RuntimeError(f"llama-server does not start: {self.output()[-1500:]}")
            time.sleep(0.05)
        return self

    def is_ready(self):
        try:
            return self.get("/health").get("status") == "ok"
        except (OSError, urllib.error.URLError):
            return False

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def output(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()

    def __exit__(self, *_):
        self.stop()
        self.log.close()

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as reply:
            return json.load(reply)

    def post(self, path, body):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", json.dumps(body).encode(),
                                         {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=1800) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"llama-server: {path}: {error.code}: {error.read().decode()[:500]}") from error
