"""What drawing a step's data costs as the dataset grows: ``python benchmarks/data_loading.py``.

Made-up datasets of small frames; rows of one dataset differ in nothing but their captions, for what is measured does
not depend on the pixels. The steps are drawn twice and timed the second time: pages of the file of latents are then in
the system's memory, as they are after a pass over data that fits there. Prints a table and ends in one JSON line.
(``train_step.py`` shows drawing beside the rest of a training step.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zlib
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from rich.table import Table

from rdtf.codec import load_codec
from rdtf.curriculum import Curriculum
from rdtf.data.augment import FIRST_AUGMENTED
from rdtf.data.dataset import FORMAT, INDEX_SCHEMA, MANIFEST, SCHEMA, Manifest, StickerDataset, pack_frames
from rdtf.data.duplicates import SIGNATURE_BYTES
from rdtf.data.keyframes import CLUSTER_COUNTS
from rdtf.progress import console
from rdtf.text import BuiltinTextEncoder
from rdtf.train.latents import LatentCache
from rdtf.train.settings import recipe_settings
from rdtf.train.source import ClipSource

FRAMES, SIZE, ROWS_PER_FILE = 12, 16, 2048


class UnfilledLatents(LatentCache):
    """A cache of the right size that holds zeros: nothing is encoded, and no disk is taken until it is read."""

    def _fill(self, path: Path, shape: tuple[int, ...], *_: Any) -> None:
        np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape).flush()
        nothing = zlib.crc32(np.zeros((FRAMES, *shape[1:]), np.float16).data)
        with path.open("ab") as file:
            np.save(file, np.full((len(self), FIRST_AUGMENTED + self.num_augmented), nothing, np.uint32))


def write_dataset(folder: Path, count: int) -> None:
    """A dataset of moving stickers, all in ``train``."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (FRAMES, SIZE, SIZE, 4), np.uint8) // 64
    row = {
        "attributes": "{}",
        "source": "made/up.webp",
        "license": None,
        "asked_split": "train",
        "num_frames": FRAMES,
        "size": SIZE,
        "durations": [50.0] * FRAMES,
        "frames": pack_frames(frames),
        "coverage": [0.5] * FRAMES,
        "motion": 0.1,
        "loops": True,
        "seam": None,
        "flippable": True,
        "clusters": [[i % k for i in range(FRAMES)] for k in CLUSTER_COUNTS],
        "content": hashlib.sha256(frames.tobytes()).digest(),
        "signature": bytes(SIGNATURE_BYTES),
        "extent": 1.0,
        **dict.fromkeys(("checks", "caption_checks"), ()),
    }
    files = {}
    folder.mkdir()
    for number, start in enumerate(range(0, count, ROWS_PER_FILE)):
        captions = [f"sticker number {i} waving" for i in range(start, min(start + ROWS_PER_FILE, count))]
        rows = [{**row, "id": f"{i:016x}", "caption": c, "captions": [c]} for i, c in enumerate(captions, start)]
        name = f"stickers-{number:05}.arrow"
        write_arrow(folder / name, pa.RecordBatch.from_pylist(rows, schema=SCHEMA))
        files[name] = len(rows)
    index = {"split": np.zeros(count, np.int8), "group": np.arange(count, dtype=np.int32)}
    write_arrow(folder / "index.arrow", pa.RecordBatch.from_pydict(index, schema=INDEX_SCHEMA))
    manifest = Manifest(
        format=FORMAT,
        settings={"size": SIZE},
        files=files,
        index="index.arrow",
        counts={"train": count, "val": 0, "test": 0},
        sources={"made": count},
        licenses={},
        groups=0,
        checks={},
        fingerprint=f"{count:016}",
        rejected=[],
        passed_over=0,
    )
    (folder / MANIFEST).write_text(manifest.model_dump_json())


def write_arrow(path: Path, batch: pa.RecordBatch) -> None:
    """One batch of rows as a file."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as stream:
        stream.write_batch(batch)


def measure(data: Path, steps: int, batch_size: int) -> dict[str, float]:
    """Seconds to open the dataset and of a step, and bytes that Python and NumPy hold."""
    settings = recipe_settings("fast", batch_size=batch_size)
    text, codec = BuiltinTextEncoder(width=16, buckets=64, table_width=8), load_codec("pixel2")

    def open_source() -> ClipSource:
        latents = UnfilledLatents(StickerDataset(data, "train"), codec, data, settings.num_augmented)
        return ClipSource(latents, text, Curriculum("none"), settings)

    open_source()  # makes the file of latents
    began = time.perf_counter()
    source = open_source()
    opened = time.perf_counter() - began
    for _ in range(2):
        times = []
        for step in range(steps):
            began = time.perf_counter()
            source.batches(step, 0.5)
            times.append(time.perf_counter() - began)
    tracemalloc.start()
    source = open_source()
    source.batches(0, 0.5)  # with the shuffled orders
    held = tracemalloc.get_traced_memory()[0]
    return {"open_s": opened, "step_s": median(times), "held_bytes": held}


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(Path(sys.argv[2]), *map(int, sys.argv[3:]))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stickers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    rows: dict[int, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in options.stickers:
            data = Path(folder) / str(count)
            write_dataset(data, count)
            command = [sys.executable, __file__, "--child", str(data), str(options.steps), str(options.batch_size)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows[count] = json.loads(answer.splitlines()[-1])
    table = Table("stickers", "to open", "step (median)", "held", "bytes a sticker")
    table.title = f"{options.batch_size} clips of up to {FRAMES} frames of {SIZE} px, 4x4 latents"
    for count, row in rows.items():
        times = (f"{row[name] * 1e3:.1f} ms" for name in ("open_s", "step_s"))
        table.add_row(f"{count:,}", *times, f"{row['held_bytes'] / 1e6:.1f} MB", f"{row['held_bytes'] / count:.0f}")
    console.print(table)
    print(json.dumps({**vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
