"""Reading frames of videos beside PyAV on transformers' path (use scripts/bench video).

Clips are made by ffmpeg: one minute of 1080p H.264 at 25 frames a second, repeated without encoding
again to 10 minutes and 2 hours. Timed from opening a file to RGB frames; the process's start and
imports don't count. Memory is the process's peak, of PyAV's less what its imports took. Sides take
turns; figures are medians. Prints a Markdown table, and writes every figure as JSON.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "build" / "release" / "tests" / "video_tool"

# name, minutes, how frames are chosen, turns of the peer at most
CASES = [
    ("1 minute, 1 frame a second", 1, ("step", 1), None),
    ("10 minutes, 64 frames", 10, ("count", 64), None),
    ("2 hours, 64 frames", 120, ("count", 64), 1),
]


def make_clips(folder):
    """Paths by minutes."""
    folder.mkdir(parents=True, exist_ok=True)
    minute = folder / "1.mp4"
    if not minute.exists():
        source = "testsrc2=size=1920x1080:rate=25:duration=60"
        run = ["ffmpeg", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, "-c:v", "libx264",
               "-preset", "veryfast", "-pix_fmt", "yuv420p"]
        subprocess.run([*run, str(folder / "part.mp4")], check=True)
        (folder / "part.mp4").rename(minute)
    clips = {1: minute}
    for _, minutes, _, _ in CASES[1:]:
        clips[minutes] = folder / f"{minutes}.mp4"
        if not clips[minutes].exists():
            subprocess.run(["ffmpeg", "-loglevel", "error", "-y", "-stream_loop", str(minutes - 1),
                            "-i", str(minute), "-c", "copy", str(folder / "part.mp4")], check=True)
            (folder / "part.mp4").rename(clips[minutes])
    return clips


def run_json(command, threads):
    done = subprocess.run(command, env=machine.environment(threads), capture_output=True, text=True,
                          check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(clip, kind, amount, threads):
    option = "--count" if kind == "count" else "--step-s"
    run = run_json([str(TOOL), str(clip), option, str(amount)], threads)
    return {"s": run["open_s"] + run["read_s"], "peak_mb": run["peak_rss_mb"] * 1.048576,
            "frames": run["read"]}


def theirs(clip, kind, amount, threads):
    return run_json([sys.executable, "-m", "benchmarks.video_peer", str(clip), kind, str(amount)],
                    threads)


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def bench_case(case, clip, options):
    _, _, (kind, amount), most = case
    runs, peer_runs = [], []
    for turn in range(options.repeat):
        runs.append(ours(clip, kind, amount, options.threads))
        if not options.skip_peer and (most is None or turn < most):
            peer_runs.append(theirs(clip, kind, amount, options.threads))
    found = {"vlm": medians(runs)}
    if peer_runs:
        found["pyav"] = medians(peer_runs)
        found["pyav_turns"] = len(peer_runs)
        if found["pyav"]["frames"] != found["vlm"]["frames"]:
            raise RuntimeError(f"{clip}: the sides read different numbers of frames: {found}")
    return found


def print_row(name, found):
    cells = [name, f"{found['vlm']['s']:.2f}", f"{found['vlm']['peak_mb']:.0f}"]
    if "pyav" in found:
        cells += [f"{found['pyav']['s']:.2f}", f"{found['pyav']['peak_mb']:.0f}",
                  f"{found['pyav']['s'] / found['vlm']['s']:.1f}"]
    print("| " + " | ".join(cells + [""] * (6 - len(cells))) + " |", flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench video", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="turns of each case (3)")
    parser.add_argument("--threads", type=int, default=len(machine.cpus()), help="default: all")
    parser.add_argument("--minutes", type=int, nargs="+", help="only clips of so many minutes")
    parser.add_argument("--skip-peer", action="store_true", help="leave PyAV out")
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "bench" / "video",
                        help="folder of clips, 2 GB (.data/bench/video)")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "bench_video.json",
                        help="every figure (out/bench_video.json)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    subprocess.run(["cmake", "--build", "build/release", "--target", "video_tool"], cwd=ROOT,
                   check=True, stdout=subprocess.DEVNULL)
    clips = make_clips(options.data)
    print(f"{machine.describe()}; medians of {options.repeat}\n")
    print("| | vlm, s | MB | PyAV, s | MB | times |\n|---|---|---|---|---|---|")
    results = {"machine": machine.describe(), "repeat": options.repeat, "cases": {}}
    for case in CASES:
        name, minutes = case[:2]
        if options.minutes and minutes not in options.minutes:
            continue
        results["cases"][name] = bench_case(case, clips[minutes], options)
        print_row(name, results["cases"][name])
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
