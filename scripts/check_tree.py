#!/usr/bin/env python3
"""Checks every #include against the tables of who may know whom (docs/architecture.md), that no two types have one
name, and that no text depends on the locale.

Reads the sources as text, prints each offence as "file:line includes X; allowed: …" or "X is defined in A and in B",
and exits 1 when there is one. Two types of one name in one program are undefined behaviour that no compiler tells: the
linker keeps one of their inline functions, and of the templates over them. In different namespaces they only mislead:
inside the inner one the outer one is hidden.
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
    "tests/fuzz": ["vlm", "data", "infer"],
}

# Folder → its subfolders, from the lowest up: each may include those before it, and none behind it. Folders of one tuple
# may include each other.
ORDER = {
    "vlm/core": ["vlm/core", "vlm/core/config", "vlm/core/run", "vlm/core/schema"],
    "vlm/io": ["vlm/io", "vlm/io/hub", "vlm/io/gguf"],
    "vlm/text": ["vlm/text/unicode", "vlm/text/bpe", "vlm/text/jinja", "vlm/text"],
    # A layer holds its weight and its adapters, and adapters are made of layers.
    "vlm/nn": ["vlm/nn/cpu", "vlm/nn/cpu/panels", "vlm/nn/cpu/bfloat16", "vlm/nn/cpu/int8", "vlm/nn/cpu/int4", "vlm/nn/gpu",
               ("vlm/nn", "vlm/nn/cache", "vlm/nn/weights", "vlm/nn/lora")],
    "vlm/models": ["vlm/models/interface", "vlm/models/decoder", "vlm/models/parts", "vlm/models/smolvlm",
                   "vlm/models/text", "vlm/models/qwen_vl", "vlm/models/internvl", "vlm/models/gguf", "vlm/models/packed",
                   "vlm/models"],
    "data": ["data/opencv", "data/pictures", "data/pictures/other", "data/video", "data/video/absent", "data/media", "data/tables", "data/formats",
             "data/conversations", "data/metrics", "data"],
    "train": ["train/optimizer", "train/config", "train/run", "train/batches", "train/model", "train/jobs",
              "train/evaluation", "train/plan", "train/report", "train/inspect", "train"],
    "infer": ["infer/doctags", "infer/structured/grammar", ("infer/structured", "infer/structured/xgrammar"), "infer/search",
              "infer/items", "infer/kept", "infer/media",
              # The library (infer/vlm.h) stands on the engine, the engine on the generator.
              ("infer", "infer/engine", "infer/library"), "infer/tables", "infer/batch", "infer/quantize", "infer/commands",
              "infer/server/http", "infer/server/fetch", "infer/server/api", "infer/server/page", "infer/server/models",
              ("infer/server", "infer/server/doors")],
}
MOST_MODULES = 12  # of a folder; a header and its source are one

# Header prefix → the only files that may include it (a path or a folder).
THIRD_PARTY = {
    "pcre2.h": ["vlm/core/regex.cpp"],
    "sentencepiece": ["vlm/text/sentencepiece_tokenizer.cpp", "vlm/text/sentencepiece_tokenizer.h"],
    "openssl/": ["vlm/core/sha256.cpp", "tests/support/hub/tls_socket.cpp"],
    "curl/": ["vlm/io/hub/http.cpp"],
    "boost/": ["infer/server/http"],
    "expat.h": ["infer/server/doors/xml_reader.cpp"],
    "CLI/": ["main.cpp", "train/commands.cpp", "infer/commands", "infer/server/serve_command.cpp", "infer/server/doors/mcp_command.cpp", "infer/media/media_flags.cpp"],
    "archive": ["data/formats/tar_reader.cpp"],
    "arrow/": ["data/tables"],
    "parquet/": ["data/tables"],
    "xgrammar/": ["infer/structured/xgrammar"],
    "dlpack/": ["infer/structured/xgrammar"],
    "gif_lib.h": ["data/pictures/gif.cpp"],
    "jpeglib.h": ["data/pictures/jpeg.cpp", "data/pictures/jpeg_writer.cpp"],
    "png.h": ["data/pictures/png.cpp"],
    "libav": ["data/video"],
    "libsw": ["data/video"],
    "tiffio.h": ["data/pictures/tiff.cpp"],
    "libheif/": ["data/pictures/heif.cpp"],
    "opencv2/": ["data/augment.cpp", "data/media/thumbnail.cpp", "data/opencv"],
    "lcms2.h": ["data/pictures/color_profile.cpp"],
    "yaml-cpp/": ["vlm/core/config/config_text.cpp"],
    "xxhash.h": ["vlm/io/xxh3.h"],
    "webp/": ["data/pictures/webp.cpp"],
    "ATen/": ["vlm/io", "vlm/image", "vlm/nn", "vlm/models", "data", "train", "infer", "tests", "cmake"],
    "torch/csrc/distributed/": ["train/jobs/distributed.cpp"],
    "torch/": ["vlm/io", "vlm/nn", "vlm/models", "train", "infer", "tests", "cmake"],
    "c10/": ["vlm/io", "vlm/image", "vlm/nn", "vlm/models", "train", "infer", "tests"],
    "catch2/": ["tests/support"],
}

# A namespace (unnamed: ""), a type's definition, or any other brace.
SCOPE = re.compile(r"\bnamespace\b(?P<namespace>[\s\w:]*)\{"
                   r"|\b(?:struct|class|enum|union)\s+(?:class\s+)?(?P<name>\w+)\s*(?:final\s*)?(?::(?!:)[^;{}()]*)?\{|[{}]")
# What gives other texts or answers in other locales (vlm/core/concat.h and ascii.h have what doesn't).
LOCALE = re.compile(r"\bo?stringstream\b|\bstd::(?:tolower|toupper|is(?:alpha|alnum|digit|space|xdigit|upper|lower|punct|print))\b"
                    r"|\b(?:stod|stof|strtod|strtof|atof)\s*\(|\bstd::regex|printf\s*\([^;]*?%[-+ #0]*[\d*]*(?:\.[\d*]+)?[efgaEGA]")
LOCALE_FREE = ["vlm/core/concat.h"]
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


def levels_of(top):
    """Each subfolder of `top` with those that it may include, itself among them."""
    seen = []
    for step in ORDER[top]:
        step = step if isinstance(step, tuple) else (step,)
        seen += step
        for folder in step:
            yield folder, list(seen)


def disorder_in(path):
    """Includes of a subfolder that stands behind the file's own; a folder that the table doesn't know."""
    top = folder_of(path)
    if top not in ORDER:
        return
    levels = dict(levels_of(top))
    own = str(pathlib.PurePosixPath(path).parent)
    if own not in levels:
        yield f"{path}: folder {own} has no place in ORDER of scripts/check_tree.py"
        return
    for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match or match.group(1) != '"' or folder_of(match.group(2)) != top:
            continue
        other = str(pathlib.PurePosixPath(match.group(2)).parent)
        if other not in levels[own]:
            yield f"{path}:{number} includes {match.group(2)}; {own} stands below {other}"


def large_folders(paths):
    modules = collections.defaultdict(set)
    for path in paths:
        if not path.startswith("tests/") and "/" in path:
            modules[str(pathlib.PurePosixPath(path).parent)].add(pathlib.PurePosixPath(path).stem)
    for folder, names in sorted(modules.items()):
        if len(names) > MOST_MODULES:
            yield f"{folder} has {len(names)} modules; at most {MOST_MODULES}"


def locale_in(path):
    """Calls whose result the program around may change by setlocale or std::locale::global."""
    if path.startswith("tests/") or path in LOCALE_FREE:
        return
    text = re.sub(r"//[^\n]*", "", (ROOT / path).read_text(encoding="utf-8"))
    for match in LOCALE.finditer(text):
        number = text.count("\n", 0, match.start()) + 1
        call = match.group(0).split("(")[0].strip()
        yield f"{path}:{number} has {call}, which depends on the locale; see vlm/core/concat.h and ascii.h"


def offences_in(path):
    yield from disorder_in(path)
    yield from locale_in(path)
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
    found, short = collections.defaultdict(list), collections.defaultdict(list)
    for path in paths:
        for name in types_in(path):
            found[name].append(path)
            if not path.startswith("tests/"):
                short[name.split("::")[-1]].append((name, path))
    for name, where in found.items():
        if len(where) > 1:
            yield f"{name} is defined in {' and in '.join(where)}"
    for places in short.values():
        if len({name for name, _ in places}) > 1:
            yield " and ".join(f"{name} in {path}" for name, path in places) + " have one name"


def sources():
    for top in ("vlm", "data", "train", "infer", "tests"):
        for suffix in ("h", "cpp"):
            yield from (ROOT / top).rglob(f"*.{suffix}")
    yield ROOT / "main.cpp"


def main():
    files = sorted(str(path.relative_to(ROOT)) for path in sources())
    offences = [offence for path in files for offence in offences_in(path)] + [*doubles_in(files), *large_folders(files)]
    print("\n".join(offences) if offences else f"{len(files)} files follow the include tables, every type has its name")
    return 1 if offences else 0


if __name__ == "__main__":
    sys.exit(main())
