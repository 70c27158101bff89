"""Compares the cache that `vlm pull` leaves with the one of the Python hub client (use scripts/parity).

A small hub of its own on this machine serves the committed default model, with a pickle and an export
beside it that nobody should fetch. Each client then reads, and completes, what the other has left. Needs no
network. The last line is 'N passed, N failed', and the exit status is 1 when anything failed.
"""
import argparse
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
MODEL = "org/tiny"
COMMIT = "c0ffee" * 6 + "c0ff"
NOT_FETCHED = {"pytorch_model.bin": b"pickle", "onnx/model.onnx": b"export", "metrics.jsonl": b"{}\n"}


class Hub(http.server.ThreadingHTTPServer):
    """What the Hugging Face hub answers about one model; large files come from the host 'localhost'."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())} | NOT_FETCHED
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def address(self, host="127.0.0.1"):
        return f"http://{host}:{self.server_port}"

    def hash(self, name):
        content = self.files[name]
        if self.is_large(name):
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def is_large(self, name):
        return name.endswith((".safetensors", ".bin", ".onnx"))

    def contents_sent(self):
        """How often the bytes of a file were asked for since the last call."""
        asked, self.asked = self.asked, []
        return sum(1 for method, path in asked if method == "GET" and not path.startswith("/api/models/org"))


class HubHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        hub = self.server
        path = unquote(self.path.split("?")[0])
        hub.asked.append((self.command, path))
        resolve = f"/{MODEL}/resolve/"
        if path.startswith("/cdn/"):
            return self.answer(200, {}, hub.files[path.removeprefix("/cdn/")])
        if path.startswith(resolve):
            return self.answer_file(path.removeprefix(resolve).split("/", 1)[1])
        if path == f"/api/models/{MODEL}" or path.startswith(f"/api/models/{MODEL}/revision/"):
            siblings = [{"rfilename": name} for name in hub.files]
            return self.answer_json({"id": MODEL, "sha": COMMIT, "siblings": siblings, "tags": []})
        if path.startswith(f"/api/models/{MODEL}/tree/"):
            return self.answer_json([self.tree_entry(name) for name in hub.files])
        return self.answer(404, {"X-Error-Code": "RepoNotFound"}, b"")

    do_HEAD = do_GET

    def tree_entry(self, name):
        size = len(self.server.files[name])
        entry = {"type": "file", "path": name, "size": size, "oid": self.server.hash(name)}
        if self.server.is_large(name):
            entry["lfs"] = {"oid": self.server.hash(name), "size": size, "pointerSize": 134}
        return entry

    def answer_file(self, name):
        hub = self.server
        if name not in hub.files:
            return self.answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b"")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hub.hash(name)}"'}
        if not hub.is_large(name):
            return self.answer(200, headers, hub.files[name])
        headers |= {"X-Linked-Etag": f'"{hub.hash(name)}"', "X-Linked-Size": str(len(hub.files[name])),
                    "Location": hub.address("localhost") + "/cdn/" + name}
        return self.answer(302, headers, b"")

    def answer_json(self, value):
        self.answer(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments):
        pass


class Report:
    def __init__(self):
        self.passed, self.failed = 0, 0

    def equal(self, name, got, wanted):
        same = got == wanted
        self.passed, self.failed = self.passed + same, self.failed + (not same)
        print(f"  {'ok  ' if same else 'FAIL'}  {name}" + ("" if same else f": got {got}, wanted {wanted}"))


def vlm(binary, cache, *arguments, **environment):
    """The program's exit code, stdout and stderr."""
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=300,
                          env=os.environ | {"HF_HUB_CACHE": str(cache), **environment})
    return done.returncode, done.stdout.strip(), done.stderr.strip()


def layout(cache):
    """Every file and link of a cache, with a link's target; without the Python client's listing."""
    found = {}
    for path in sorted(cache.rglob("*")):
        if path.is_symlink():
            found[str(path.relative_to(cache))] = os.readlink(path)
        elif path.is_file() and "trees" not in path.parts:
            found[str(path.relative_to(cache))] = path.name if path.name == "CACHEDIR.TAG" else path.read_bytes()
    return found


def check_python_reads_ours(report, hub, binary, cache):
    import huggingface_hub
    from transformers import AutoModelForImageTextToText, AutoProcessor

    code, folder, error = vlm(binary, cache, "pull", MODEL)
    report.equal("vlm pull", (code, folder), (0, str(cache / "models--org--tiny/snapshots" / COMMIT)))
    hub.contents_sent()
    huggingface_hub.constants.HF_HUB_OFFLINE = True  # as the variable would, for this part alone
    found = huggingface_hub.snapshot_download(MODEL, cache_dir=cache)
    report.equal("offline, snapshot_download finds our snapshot", found, folder)
    scan = huggingface_hub.scan_cache_dir(cache)
    revisions = [(repo.repo_id, revision.commit_hash, sorted(revision.refs))
                 for repo in scan.repos for revision in repo.revisions]
    report.equal("scan_cache_dir knows model, commit and ref", revisions, [(MODEL, COMMIT, ["main"])])
    report.equal("scan_cache_dir has no warnings", scan.warnings, [])
    _, info = AutoModelForImageTextToText.from_pretrained(MODEL, cache_dir=cache, output_loading_info=True)
    report.equal("from_pretrained loads the model", [sorted(info["missing_keys"]),
                                                     sorted(info["unexpected_keys"])], [[], []])
    processor = AutoProcessor.from_pretrained(MODEL, cache_dir=cache)
    report.equal("from_pretrained loads the processor", type(processor).__name__, "SmolVLMProcessor")
    report.equal("none of it asked the hub", hub.asked, [])
    huggingface_hub.constants.HF_HUB_OFFLINE = False
    huggingface_hub.snapshot_download(MODEL, cache_dir=cache)
    report.equal("online it fetches only what we leave out", hub.contents_sent(), len(NOT_FETCHED))


def check_we_read_pythons(report, hub, binary, cache, ours):
    import huggingface_hub

    huggingface_hub.hf_hub_download(MODEL, "config.json", cache_dir=cache)
    code, _, error = vlm(binary, cache, "inspect", MODEL, HF_HUB_OFFLINE="1")
    report.equal("a snapshot with the config alone is not loaded", (code, "is not whole" in error), (1, True))
    found = huggingface_hub.snapshot_download(MODEL, cache_dir=cache, ignore_patterns=list(NOT_FETCHED))
    hub.contents_sent()
    code, text, error = vlm(binary, cache, "inspect", MODEL, HF_HUB_OFFLINE="1")
    report.equal("vlm inspect reads Python's snapshot offline", (code, found in text), (0, True))
    report.equal("vlm pull finds it", vlm(binary, cache, "pull", MODEL)[:2], (0, found))
    report.equal("and fetches nothing", hub.contents_sent(), 0)
    report.equal("both caches are laid out alike", layout(cache), ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", type=Path, default=ROOT / "build" / "vlm")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "parity_hub",
                        help="for the caches; emptied first")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    hub = Hub(ROOT / "models" / "easy-vqa-emoji")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"):
        os.environ.pop(name, None)
    # Read when the Python client is imported.
    os.environ |= {"HF_ENDPOINT": hub.address(), "HF_HOME": str(options.work.resolve()),
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    report = Report()
    ours, theirs = options.work.resolve() / "ours", options.work.resolve() / "theirs"
    vlm(options.binary, ours, "pull", MODEL)
    kept = layout(ours)
    shutil.rmtree(ours)
    check_python_reads_ours(report, hub, options.binary, ours)
    check_we_read_pythons(report, hub, options.binary, theirs, kept)
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed or not report.passed else 0


if __name__ == "__main__":
    sys.exit(main())
