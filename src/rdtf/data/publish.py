"""Publishing of prepared datasets: a folder in the Hub's ``imagefolder`` layout, and upload to the Hub.

Stickers go into sub-folders that have a hash of their content in their names. An existing sub-folder, on disk or on the
Hub, is complete and not written or sent again. So both can be stopped at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rdtf import faults
from rdtf.data.captions import SPLITS
from rdtf.data.card import Contents, make_card
from rdtf.data.dataset import CACHE, StickerDataset, StickerRecord
from rdtf.data.metadata_files import METADATA
from rdtf.files import check_writable, disk_errors, sync, write_text
from rdtf.io.write import save_sticker
from rdtf.progress import bars, console

ROWS_PER_FOLDER = 5000  # the Hub advises at most 10,000 files a folder
EXPORT = "export.jsonl"  # preparing ignores files of this name
"""File that marks an export and lists its sub-folders."""
CARD = "README.md"
LEFT_OUT = "left_out.jsonl"
MANY_FILES = 100_000
"""The Hub advises at most this many files in a repository."""
_FORMAT = "rdtf-export/1"
_HUB_SPLITS = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class ExportReport:
    """The result of :func:`export`.

    Attributes:
        folder: the export.
        counts: stickers by the Hub's name of their split; empty splits are missing.
        written, kept: numbers of sub-folders that were written, and that existed already.
        fingerprint: fingerprint of the dataset.
    """

    folder: Path
    counts: dict[str, int]
    written: int
    kept: int
    fingerprint: str

    def summary(self) -> str:
        """A line for the terminal."""
        counts = ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
        return f"{self.folder}: {sum(self.counts.values()):,} stickers ({counts}) and a card, {CARD}"


def export(data: Path, out: Path, *, title: str | None = None) -> ExportReport:
    """Write a prepared dataset as a folder that ``datasets.load_dataset`` and ``rdtf prepare`` read.

    Frames are lossless. Times are fractions of seconds of two numbers up to 65,535 (see
    :func:`~rdtf.io.write.save_sticker`); a still has no time. Over an earlier export of any dataset, only differences
    are written, and sub-folders that no longer belong to the export are removed.

    Args:
        data: prepared dataset.
        out: a new or empty folder, or an earlier export.
        title: for the card; the dataset's folder name if None.

    Raises:
        ValueError: ``data`` is no dataset, or ``out`` holds other things.
        DiskError: the disk is full or read-only.
    """
    out = Path(out)
    datasets = {split: StickerDataset(data, split) for split in SPLITS}
    manifest = datasets["train"].manifest
    here, there = Path(data).resolve(), out.resolve()
    if there == here or here.is_relative_to(there) or (there.is_relative_to(here) and there.parent != here / CACHE):
        raise ValueError(f"the export {out} and the dataset {data} lie within each other; choose another folder")
    _take(out)
    contents = Contents()
    shards: dict[str, dict[str, int]] = {}
    written = kept = 0
    with disk_errors(out), bars() as progress:
        task = progress.add_task("exporting", total=sum(map(len, datasets.values())), note="")
        for split, dataset in datasets.items():
            for number, start in enumerate(range(0, len(dataset), ROWS_PER_FOLDER)):
                records = [dataset.record(row) for row in range(start, min(start + ROWS_PER_FOLDER, len(dataset)))]
                names = [f"{row:0{_digits(len(dataset))}}.png" for row in range(start, start + len(records))]
                text = "".join(
                    json.dumps(_entry(name, record), ensure_ascii=False) + "\n"
                    for name, record in zip(names, records, strict=True)
                )
                ids = "".join(record.id for record in records)
                digest = hashlib.sha256(f"{_FORMAT} {ids} {dataset.size} {text}".encode()).hexdigest()
                folder = f"{_HUB_SPLITS[split]}/{number:04}-{digest[:12]}"
                if (out / folder).is_dir():
                    kept += 1
                else:
                    _write_folder(out / folder, dataset, start, names, text, lambda: progress.advance(task))
                    written += 1
                shards.setdefault(_HUB_SPLITS[split], {})[folder] = len(records)
                _count(contents, _HUB_SPLITS[split], records)
                progress.update(task, completed=sum(contents.counts.values()))
        rejected = (json.dumps({"file": entry.file, "reason": entry.reason}) + "\n" for entry in manifest.rejected)
        write_text(out / LEFT_OUT, "".join(rejected))
        write_text(out / CARD, make_card(title or here.name, manifest, contents, {s: [*f] for s, f in shards.items()}))
        about = {"format": _FORMAT, "fingerprint": manifest.fingerprint, "folders": shards}
        write_text(out / EXPORT, json.dumps(about) + "\n")
        _sweep(out, {folder for folders in shards.values() for folder in folders})
    return ExportReport(out, dict(contents.counts), written, kept, manifest.fingerprint)


def push(
    data: Path,
    repo: str,
    *,
    folder: Path | None = None,
    public: bool = False,
    api: Any = None,
    title: str | None = None,
) -> str:
    """Export a prepared dataset and put it into a dataset repository of the Hugging Face Hub.

    Each new sub-folder is a commit. The last commit has the card, and removes sub-folders that no longer belong to the
    dataset. So the dataset appears or changes with the last commit; earlier commits only add files.

    Args:
        data: prepared dataset.
        repo: ``name`` or ``organisation/name``. It is created if necessary.
        folder: folder of the export; by default in the dataset's cache.
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
    out = Path(folder) if folder is not None else Path(data) / CACHE / "export"
    report = export(data, out, title=title or repo.rpartition("/")[2])
    api = api or HfApi(library_name="rdtf")
    url = str(api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True))
    there = set(api.list_repo_files(repo, repo_type="dataset"))
    about = json.loads((out / EXPORT).read_text("utf-8"))
    folders = {folder: rows for split in about["folders"].values() for folder, rows in split.items()}
    ours = {file.rpartition("/")[0] for file in there if file.endswith(f"/{METADATA}") and _is_shard(file)}
    usual = {CARD, ".gitattributes"}
    if EXPORT not in there and (strange := [file for file in there - usual if not _is_shard(file)]):
        raise ValueError(f"{repo} holds other data ({min(strange)}); choose another repository")
    files = sum(folders.values()) + len(folders)
    if files > MANY_FILES:
        console.print(f"{files:,} files: more than the {MANY_FILES:,} that the Hub advises", highlight=False)
    with bars() as progress:
        task = progress.add_task("sending", total=len(folders), note="")
        for name in folders:
            if name not in ours:
                api.upload_folder(
                    repo_id=repo,
                    repo_type="dataset",
                    folder_path=out / name,
                    path_in_repo=name,
                    commit_message=f"Add {name}",
                )
            progress.advance(task)
    api.upload_folder(
        repo_id=repo,
        repo_type="dataset",
        folder_path=out,
        allow_patterns=[CARD, EXPORT, LEFT_OUT],
        delete_patterns=[f"{name}/*" for name in sorted(ours - folders.keys())],
        commit_message=f"{sum(report.counts.values()):,} stickers, fingerprint {report.fingerprint}",
    )
    return url


def _take(out: Path) -> None:
    """Mark a folder as an export. Raises if it has other files."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; choose another folder")
    if out.is_dir() and any(out.iterdir()) and not _is_export(out):
        raise ValueError(f"{out} is not empty and holds no export; choose another folder")
    check_writable(out)
    if not (out / EXPORT).exists():
        write_text(out / EXPORT, json.dumps({"format": _FORMAT}) + "\n")


def _is_export(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / EXPORT).read_text("utf-8"))["format"] == _FORMAT)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _is_shard(file: str) -> bool:
    """Whether a file of a repository is in a sub-folder with a name of ours."""
    return re.fullmatch(rf"({'|'.join(_HUB_SPLITS.values())})/\d+-[0-9a-f]{{12}}/[^/]+", file) is not None


def _write_folder(folder: Path, dataset: StickerDataset, start: int, names: list[str], text: str, done: Any) -> None:
    """Write a sub-folder atomically."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for row, name in enumerate(names, start):
        save_sticker(dataset.sticker(row), partial / name, durable=False)
        done()
    (partial / METADATA).write_text(text, "utf-8")
    for file in (*partial.iterdir(), partial):
        sync(file)
    faults.reach("publish.before_rename")
    partial.rename(folder)
    sync(folder.parent)


def _entry(name: str, record: StickerRecord) -> dict[str, Any]:
    """A line of metadata. All lines have the same fields and types, because the Hub's tables require it."""
    return {
        "file_name": name,
        "captions": list(record.captions),
        "durations": [float(ms) for ms in record.durations],
        "split": _HUB_SPLITS[record.split],
        "source": record.source,
        "license": record.license or "",
        "attributes": json.dumps(record.attributes, ensure_ascii=False, sort_keys=True),
    }


def _count(contents: Contents, split: str, records: list[StickerRecord]) -> None:
    contents.counts[split] += len(records)
    for record in records:
        contents.licences[record.license or ""] += 1
        contents.frames[record.num_frames] += 1
        contents.captions += sum(bool(text) for text in record.captions)
        languages = record.attributes.get("languages")
        contents.languages.update(name for name in (languages if isinstance(languages, list) else []) if name)


def _digits(count: int) -> int:
    return max(6, len(str(count - 1)))


def _sweep(out: Path, folders: set[str]) -> None:
    """Remove sub-folders of an earlier export, and temporary files after a crash."""
    for split in _HUB_SPLITS.values():
        for folder in _folders(out / split):
            if f"{split}/{folder.name}" not in folders:
                shutil.rmtree(folder)
        if (out / split).is_dir() and not any((out / split).iterdir()):
            (out / split).rmdir()


def _folders(folder: Path) -> Iterator[Path]:
    return (entry for entry in list(folder.iterdir()) if entry.is_dir()) if folder.is_dir() else iter(())
