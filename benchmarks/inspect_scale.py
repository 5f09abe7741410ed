"""What the page about a large dataset costs: ``python benchmarks/inspect_scale.py``.

Made-up datasets whose rows repeat some stickers of the built-in world, each with a caption, checks, a timing and a
group of near-duplicates of its own; and many rejected files. For each number of stickers, ``rdtf inspect`` runs in a
process of its own. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from rdtf.data.checks import CAPTION_CHECKS, FRAME_CHECKS, describe
from rdtf.data.dataset import FORMAT, INDEX_SCHEMA, MANIFEST, SCHEMA, Manifest, Rejection, pack_frames
from rdtf.data.keyframes import CLUSTER_COUNTS
from rdtf.progress import console
from rdtf.world import draw_sticker

SIZE, DRAWN, ROWS_PER_FILE = 32, 60, 2048
REJECTED = 0.1  # files for each sticker
SHARE = 0.03  # of stickers with a finding, of each kind; and in a group with another sticker


def write_dataset(folder: Path, count: int) -> None:
    """A dataset of so many stickers."""
    rng = np.random.default_rng(0)
    models = []
    for number in range(DRAWN):
        sticker = draw_sticker(0, number, size=SIZE)
        models.append(
            {
                "caption": sticker.caption,
                "attributes": "{}",
                "num_frames": len(sticker),
                "size": SIZE,
                "frames": pack_frames(sticker.frames),
                "flippable": True,
                "clusters": [[i % k for i in range(len(sticker))] for k in CLUSTER_COUNTS],
                "content": hashlib.sha256(sticker.frames.data).digest(),
                "scripts": ["Latin"],
                **describe(sticker.frames, sticker.durations),
            }
        )
    files = {}
    folder.mkdir()
    for number, start in enumerate(range(0, count, ROWS_PER_FILE)):
        rows = [_row(models, rng, i) for i in range(start, min(start + ROWS_PER_FILE, count))]
        name = f"stickers-{number:05}.arrow"
        _write(folder / name, pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        files[name] = len(rows)
    groups = np.full(count, -1, np.int32)
    groups[: int(SHARE * count) // 2 * 2] = np.repeat(np.arange(int(SHARE * count) // 2), 2)
    splits = rng.choice(3, count, p=(0.9, 0.05, 0.05)).astype(np.int8)
    _write(folder / "index.arrow", pa.RecordBatch.from_arrays([splits, groups], schema=INDEX_SCHEMA))
    manifest = Manifest(
        format=FORMAT,
        settings={"size": SIZE, "max_frames": 40},
        files=files,
        index="index.arrow",
        counts=dict(zip(("train", "val", "test"), np.bincount(splits, minlength=3).tolist(), strict=True)),
        sources={"made": count},
        licenses={},
        groups=int(groups.max()) + 1,
        checks={},
        fingerprint=f"{count:016}",
        rejected=[
            Rejection(file=f"made/{i:07}.gif", reason=f"is cut short at byte {i}") for i in range(int(REJECTED * count))
        ],
        passed_over=0,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def _row(models: list[dict[str, Any]], rng: np.random.Generator, number: int) -> dict[str, Any]:
    row = dict(models[number % DRAWN])
    row |= {"id": f"{number:016x}", "source": f"made/sticker number {number:07}.webp", "asked_split": None}
    row["caption"] = f"{row['caption']}, number {number}"
    row["captions"] = [row["caption"]]
    row["durations"] = rng.uniform(20, 120, row["num_frames"]).tolist()
    row["checks"] = [code for code in FRAME_CHECKS if rng.random() < SHARE]
    row["caption_checks"] = [code for code in CAPTION_CHECKS if rng.random() < SHARE]
    return row


def _write(path: Path, batch: pa.RecordBatch) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as stream:
        stream.write_batch(batch)


def measure(data: Path, out: Path) -> dict[str, float]:
    """Seconds, and the most memory of this process that is its own: pages of mapped files do not count."""
    from rdtf.data.inspect import inspect_dataset

    console.quiet = True
    peak = before = _anonymous()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    clock, began = time.process_time(), time.perf_counter()
    try:
        page = inspect_dataset(data, out)
    finally:
        seconds, processor = time.perf_counter() - began, time.process_time() - clock
        done.set()
        watcher.join()
    lists = sum(file.stat().st_size for file in out.glob("*.csv"))
    return {
        "seconds": seconds,
        "processor_s": processor,
        "before_bytes": before,
        "peak_bytes": peak,
        "page_bytes": page.stat().st_size,
        "lists_bytes": lists,
    }


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the system does not tell RssAnon")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stickers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    options = parser.parse_args()
    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in options.stickers:
            data = Path(folder) / str(count)
            write_dataset(data, count)
            command = [sys.executable, __file__, "--child", str(data), str(Path(folder) / f"page{count}")]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ).stdout
            rows[count] = json.loads(answer.splitlines()[-1])
    table = Table("stickers", "seconds", "of a processor", "memory at the start", "at the peak", "page", "lists")
    table.title = f"rdtf inspect, stickers of {SIZE} px"
    for count, row in rows.items():
        sizes = (f"{row[f'{name}_bytes'] / 1e6:,.1f} MB" for name in ("before", "peak", "page", "lists"))
        table.add_row(f"{count:,}", f"{row['seconds']:.1f}", f"{row['processor_s']:.1f}", *sizes)
    console.print(table)
    print(json.dumps({**vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
