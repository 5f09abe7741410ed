"""Publishing of prepared datasets: a folder in the ``imagefolder`` layout of the Hugging Face Hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from rdtf import faults
from rdtf.data.card import HUB_SPLITS, make_card
from rdtf.data.dataset import StickerDataset, StickerRecord
from rdtf.data.metadata_files import METADATA
from rdtf.files import check_new_folder, check_writable, disk_errors
from rdtf.files import publish as replace_folder
from rdtf.io.write import save_sticker
from rdtf.progress import bars

ROWS_PER_FOLDER = 5000  # the Hub advises at most 10,000 files a folder
CARD = "README.md"
LEFT_OUT = "left_out.jsonl"


def export(data: Path, out: Path, *, title: str | None = None) -> None:
    """Write a prepared dataset as a folder that ``datasets.load_dataset`` and ``rdtf prepare`` read.

    Frames are lossless. Times are fractions of seconds of two numbers up to 65,535 (see
    :func:`~rdtf.io.write.save_sticker`); a still has no time. The folder is complete or not there.

    Args:
        data: prepared dataset.
        out: a new or empty folder.
        title: for the card; the dataset's folder name if None.

    Raises:
        ValueError: ``data`` is no dataset, or ``out`` holds other things.
        DiskError: the disk is full or read-only.
    """
    out, everything = Path(out), StickerDataset(data)
    here, there = Path(data).resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ValueError(f"the export {out} and the dataset {data} lie within each other; choose another folder")
    check_new_folder(out)
    check_writable(out.parent)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with disk_errors(out), bars() as progress:
        task = progress.add_task("exporting", total=len(everything), note="")
        for split, name in HUB_SPLITS.items():
            dataset = StickerDataset(data, split)
            for start in range(0, len(dataset), ROWS_PER_FOLDER):
                rows = range(start, min(start + ROWS_PER_FOLDER, len(dataset)))
                _write_folder(partial / name / f"{start // ROWS_PER_FOLDER:04}", name, dataset, rows)
                progress.update(task, advance=len(rows))
        rejected = everything.manifest.rejected
        lines = (json.dumps({"file": entry.file, "reason": entry.reason}) + "\n" for entry in rejected)
        (partial / LEFT_OUT).write_text("".join(lines), "utf-8")
        (partial / CARD).write_text(make_card(title or here.name, everything), "utf-8")
        if out.exists():
            out.rmdir()
        faults.reach("publish.before_rename")
        replace_folder(partial, out)


def _write_folder(folder: Path, split: str, dataset: StickerDataset, rows: range) -> None:
    """Write some stickers of a split, and their metadata."""
    folder.mkdir(parents=True)
    lines = []
    for row in rows:
        name = f"{row:0{max(6, len(str(len(dataset) - 1)))}}.png"
        save_sticker(dataset.sticker(row), folder / name, durable=False)
        lines.append(json.dumps(_entry(split, name, dataset.record(row)), ensure_ascii=False) + "\n")
    (folder / METADATA).write_text("".join(lines), "utf-8")


def _entry(split: str, name: str, record: StickerRecord) -> dict[str, Any]:
    """A line of metadata. All lines have the same fields and types, because the Hub's tables require it."""
    return {
        "file_name": name,
        "captions": list(record.captions),
        "durations": [float(ms) for ms in record.durations],
        "split": split,
        "source": record.source,
        "license": record.license or "",
        "attributes": json.dumps(record.attributes, ensure_ascii=False, sort_keys=True),
    }
