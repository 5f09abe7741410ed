"""How long finding takes in every layout: ``python benchmarks/find_files.py [--files N ...]``.

Each layout is written with empty files, for finding looks at names and metadata alone. Times are of the processor. The
time a file must stay the same when the number of files grows. Prints a table and ends in one JSON line.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from rdtf.data.find import find_items
from rdtf.progress import console

PACK = 10
"""Stickers of one pack, chat or folder."""


def touch(path: Path, text: str = "") -> None:
    """Write a file with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def one_folder(root: Path, count: int) -> None:
    """Pictures in one folder that has no other folders."""
    for number in range(count):
        touch(root / "set" / f"{number:07}.png")


def texts(root: Path, count: int) -> None:
    """Half of the files are captions of the others."""
    for number in range(count // 2):
        touch(root / f"{number:07}.png")
        touch(root / f"{number:07}.txt", "a cat")


def metadata(root: Path, count: int) -> None:
    """One ``metadata.jsonl`` for all."""
    one_folder(root, count)
    lines = (json.dumps({"file_name": f"set/{number:07}.png", "caption": "a cat"}) for number in range(count))
    touch(root / "metadata.jsonl", "\n".join(lines))


def json_beside(root: Path, count: int) -> None:
    """Half of the files are JSON that describes the others."""
    for number in range(count // 2):
        touch(root / f"{number:07}.png")
        touch(root / f"{number:07}.json", '{"caption": "a cat"}')


def folders(root: Path, count: int) -> None:
    """A folder for each file."""
    for number in range(count):
        touch(root / f"{number:07}" / "sticker.png")


def frames(root: Path, count: int) -> None:
    """Folders of numbered frames."""
    for number in range(count):
        touch(root / f"{number // PACK:07}" / f"frame_{number % PACK}.png")


def telegram(root: Path, count: int) -> None:
    """A Telegram export for each chat."""
    for chat in range(count // PACK):
        names = [f"stickers/{number}.webp" for number in range(PACK - 1)]
        messages = [{"media_type": "sticker", "file": name, "sticker_emoji": "🐱"} for name in names]
        for name in names:
            touch(root / f"chat{chat:07}" / name)
        touch(root / f"chat{chat:07}" / "result.json", json.dumps({"messages": messages}))


def whatsapp(root: Path, count: int) -> None:
    """One WhatsApp project with many packs."""
    packs = []
    for pack in range(count // PACK):
        names = [f"{number}.webp" for number in range(PACK)]
        for name in names:
            touch(root / f"{pack:07}" / name)
        packs.append({"identifier": f"{pack:07}", "stickers": [{"image_file": name} for name in names]})
    touch(root / "contents.json", json.dumps({"sticker_packs": packs}))


def packs(root: Path, count: int) -> None:
    """Packs with a title, an author and an emoji for each sticker, as sticker-convert writes them."""
    for pack in range(count // PACK):
        folder = root / f"{pack:07}"
        stickers = [str(number) for number in range(PACK - 3)]
        touch(folder / "title.txt", "cats")
        touch(folder / "author.txt", "me")
        touch(folder / "emoji.txt", json.dumps(dict.fromkeys(stickers, "🐱")))
        for name in stickers:
            touch(folder / f"{name}.webp")


def zipped(root: Path, count: int) -> None:
    """One ZIP."""
    with zipfile.ZipFile(root / "set.zip", "w") as archive:
        for number in range(count):
            archive.writestr(f"{number:07}.png", b"")


def tarred(root: Path, count: int) -> None:
    """One TAR in the form of WebDataset: half of the files are captions."""
    with tarfile.open(root / "set.tar", "w") as archive:
        for number in range(count // 2):
            for ending, data in (("png", b""), ("txt", b"a cat")):
                info = tarfile.TarInfo(f"{number:07}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def table(root: Path, count: int) -> None:
    """One Parquet table."""
    rows = {"image": [{"bytes": b"x", "path": f"{number}.png"} for number in range(count)], "text": ["a cat"] * count}
    pq.write_table(pa.table(rows), root / "set.parquet", row_group_size=1000)


LAYOUTS: list[Callable[[Path, int], None]] = [
    one_folder, texts, metadata, json_beside, folders, frames, telegram, whatsapp, packs, zipped, tarred, table,
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, nargs="+", default=[10_000, 100_000], help="files of each layout")
    options = parser.parse_args()
    seconds: dict[str, dict[str, float]] = {}
    shown = Table(title="seconds to find all stickers")
    shown.add_column("layout")
    for count in options.files:
        shown.add_column(f"{count:,} files", justify="right")
    for layout in LAYOUTS:
        times = seconds[layout.__name__] = {}
        for count in options.files:
            with tempfile.TemporaryDirectory() as name:
                layout(Path(name), count)
                start = time.process_time()
                found = find_items(Path(name), "set")
                times[str(count)] = round(time.process_time() - start, 3)
                if found.problems or not len(found.items):
                    raise RuntimeError(f"{layout.__name__}: {len(found.items)} stickers, {found.problems[:1]}")
        shown.add_row(layout.__name__, *(f"{time:.2f}" for time in times.values()))
    console.print(shown)
    print(json.dumps({"files": options.files, "seconds": seconds}))


if __name__ == "__main__":
    main()
