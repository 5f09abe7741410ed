"""Finding of stickers in sources: folders, archives, tables and files.

Finding reads only names and metadata, so it is quick and runs in the parent process. :meth:`Item.read` decodes a
sticker in a worker.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rdtf.data.captions import SPLIT_NAMES, clean_caption, find_captions, make_caption
from rdtf.data.dataset import Rejection
from rdtf.data.groups import Groups, ending_of, is_sidecar
from rdtf.data.items import Item
from rdtf.data.metadata_files import is_metadata
from rdtf.files import raise_shortage
from rdtf.io.archives import ARCHIVES, ArchiveTree, FolderTree, Tree, is_archive
from rdtf.io.imports import read_exports
from rdtf.io.read import SUFFIXES
from rdtf.io.tables import table_rows
from rdtf.progress import printable
from rdtf.sticker import StickerError

TABLE = ".parquet"
KNOWN = (*sorted(SUFFIXES), *ARCHIVES, TABLE)
"""Endings of stickers, archives and tables."""

_OUR_TABLE = "left_out.jsonl"  # ``rdtf data export`` writes it beside the card
_TABLES = (".jsonl", ".csv", ".tsv")
_SHARD_SPLIT = re.compile(rf"({'|'.join(SPLIT_NAMES)})-\d.*", re.IGNORECASE)


@dataclass
class Found:
    """The content of sources.

    Attributes:
        items: the stickers in the order of their names (of their positions in a compressed TAR).
        problems: files that look like stickers or captions and cannot be used.
        passed_over: number of captions, read-mes and hidden files, which are no stickers.
    """

    items: list[Item] = field(default_factory=list)
    problems: list[Rejection] = field(default_factory=list)
    passed_over: int = 0


def source_labels(sources: Sequence[Path]) -> list[str]:
    """The names of the sources. Equal names get a number."""
    labels: dict[str, None] = {}
    last: Counter[str] = Counter()
    for source in sources:
        name = label = printable(source.resolve().name) or "root"
        while label in labels:
            last[name] += 1
            label = f"{name}-{last[name] + 1}"
        labels[label] = None
    return list(labels)


def find_items(source: Path, label: str, captions: Sequence[str] = ()) -> Found:
    """The stickers of a source with their captions. Nothing is decoded.

    A folder is searched with its subfolders, archives and tables. The source may also be an archive (ZIP, TAR), a table
    (Parquet) or a sticker. ``docs/formats.md`` lists the formats.

    Args:
        source: a folder or a file.
        label: prefix of the names, see :func:`source_labels`.
        captions: metadata fields or columns of captions; the default names if empty.

    Raises:
        ValueError: there is no such folder or file.
    """
    search = _Search(captions)
    if source.is_dir():
        search.tree(FolderTree(source), f"{label}/")
    elif not source.is_file():
        raise ValueError(f"{source}: no such folder or file")
    elif is_archive(source.name) or source.name.lower().endswith(TABLE):
        search.container(source, label)
    else:
        search.file(source, label)
    return search.found


class _Search:
    """Collects items and problems from trees."""

    def __init__(self, captions: Sequence[str]) -> None:
        self.captions = captions
        self.found = Found()
        self.names: set[str] = set()
        self.split: str | None = None

    def refuse(self, name: str, reason: str) -> None:
        self.found.problems.append(Rejection(file=printable(name), reason=printable(reason)))

    def take(self, item: Item, split: str | None = None) -> None:
        """Add an item. ``split``: of an item whose metadata demand none."""
        split = split or self.split
        if item.name in self.names:  # for example an animation with the name of a file
            self.refuse(item.name, "another sticker has this name; rename one of them")
            return
        self.names.add(item.name)
        if split and not item.caption.split:
            item = replace(item, caption=replace(item.caption, split=split))
        self.found.items.append(item)

    def file(self, source: Path, label: str) -> None:
        """Add a sticker that is itself the source, with a text beside it."""
        beside = source.with_suffix(".txt")
        try:
            text = (lambda: clean_caption(beside.read_text("utf-8-sig"))) if beside.is_file() else None
            self.take(Item(label, str(source), make_caption({}, source.name, (), text)))
        except ValueError as error:
            self.refuse(label, str(error))

    def container(self, file: Path, name: str) -> None:
        """Add an archive or a table. A name like ``train-00000-of-00004`` gives the split of its stickers."""
        split = _SHARD_SPLIT.fullmatch(file.name)
        self.split = SPLIT_NAMES[split[1].casefold()] if split else None
        try:
            if is_archive(file.name):
                self.tree(ArchiveTree(file), f"{name}/")
            else:
                self.table(file, name)
        except StickerError as error:
            raise_shortage(error, file)
            self.refuse(name, error.reason)
        finally:
            self.split = None

    def table(self, file: Path, name: str) -> None:
        for number, (cell, entry) in enumerate(table_rows(file)):
            named = f"{name}/{number:07d}"
            try:
                complaints: list[str] = []
                caption = make_caption(entry, str(entry.get("path") or ""), self.captions, None, complaints)
                for said in complaints:
                    self.refuse(named, said)
            except ValueError as error:
                self.refuse(named, str(error))
            else:
                self.take(Item(printable(named), str(file), caption, cell))

    def tree(self, tree: Tree, prefix: str) -> None:
        """Add all stickers of a folder or an archive. ``prefix`` is the prefix of their names."""
        for problem in tree.problems:
            self.refuse(f"{prefix}{problem.path}", problem.reason)
        exported = read_exports(tree)
        groups = Groups(tree, exported.others)
        stickers: list[str] = []
        containers: list[str] = []
        self.found.passed_over += tree.hidden
        for name in tree.names:
            ending = ending_of(name)
            if name in groups.taken:
                continue
            elif name in exported.others or is_sidecar(name) or name in groups.sidecars or name in groups.pictures:
                self.found.passed_over += 1
                if (
                    ending in _TABLES
                    and name not in exported.others
                    and not is_metadata(name)
                    and name.rpartition("/")[2] != _OUR_TABLE
                ):
                    self.refuse(f"{prefix}{name}", f"is not read; if it has captions, call it metadata{ending}")
            elif is_archive(name) or ending == TABLE:
                containers.append(name)
            elif ending not in SUFFIXES:
                self.refuse(f"{prefix}{name}", f"the ending {ending!r} is not a known sticker format")
            else:
                stickers.append(name)
        # Folders of frames are no names of files.
        stickers = sorted([*stickers, *groups.frames])
        for problem in [*exported.problems, *groups.problems]:
            self.refuse(f"{prefix}{problem.path}", problem.reason)
        problems: list[StickerError] = []
        known = find_captions(tree, stickers, problems, self.captions, {**groups.sidecars_of, **exported.entries})
        splits = _split_folders(tree.names)
        ordered: list[tuple[str, Item | str]] = [(name, name) for name in containers]
        ordered += [(name, groups.item(name, f"{prefix}{name}", caption)) for name, caption in known]
        for name, what in sorted(ordered, key=lambda entry: entry[0]):
            if isinstance(what, Item):
                self.take(what, splits.get(name.partition("/")[0]))
            elif isinstance(tree, FolderTree):
                self.container(tree.root / what, printable(f"{prefix}{what}"))
            else:
                self.refuse(f"{prefix}{what}", "an archive inside of an archive is not opened; unpack the outer one")
        for problem in problems:
            if str(problem.path) not in exported.others:
                self.refuse(f"{prefix}{problem.path}", problem.reason)


def _split_folders(names: Sequence[str]) -> dict[str, str]:
    """Splits by top folder, if all top folders are named after splits and one is ``train``; otherwise empty."""
    folders = {name.partition("/")[0] for name in names if "/" in name}
    known = {folder: SPLIT_NAMES.get(folder.casefold()) for folder in folders}
    if len(folders) < 2 or "train" not in known.values():
        return {}
    return {folder: split for folder, split in known.items() if split} if all(known.values()) else {}
