"""Two `vlm serve` behind haproxy with deploy/haproxy.cfg (a part of scripts/parity_serve).

Skipped, in words, where there is no haproxy. A machine that ends, one that is killed and one that
comes back cost no client an answer. Prints a line a check; the exit status is 1 when anything
failed.
"""
import argparse
import concurrent.futures
import http.client
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import openai

from parity_serve import NAME, QUESTIONS, ROOT, Checks, Server, generate, message

KEY = "secret"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Balancer:
    """haproxy in front of the given ports, until the end of the block."""

    def __init__(self, folder, ports):
        self.port = free_port()
        text = (ROOT / "deploy" / "haproxy.cfg").read_text(encoding="utf-8")
        for given, used in zip(("8000", "8081", "8082"), (self.port, *ports)):
            assert f":{given}\n" in text
            text = text.replace(f":{given}\n", f":{used}\n")
        self.config = Path(folder, "haproxy.cfg")
        self.config.write_text(text, encoding="utf-8")

    def __enter__(self):
        self.process = subprocess.Popen(["haproxy", "-f", self.config], stderr=subprocess.DEVNULL)
        wait_until(lambda: status_of(self.port) == 200, "haproxy has a machine")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def wait_until(is_so, what, seconds=30):
    end = time.time() + seconds
    while not is_so():
        assert time.time() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def status_of(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


class Callers:
    """Four threads that ask the balancer until the end of the block, and compare every answer."""

    def __init__(self, port, wanted):
        self.wanted, self.answers, self.wrong = wanted, 0, []
        self.client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=2)
        self.is_over = threading.Event()
        self.threads = [threading.Thread(target=self.ask, args=(i,)) for i in range(4)]

    def ask(self, start):
        for i in range(start, 1 << 30):
            if self.is_over.is_set():
                return
            (name, question), wanted = QUESTIONS[i % 4], self.wanted[i % 4]
            try:
                reply = self.client.chat.completions.create(model=NAME, messages=[message(name, question)])
                text = reply.choices[0].message.content
                if text != wanted:
                    self.wrong.append(f"{question}: {text}, wanted {wanted}")
            except openai.OpenAIError as error:
                self.wrong.append(repr(error))
            self.answers += 1

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join(60)

    def see(self, count):
        """Waits for so many more answers."""
        wanted = self.answers + count
        wait_until(lambda: self.answers >= wanted, f"{count} more answers", 60)


def asked(server):
    return server.metric('vlm_requests_total{path="/chat/completions",status="200"}')


def check_shared(a, b, _, port, wanted):
    """Both machines get their share, and every answer is right."""
    with Callers(port, wanted) as callers:
        callers.see(40)
    assert not callers.wrong, callers.wrong[:3]
    assert asked(a) >= 5 and asked(b) >= 5, (asked(a), asked(b))


def check_ended(a, b, start, port, wanted):
    """One is ended while it is asked, and comes back: nobody loses an answer."""
    with Callers(port, wanted) as callers:
        callers.see(8)
        a.process.send_signal(signal.SIGTERM)
        assert a.process.wait(60) == 0
        callers.see(20)
        again = start(a.port)
        before = asked(again)
        wait_until(lambda: asked(again) > before, "the machine that came back is asked")
    again.__exit__()
    assert not callers.wrong, callers.wrong[:3]


def check_killed(a, b, start, port, wanted):
    """One is killed: what it was answering is asked again, by the balancer or the client."""
    with Callers(port, wanted) as callers:
        callers.see(8)
        b.process.kill()
        callers.see(30)
    assert not callers.wrong, callers.wrong[:3]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "build" / "vlm", type=Path)
    program = parser.parse_args().program.resolve()
    if shutil.which("haproxy") is None:
        print("parity_balance: skipped, there is no haproxy here (apt install haproxy)")
        return 0
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        wanted = [one["text"] for one in pool.map(lambda q: generate(program, *q), QUESTIONS)]
    checks = Checks()
    for name, check in {"shared": check_shared, "ended": check_ended, "killed": check_killed}.items():
        ports = [free_port(), free_port()]

        def start(port):
            return Server(program, port=port).__enter__()

        with tempfile.TemporaryDirectory() as folder, Server(program, port=ports[0]) as a, \
                Server(program, port=ports[1]) as b, Balancer(folder, ports) as balancer:
            checks.run(f"balance {name}", check, a, b, start, balancer.port, wanted)
    return checks.finish("balance")


if __name__ == "__main__":
    sys.exit(main())
