"""Label Studio's and agents' own client packages at the doors of the program (a part of scripts/parity_serve).

`vlm serve --label-studio` is asked as an instance asks it, and label-studio-sdk judges the
predictions by their labelling config; `vlm mcp` is asked by the package mcp, in both of its ways.
Prints a line a check; the exit status is 1 when anything failed.
"""
import argparse
import asyncio
import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from label_studio_sdk.label_interface import LabelInterface
from label_studio_sdk.label_interface.objects import PredictionValue
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.stdio import stdio_client

from parity_serve import MODEL, PICTURES, ROOT, Checks, Server, data_uri, generate

QUESTION = "what shape is in the image?"
CONFIG = """<View>
  <Image name="image" value="$image"/>
  <Header value="what shape is in the image?"/>
  <Choices name="shape" toName="image">
    <Choice value="circle" alias="round"/><Choice value="triangle"/><Choice value="rectangle"/>
  </Choices>
  <TextArea name="words" toName="image" model_question="what shape is in the image?"/>
  <TextArea name="size" toName="image" model_question="how large is it?" model_pattern="[0-9]{1,3} cm"/>
  <RectangleLabels name="box" toName="image"><Label value="shape"/></RectangleLabels>
</View>"""


def post(server, path, body):
    """As an instance does: with the key as a password."""
    pair = base64.b64encode(f"label-studio:{server.key}".encode()).decode()
    request = urllib.request.Request(server.url.removesuffix("v1") + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json", "Authorization": f"Basic {pair}"})
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def check_label_studio(server, program):
    names = ["shape_074", "shape_049"]
    ready = post(server, "setup", {"project": "1.1", "schema": CONFIG, "hostname": "http://localhost:8080",
                                   "access_token": "x"})
    tasks = [{"id": number, "data": {"image": data_uri(name)}} for number, name in enumerate(names)]
    reply = post(server, "predict", {"tasks": tasks, "model_version": "", "project": "1.1", "label_config": CONFIG,
                                     "params": {"login": None, "password": None, "context": None}})
    interface = LabelInterface(CONFIG)
    assert len(reply["results"]) == len(tasks), reply
    for name, shape, prediction in zip(names, ["triangle", "round"], reply["results"]):
        assert interface.validate_prediction(prediction, return_errors=True) == [], prediction
        PredictionValue(**prediction)
        assert prediction["model_version"] == ready["model_version"]
        values = {region["from_name"]: region["value"] for region in prediction["result"]}
        assert values["shape"] == {"choices": [shape]}
        assert values["words"] == {"text": [generate(program, name, QUESTION)["text"]]}
        assert set(values) == {"shape", "words", "size"}, values
        assert 0 < prediction["score"] <= min(region["score"] for region in prediction["result"])
    # What the package calls wrong, it would call wrong here.
    prediction["result"][0]["value"]["choices"] = ["circle"]
    assert interface.validate_prediction(prediction, return_errors=True)


def check_label_studio_errors(server, _):
    tasks = [{"id": 1, "data": {"image": data_uri("shape_074")}}, {"id": 2, "data": {}}]
    body = {"tasks": tasks, "label_config": CONFIG}
    good, bad = post(server, "predict", body)["results"]
    assert len(good["result"]) == 3 and bad["result"] == [] and "tasks[1].data.image" in bad["error"], bad
    assert LabelInterface(CONFIG).validate_prediction(bad, return_errors=True) == []
    try:
        post(server, "predict", {**body, "label_config": "<!DOCTYPE a [<!ENTITY b 'c'>]><View>&b;</View>"})
        raise AssertionError("a document type was accepted")
    except urllib.error.HTTPError as error:
        assert error.code == 400 and "document type" in error.read().decode()


def agent(program, mode):
    server = StdioServerParameters(command=str(program), args=[
        "mcp", "--model", str(MODEL), "--device", "cpu", "--threads", "1", "--allowed-local-media-path",
        str(ROOT / "examples")])
    return Client(stdio_client(server), mode=mode)


async def talk(program, mode):
    async with agent(program, mode) as client:
        assert client.server_info.name == "vlm" and client.instructions
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == ["look", "choose", "watch"], tools
        path = "pictures/shape_074.png"
        wanted = generate(program, "shape_074", QUESTION)["text"]
        bytes64 = base64.b64encode((PICTURES / "shape_074.png").read_bytes()).decode()
        for picture in [path, bytes64, data_uri("shape_074")]:
            seen = await client.call_tool("look", {"images": [picture], "question": QUESTION})
            assert seen.structured_content == {"text": wanted} and seen.content[0].text == wanted, seen
        schema = {"type": "object", "properties": {"shape": {"enum": ["circle", "triangle"]}}, "required": ["shape"]}
        shaped = await client.call_tool("look", {"images": [path], "question": QUESTION, "schema": schema})
        assert shaped.structured_content["json"]["shape"] in ["circle", "triangle"], shaped
        chosen = await client.call_tool("choose", {"images": [path], "question": QUESTION,
                                                   "choices": ["circle", "triangle"]})
        assert chosen.structured_content["choice"] == "triangle"
        assert abs(sum(chosen.structured_content["probabilities"].values()) - 1) < 1e-6
        watched = await client.call_tool("watch", {"clip": "clips/left.mp4", "question": "what is it?",
                                                   "times": [0, 0.5]})
        assert not watched.is_error and watched.structured_content["text"], watched
        for picture in ["../README.md", "/etc/passwd", "pictures/none.png", "pictures/README.md"]:
            refused = await client.call_tool("look", {"images": [picture], "question": QUESTION})
            assert refused.is_error, refused
        many = [client.call_tool("look", {"images": [path], "question": QUESTION}) for _ in range(8)]
        assert all(one.structured_content["text"] == wanted for one in await asyncio.gather(*many))


async def cancel(program):
    """A call that the client gives up ends here, too, and the next one is answered."""
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 400}
    async with agent(program, "auto") as client:
        long = {"images": ["pictures/shape_074.png"], "question": QUESTION, "schema": schema}
        try:
            await asyncio.wait_for(client.call_tool("look", long), 0.5)
            raise AssertionError("the call was too quick to be cancelled")
        except asyncio.TimeoutError:
            pass
        chosen = await client.call_tool("choose", {"images": ["pictures/shape_074.png"], "question": QUESTION,
                                                   "choices": ["circle", "triangle"]})
        assert chosen.structured_content["choice"] == "triangle"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=ROOT / "build" / "vlm", type=Path)
    parser.add_argument("--only", default="", help="checks whose name holds this text")
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    checks = Checks(arguments.only)
    named = {"label studio": check_label_studio, "label studio errors": check_label_studio_errors,
              "mcp with a handshake": lambda _, program: asyncio.run(talk(program, "legacy")),
              "mcp without one": lambda _, program: asyncio.run(talk(program, "auto")),
              "mcp cancelled": lambda _, program: asyncio.run(cancel(program))}
    with Server(program, "--label-studio") as server:
        for name, check in named.items():
            checks.run(name, check, server, program)
    return checks.finish("doors")


if __name__ == "__main__":
    sys.exit(main())
