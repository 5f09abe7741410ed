"""How fast preparation is beside plain decoding, and how its memory grows: ``python benchmarks/prepare_scale.py``.

Speed is measured on animated stickers of the built-in world; memory on tiny stills, of which many are made quickly:
what the parent process holds of a sticker does not depend on its pixels. Finding alone, which needs no pixels at all,
is measured on many more. Prints tables and ends in one JSON line. Figures for a million stickers are extrapolated on
the straight line that fits all counts best, with the largest distance of a measurement from it beside; not measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

# One thread for the work on one file, as in the workers: waiting threads would count as work.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
from PIL import Image, ImageSequence
from rich.table import Table

from rdtf.data.find import find_items
from rdtf.data.items import Item
from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.data.process_file import OneFile
from rdtf.progress import console
from rdtf.world import write_world

MILLION = 1_000_000


def decode_plainly(files: list[Path]) -> float:
    """Processor seconds that Pillow takes for all frames of some files, as RGBA."""
    start = time.process_time()
    for file in files:
        with Image.open(file) as image:
            for frame in ImageSequence.Iterator(image):
                frame.convert("RGBA").load()
    return time.process_time() - start


def process_all(folder: Path, settings: PrepareSettings) -> float:
    """Processor seconds of the function of one file for all files, without any process around it."""
    items = find_items(folder, "set").items
    # A long limit: it counts from here on, and is this process's own.
    one_file = OneFile(Item.read, settings.model_copy(update={"time_limit": 3600.0}))
    start = time.process_time()
    for item in items:
        one_file(item)
    return time.process_time() - start


def anonymous_memory() -> int:
    """Bytes of this process that are its own; mapped files, which the system may drop at any time, do not count."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell RssAnon")


def prepare_and_measure(folder: Path, out: Path, settings: PrepareSettings) -> dict[str, float]:
    """One run in this process: seconds of the clock and of processors, and the memory that it added at its peak."""
    before = peak = anonymous_memory()
    done = threading.Event()
    workers: dict[int, float] = {}

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, anonymous_memory())
            for child in multiprocessing.active_children():
                workers[child.pid or 0] = processor_time(child.pid or 0) or workers.get(child.pid or 0, 0.0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    clock, start = time.process_time(), time.perf_counter()
    report = prepare([folder], out, settings)
    seconds, parent = time.perf_counter() - start, time.process_time() - clock
    done.set()
    watcher.join()
    count = sum(report.manifest.counts.values()) + len(report.rejected)
    return {
        "count": count,
        "seconds": seconds,
        "all_cpu": parent + sum(workers.values()),
        "added_bytes": peak - before,
        "peak_bytes": peak,
    }


def find_and_measure(folder: Path) -> dict[str, float]:
    """Finding alone, in this process."""
    before = peak = anonymous_memory()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_memory())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    found = find_items(folder, "set")
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    held = anonymous_memory() - before
    return {"count": len(found.items), "seconds": seconds, "held_bytes": held, "peak_bytes": peak}


def line(rows: list[dict[str, float]]) -> tuple[float, float, float]:
    """Bytes a sticker, bytes for a million (no less than was measured), and how far a measurement is off the line."""
    counts, peaks = (np.array([row[key] for row in rows]) for key in ("count", "peak_bytes"))
    slope, start = np.polyfit(counts, peaks, 1)
    million = max(start + slope * MILLION, peaks.max())
    return float(slope), float(million), float(np.abs(start + slope * counts - peaks).max())


def processor_time(process: int) -> float:
    """Seconds of processor time of another process; 0 if it has gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def in_another_process(folder: Path, out: Path, settings: PrepareSettings) -> dict[str, float]:
    """:func:`prepare_and_measure` in a fresh process."""
    command = [sys.executable, __file__, "--child", str(folder), str(out), settings.model_dump_json()]
    return answer_of(command)


def answer_of(command: list[str]) -> dict[str, float]:
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(answer.splitlines()[-1]))


def write_stills(folder: Path, count: int) -> None:
    """Different pictures of 16 px."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16, 4), np.uint8)).save(folder / f"still_{number:07}.png")


def write_names(folder: Path, count: int) -> None:
    """Empty files with captions: enough for finding."""
    folder.mkdir()
    with (folder / "metadata.jsonl").open("w") as metadata:
        for number in range(count):
            (folder / f"still_{number:07}.png").touch()
            entry = {"file_name": f"still_{number:07}.png", "caption": f"a drawn thing with the number {number}"}
            metadata.write(json.dumps({**entry, "keywords": ["drawn", "thing"], "group": "things"}) + "\n")


def main() -> None:
    if sys.argv[1:2] == ["--find"]:
        print(json.dumps(find_and_measure(Path(sys.argv[2]))))
        return
    if sys.argv[1:2] == ["--child"]:
        folder, out, values = sys.argv[2:]
        print(json.dumps(prepare_and_measure(Path(folder), Path(out), PrepareSettings.model_validate_json(values))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="animated stickers, for speed")
    parser.add_argument("--stills", type=int, nargs="+", default=[1000, 3000, 6000], help="counts, for memory")
    parser.add_argument("--found", type=int, nargs="+", default=[10_000, 30_000, 100_000], help="counts, for finding")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    settings = PrepareSettings.model_validate({"size": options.size, "workers": options.workers})
    result: dict[str, object] = {"size": options.size, "count": options.count, "workers": options.workers}

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        world = write_world(root / "world", options.count, size=2 * options.size)
        files = sorted(world.glob("*.webp"))
        decode_plainly(files[:20])
        plain, alone = decode_plainly(files), process_all(world, settings)
        run = in_another_process(world, root / "data", settings)
        again = in_another_process(world, root / "data", settings)
        memory = []
        for count in options.stills:
            write_stills(root / f"stills{count}", count)
            memory.append(in_another_process(root / f"stills{count}", root / f"data{count}", settings))
        found = []
        for count in options.found:
            write_names(root / f"names{count}", count)
            found.append(answer_of([sys.executable, __file__, "--find", str(root / f"names{count}")]))

    count = len(files)
    speeds = {
        "plain Pillow decoding": count / plain,
        "decoding, scaling, describing, packing (the function of one file)": count / alone,
        "rdtf prepare, all processes": count / run["all_cpu"],
    }
    table = Table(title=f"{count} animated WebP of {2 * options.size} px to {options.size} px")
    table.add_column("what")
    table.add_column("stickers/s of a core", justify="right")
    for what, speed in speeds.items():
        table.add_row(what, f"{speed:.0f}")
    console.print(table)
    shares = {
        "processor time": alone / run["all_cpu"],
        "wall clock": alone / (run["seconds"] * options.workers),
    }
    for what, share in shares.items():
        console.print(f"share of {what} that went into the files themselves: {share:.0%}")
    console.print(f"a second run over the same files: {again['seconds']:.2f} s")

    table = Table(title="memory of the parent process")
    for column in ("stickers", "peak MB", "added by the run, MB", "stickers/s by the clock"):
        table.add_column(column, justify="right")
    for row in memory:
        mega = f"{row['peak_bytes'] / 1e6:.0f}", f"{row['added_bytes'] / 1e6:.1f}"
        table.add_row(f"{row['count']:,}", *mega, f"{row['count'] / row['seconds']:.0f}")
    console.print(table)
    slope, million, off = line(memory)
    fit = f"{slope:.0f} bytes a sticker (measurements are up to {off / 1e6:.1f} MB off the line)"
    console.print(f"{fit}; extrapolated to a million stickers: {million / 1e6:.0f} MB")

    table = Table(title="finding alone: empty files with captions in one metadata.jsonl")
    for column in ("stickers", "peak MB", "held afterwards, MB", "seconds"):
        table.add_column(column, justify="right")
    for row in found:
        mega = f"{row['peak_bytes'] / 1e6:.0f}", f"{row['held_bytes'] / 1e6:.1f}"
        table.add_row(f"{row['count']:,}", *mega, f"{row['seconds']:.1f}")
    console.print(table)
    found_slope, found_million, found_off = line(found)
    fit = f"{found_slope:.0f} bytes a sticker (measurements are up to {found_off / 1e6:.1f} MB off the line)"
    console.print(f"{fit}; extrapolated to a million stickers: {found_million / 1e6:.0f} MB")
    result |= {
        "plain_per_s": round(speeds["plain Pillow decoding"], 1),
        "one_file_per_s": round(count / alone, 1),
        "prepare_per_s_of_a_core": round(count / run["all_cpu"], 1),
        "prepare_per_s_wall": round(count / run["seconds"], 1),
        "share_of_processor_time": round(shares["processor time"], 3),
        "share_of_wall_clock": round(shares["wall clock"], 3),
        "second_run_s": round(again["seconds"], 2),
        "memory": [{key: int(row[key]) for key in ("count", "added_bytes", "peak_bytes")} for row in memory],
        "bytes_a_sticker": round(slope),
        "extrapolated_mb_for_a_million": round(million / 1e6),
        "finding": [{key: int(row[key]) for key in ("count", "held_bytes", "peak_bytes")} for row in found],
        "finding_bytes_a_sticker": round(found_slope),
        "finding_extrapolated_mb_for_a_million": round(found_million / 1e6),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
