"""How fast the built-in world is drawn and written, on one core: ``python benchmarks/world_speed.py``.

Stickers have the world's own frame counts. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from rich.table import Table

from rdtf.progress import console
from rdtf.world import draw_sticker, write_world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500, help="stickers to draw, and to write")
    parser.add_argument("--size", type=int, default=64, help="pixels")
    settings = parser.parse_args()

    for index in range(20):  # parse the outlines once
        draw_sticker(1, index, size=settings.size)
    clock, start = time.process_time(), time.perf_counter()
    frames = sum(len(draw_sticker(0, index, size=settings.size)) for index in range(settings.count))
    drawing = (time.process_time() - clock, time.perf_counter() - start)
    with tempfile.TemporaryDirectory() as folder:
        clock, start = time.process_time(), time.perf_counter()
        out = write_world(Path(folder) / "world", settings.count, size=settings.size)
        writing = (time.process_time() - clock, time.perf_counter() - start)
        size_kb = sum(path.stat().st_size for path in out.iterdir()) / 1024

    table = Table(title=f"built-in world, {settings.count} stickers of {settings.size} px, one core")
    for column in ("what", "stickers/s (processor time)", "stickers/s (wall)", "ms per frame"):
        table.add_column(column, justify="left" if column == "what" else "right")
    result: dict[str, float] = {
        "size": settings.size,
        "count": settings.count,
        "frames_per_sticker": round(frames / settings.count, 2),
        "kb_per_sticker_webp": round(size_kb / settings.count, 2),
    }
    for name, (cpu, wall) in (("draw", drawing), ("draw and write WebP", writing)):
        table.add_row(name, f"{settings.count / cpu:.0f}", f"{settings.count / wall:.0f}", f"{cpu / frames * 1e3:.2f}")
        key = name.split()[-1].lower() if "write" in name else name
        result[f"{key}_per_s"] = round(settings.count / cpu, 1)
        result[f"{key}_per_s_wall"] = round(settings.count / wall, 1)
    console.print(table)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
