"""Publishing of prepared datasets: a folder in the Hub's ``imagefolder`` layout, and upload to the Hub.

Stickers go into sub-folders that have a hash of their content in their names. So an upload only adds files, until its
last commit adds the card, which lists the sub-folders, and removes those that no longer belong.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from rdtf import faults
from rdtf.data.card import HUB_SPLITS, make_card
from rdtf.data.dataset import CACHE, StickerDataset, StickerRecord
from rdtf.data.metadata_files import METADATA
from rdtf.files import check_new_folder, check_writable, disk_errors
from rdtf.files import publish as replace_folder
from rdtf.io.write import save_sticker
from rdtf.progress import bars

ROWS_PER_FOLDER = 5000  # the Hub advises at most 10,000 files a folder
CARD = "README.md"
LEFT_OUT = "left_out.jsonl"
_SHARD = re.compile(rf"((?:{'|'.join(HUB_SPLITS.values())})/\d+-[0-9a-f]{{12}})/[^/]+")


def export(data: Path, out: Path, *, title: str | None = None) -> dict[str, list[str]]:
    """Write a prepared dataset as a folder that ``datasets.load_dataset`` and ``rdtf prepare`` read.

    Frames are lossless. Times are fractions of seconds of two numbers up to 65,535 (see
    :func:`~rdtf.io.write.save_sticker`); a still has no time. The folder is complete or not there.

    Args:
        data: prepared dataset.
        out: a new or empty folder.
        title: for the card; the dataset's folder name if None.

    Returns:
        the sub-folders of each split, by the Hub's name of the split. Empty splits are missing.

    Raises:
        ValueError: ``data`` is no dataset, or ``out`` holds other things.
        DiskError: the disk is full or read-only.
    """
    out = Path(out)
    datasets = {split: StickerDataset(data, split) for split in HUB_SPLITS}
    here, there = Path(data).resolve(), out.resolve()
    if there == here or here.is_relative_to(there) or (there.is_relative_to(here) and there.parent != here / CACHE):
        raise ValueError(f"the export {out} and the dataset {data} lie within each other; choose another folder")
    check_new_folder(out)
    check_writable(out.parent)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shards: dict[str, list[str]] = {}
    with disk_errors(out), bars() as progress:
        task = progress.add_task("exporting", total=sum(map(len, datasets.values())), note="")
        for split, dataset in datasets.items():
            for start in range(0, len(dataset), ROWS_PER_FOLDER):
                rows = range(start, min(start + ROWS_PER_FOLDER, len(dataset)))
                folder = _write_shard(partial, HUB_SPLITS[split], dataset, rows)
                shards.setdefault(HUB_SPLITS[split], []).append(folder)
                progress.update(task, advance=len(rows))
        everything = StickerDataset(data)
        rejected = everything.manifest.rejected
        lines = (json.dumps({"file": entry.file, "reason": entry.reason}) + "\n" for entry in rejected)
        (partial / LEFT_OUT).write_text("".join(lines), "utf-8")
        (partial / CARD).write_text(make_card(title or here.name, everything, shards), "utf-8")
        if out.exists():
            out.rmdir()
        faults.reach("publish.before_rename")
        replace_folder(partial, out)
    return shards


def push(data: Path, repo: str, *, public: bool = False, api: Any = None, title: str | None = None) -> str:
    """Export a prepared dataset and put it into a dataset repository of the Hugging Face Hub.

    The dataset appears or changes with the last commit; earlier commits only add files. Files that are there are not
    sent again.

    Args:
        data: prepared dataset.
        repo: ``name`` or ``organisation/name``. It is created if necessary.
        public: make a new repository public. An existing one does not change.
        api: a ``huggingface_hub.HfApi``; by default with the account that is logged in.

    Returns:
        The address of the repository.

    Raises:
        ValueError: as :func:`export`; a name that is none; or the repository holds other data.
        OSError: not logged in, no right to write, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    out = Path(data) / CACHE / "export"
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(exist_ok=True)
    shards = export(data, out, title=title or repo.rpartition("/")[2])
    api = api or HfApi(library_name="rdtf")
    url = str(api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True))
    there = {file: _SHARD.fullmatch(file) for file in api.list_repo_files(repo, repo_type="dataset")}
    strange = [file for file, shard in there.items() if not shard and file not in (CARD, LEFT_OUT, ".gitattributes")]
    if strange:
        raise ValueError(f"{repo} holds other data ({min(strange)}); choose another repository")
    gone = {shard[1] for shard in there.values() if shard} - {folder for split in shards.values() for folder in split}
    about: dict[str, Any] = {"repo_id": repo, "repo_type": "dataset", "folder_path": out}
    api.upload_folder(**about, ignore_patterns=[CARD, LEFT_OUT], commit_message="Add stickers")
    api.upload_folder(
        **about,
        allow_patterns=[CARD, LEFT_OUT],
        delete_patterns=[f"{folder}/*" for folder in sorted(gone)],
        commit_message=f"Fingerprint {StickerDataset(data).fingerprint}",
    )
    shutil.rmtree(out)
    return url


def _write_shard(out: Path, split: str, dataset: StickerDataset, rows: range) -> str:
    """Write some stickers of a split; returns the name of their sub-folder."""
    digits = max(6, len(str(len(dataset) - 1)))
    records = {f"{row:0{digits}}.png": dataset.record(row) for row in rows}
    lines = (json.dumps(_entry(split, name, record), ensure_ascii=False) + "\n" for name, record in records.items())
    text = "".join(lines)
    ids = "".join(record.id for record in records.values())
    digest = hashlib.sha256(f"{ids} {dataset.size} {text}".encode()).hexdigest()
    folder = f"{split}/{rows.start // ROWS_PER_FOLDER:04}-{digest[:12]}"
    (out / folder).mkdir(parents=True)
    for row, name in zip(rows, records, strict=True):
        save_sticker(dataset.sticker(row), out / folder / name, durable=False)
    (out / folder / METADATA).write_text(text, "utf-8")
    return folder


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
