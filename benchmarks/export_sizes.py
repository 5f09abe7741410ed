"""Sizes, quality and time of the files for each messenger: ``python benchmarks/export_sizes.py FOLDER``.

Without a folder, stickers of the built-in world are exported. Prints a table and ends in one JSON line. The PSNR is
that of the decoded file on white against the sticker on the canvas. ``--save`` keeps the files and a contact sheet of
one moment of each on light and dark.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.table import Table

from rdtf.data.find import find_items
from rdtf.export.check import problems_of
from rdtf.export.fit import on_canvas, on_clock
from rdtf.export.search import export_sticker
from rdtf.export.target import Target, load_target, target_names
from rdtf.io.read import read_sticker_bytes
from rdtf.pixels import composite, fit, resize
from rdtf.progress import console
from rdtf.sheets import contact_sheet
from rdtf.sticker import Sticker
from rdtf.world import draw_sticker


def stickers(folders: list[Path], count: int, frames: int) -> list[Sticker]:
    """Evenly spaced stickers of the folders, or drawn ones."""
    if not folders:
        return [draw_sticker(0, index, size=64) for index in range(count)]
    items = [item for folder in folders for item in find_items(folder, folder.name).items]
    return [items[i * len(items) // count].read(max_frames=frames) for i in range(count)]


def at(sticker: Sticker, moments: np.ndarray) -> np.ndarray:
    """The frames ``(m, h, w, 4)`` that are shown at moments (ms)."""
    return sticker.frames[np.searchsorted(np.cumsum(sticker.durations)[:-1], moments, side="right")]


def white_db(seen: Sticker, sticker: Sticker, target: Target) -> float:
    """PSNR on white at 16 moments of one play, at the messenger's size."""
    clip, _ = on_clock(sticker, target)
    whole = Sticker(on_canvas(clip.frames, target.canvas), clip.durations)
    moments = (np.arange(16) + 0.5) / 16 * min(whole.durations.sum(), seen.durations.sum())
    wanted, shown = at(whole, moments), at(seen, moments)
    shown = resize(shown, *wanted.shape[1:3]) if shown.shape != wanted.shape else shown
    error = composite(wanted, (255, 255, 255)).astype(float) - composite(shown, (255, 255, 255))
    return float(10 * np.log10(255**2 / max(np.square(error).mean(), 1e-5)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--stickers", type=int, default=10, help="how many")
    parser.add_argument("--frames", type=int, default=60, help="most frames of a source")
    parser.add_argument("--to", nargs="*", default=[n for n in target_names() if load_target(n).max_bytes])
    parser.add_argument("--save", type=Path, help="folder for the files and sheet-light.png, sheet-dark.png")
    options = parser.parse_args()

    sources = stickers(options.folders, options.stickers, options.frames)
    table = Table(title=f"{len(sources)} stickers")
    for column in ("target", "accepted", "kB: least", "median", "most", "limit", "PSNR dB", "least", "s a file"):
        table.add_column(column, justify="left" if column == "target" else "right")
    results: dict[str, Any] = {}
    shown: dict[str, np.ndarray] = {}
    for name in options.to:
        target, sizes, psnr, seconds, accepted = load_target(name), [], [], [], 0
        for number, sticker in enumerate(sources):
            began = time.process_time()
            try:
                export = export_sticker(sticker, target)
            except ValueError:
                continue
            seconds.append(time.process_time() - began)
            sizes.append(len(export.data) / 1000)
            accepted += not problems_of(export.data, target)
            seen = read_sticker_bytes(export.data, f"sticker{target.suffix}")
            psnr.append(white_db(seen, sticker, target))
            if options.save:
                folder = options.save / name
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number:02}{target.suffix}").write_bytes(export.data)
                if number % max(1, len(sources) // 8) == 0:
                    cell = fit(seen.frames[len(seen) // 2][None], 128)
                    shown[name] = np.concatenate([shown[name], cell]) if name in shown else cell
        if not sizes:
            continue
        limit = (target.max_bytes or 0) / 1000
        row = (min(sizes), median(sizes), max(sizes), limit, median(psnr), min(psnr), median(seconds))
        table.add_row(name, f"{accepted} of {len(sources)}", *(f"{value:.1f}" for value in row))
        keys = ("least_kb", "median_kb", "most_kb", "limit_kb", "median_psnr", "least_psnr", "median_seconds")
        results[name] = {"accepted": accepted, **{k: round(v, 1) for k, v in zip(keys, row, strict=True)}}
    console.print(table)
    for background in ("light", "dark") if options.save else ():
        sheet = contact_sheet(list(shown.values()), labels=list(shown), background=background)
        sheet.save(options.save / f"sheet-{background}.png")
    print(json.dumps({"stickers": len(sources), **results}))


if __name__ == "__main__":
    main()
