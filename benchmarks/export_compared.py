"""Exports beside those of sticker-convert: ``python benchmarks/export_compared.py STICKER-CONVERT FOLDER...``.

STICKER-CONVERT is the path of its executable (``pip install sticker-convert`` in an environment of its own; it is GPL,
and is only run, never imported). Both get the same stickers as lossless WebP files. Prints for each target how many
files keep every rule of the messenger (by ``rdtf check``), their bytes, their PSNR on white against the sticker at 16
moments, and processor time, and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from export_sizes import stickers, white_db
from rich.table import Table

from rdtf.export.check import problems_of
from rdtf.export.search import export_sticker
from rdtf.export.target import Target, load_target
from rdtf.io.read import read_sticker_bytes
from rdtf.io.write import save_sticker
from rdtf.progress import console
from rdtf.sticker import Sticker

PRESETS = {
    "telegram": "telegram",
    "telegram-emoji": "telegram_emoji",
    "whatsapp": "whatsapp",
    "signal": "signal",
    "discord": "discord",
    "discord-emoji": "discord_emoji",
    "line": "line",
    "imessage": "imessage_medium",
}
"""Presets of sticker-convert by our targets."""


def ours(sources: Sequence[Sticker], target: Target) -> tuple[list[bytes | None], float]:
    """A file for each sticker, and the processor time."""
    began, files = time.process_time(), []
    for sticker in sources:
        try:
            files.append(export_sticker(sticker, target).data)
        except ValueError:
            files.append(None)
    return files, time.process_time() - began


def theirs(executable: Path, inputs: Path, count: int, preset: str) -> tuple[list[bytes | None], float]:
    """The same of sticker-convert."""
    with tempfile.TemporaryDirectory() as place:
        command = [str(executable), "--no-confirm", "--no-progress", "--processes", "1", "--preset", preset]
        began = os.times()
        subprocess.run(
            [*command, "--input-dir", str(inputs), "--output-dir", place],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ended = os.times()
        seconds = ended.children_user + ended.children_system - began.children_user - began.children_system
        found = {file.stem: file.read_bytes() for file in sorted(Path(place).rglob("*")) if file.is_file()}
        return [found.get(f"{number:02}") for number in range(count)], seconds


def judged(files: Sequence[bytes | None], sources: Sequence[Sticker], target: Target) -> dict[str, Any]:
    """What the messenger and the eye say of the files."""
    sizes, psnr, accepted, broken = [], [], 0, dict[str, int]()
    for data, sticker in zip(files, sources, strict=True):
        if data is None:
            broken["no file"] = broken.get("no file", 0) + 1
            continue
        problems = problems_of(data, target)
        accepted += not problems
        for problem in problems:
            rule = " ".join(problem.split()[:6])
            broken[rule] = broken.get(rule, 0) + 1
        sizes.append(len(data) / 1000)
        psnr.append(white_db(read_sticker_bytes(data, "made"), sticker, target))
    return {
        "accepted": accepted,
        "kb": round(median(sizes), 1) if sizes else None,
        "psnr": round(median(psnr), 1) if psnr else None,
        "least_psnr": round(min(psnr), 1) if psnr else None,
        "broken": broken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executable", type=Path)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--stickers", type=int, default=10, help="how many")
    parser.add_argument("--frames", type=int, default=8, help="most frames of a source")
    parser.add_argument("--to", nargs="*", default=list(PRESETS), choices=PRESETS)
    options = parser.parse_args()

    sources = stickers(options.folders, options.stickers, options.frames)
    table = Table(title=f"{len(sources)} stickers")
    for column in ("target", "by", "accepted", "kB", "PSNR dB", "least", "s a file", "rules broken"):
        table.add_column(column, justify="left" if column in ("target", "by", "rules broken") else "right")
    results: dict[str, Any] = {"stickers": len(sources)}
    with tempfile.TemporaryDirectory() as place:
        for number, sticker in enumerate(sources):
            save_sticker(sticker, Path(place, f"{number:02}.webp"), durable=False)
        for name in options.to:
            target = load_target(name)
            for maker in ("rdtf", "sticker-convert"):
                if maker == "rdtf":
                    files, seconds = ours(sources, target)
                else:
                    files, seconds = theirs(options.executable, Path(place), len(sources), PRESETS[name])
                facts = {**judged(files, sources, target), "seconds": round(seconds / len(sources), 2)}
                results[f"{name} {maker}"] = facts
                broken = "; ".join(f"{rule}: {count}" for rule, count in facts["broken"].items())
                row = (facts["kb"], facts["psnr"], facts["least_psnr"], facts["seconds"], broken)
                table.add_row(name, maker, f"{facts['accepted']} of {len(sources)}", *map(str, row))
    console.print(table)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
