"""Reading frames of videos beside transformers' path through PyAV (use scripts/bench video).

Clips are made by ffmpeg: one minute of 1080p H.264 at 25 frames a second, repeated without encoding
again to 10 minutes and 2 hours. Of each, the frames that SmolVLM2 is shown: one a second, 64 at
most; both sides read the same. Timed from opening the file to RGB frames, without the process's
start. Memory is the process's peak beyond that of reading one small frame, and of the imports. Sides
take turns; figures are medians. Prints a Markdown table, and writes every figure as JSON.
"""
import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import machine

ROOT = Path(__file__).resolve().parent.parent

# minutes → turns of the peer at most
CASES = {1: None, 10: None, 120: 1}


def run_ffmpeg(path, *arguments):
    part = path.with_name("part.mp4")
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *map(str, arguments), str(part)],
                   check=True)
    part.rename(path)


def make_clips(folder):
    """Paths by minutes; 0 is one small frame."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = {minutes: folder / f"{minutes}.mp4" for minutes in (0, *CASES)}
    if not clips[0].exists():
        run_ffmpeg(clips[0], "-f", "lavfi", "-i", "testsrc2=size=64x64", "-frames:v", 1)
    if not clips[1].exists():
        run_ffmpeg(clips[1], "-f", "lavfi", "-i", "testsrc2=size=1920x1080:rate=25:duration=60",
                   "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
    for minutes in CASES:
        if not clips[minutes].exists():
            run_ffmpeg(clips[minutes], "-stream_loop", minutes - 1, "-i", clips[1], "-c", "copy")
    return clips


def run_json(command, threads):
    done = subprocess.run(command, env=machine.environment(threads), capture_output=True, text=True,
                          check=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(clip, threads):
    run = run_json([str(ROOT / "build" / "vlm"), "inspect", str(clip), "--json"], threads)
    return {"s": run["open_s"] + run["read_s"], "peak_mb": run["peak_rss_mb"],
            "frames": len(run["indices"])}, run["indices"]


def theirs(clip, indices, threads):
    return run_json([sys.executable, "-m", "benchmarks.video_peer", str(clip), json.dumps(indices)],
                    threads)


def medians(runs):
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def bench_clip(minutes, clips, options):
    runs, peer_runs = [], []
    base = ours(clips[0], options.threads)[0]["peak_mb"]
    most = CASES[minutes] or options.repeat
    for turn in range(options.repeat):
        run, indices = ours(clips[minutes], options.threads)
        runs.append({**run, "peak_mb": run["peak_mb"] - base})
        if not options.skip_peer and turn < most:
            peer_runs.append(theirs(clips[minutes], indices, options.threads))
    found = {"vlm": medians(runs)}
    if peer_runs:
        found.update(pyav=medians(peer_runs), pyav_turns=len(peer_runs))
        if found["pyav"]["frames"] != found["vlm"]["frames"]:
            raise RuntimeError(f"{clips[minutes]}: different numbers of frames: {found}")
    return found


def print_row(minutes, found):
    cells = [f"{minutes} min, {found['vlm']['frames']:.0f} frames", f"{found['vlm']['s']:.2f}",
             f"{found['vlm']['peak_mb']:.0f}"]
    if "pyav" in found:
        cells += [f"{found['pyav']['s']:.2f}", f"{found['pyav']['peak_mb']:.0f}",
                  f"{found['pyav']['s'] / found['vlm']['s']:.1f}"]
    print("| " + " | ".join(cells + [""] * (6 - len(cells))) + " |", flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench video", description=__doc__)
    parser.add_argument("--repeat", type=int, default=3, help="turns of each clip (3)")
    parser.add_argument("--threads", type=int, default=len(machine.cpus()), help="default: all")
    parser.add_argument("--minutes", type=int, nargs="+", choices=list(CASES), default=list(CASES),
                        help="clips of so many minutes (1 10 120)")
    parser.add_argument("--skip-peer", action="store_true", help="leave PyAV out")
    parser.add_argument("--data", type=Path, default=ROOT / ".data" / "bench" / "video",
                        help="folder of clips (.data/bench/video)")
    parser.add_argument("--json", type=Path, default=ROOT / "out" / "bench_video.json",
                        help="every figure (out/bench_video.json)")
    return parser.parse_args()


def main():
    options = parse_arguments()
    clips = make_clips(options.data)
    print(f"{machine.describe()}; medians of {options.repeat}\n")
    print("| clip | vlm, s | MB | PyAV, s | MB | times |\n|---|---|---|---|---|---|")
    results = {"machine": machine.describe(), "repeat": options.repeat, "minutes": {}}
    for minutes in options.minutes:
        results["minutes"][minutes] = bench_clip(minutes, clips, options)
        print_row(minutes, results["minutes"][minutes])
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
