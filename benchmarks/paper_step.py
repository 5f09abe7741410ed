"""Optimiser steps of the paper's network on this machine: ``python benchmarks/paper_step.py``.

``--recipe paper`` as it is (real AdamW, gradient checkpointing, 8 frames of 256 px, latents of 32 x 32), but for the
number of clips, with the averaged weights on disk. Prints memory and seconds, and ends in one JSON line. It needs about
17 GiB of free memory, 4 GiB of disk in ``--folder`` and no network; Linux only, for it reads ``/proc``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import torch
from rich.table import Table

from rdtf.data.prepare import PrepareSettings, prepare
from rdtf.progress import console
from rdtf.train.settings import recipe_settings
from rdtf.train.step import Learner
from rdtf.world import write_world

_GIB = 1 << 20  # in kB, the unit of /proc


def status() -> dict[str, float]:
    """Memory of this process in GiB: RssAnon (its own), RssFile (files; the system can take it back), VmSwap."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) / _GIB for name in ("VmHWM", "RssAnon", "RssFile", "VmSwap")}


class Peaks(threading.Thread):
    """The highest values of :func:`status`, looked at every tenth of a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest: dict[str, float] = {}
        self.start()

    def run(self) -> None:
        while True:
            for name, value in status().items():
                self.highest[name] = max(value, self.highest.get(name, 0.0))
            time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=2, help="the first one makes AdamW's moments; 2 see all memory")
    parser.add_argument("--clips", type=int, default=1, help="clips a step, worked off one by one")
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, default=None, help="where data and averages go (default: temporary)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_world(folder / "world", 12, size=options.pixels)
        size = PrepareSettings(size=options.pixels, splits=(1.0, 0.0, 0.0), workers=1)
        prepare([folder / "world"], folder / "data", size)
        settings = recipe_settings(
            "paper",
            batch_size=options.clips,
            gradient_accumulation_steps=options.clips,
            threads=options.threads,
        )
        peaks, began = Peaks(), time.perf_counter()
        learner = Learner(folder / "data", folder / "run", settings)
        building, built = time.perf_counter() - began, status()
        parameters = sum(parameter.numel() for parameter in learner.named.values())
        console.print(f"{parameters / 1e9:.3f} B parameters, built in {building:.0f} s, {built}")
        seconds, frames = [], []
        for _ in range(options.steps):
            began = time.perf_counter()
            line = learner.train_step(0.0)
            seconds.append(time.perf_counter() - began)
            frames.append([int(batch.valid.sum()) for batch in learner.source.batches(learner.step - 1, 0.0)])
            console.print(f"step {line['step']}: {seconds[-1]:.0f} s, loss {line['loss']}, {status()}")

    table = Table(title=f"recipe paper, {options.clips} clip(s) a step, {options.threads} thread(s)")
    table.add_column("what")
    table.add_column("", justify="right")
    result = {
        "parameters": parameters,
        "bf16": learner.bf16,
        "frames_per_clip": frames,
        "seconds_per_step": [round(value, 1) for value in seconds],
        "peak_own_memory_gib": round(peaks.highest["RssAnon"], 2),
        "peak_resident_gib": round(peaks.highest["VmHWM"], 2),
        "swapped_gib": round(peaks.highest["VmSwap"], 2),
        "built_own_memory_gib": round(built["RssAnon"], 2),
    }
    for key, value in result.items():
        table.add_row(key.replace("_", " "), str(value))
    console.print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
