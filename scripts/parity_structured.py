"""Answers that follow JSON schemas, beside the Python package jsonschema.

Two parts, with the tool `structured_tool` of the build:

  suite   every required case of JSON-Schema-Test-Suite (2020-12, out of the package's source distribution): is what
          the schema allows accepted, is the rest refused, or is the schema itself refused by name
  random  random schemas, answers by a model of noise: every answer that ends by itself parses and validates

Nothing may be accepted that is wrong. What is right and refused comes from what answers are held to besides: objects
have the properties that the schema names, in its order, and characters have one spelling. The last line is
'N passed, N failed', and the exit status is 1 when anything failed.
"""
import argparse
import collections
import json
import random
import string
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import jsonschema

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models/easy-vqa-emoji"


class Tool:
    def __init__(self, program):
        self.process = subprocess.Popen([program, MODEL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def suite_cases(archive):
    """(file, description, schema, tests) of the required cases."""
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda one: one.name):
            parts = Path(member.name).parts
            if parts[1:4] == ("json", "tests", "draft2020-12") and len(parts) == 5 and member.name.endswith(".json"):
                for group in json.load(files.extractfile(member)):
                    yield parts[4][:-5], group["description"], group["schema"], group["tests"]


def spell(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def check_suite(tool, archive):
    counts = collections.Counter()
    refusals = collections.Counter()
    wrong = []
    slowest = 0
    for name, description, schema, tests in suite_cases(archive):
        result = tool.ask(schema=schema, instances=[spell(test["data"]) for test in tests])
        if "error" in result:
            counts["schema refused"] += len(tests)
            refusals[name] += len(tests)
            continue
        slowest = max(slowest, result["compile_ms"])
        for test, accepted in zip(tests, result["accepted"]):
            if accepted == test["valid"]:
                counts["right"] += 1
            elif accepted:
                counts["wrongly accepted"] += 1
                wrong.append(f"{name}: {description}: {test['description']}: {spell(test['data'])}")
            else:
                counts["wrongly refused"] += 1
    print(f"suite: {sum(counts.values())} cases: " + ", ".join(f"{count} {what}" for what, count in counts.most_common()))
    print("  schemas refused: " + ", ".join(f"{name} {count}" for name, count in refusals.most_common()))
    print(f"  slowest compilation {slowest:.0f} ms")
    for line in wrong:
        print("  WRONG " + line)
    return len(wrong)


class Schemas:
    """Random schemas of what can be kept."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def number(self):
        return self.random.choice([self.random.randint(-50, 50), round(self.random.uniform(-9, 9), self.random.randint(1, 4))])

    def make(self, depth=0):
        kinds = ["string", "integer", "number", "boolean", "null", "enum", "pattern", "format"]
        if depth < 4:
            kinds += ["object", "object", "array", "anyOf", "map", "allOf", "tuple"]
        return getattr(self, "make_" + self.random.choice(kinds).lower())(depth)

    def make_string(self, _):
        schema = {"type": "string"}
        if self.random.random() < 0.5:
            schema["minLength"] = self.random.randint(0, 5)
            schema["maxLength"] = schema["minLength"] + self.random.randint(0, 20)
        return schema

    def bounds(self):
        low = self.number()
        schema = {}
        if self.random.random() < 0.6:
            schema[self.random.choice(["minimum", "exclusiveMinimum"])] = low
        if self.random.random() < 0.6:
            schema[self.random.choice(["maximum", "exclusiveMaximum"])] = low + abs(self.number()) + 2
        return schema

    def make_integer(self, _):
        schema = {"type": "integer"} | self.bounds()
        if len(schema) == 3 and self.random.random() < 0.3:
            schema["multipleOf"] = self.random.randint(1, 2)
        return schema

    def make_number(self, _):
        return {"type": "number"} | self.bounds()

    def make_boolean(self, _):
        return {"type": "boolean"}

    def make_null(self, _):
        return {"type": self.random.choice(["null", ["null", "integer"], ["string", "null"]])}

    def make_enum(self, _):
        return {"enum": self.random.sample(["red", "a\"b", "ä\n", 1, 2.5, None, True, {"x": [1]}, []], self.random.randint(1, 5))}

    def make_pattern(self, _):
        return {"pattern": self.random.choice([r"^[A-Z]{2}-\d{3}$", r"^(foo|bar)+$", r"x", r"^\S+@\w+\.com$", r"\d$", r"^[^a-c]{1,5}$"]),
                "type": "string"}

    def make_format(self, _):
        return {"type": "string", "format": self.random.choice(["date", "time", "date-time", "uuid", "ipv4", "email", "hostname"])}

    def make_object(self, depth):
        names = self.random.sample(["a", "b", "name", "q\"t", "ünï", "x y", "long_property_name"], self.random.randint(0, 4))
        schema = {"type": "object", "properties": {name: self.make(depth + 1) for name in names}}
        if names:
            schema["required"] = self.random.sample(names, self.random.randint(0, len(names)))
        if self.random.random() < 0.3:
            schema["additionalProperties"] = self.random.choice([False, True, self.make(depth + 2)])
        if self.random.random() < 0.2:
            schema["maxProperties"] = max(len(schema.get("required", [])), 1) + self.random.randint(0, 2)
        return schema

    def make_map(self, depth):
        schema = {"type": "object", "additionalProperties": self.make(depth + 1), "maxProperties": 4}
        if self.random.random() < 0.5:
            schema["propertyNames"] = {"pattern": "^[a-z]{1,6}$"}
        return schema

    def make_array(self, depth):
        least = self.random.randint(0, 2)
        return {"type": "array", "items": self.make(depth + 1), "minItems": least, "maxItems": least + self.random.randint(0, 3)}

    def make_tuple(self, depth):
        schema = {"type": "array", "prefixItems": [self.make(depth + 1) for _ in range(self.random.randint(1, 3))]}
        if self.random.random() < 0.5:
            schema["items"] = self.make(depth + 1)
            schema["maxItems"] = 5
        return schema

    def make_anyof(self, depth):
        return {"anyOf": [self.make(depth + 1) for _ in range(self.random.randint(1, 3))]}

    def make_allof(self, depth):
        one, two = self.random.sample(["a", "b", "c"], 2)
        return {"allOf": [{"type": "object", "properties": {one: self.make(depth + 1)}, "required": [one]},
                          {"properties": {two: self.make(depth + 1)}}]}


def check_random(tool, count, seed):
    schemas = Schemas(seed)
    counts = collections.Counter()
    wrong = []
    slowest = 0
    for index in range(count):
        schema = schemas.make()
        beams = 3 if index % 10 == 0 else 1
        result = tool.ask(schema=schema, answers=2, seed=index, beams=beams)
        if "error" in result:
            counts["schemas refused"] += 1
            continue
        slowest = max(slowest, result["compile_ms"])
        validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker(("date", "ipv4", "email", "uuid")))
        for answer in result["answers"]:
            counts[answer["finish_reason"]] += 1
            if answer["finish_reason"] != "stop":
                continue
            try:
                validator.validate(json.loads(answer["text"]))
            except (ValueError, jsonschema.ValidationError) as error:
                wrong.append(f"{spell(schema)}: {answer['text']!r}: {str(error).splitlines()[0]}")
    print(f"random: {count} schemas: " + ", ".join(f"{number} {what}" for what, number in counts.most_common()))
    print(f"  slowest compilation {slowest:.0f} ms")
    for line in wrong[:20]:
        print("  WRONG " + line)
    return len(wrong)


def nested(depth):
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def doubled(depth):  # grows twofold with each level
    schema = {"type": "null"}
    for _ in range(depth):
        schema = {"anyOf": [schema, {"type": "array", "items": schema}]}
    return schema


HOSTILE = {
    "400 nested objects": nested(400),
    "31 nested objects": nested(31),
    "2^9 branches": doubled(9),
    "10,000 enum values": {"enum": ["".join(random.Random(i).choices(string.ascii_letters, k=12)) for i in range(10_000)]},
    "1,000 enum values": {"enum": ["".join(random.Random(i).choices(string.ascii_letters, k=12)) for i in range(1_000)]},
    "nested counts": {"type": "string", "pattern": "^(([a-z]{1,1000}){1,1000}){1,1000}$"},
    "one large count": {"type": "string", "pattern": "^[a-z]{1,1000}$"},
    "alternating counts": {"type": "string", "pattern": "^(a{1,60}b{1,60}){1,30}$"},
    "4,000 characters of counts": {"type": "string", "pattern": "^([ab]{1,40}|[bc]{1,40}|c{1,20}){1,40}$"},
    "a long string": {"type": "string", "minLength": 99_999, "maxLength": 100_000},
    "10,000 items": {"type": "array", "items": {"type": "integer"}, "minItems": 9_999, "maxItems": 10_000},
    "400 optional properties": {"properties": {f"property_{i}": {"type": "integer"} for i in range(400)}},
    "400 properties and others": {"properties": {f"property_{i}": {"type": "null"} for i in range(400)},
                                  "additionalProperties": {"type": "string"}},
    "64 counted properties": {"properties": {f"p{i}": {"type": "null"} for i in range(64)}, "minProperties": 20,
                              "maxProperties": 40},
    "strings of strings": {"properties": {f"p{i}": {"type": "string", "maxLength": 1000 + i} for i in range(100)}},
    "100 numbers with bounds": {"properties": {f"p{i}": {"type": "number", "minimum": -1.234567 - i, "maximum": i + 7.654321}
                                               for i in range(100)}},
    "references in a circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "merged with itself": {"allOf": [{"$ref": "#"}]},
    "100 dates": {"properties": {f"p{i}": {"type": "string", "format": "date-time"} for i in range(100)}},
    "100 addresses": {"properties": {f"p{i}": {"type": "string", "format": "uri"} for i in range(100)}},
    "1,000 multiples": {"properties": {f"p{i}": {"type": "integer", "minimum": i, "maximum": 50_000, "multipleOf": 51}
                                       for i in range(40)}},
}


def check_hostile(tool, most_s):
    failed = 0
    for name, schema in HOSTILE.items():
        begin = time.monotonic()
        result = tool.ask(schema=schema)
        took = time.monotonic() - begin
        failed += took > most_s
        print(f"  {took:6.2f} s  {name}: " + (result.get("error", "compiled")[:110]) + ("  SLOW" if took > most_s else ""))
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tool", default=ROOT / "build/release/tests/structured_tool")
    parser.add_argument("--suite", help="the source distribution of jsonschema (.tar.gz); without it that part is left out")
    parser.add_argument("--schemas", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tool = Tool(str(arguments.tool))
    failed = [check_suite(tool, arguments.suite)] if arguments.suite else []
    failed.append(check_random(tool, arguments.schemas, arguments.seed))
    print("hostile schemas, answered in time:")
    failed.append(check_hostile(tool, 1.0))
    print(f"{sum(count == 0 for count in failed)} passed, {sum(count > 0 for count in failed)} failed")
    return 1 if any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())
