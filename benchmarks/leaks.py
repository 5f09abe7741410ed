"""Does anything pile up? ``python benchmarks/leaks.py [--stickers FOLDER] [--scale 1]``.

Decodes 2,000 stickers, saves 500 checkpoints of a tiny training and generates 200 stickers, all in this process, and
holds memory, open files, threads and temporary files (of libraries, too) afterwards against what they were after a
tenth of it. Ends in a JSON line; a growth of memory above 5 % is marked.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from kill_resume import TINY
from rich.table import Table

from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.io.read import SUFFIXES, read_sticker
from rdtf.loading import load_pipeline
from rdtf.progress import console
from rdtf.sticker import StickerError
from rdtf.train.run import train
from rdtf.train.settings import recipe_settings
from rdtf.world import write_world

MOST = 5.0  # per cent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stickers", type=Path, help="folder of files to decode; default: stickers drawn for it")
    parser.add_argument("--scale", type=float, default=1.0, help="of all numbers")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="rdtf-leaks-") as name:
        folder = Path(name)
        write_world(folder / "world", 40, 0, size=64, workers=1)
        console.quiet = True
        prepare([folder / "world"], folder / "data", PrepareSettings(size=16, workers=1))
        (folder / "temporary").mkdir()
        tempfile.tempdir = str(folder / "temporary")  # whatever is left in it was left by what is measured
        found = sorted(p for p in (options.stickers or folder / "world").rglob("*") if p.suffix.lower() in SUFFIXES)
        files = itertools.cycle(found)
        runs = itertools.count()

        def decode(count: int) -> None:
            for file in itertools.islice(files, count):
                try:
                    read_sticker(file, size=64, max_frames=32)
                except StickerError:  # refused: nothing may stay of it either
                    continue

        def save(count: int) -> None:
            few: dict[str, Any] = {"batch_size": 2, "frames": 3, "num_augmented": 0, "previews": 0, "eval_clips": 0}
            asked = {"model": TINY, "codec": "pixel2", "threads": 1, "precision": "fp32", "checkpoint_every": 1, **few}
            train(folder / "data", folder / f"run-{next(runs)}", recipe_settings("fast", steps=count, **asked))

        def generate(count: int) -> None:
            pipeline = load_pipeline(folder / "run-0")
            for seed in range(count):
                pipeline("a red cat", num_frames=4, num_inference_steps=2, seed=seed)

        jobs = {"decode": (decode, 2000), "save": (save, 500), "generate": (generate, 200)}
        rows = {
            name: measured(job, max(10, round(count * options.scale)), folder) for name, (job, count) in jobs.items()
        }
    console.quiet = False
    table = Table("", "times", "MB before", "MB after", "growth", "files", "threads", "temporary")
    for name, row in rows.items():
        growth = f"{row['growth_percent']:+.1f} %{'  LEAK' if row['growth_percent'] > MOST else ''}"
        pairs = (f"{a} to {b}" for a, b in (row["files"], row["threads"], row["temporary"]))
        table.add_row(name, str(row["times"]), f"{row['mb'][0]:.0f}", f"{row['mb'][1]:.0f}", growth, *pairs)
    console.print(table)
    print(json.dumps(rows))


def measured(job: Callable[[int], None], times: int, folder: Path) -> dict[str, Any]:
    """What the process holds after a tenth of the work, and after all of it."""
    job(max(1, times // 10))
    before = held(folder)
    job(times)
    after = held(folder)
    names = ("mb", "files", "threads", "temporary")
    row: dict[str, Any] = {name: [a, b] for name, a, b in zip(names, before, after, strict=True)}
    return {"times": times, **row, "growth_percent": 100 * (after[0] / before[0] - 1)}


def held(folder: Path) -> tuple[float, int, int, int]:
    """Megabytes of this process's own memory, its open files and threads, and files in its temporary folder."""
    gc.collect()
    process = psutil.Process(os.getpid())
    memory = process.memory_full_info().uss / 1e6  # pages of mapped files are the system's to take back
    return memory, process.num_fds(), process.num_threads(), len(list((folder / "temporary").rglob("*")))


if __name__ == "__main__":
    main()
