"""Asks `vlm serve` through the Python clients that people use (use scripts/parity_serve).

The server is started on the small model of the tree, on a free port of this machine; nothing else
is reached. What the clients get is compared with `vlm generate`. Prints a line a check; the last
one is 'N passed, N failed', and the exit status is 1 when anything failed.
"""
import argparse
import asyncio
import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

os.environ["OPENAI_API_KEY"] = "secret"
os.environ["INSTRUCTOR_TELEMETRY"] = "off"

import instructor
import openai
import pydantic
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider
from serve_program import MODEL, ROOT, Checks, Server

PICTURES = ROOT / "examples" / "pictures"
NAME = "easy-vqa-emoji"
QUESTIONS = [("shape_049", "what shape is in the image?"), ("shape_074", "what shape is in the image?"),
             ("shape_038", "what color is the rectangle?"), ("shape_059", "is no circle present?")]


def data_uri(name):
    return "data:image/png;base64," + base64.b64encode((PICTURES / f"{name}.png").read_bytes()).decode()


def message(name, question):
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": data_uri(name)}},
                                        {"type": "text", "text": question}]}


def generate(program, name, question):
    done = subprocess.run([program, "generate", "--model", MODEL, "--device", "cpu", "--threads", "1", "--json",
                           "--max-new-tokens", "64", "--image", PICTURES / f"{name}.png", "--prompt", question],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


class Shape(pydantic.BaseModel):
    shape: Literal["circle", "triangle", "rectangle"]
    sure: bool


def client_of(server, **options):
    return openai.OpenAI(base_url=server.url, api_key=server.key, **options)


def check_openai_plain(server, program):
    client = client_of(server)
    for name, question in QUESTIONS:
        wanted = generate(program, name, question)
        reply = client.chat.completions.create(model=NAME, messages=[message(name, question)], logprobs=True,
                                               top_logprobs=2, max_completion_tokens=64)
        choice = reply.choices[0]
        assert choice.message.content == wanted["text"], (choice.message.content, wanted["text"])
        assert choice.finish_reason == wanted["finish_reason"]
        assert reply.usage.completion_tokens == len(wanted["token_ids"])
        assert reply.usage.prompt_tokens == len(wanted["prompt_token_ids"])
        entries = choice.logprobs.content
        assert bytes(b for entry in entries for b in entry.bytes).decode() == choice.message.content
        for entry, logprob in zip(entries, wanted["token_logprobs"]):
            assert abs(entry.logprob - logprob) < 1e-3, (entry, logprob)
            assert len(entry.top_logprobs) == 2


def check_openai_stream(server, program):
    client = client_of(server)
    for name, question in QUESTIONS:
        wanted = generate(program, name, question)
        text, usage, finish = "", None, None
        with client.chat.completions.create(model=NAME, messages=[message(name, question)], stream=True,
                                            stream_options={"include_usage": True}) as stream:
            for event in stream:
                if event.usage is not None:
                    assert event.choices == []
                    usage = event.usage
                    continue
                text += event.choices[0].delta.content or ""
                finish = event.choices[0].finish_reason or finish
        assert text == wanted["text"], (text, wanted["text"])
        assert finish == "stop"
        assert usage.completion_tokens == len(wanted["token_ids"])


def check_openai_parse(server, _):
    client = client_of(server)
    reply = client.chat.completions.parse(model=NAME, messages=[message(*QUESTIONS[0])], response_format=Shape)
    assert isinstance(reply.choices[0].message.parsed, Shape), reply
    with client.chat.completions.stream(model=NAME, messages=[message(*QUESTIONS[0])],
                                        response_format=Shape) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Shape), final


def check_openai_choice(server, _):
    client = client_of(server)
    reply = client.chat.completions.create(
        model=NAME, messages=[message("shape_074", "what shape is in the image?")], logprobs=True, top_logprobs=1,
        extra_body={"structured_outputs": {"choice": ["circle", "triangle"]}})
    assert reply.choices[0].message.content == "triangle"
    assert abs(sum(reply.vlm["probabilities"].values()) - 1) < 1e-6
    entries = reply.choices[0].logprobs.content
    assert bytes(b for entry in entries for b in entry.bytes).decode() == "triangle", entries
    assert all(len(entry.top_logprobs) == 1 for entry in entries)


def check_openai_completions(server, _):
    client = client_of(server)
    ask = {"model": NAME, "prompt": "what shape", "max_tokens": 6, "logprobs": 2}
    choice = client.completions.create(**ask).choices[0]
    told = choice.logprobs
    assert "".join(told.tokens) == choice.text, choice
    assert told.text_offset == [len("".join(told.tokens[:i])) for i in range(len(told.tokens))]
    assert all(top[token] == value for top, token, value in zip(told.top_logprobs, told.tokens, told.token_logprobs))
    pieces = [event.choices[0] for event in client.completions.create(stream=True, **ask) if event.choices]
    assert "".join(piece.text for piece in pieces) == choice.text
    assert [at for piece in pieces if piece.logprobs for at in piece.logprobs.text_offset] == told.text_offset


def check_openai_responses(server, program):
    client = client_of(server)
    name, question = QUESTIONS[0]
    ask = [{"role": "user", "content": [{"type": "input_image", "image_url": data_uri(name)},
                                        {"type": "input_text", "text": question}]}]
    wanted = generate(program, name, question)["text"]
    reply = client.responses.create(model=NAME, input=ask, instructions="Be brief.", temperature=0)
    assert reply.status == "completed" and reply.usage.output_tokens > 0, reply
    assert client.responses.create(model=NAME, input=ask).output_text == wanted
    text = ""
    for event in client.responses.create(model=NAME, input=ask, stream=True):
        text += event.delta if event.type == "response.output_text.delta" else ""
        last = event
    assert text == wanted and last.type == "response.completed", (text, last)
    parsed = client.responses.parse(model=NAME, input=ask, text_format=Shape)
    assert isinstance(parsed.output_parsed, Shape), parsed


def check_openai_models(server, _):
    client = client_of(server)
    models = client.models.list().data
    assert [model.id for model in models] == [NAME], models
    assert models[0].max_model_len == 2048
    assert client.models.retrieve(NAME).id == NAME


def raises(error, call):
    try:
        call()
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__}")


def check_openai_errors(server, _):
    client = client_of(server, max_retries=0)
    ask = lambda **fields: client.chat.completions.create(
        **{"model": NAME, "messages": [message(*QUESTIONS[0])], **fields})
    assert raises(openai.NotFoundError, lambda: ask(model="other")).code == "model_not_found"
    error = raises(openai.BadRequestError, lambda: ask(temperature=3))
    assert (error.code, error.param) == ("invalid_value", "temperature"), error.body
    error = raises(openai.BadRequestError, lambda: ask(messages=[{"role": "user", "content": "shape " * 3000}]))
    assert error.code == "context_length_exceeded" and error.body["n_ctx"] == 2048, error.body
    bad = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,aGVsbG8="}}]
    error = raises(openai.BadRequestError, lambda: ask(messages=[{"role": "user", "content": bad}]))
    assert (error.code, error.param) == ("invalid_image", "messages[0].content[0].image_url.url"), error.body
    assert error.request_id.startswith("req-")
    wrong = openai.OpenAI(base_url=server.url, api_key="wrong", max_retries=0)
    assert raises(openai.AuthenticationError, lambda: wrong.models.list()).code == "invalid_api_key"


def endless(client, **fields):
    return client.chat.completions.create(model=NAME, messages=[message(*QUESTIONS[0])],
                                          extra_body={"min_tokens": 100000}, **fields)


def wait_for(is_so):
    for _ in range(400):
        if is_so():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come true in 20 s")


def check_openai_cancel(server, _):
    client = client_of(server, max_retries=0)
    running = lambda: server.metric("vlm_num_requests_running")
    cancelled = lambda: server.metric(f'vlm_request_finished_total{{model="{NAME}",reason="cancelled"}}')
    before = cancelled()
    with endless(client, stream=True) as stream:
        for number, _ in enumerate(stream):
            if number == 3:
                break
    wait_for(lambda: running() == 0)
    raises(openai.APITimeoutError, lambda: endless(client, timeout=0.5))
    wait_for(lambda: running() == 0)
    wait_for(lambda: cancelled() == before + 2)


def check_openai_retry(program):
    """A full queue gives 429; the client tries again by itself and is answered."""
    with Server(program, "--max-num-seqs", "1", "--max-queue", "1") as server:
        client = client_of(server, max_retries=0)
        first = endless(client, stream=True)
        wait_for(lambda: server.metric("vlm_num_requests_running") == 1)
        waiting = threading.Thread(target=lambda: endless(client, max_tokens=1))
        waiting.start()
        wait_for(lambda: server.metric("vlm_num_requests_waiting") == 1)
        error = raises(openai.RateLimitError, lambda: endless(client))
        assert error.code == "queue_full" and int(error.response.headers["retry-after"]) >= 1
        threading.Timer(0.5, first.close).start()
        reply = client_of(server, max_retries=5).chat.completions.create(model=NAME,
                                                                         messages=[message(*QUESTIONS[0])])
        assert reply.choices[0].message.content == "circle"
        waiting.join()


def check_end(program):
    """SIGTERM in the middle of a stream: the client learns of it, the exit code is 0."""
    with Server(program, "--shutdown-timeout", "0.3") as server:
        stream = endless(client_of(server, max_retries=0), stream=True)
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        error = raises(openai.APIError, lambda: [None for _ in stream])
        assert "shutting down" in str(error), error
        server.process.wait(30)
    assert server.code == 0, (server.code, server.lines)


def check_instructor(server, _):
    client = instructor.from_openai(client_of(server), mode=instructor.Mode.JSON_SCHEMA)
    answer = client.chat.completions.create(model=NAME, messages=[message(*QUESTIONS[0])], response_model=Shape)
    assert isinstance(answer, Shape)


def check_langchain(server, program):
    chat = ChatOpenAI(model=NAME, base_url=server.url, api_key=server.key)
    ask = HumanMessage(content=message(*QUESTIONS[1])["content"])
    wanted = generate(program, *QUESTIONS[1])["text"]
    reply = chat.invoke([ask])
    assert reply.content == wanted, reply
    assert reply.usage_metadata["output_tokens"] > 0
    assert "".join(piece.content for piece in chat.stream([ask])) == wanted
    structured = chat.with_structured_output(Shape, method="json_schema")
    assert isinstance(structured.invoke([ask]), Shape)


def check_pydantic_ai(server, program):
    model = OpenAIChatModel(NAME, provider=OpenAIProvider(base_url=server.url, api_key=server.key))
    name, question = QUESTIONS[2]
    ask = [question, BinaryContent((PICTURES / f"{name}.png").read_bytes(), media_type="image/png")]
    reply = asyncio.run(Agent(model).run(ask))
    assert reply.output, reply
    assert reply.usage.output_tokens > 0
    structured = asyncio.run(Agent(model, output_type=NativeOutput(Shape)).run(ask))
    assert isinstance(structured.output, Shape)


def check_llm(server, program):
    """The command line program, which always streams."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "extra-openai-models.yaml").write_text(
            f"- model_id: local\n  model_name: {NAME}\n  api_base: {server.url}\n  vision: true\n"
            "  api_key_name: local\n", encoding="utf-8")
        Path(folder, "keys.json").write_text(json.dumps({"local": server.key}), encoding="utf-8")
        name, question = QUESTIONS[0]
        done = subprocess.run([Path(sys.executable).parent / "llm", "-m", "local", "-a", PICTURES / f"{name}.png",
                               question], capture_output=True, text=True,
                              env=dict(os.environ, LLM_USER_PATH=folder), stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == generate(program, name, question)["text"], done.stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "build" / "vlm", type=Path)
    parser.add_argument("--only", default="", help="checks whose name holds this text")
    arguments = parser.parse_args()
    together = {"openai plain": check_openai_plain, "openai stream": check_openai_stream,
                "openai parse": check_openai_parse, "openai choice": check_openai_choice,
                "openai completions": check_openai_completions,
                "openai responses": check_openai_responses, "openai models": check_openai_models, "openai errors": check_openai_errors,
                "openai cancel": check_openai_cancel, "instructor": check_instructor,
                "langchain": check_langchain, "pydantic-ai": check_pydantic_ai, "llm": check_llm}
    alone = {"openai retry": check_openai_retry, "end": check_end}
    checks = Checks(arguments.only)
    program = arguments.program.resolve()
    with Server(program) as server:
        for name, check in together.items():
            checks.run(name, check, server, program)
    for name, check in alone.items():
        checks.run(name, check, program)
    return checks.finish("clients")


if __name__ == "__main__":
    sys.exit(main())
