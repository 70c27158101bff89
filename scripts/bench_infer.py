"""Inference of build/vlm beside transformers and llama.cpp, and beside what the machine can do (use
scripts/bench infer).

Random checkpoints of published shapes, one picture made small (one tile) and left large (cut as
published), a folder of 8 small ones. Figures are medians over turns: the machine's limits, ours,
transformers', llama.cpp's, and again, so that a machine whose speed drifts treats all alike. Prints
a Markdown table, and writes every figure as JSON. --llama-cpp needs `scripts/setup --llama-cpp`.
"""
import argparse
import json
import statistics
import sys
from pathlib import Path

from benchmarks import checkpoints, llama_bench, llama_cpp, machine, peer, work
from benchmarks.program import Program
from oracle import pictures

ROOT = Path(__file__).resolve().parent.parent
PROMPT = "Can you describe this image?"
PICTURES = 8
BYTES = {"float32": 4, "bfloat16": 2}  # a weight of the peer

# key, what it is (SMALL and LARGE: what the pictures are called), unit, True when more is better
ROWS = [
    ("first_token_s", "process start to first token, SMALL", "s", False),
    ("startup_s", "– less encode and prefill", "s", False),
    ("load_s", "load", "s", False),
    ("encode_small_s", "encode SMALL", "s", False),
    ("encode_large_s", "encode LARGE", "s", False),
    ("prefill_small_s", "prefill, SMALL", "s", False),
    ("prefill_small_tok_s", "– the same", "tokens/s", True),
    ("prefill_large_s", "prefill, LARGE", "s", False),
    ("prefill_large_tok_s", "– the same", "tokens/s", True),
    ("decode_tok_s", "decode, batch 1", "tokens/s", True),
    ("folder_pic_s", f"folder of {PICTURES} pictures", "pictures/s", True),
    ("folder_again_pic_s", "– again", "pictures/s", True),
    ("peak_mb_small", "peak memory, SMALL", "MB", False),
    ("peak_mb_large", "peak memory, LARGE", "MB", False),
]


def make_pictures(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(PICTURES):
        path = folder / f"{seed}.jpg"
        if not path.exists():
            pictures.scene(1024, 1024, seed).save(path)
    return sorted(folder.glob("*.jpg"))


class Ours:
    """build/vlm in one dtype, one run at a time."""

    def __init__(self, options, folder, one_tile, files, dtype):
        self.program = Program(options.threads, dtype)
        self.folder, self.one_tile, self.files = folder, one_tile, files
        self.tokens = options.tokens
        self.prompt_tokens = {}

    def generate(self, size, tokens):
        folder = self.one_tile if size == "small" else self.folder
        run = self.program.generate(folder, self.files[0], PROMPT, tokens)
        self.prompt_tokens[size] = len(run["prompt_token_ids"])
        timing = run["timing"]
        return {f"encode_{size}_s": timing["vision_s"], f"prefill_{size}_s": timing["prefill_s"],
                f"peak_mb_{size}": run["peak_rss_mb"], "load_s": timing["load_s"],
                "decode_tok_s": timing["decode_tokens_per_s"], "first_line_s": run["first_line_s"]}

    def start(self):
        run = self.generate("small", 1)
        start = run["first_line_s"] - run["encode_small_s"] - run["prefill_small_s"]
        return {"first_token_s": run["first_line_s"], "startup_s": start, "load_s": run["load_s"]}

    def small(self):
        run = self.generate("small", self.tokens + 1)
        keys = ("encode_small_s", "prefill_small_s", "decode_tok_s", "peak_mb_small")
        return {key: run[key] for key in keys}

    def large(self):
        run = self.generate("large", 1)
        return {key: run[key] for key in ("encode_large_s", "prefill_large_s", "peak_mb_large")}

    def repeat(self):
        run = {**self.start(), **self.small(), **self.large()}
        return {**run, **self.whole_folder(run["startup_s"])}

    def whole_folder(self, startup_s):
        first, again = self.program.caption_twice(self.one_tile, self.files[0].parent, PROMPT,
                                                  self.tokens)
        return {"folder_pic_s": PICTURES / (first - startup_s),
                "folder_again_pic_s": PICTURES / (again - startup_s)}


class Theirs:
    """transformers in one dtype; its process is started again for every start-up."""

    def __init__(self, options, folder, one_tile, files, dtype):
        self.job = {"model": str(folder), "one_tile": str(one_tile),
                    "pictures": [str(f) for f in files], "prompt": PROMPT,
                    "threads": options.threads, "dtype": dtype, "tokens": options.tokens}

    def repeat(self):
        with peer.Running(self.job) as running:
            small, large = running.measure("small"), running.measure("large")
            folder = running.measure("folder")
        start = running.first_token_s - small["encode_s"] - small["prefill_s"]
        return {"first_token_s": running.first_token_s, "startup_s": start,
                "load_s": running.load_s, "encode_small_s": small["encode_s"],
                "prefill_small_s": small["prefill_s"], "decode_tok_s": small["decode_tok_s"],
                "peak_mb_small": small["peak_mb"], "encode_large_s": large["encode_s"],
                "prefill_large_s": large["prefill_s"], "peak_mb_large": large["peak_mb"],
                "folder_pic_s": PICTURES / folder["s"],
                "folder_again_pic_s": PICTURES / folder["s"]}  # it keeps nothing


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def with_rates(figures, prompt_tokens):
    """Prefill as tokens a second, too."""
    return figures | {f"prefill_{size}_tok_s": tokens / figures[f"prefill_{size}_s"]
                      for size, tokens in prompt_tokens.items()}


def decode_bytes(counted, stored_bytes, dtype):
    """Bytes of weights that a token reads."""
    if dtype == "int8":
        return counted["decode_weights"]
    if dtype == "int4":  # a scale of 16 bits for each 32 weights; the head is in 8 bits
        return (counted["decode_weights"] - counted["head_weights"]) * 4.5 / 8 + counted["head_weights"]
    return counted["decode_weights"] * stored_bytes


def has_quick_bfloat16():
    return "avx512_bf16" in machine.describe() or "amx_bf16" in machine.describe()


def product_dtype(dtype, store):
    """What vlm multiplies matrices in."""
    if dtype != "auto":
        return "int8" if dtype == "int4" else dtype
    return "bfloat16" if store == "bfloat16" and has_quick_bfloat16() else "float32"


def shares(figures, counted, limits, dtype, token_bytes):
    """Each bound figure as a share of the machine's limit: of products in `dtype`, of reading."""
    products = limits[f"{dtype}_gflop_s"] * 1e9
    bandwidth = limits["bandwidth_gb_s"] * 1e9
    found = {"decode_tok_s": figures["decode_tok_s"] * token_bytes / bandwidth}
    for size in ("small", "large"):
        found[f"encode_{size}_s"] = (
            counted[f"encode_{size}_flop"] / figures[f"encode_{size}_s"] / products)
        found[f"prefill_{size}_s"] = (
            counted[f"prefill_{size}_flop"] / figures[f"prefill_{size}_s"] / products)
    return found


def best_of(figures):
    """Of several dtypes of transformers, the dtype with the best value of each row."""
    return {key: (max if more else min)(figures, key=lambda dtype: figures[dtype][key])
            for key, _, _, more in ROWS}


def bench_model(options, name):
    folder, one_tile = checkpoints.make(options.data, name, options.store)
    needed = work.count_parameters(checkpoints.sizes(name)) * 4 * 1.3 / 1e9
    if needed > machine.available_gb():
        return {"skipped": f"needs {needed:.1f} GB, {machine.available_gb():.1f} GB are free"}
    files = make_pictures(options.data / "pictures")
    ours = {dtype: Ours(options, folder, one_tile, files, dtype) for dtype in options.dtypes}
    theirs = {} if options.skip_peer else {
        dtype: Theirs(options, folder, one_tile, files, dtype) for dtype in options.peer_dtypes}
    first = ours[options.dtypes[0]]
    first.start()  # the weights' pages come into the cache
    llama = {}
    if options.llama_cpp:
        llama = {kind: llama_bench.LlamaCpp(options, one_tile, files[0], PROMPT, kind)
                 for kind in dict.fromkeys(llama_bench.SAME_BITS[dtype] for dtype in options.dtypes)}
    limits = []
    sides = {"vlm": ours, "transformers": theirs, "llama.cpp": llama}
    runs = {(side, dtype): [] for side, of_side in sides.items() for dtype in of_side}
    for _ in range(options.repeat):
        limits.append(machine.measure_apart(options.threads))
        for side, of_side in sides.items():
            for dtype, one in of_side.items():
                of_prompts = (first.prompt_tokens,) if side == "llama.cpp" else ()
                runs[side, dtype].append(one.repeat(*of_prompts))
    limits = medians(limits)
    found = {side: {dtype: with_rates(medians(runs[side, dtype]), first.prompt_tokens) for dtype in of_side}
             for side, of_side in sides.items()}
    figures, peers = found["vlm"], found["transformers"]
    sizes = checkpoints.sizes(name)
    counted = work.count(sizes, first.prompt_tokens)
    stored_bytes = 2 if options.store == "bfloat16" else 4
    result = {"vlm": figures,
              "vlm_shares": {dtype: shares(found, counted, limits, product_dtype(dtype, options.store),
                                           decode_bytes(counted, stored_bytes, dtype))
                             for dtype, found in figures.items()},
              "transformers": peers, "limits": limits, "work": counted, "labels": sizes.labels,
              "prompt_tokens": first.prompt_tokens}
    if llama:
        result["llama.cpp"] = found["llama.cpp"]
        result["llama.cpp_shares"] = {
            kind: {"decode_tok_s": figures["decode_tok_s"] * llama_bench.decode_bytes(counted, kind)
                   / (limits["bandwidth_gb_s"] * 1e9)} for kind, figures in found["llama.cpp"].items()}
    if peers:
        best = best_of(peers)
        peer_shares = {dtype: shares(found, counted, limits, dtype, decode_bytes(counted, BYTES[dtype], dtype))
                       for dtype, found in peers.items()}
        result["best"] = {key: peers[dtype][key] for key, dtype in best.items()}
        result["best_shares"] = {key: peer_shares[dtype][key] for key, dtype in best.items()
                                 if key in peer_shares[dtype]}
    return result


def format_value(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def print_table(name, result):
    print(f"\n### {name}\n")
    if "skipped" in result:
        return print(f"Skipped: {result['skipped']}.")
    limits, best = result["limits"], result.get("best")
    products = ", ".join(f"{limits[f'{dtype}_gflop_s']:.0f} in {dtype}" for dtype in machine.PRODUCTS)
    print(f"Machine: {limits['bandwidth_gb_s']:.1f} GB/s; GFLOP/s: {products}."
          f" Prompts: {result['prompt_tokens']['small']} and"
          f" {result['prompt_tokens']['large']} tokens. Weights in float32:"
          f" {result['work']['parameters'] * 4 / 1e6:.0f} MB.\n")
    llama, best_share = result.get("llama.cpp", {}), result.get("best_shares", {})
    titles = [""]
    for dtype in result["vlm"]:
        titles += [f"vlm, {dtype}", "of limit", *(["times"] if best else [])]
        titles += [f"llama.cpp, {llama_bench.SAME_BITS[dtype]}", "of limit", "times"] if llama else []
    titles += ["transformers", "of limit"] if best else []
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")

    def value_and_share(figures, of, key):
        return [format_value(figures[key]) if key in figures else "", f"{of[key]:.0%}" if key in of else ""]

    def times(ours, theirs, key, more):
        return f"{(ours[key] / theirs[key]) ** (1 if more else -1):.2f}" if key in theirs else ""

    for key, label, unit, more in ROWS:
        for size, picture in result["labels"].items():
            label = label.replace(size.upper(), picture)
        row = [f"{label}, {unit}"]
        for dtype, ours in result["vlm"].items():
            row += value_and_share(ours, result["vlm_shares"][dtype], key)
            row += [times(ours, best, key, more)] if best else []
            if llama:
                kind = llama_bench.SAME_BITS[dtype]
                row += value_and_share(llama[kind], result["llama.cpp_shares"][kind], key)
                row.append(times(ours, llama[kind], key, more))
        row += value_and_share(best, best_share, key) if best else []
        print("| " + " | ".join(row) + " |")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench infer", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["256m", "2.2b"],
                        choices=list(checkpoints.MODELS), help="default: 256m 2.2b")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each figure (3)")
    parser.add_argument("--threads", type=int, default=len(machine.cpus()), help="default: all")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens for decode (64)")
    parser.add_argument("--store", default="bfloat16", choices=["bfloat16", "float32"],
                        help="dtype of the checkpoints' weights (bfloat16)")
    parser.add_argument("--dtypes", nargs="+", default=["auto", "int8"],
                        choices=["auto", "float32", "bfloat16", "int8", "int4"],
                        help="vlm's --dtype, each in columns of its own (auto and int8)")
    parser.add_argument("--peer-dtypes", nargs="+", default=["float32", "bfloat16"],
                        choices=["float32", "bfloat16"], help="best of each counts (both)")
    parser.add_argument("--skip-peer", action="store_true", help="leave transformers out")
    parser.add_argument("--llama-cpp", action="store_true",
                        help="llama.cpp, too: for each of vlm's dtypes in a file of the same bits")
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "bench",
                        help="folder of checkpoints and pictures (.data/bench)")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "bench_infer.json",
                        help="every figure (out/bench_infer.json)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    if options.llama_cpp:
        llama_cpp.check()
    print(f"{machine.describe()}, {options.threads} threads; weights stored in {options.store};"
          f" medians of {options.repeat}")
    results = {"machine": machine.describe(), "threads": options.threads, "store": options.store,
               "repeat": options.repeat, "llama_cpp": llama_cpp.version() if options.llama_cpp else None, "models": {}}
    for name in options.models:
        results["models"][name] = bench_model(options, name)
        print_table(name, results["models"][name])
        sys.stdout.flush()
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
