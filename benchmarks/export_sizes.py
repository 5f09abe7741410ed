"""Sizes, quality and time of the files for each messenger: ``python benchmarks/export_sizes.py FOLDER``.

Without a folder, stickers of the built-in world are exported. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from rdtf.data.find import find_items
from rdtf.export.check import problems_of
from rdtf.export.search import export_sticker
from rdtf.export.target import load_target, target_names
from rdtf.progress import console
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker


def stickers(folders: list[Path], count: int, frames: int) -> list[Sticker]:
    """Evenly spaced moving stickers of the folders, or drawn ones."""
    if not folders:
        return [draw_sticker(0, index, size=64) for index in range(count)]
    items = [item for folder in folders for item in find_items(folder, folder.name).items]
    read = (items[i * len(items) // count].read(max_frames=frames) for i in range(count))
    return [sticker for sticker in read if len(sticker) > 1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--stickers", type=int, default=10, help="how many")
    parser.add_argument("--frames", type=int, default=60, help="most frames of a source")
    parser.add_argument("--to", nargs="*", default=[n for n in target_names() if load_target(n).max_bytes])
    options = parser.parse_args()

    sources = stickers(options.folders, options.stickers, options.frames)
    table = Table(title=f"{len(sources)} stickers")
    for column in ("target", "accepted", "kB: least", "median", "most", "limit", "PSNR dB", "s a file"):
        table.add_column(column, justify="left" if column == "target" else "right")
    results: dict[str, Any] = {}
    for name in options.to:
        target, sizes, psnr, seconds, accepted = load_target(name), [], [], [], 0
        for sticker in sources:
            began = time.process_time()
            try:
                export = export_sticker(sticker, target)
            except ValueError:
                continue
            seconds.append(time.process_time() - began)
            sizes.append(len(export.data) / 1000)
            psnr.append(min(export.psnr, 99.0))
            accepted += not problems_of(export.data, target)
        if not sizes:
            continue
        limit = (target.max_bytes or 0) / 1000
        row = (min(sizes), median(sizes), max(sizes), limit, median(psnr), median(seconds))
        table.add_row(name, f"{accepted} of {len(sources)}", *(f"{value:.1f}" for value in row))
        keys = ("least_kb", "median_kb", "most_kb", "limit_kb", "median_psnr", "median_seconds")
        results[name] = {"accepted": accepted, **{k: round(v, 1) for k, v in zip(keys, row, strict=True)}}
    console.print(table)
    print(json.dumps({"stickers": len(sources), **results}))


if __name__ == "__main__":
    main()
