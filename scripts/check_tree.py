#!/usr/bin/env python3
"""Checks every #include against the table of who may know whom (docs/architecture.md), and that no two types have one
name.

Reads the sources as text, prints each offence as "file:line includes X; allowed: …" or "X is defined in A and in B",
and exits 1 when there is one. Two types of one name in one program are undefined behaviour that no compiler tells: the
linker keeps one of their inline functions, and of the templates over them.
"""
import collections
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Folder → project folders that its files may include, beside its own.
ALLOWED = {
    "vlm/core": [],
    "vlm/io": ["vlm/core"],
    "vlm/text": ["vlm/core"],
    "vlm/image": ["vlm/core"],
    "vlm/nn": ["vlm/core", "vlm/io"],
    "vlm/models": ["vlm/core", "vlm/io", "vlm/text", "vlm/image", "vlm/nn"],
    "data": ["vlm"],
    "train": ["data", "vlm"],
    "infer": ["data", "vlm"],
    "main.cpp": ["train", "infer", "vlm/core", "vlm/io"],  # and vlm/nn/runtime.h through the commands
    "tests/support": ["vlm"],
    "tests/fuzz": ["vlm", "data"],
}

# Header prefix → the only files that may include it (a path or a folder).
THIRD_PARTY = {
    "pcre2.h": ["vlm/core/regex.cpp"],
    "sentencepiece": ["vlm/text/sentencepiece_tokenizer.cpp", "vlm/text/sentencepiece_tokenizer.h"],
    "openssl/": ["vlm/core/sha256.cpp", "tests/support/hub/tls_socket.cpp"],
    "curl/": ["vlm/io/hub/http.cpp"],
    "CLI/": ["main.cpp", "train/commands.cpp", "infer/commands", "infer/media/media_flags.cpp"],
    "archive": ["data/formats/tar_reader.cpp"],
    "arrow/": ["data/tables"],
    "parquet/": ["data/tables"],
    "gif_lib.h": ["data/pictures/gif.cpp"],
    "jpeglib.h": ["data/pictures/jpeg.cpp", "data/pictures/jpeg_writer.cpp"],
    "png.h": ["data/pictures/png.cpp"],
    "libav": ["data/video"],
    "libsw": ["data/video"],
    "tiffio.h": ["data/pictures/tiff.cpp"],
    "libheif/": ["data/pictures/heif.cpp"],
    "opencv2/": ["data/augment.cpp"],
    "lcms2.h": ["data/pictures/color_profile.cpp"],
    "yaml-cpp/": ["vlm/core/config_text.cpp"],
    "xxhash.h": ["vlm/io/xxh3.h"],
    "webp/": ["data/pictures/webp.cpp"],
    "ATen/": ["vlm/io", "vlm/image", "vlm/nn", "vlm/models", "data", "train", "infer", "tests", "cmake"],
    "torch/csrc/distributed/": ["train/distributed.cpp"],
    "torch/": ["vlm/io", "vlm/nn", "vlm/models", "train", "infer", "tests", "cmake"],
    "c10/": ["vlm/io", "vlm/image", "vlm/nn", "vlm/models", "train", "infer", "tests"],
    "catch2/": ["tests/support"],
}

# A namespace (unnamed: ""), a type's definition, or any other brace.
SCOPE = re.compile(r"\bnamespace\b(?P<namespace>[\s\w:]*)\{"
                   r"|\b(?:struct|class|enum|union)\s+(?:class\s+)?(?P<name>\w+)\s*(?:final\s*)?(?::(?!:)[^;{}()]*)?\{|[{}]")
INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]')


def folder_of(path):
    """The row of ALLOWED that `path` belongs to, or None."""
    if path == "main.cpp":
        return path
    parts = path.split("/")
    for length in (2, 1):
        name = "/".join(parts[:length])
        if name in ALLOWED:
            return name
    return None


def is_under(path, folders):
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def allowed_for(path):
    """Project folders that the file at `path` may include."""
    own = folder_of(path)
    if own is not None:
        return ALLOWED[own] + [own, "tests/support"] if path.startswith("tests/") else ALLOWED[own] + [own]
    if path.startswith("tests/"):  # tests/X mirrors X
        mirrored = path.split("/")[1]
        source = mirrored if mirrored in ALLOWED else "vlm/" + mirrored
        return ALLOWED.get(source, ["vlm", "data", "train", "infer"]) + [source, "tests/" + mirrored, "tests/support"]
    return []


def offences_in(path):
    allowed = allowed_for(path)
    for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, header = match.groups()
        if quote == '"' and not is_under(header, allowed):
            yield f"{path}:{number} includes {header}; allowed: {', '.join(allowed) or 'nothing'}"
        for prefix, files in THIRD_PARTY.items():
            if header.startswith(prefix) and not is_under(path, files):
                yield f"{path}:{number} includes {header}; only for: {', '.join(files)}"


def types_in(path):
    """Full names of the types at namespace level whose name other files share."""
    text = (ROOT / path).read_text(encoding="utf-8")
    text = re.sub(r'//[^\n]*|R"\((.|\n)*?\)"|"(\\.|[^"\\\n])*"|\'(\\.|[^\'\\])\'', "", text)
    scopes = []  # the name of a namespace, None for other braces
    for match in SCOPE.finditer(text):
        namespace, name = match.group("namespace"), match.group("name")
        if match.group(0) == "}":
            scopes = scopes[:-1]
            continue
        if name and None not in scopes and "" not in scopes:
            yield "::".join([*scopes, name])
        scopes.append(namespace.strip() if namespace is not None else None)


def doubles_in(paths):
    found = collections.defaultdict(list)
    for path in paths:
        for name in types_in(path):
            found[name].append(path)
    for name, where in found.items():
        if len(where) > 1:
            yield f"{name} is defined in {' and in '.join(where)}"


def sources():
    for top in ("vlm", "data", "train", "infer", "tests"):
        for suffix in ("h", "cpp"):
            yield from (ROOT / top).rglob(f"*.{suffix}")
    yield ROOT / "main.cpp"


def main():
    files = sorted(str(path.relative_to(ROOT)) for path in sources())
    offences = [offence for path in files for offence in offences_in(path)] + list(doubles_in(files))
    print("\n".join(offences) if offences else f"{len(files)} files follow the include table, every type has its name")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
